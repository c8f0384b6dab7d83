"""Run by test_gated_model: torch.compile of a gated model and the gates of a compiled one, without the tests' hooks."""

import sys

import torch
from torch import nn

import lumos


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 6)
    network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
    gated = lumos.gate(network, x)
    gated.gates.log_alpha.data.uniform_(-1, 1)
    assert torch._dynamo.explain(gated)(x).graph_break_count == 0
    compiled = torch.compile(gated, options={"fallback_random": True})
    torch.testing.assert_close(compiled.eval()(x), gated.eval()(x))
    compiled.train()
    torch.manual_seed(1)
    compiled(x).sum().backward()
    found = gated.gates.log_alpha.grad.clone()
    gated.zero_grad()
    torch.manual_seed(1)
    gated.resample()
    gated(x).sum().backward()
    torch.testing.assert_close(found, gated.gates.log_alpha.grad)
    assert type(lumos.gate(torch.compile(network), x).model) is nn.Sequential
    sys.stdout.write("same\n")


if __name__ == "__main__":
    main()
