"""Training throughput over processes, weak scaling: each process adds workload.batch_size samples to a step.

``python benchmarks/scaling.py 1,2,4 workload=cfd scale=paper`` starts 1, 2 and 4 processes on this machine, times
steps of the dense and of the gated network, and adds rows to ``scaling.csv`` in the results folder, which the
report draws. Without ``workload=`` those of the paper's Fig. 12, one after the other. On several nodes start one count
at a time: ``srun python benchmarks/scaling.py here workload=cfd …``.
Every step is a whole one: reading, loss, penalty, gradients, their mean over the processes, the optimiser.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from lumos.gating.gated_model import GatedModel
from lumos.suite.config import RunConfig, compose, read
from lumos.suite.exit_codes import exit_on_error
from lumos.suite.report.published import Published
from lumos.suite.report.run_tables import SCALING, SCALING_COLUMNS
from lumos.suite.runner import prepare
from lumos.suite.training import distributed
from lumos.suite.training.loading import Reader
from lumos.suite.training.state import TrainState
from lumos.suite.training.step import descend
from lumos.suite.workload import Batch, Loaders, Workload, to_device
from lumos.suite.workload_class import build_workload

WARM_UP, STEPS = 5, 50


def here(overrides: list[str]) -> None:
    """Time this group of processes; the first one writes."""
    size = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS", "1"))
    cfg = compose(overrides)
    cfg.workload.batch_size *= size
    cfg.trainer.devices, cfg.trainer.nodes = size, 1
    config = read(cfg)
    with distributed.group(config.trainer) as world:
        workload, device = build_workload(cfg), prepare(config)
        loaders = distributed.one_after_another(workload.loaders)
        rows = [
            (workload.name, method, world.size, round(cfg.workload.batch_size / seconds, 2))
            for method, gated in (("dense", False), ("lumos", True))
            for seconds in [step_seconds(config, workload, loaders, device, gated=gated)]
        ]
        if world.main:
            write(config.results / SCALING, rows)


def step_seconds(
    config: RunConfig, workload: Workload, loaders: Loaders, device: torch.device, *, gated: bool
) -> float:
    """Mean seconds of a training step, over ``STEPS`` after some to warm up."""
    reader = Reader(loaders.train, distributed.world())
    state = TrainState(workload, config, device, gated=gated)
    state.prepare(reader)
    began = 0.0
    for number, (place, batch) in enumerate(islice(endless(reader), WARM_UP + STEPS)):
        if number == WARM_UP:
            wait(device)
            began = time.perf_counter()
        batch = to_device(batch, device)
        with state.noise.private(number):
            loss = reader.weighted(workload.loss(state.replica, batch), place)
        if isinstance(state.model, GatedModel):
            loss = loss + 1e-3 * state.model.penalty()
        descend(state.optimizer, loss, config.trainer.clip_norm)
    wait(device)
    return (time.perf_counter() - began) / STEPS


def endless(reader: Reader) -> Iterator[tuple[int, Batch]]:
    """Batches and their numbers in their epoch, epoch after epoch."""
    epoch = 0
    while True:
        yield from enumerate(reader.open(epoch))
        epoch += 1


def wait(device: torch.device) -> None:
    """Until all processes are here and the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    distributed.any_of(False)


def write(path: Path, rows: list[tuple[Any, ...]]) -> None:
    """Replace the rows of the same workload, method and number of processes, and print the new ones."""
    kept: list[dict[str, str]] = []
    if path.exists():
        kept = list(csv.DictReader(path.read_text().splitlines()))
    new: list[dict[str, str]] = [dict(zip(map(str, SCALING_COLUMNS), map(str, row), strict=True)) for row in rows]
    names = SCALING_COLUMNS[:3]
    kept = [r for r in kept if all(any(r[c] != n[c] for c in names) for n in new)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, SCALING_COLUMNS)
        writer.writeheader()
        writer.writerows([*kept, *new])
    for row in new:
        print("  ".join(row.values()))


def main(arguments: list[str]) -> None:
    """Start the processes, or be one of them."""
    if not arguments or "=" in arguments[0]:
        sys.exit("usage: python benchmarks/scaling.py 1,2,4|here [workload=NAME] [KEY=VALUE …]")
    counts, *overrides = arguments
    if counts == "here":
        with exit_on_error():
            here(overrides)
        return
    named = any(o.startswith("workload=") for o in overrides)
    shown = Published.read().shown("12")
    for workload in [[]] if named else [[f"workload={name}"] for name in shown]:
        for count in map(int, counts.split(",")):
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
            command = [*(launcher if count > 1 else []), __file__, "here", *workload, *overrides]
            subprocess.run([sys.executable, *command], check=True, env={"OMP_NUM_THREADS": "1", **os.environ})


if __name__ == "__main__":
    main(sys.argv[1:])
