"""Run by test_pruner: two processes prune one model, with DistributedDataParallel and with FSDP2."""

import copy
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import lumos
from tests.two_processes import run_in_two

STEPS = 60


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1)]
    return nn.Sequential(*layers)


def train(gated, called, x, y, cut):
    """The loop as a user writes it."""
    optimizer = torch.optim.AdamW(called.parameters(), lr=3e-3)
    pruner = lumos.Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3), cut=cut)
    losses = []
    for _ in range(STEPS):
        loss = (called(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(called.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    assert pruner.cut_when == "end"
    assert not pruner.is_cut
    small = pruner.finish()
    assert pruner.equivalence is not None
    assert pruner.equivalence.max_rel_diff < 1e-10
    return losses, small


def parallel(kind: str, gated: lumos.GatedModel) -> nn.Module:
    if kind == "ddp":
        return DistributedDataParallel(gated)
    mesh = init_device_mesh("cpu", (2,))
    for layer in gated.model.children():
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(gated, mesh=mesh, ignored_params={gated.gates.log_alpha})
    return gated


def work(rank: int, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    x = torch.rand(64, 6, generator=torch.Generator().manual_seed(0))
    y = x[:, :1] - 2 * x[:, 3:4]
    # Batch statistics see half a batch in each process, the same half twice alone.
    x, y = x[:32].repeat_interleave(2, 0), y[:32].repeat_interleave(2, 0)
    alone = lumos.gate(network(), x[:8])
    expected, small = train(alone, alone, x, y, "end")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for kind in ("ddp", "fsdp"):
        gated = lumos.gate(network(), x[:8])
        found, cut = train(gated, parallel(kind, gated), x[rank::2], y[rank::2], None)
        found = torch.stack(found)
        dist.all_reduce(found)
        torch.testing.assert_close(found / 2, torch.stack(expected), rtol=2e-3, atol=1e-4)
        assert cut.features == small.features
        assert [p.shape for p in cut.parameters()] == [p.shape for p in small.parameters()]
        assert type(cut.model) is nn.Sequential
        assert type(cut.model[0]) is nn.Linear
        for p in copy.deepcopy(cut).parameters():
            other = p.detach().clone()
            dist.broadcast(other, 0)
            assert torch.equal(other, p)
    dist.destroy_process_group()


if __name__ == "__main__":
    run_in_two(work)
