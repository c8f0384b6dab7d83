"""What a gated training costs beside the dense one: gated/dense for a step and for a whole run.

``python benchmarks/training.py cfd,puremd 60 lumos.target.params=0.29`` trains each workload's network for so many
steps, dense and gated in turns, and prints medians. A step is timed alone, on one batch, in rounds that take turns. A
run is all of a training: reading, tracing, steps, the cut, its verification and validation; so of a short one the share
of what happens once is larger than of a long one; with ``trainer.compile=true`` compilation is a part of it. Keys after
the steps are those of run.py; scale is small by default.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from lumos.suite.config import compose, read
from lumos.suite.exit_codes import exit_on_error
from lumos.suite.runner import prepare
from lumos.suite.step_cost import step_cost
from lumos.suite.training.loop import train
from lumos.suite.training.trained import Trained
from lumos.suite.workload_class import build_workload

ROUNDS = 3
FILE = "training.csv"
COLUMNS = ("workload", "compiled", "steps", "dense_step_ms", "gated_step", "compact_step", "params_share", "run")


def ratios(name: str, steps: int, overrides: Sequence[str]) -> dict[str, Any]:
    """The row of one workload: times of a step and of a run over those of the dense network's."""
    cfg = compose([f"workload={name}", f"trainer.max_steps={steps}", *overrides])
    config, workload = read(cfg), build_workload(cfg)
    device, loaders = prepare(config), workload.loaders()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    dense: Trained | None = None
    gated: Trained | None = None
    for _ in range(ROUNDS):
        began = time.perf_counter()
        dense = train(workload, loaders, config, device, gated=False)
        seconds[False].append(time.perf_counter() - began)
        began = time.perf_counter()
        gated = train(workload, loaders, config, device, gated=True, dense=dense)
        seconds[True].append(time.perf_counter() - began)
    assert dense is not None
    assert gated is not None
    step = step_cost(
        workload, gated.model, next(iter(loaders.train)), config.lumos, device, compiled=bool(config.trainer.compile)
    )
    small, whole = (sum(p.numel() for p in t.model.parameters()) for t in (gated, dense))
    times = {kind: step[kind]["step_ms"]["p50"] for kind in ("dense", "gated", "compact")}
    return {
        "workload": name,
        "compiled": bool(config.trainer.compile),
        "steps": dense.steps,
        "dense_step_ms": round(times["dense"], 3),
        "gated_step": round(1 + step["overhead"]["p50"], 3),
        "compact_step": round(times["compact"] / times["dense"], 3),
        "params_share": round(small / whole, 3),
        "run": round(median(g / d for g, d in zip(seconds[True], seconds[False], strict=True)), 3),
    }


def main(arguments: list[str]) -> None:
    """Measure, print, and write ``training.csv`` in the results folder."""
    if len(arguments) < 2 or not arguments[1].isdigit():
        sys.exit("usage: python benchmarks/training.py NAME[,NAME…] STEPS [KEY=VALUE …]")
    names, steps, *overrides = arguments
    with exit_on_error():
        path = Path(compose(overrides).paths.results) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        for name in names.split(","):
            row = ratios(name, int(steps), overrides)
            new = not path.exists()
            with path.open("a", newline="") as file:
                writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS)
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
