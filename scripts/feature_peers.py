"""Other ways to select input features, against the known truth and by a network trained on what they select.

    python scripts/feature_peers.py [--only synthetic,cfd] [--seeds 0] [KEY=VALUE ...]

Each method ranks the inputs on the training table (at most 5,000 rows, standardised) and keeps as many as truly enter;
ours keeps as many by lumos.target.features. Then the workload's dense network is trained, in the engine's own loop and
for all its steps, with the other inputs set to zero: that is its score. Precision: the share of what is kept that the
outputs depend on, derived inputs included; recall: the share of what enters that is kept or follows from what is kept.
Writes results/reference/feature_peers.csv after each method; what it has is not done again, so that it can go on.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lumos.files import atomic
from lumos.suite.config import RunConfig, compose, read
from lumos.suite.exit_codes import exit_on_error
from lumos.suite.feature_selectors import SELECTORS, training_table
from lumos.suite.paths import PROJECT
from lumos.suite.runner import prepare
from lumos.suite.training.evaluation import evaluate
from lumos.suite.training.loop import train
from lumos.suite.training.state import TrainState
from lumos.suite.workload_class import build_workload

OUT = PROJECT / "results" / "reference" / "feature_peers.csv"
WORKLOADS = ("synthetic", "cfd", "fluid", "puremd")
OWN = {"synthetic": ["workload.relevant_features=20"]}
COLUMNS: tuple[str, ...] = (
    "workload", "scale", "seed", "method", "kept", "of", "precision", "recall", "metric", "score", "select_seconds",
    "train_seconds", "features", "command",
)  # fmt: skip


class Masked(nn.Module):
    """A network that sees only some columns of its first input."""

    def __init__(self, model: nn.Module, kept: Sequence[int], width: int) -> None:
        super().__init__()
        self.model = model
        mask = torch.zeros(width)
        mask[list(kept)] = 1.0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor, *more: Any) -> Any:
        """The network's output with the other columns at zero."""
        return self.model(x * self.get_buffer("mask"), *more)


def truth(workload: Any) -> tuple[list[str], Callable[[list[str]], tuple[float, float]]]:
    """What enters, and a function that returns precision and recall of a selection."""
    if hasattr(workload, "true_dependence"):
        known = workload.true_dependence()
        enters = [name for name in workload.features() if name in known.enters]
        useful, follows = {*known.enters, *known.derived}, known.follows
    else:
        enters = list(workload.true_features())
        useful, follows = set(enters), set

    def judge(kept: list[str]) -> tuple[float, float]:
        there = follows(kept)
        return sum(n in useful for n in kept) / max(1, len(kept)), sum(n in there for n in enters) / len(enters)

    return enters, judge


def selected(name: str, workload: Any, config: RunConfig, count: int) -> tuple[list[int], float]:
    """The features that a method keeps, by number, and its seconds. ``lumos``: one gated training for so many."""
    names, started = list(workload.features()), time.perf_counter()
    if name == "all":
        return list(range(len(names))), 0.0
    if name == "lumos":
        found = train(workload, workload.loaders(), config, prepare(config), gated=True)
        assert found.gates is not None
        return [names.index(n) for n in found.gates["features_kept"]], time.perf_counter() - started
    strength = SELECTORS[name](*training_table(workload, config.seed), count, config.seed)
    order = np.argsort(-strength, kind="stable")
    return sorted(order[:count].tolist()), time.perf_counter() - started


def main(arguments: Sequence[str]) -> None:
    """Do what is not in the table yet."""
    parser = argparse.ArgumentParser(description="Feature selection by others and by gates.")
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--methods", default=",".join(["all", *SELECTORS, "lumos"]))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_intermixed_args(arguments)
    rows = read_rows(options.out)
    for name in options.only.split(","):
        for seed in options.seeds.split(","):
            given = [f"workload={name}", "scale=bench", f"seed={seed}", *OWN.get(name, []), *options.overrides]
            workload: Any = build_workload(compose(given))
            count = len(truth(workload)[0])
            config = read(compose([*given, f"lumos.target.features={count}"]))
            done = {r["method"] for r in rows if (r["workload"], r["scale"], r["seed"]) == (name, config.scale, seed)}
            for method in options.methods.split(","):
                if method not in done:
                    rows.append(measured(method, workload, config, count, " ".join(given)))
                    print({k: rows[-1][k] for k in COLUMNS[:-2]}, flush=True)
                    write(rows, options.out)


def measured(method: str, workload: Any, config: RunConfig, count: int, given: str) -> dict[str, Any]:
    """A row of the table."""
    device, names = prepare(config), list(workload.features())
    kept, seconds = selected(method, workload, config, count)

    def setup(state: TrainState, _total: int) -> None:
        state.model = state.replica = Masked(state.model, kept, len(names))

    loaders = workload.loaders()
    trained = train(workload, loaders, config, device, gated=False, setup=setup, label=method)
    precision, recall = truth(workload)[1]([names[i] for i in kept])
    score = evaluate(workload, trained.model, loaders.test, device)
    values = (workload.name, config.scale, str(config.seed), method, len(kept), len(names), round(precision, 4),
              round(recall, 4), workload.metric.name, round(score, 6), round(seconds, 2), round(trained.seconds, 2),
              " ".join(names[i] for i in kept), f"scripts/feature_peers.py {given}")  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What the table has already."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [dict(row) for row in csv.DictReader(file)]


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the table, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
