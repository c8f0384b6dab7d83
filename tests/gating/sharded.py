"""Run by test_gated_model: FSDP2 on two processes trains a gated model as one process does."""

import copy
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import lumos
from tests.two_processes import run_in_two


def train(rank: int, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
    x = torch.randn(32, 6)
    gated = lumos.gate(network, x)
    gated.gates.log_alpha.data.uniform_(-1, 1)
    alone = copy.deepcopy(gated)
    for layer in gated.model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(gated, mesh=mesh)
    losses = []
    for model in (gated, alone):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(1)
        for _ in range(3):
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    torch.testing.assert_close(losses[:3], losses[3:])
    assert len(set(losses[:3])) == 3
    dist.destroy_process_group()


if __name__ == "__main__":
    run_in_two(train)
