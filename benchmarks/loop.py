"""What gates cost a step in a loop of one's own, beside the suite's: `python benchmarks/loop.py cfd,puremd`.

Four steps take turns on one batch: the suite's own training step, dense and gated, and a plain loop's of five lines,
dense and with a `lumos.Pruner` on its optimizer and nothing else. Printed are the gated steps as multiples of the dense
ones of the same kind, and the plain gated one as a multiple of the suite's: medians and quartiles over the rounds. A
step has the batch in memory. Keys after the names are those of run.py; scale is small by default.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

import lumos
from lumos.errors import ConfigError
from lumos.measure.timing import latencies, ratio
from lumos.pruning.settings import Tolerance
from lumos.suite.config import RunConfig, compose, read
from lumos.suite.exit_codes import exit_on_error
from lumos.suite.runner import prepare
from lumos.suite.training.loading import Reader
from lumos.suite.training.lumos_method import LumosMethod
from lumos.suite.training.optimizer import make_optimizer
from lumos.suite.training.state import TrainState
from lumos.suite.training.step import train_step
from lumos.suite.workload import Batch, Workload, to_device
from lumos.suite.workload_class import build_workload

STEPS = 10**9
"""Steps of a training of which only the first few are taken."""
SECONDS, MOST = 8.0, 2000
"""How long each step is timed, and how often at most."""

Step = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A workload as it is configured, with a batch of its training rows on a device."""

    workload: Workload
    config: RunConfig
    device: torch.device
    loader: Iterable[Batch]
    batch: Batch

    def of_the_suite(self, *, gated: bool) -> Step:
        """Make the suite's own step."""
        state = TrainState(self.workload, self.config, self.device, gated=gated)
        state.keep_average()
        if isinstance(state.model, lumos.GatedModel):
            goal = self.config.lumos.goal
            state.method = LumosMethod(lumos.Pruner(state.model, state.optimizer, STEPS, goal, cut="call", seed=None))
        state.model.train()
        reader = Reader(self.loader)

        def step() -> None:
            train_step(state, self.batch, reader, STEPS)
            state.losses.clear()

        return step

    def of_a_plain_loop(self, *, gated: bool) -> Step:
        """Make the step of a loop as people write it."""
        torch.manual_seed(0)
        model, settings = self.workload.model().to(self.device), self.config.lumos
        if gated:
            model = lumos.gate(
                model, self.workload.example(), settings=settings.gates, options=settings.structure,
                **asdict(settings.constraints),
            )  # fmt: skip
        optimizer = make_optimizer(model, self.workload)
        if gated:
            lumos.Pruner(model, optimizer, STEPS, settings.goal)
        model.train()

        def step() -> None:
            loss = self.workload.loss(model, self.batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step


def row(name: str, overrides: Sequence[str]) -> str:
    """Time the steps of one workload; returns a row of a Markdown table."""
    cfg = compose([f"workload={name}", *overrides])
    config, workload = read(cfg), build_workload(cfg)
    if isinstance(config.lumos.goal, Tolerance):
        raise ConfigError("a tolerance scores networks on the way; ask for a lambda or a target")
    device, loader = prepare(config), workload.loaders().train
    case = Case(workload, config, device, loader, to_device(next(iter(loader)), device))
    steps = {
        "suite": case.of_the_suite(gated=False), "suite, gated": case.of_the_suite(gated=True),
        "loop": case.of_a_plain_loop(gated=False), "loop, gated": case.of_a_plain_loop(gated=True),
    }  # fmt: skip
    seconds = latencies(steps, device, SECONDS, MOST)
    pairs = [("suite, gated", "suite"), ("loop, gated", "loop"), ("loop, gated", "suite, gated")]
    found = [ratio(seconds[a], seconds[b]) for a, b in pairs]
    shown = " | ".join(f"{r['p50']:.2f} ({r['p25']:.2f} to {r['p75']:.2f})" for r in found)
    return f"| {name} | {1e3 * median(seconds['loop']):.1f} | {shown} |"


def main(arguments: list[str]) -> None:
    """Print a table."""
    if not arguments:
        sys.exit("usage: python benchmarks/loop.py NAME[,NAME…] [KEY=VALUE …]")
    names, *overrides = arguments
    print("| workload | dense step, ms | suite, gated | plain loop, gated | plain loop by suite, gated |")
    print("|---|---|---|---|---|")
    with exit_on_error():
        for name in names.split(","):
            print(row(name, overrides), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
