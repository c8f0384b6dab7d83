"""Run by test_pruner: a compiled gated model is pruned as the plain one is, and compiled anew at the cut."""

import sys

import torch
from torch import nn

import lumos

STEPS = 40


def train(compiled: bool) -> tuple[list[float], lumos.CompactModel]:
    torch.manual_seed(0)
    x = torch.rand(64, 6)
    y = x[:, :1] - 2 * x[:, 3:4]
    layers = [nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1)]
    gated = lumos.gate(nn.Sequential(*layers), x[:8])
    called = torch.compile(gated) if compiled else gated
    optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3)
    pruner = lumos.Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3))
    losses = []
    for _ in range(STEPS):
        loss = (called(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert pruner.is_cut
    return losses, pruner.finish()


def main() -> None:
    (plain, one), (compiled, other) = train(False), train(True)
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)
    assert one.features == other.features
    assert [p.shape for p in one.parameters()] == [p.shape for p in other.parameters()]
    sys.stdout.write("same\n")


if __name__ == "__main__":
    main()
