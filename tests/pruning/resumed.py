"""Run by test_pruner: two processes stop and go on to the same digits, before the cut and after it.

With DistributedDataParallel, which cuts at the end; with it wrapped anew at a cut on the way; and with FSDP2, whose
shards go through torch.distributed.checkpoint.
"""

import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.parallel import DistributedDataParallel

import lumos
from tests.pruning.parallel import network, parallel
from tests.two_processes import run_in_two

STEPS, STOPS = 40, (12, 28)


class Training:
    """As a user writes it: a model, what the loop calls, an optimizer, a pruner."""

    def __init__(self, kind: str, x: torch.Tensor) -> None:
        self.kind, self.gated = kind, lumos.gate(network(), x[:8])
        self.called = parallel("fsdp" if kind == "fsdp" else "ddp", self.gated)
        self.optimizer = torch.optim.AdamW(self.gated.model.parameters(), lr=3e-3)
        cut = "call" if kind == "wrapped anew" else None
        self.pruner = lumos.Pruner(self.gated, self.optimizer, STEPS, lumos.Target(params=0.3), cut=cut)

    def train(self, x: torch.Tensor, y: torch.Tensor, until: int) -> None:
        for step in range(self.pruner.step, until):
            if self.kind == "wrapped anew" and self.pruner.is_due:
                self.pruner.cut()
                self.called = DistributedDataParallel(self.gated)
            rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:16]
            loss = (self.called(x[rows]) - y[rows]).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def save(self, folder: Path) -> None:
        if self.kind == "fsdp":
            model, optimizer = get_state_dict(self.gated, self.optimizer)
            dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=folder / "shards")
        elif dist.get_rank() == 0:
            torch.save(
                {"model": self.gated.state_dict(), "optimizer": self.optimizer.state_dict()}, folder / "whole.pt"
            )
        torch.save(self.pruner.state_dict(), folder / f"pruner-{dist.get_rank()}.pt")
        dist.barrier()

    def load(self, folder: Path) -> None:
        self.pruner.load_state_dict(torch.load(folder / f"pruner-{dist.get_rank()}.pt", weights_only=True))
        if self.kind == "fsdp":
            model, optimizer = get_state_dict(self.gated, self.optimizer)
            dcp.load({"model": model, "optimizer": optimizer}, checkpoint_id=folder / "shards")
            set_state_dict(self.gated, self.optimizer, model_state_dict=model, optim_state_dict=optimizer)
            return
        saved = torch.load(folder / "whole.pt", weights_only=True)
        self.gated.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.called = DistributedDataParallel(self.gated)


def work(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    x = torch.rand(64, 6, generator=torch.Generator().manual_seed(rank))
    y = x[:, :1] - 2 * x[:, 3:4]
    for kind in ("ddp", "wrapped anew", "fsdp"):
        whole = Training(kind, x)
        for stop in STOPS:
            whole.train(x, y, stop)
            place = Path(folder) / kind / str(stop)
            place.mkdir(parents=True, exist_ok=True)
            whole.save(place)
        whole.train(x, y, STEPS)
        expected = whole.pruner.finish()
        for stop in STOPS:
            resumed = Training(kind, x)
            resumed.load(Path(folder) / kind / str(stop))
            assert resumed.pruner.step == stop, (kind, stop, resumed.pruner.step)
            assert resumed.pruner.is_decided == (stop > STEPS // 2)
            assert resumed.pruner.is_cut == (stop > STEPS // 2 and kind == "wrapped anew")
            resumed.train(x, y, STEPS)
            found = resumed.pruner.finish()
            assert found.features == expected.features
            # FSDP2 leaves batch statistics to each process, and a checkpoint has those of one.
            found, wanted = (
                dict(m.named_parameters()) if kind == "fsdp" else m.state_dict() for m in (found, expected)
            )
            assert found.keys() == wanted.keys()
            for name, value in found.items():
                assert torch.equal(value, wanted[name]), (kind, stop, name)
            assert resumed.pruner.report()["phases"] == whole.pruner.report()["phases"]
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        run_in_two(work, temporary)
