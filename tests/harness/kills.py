"""Calls that are killed at random moments of a stage, and the same call again, which has to end in the same record."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from lumos.compaction import compact_file
from lumos.suite import cli, record, runner
from lumos.suite.training.state import TrainState
from tests.harness.child import end, start
from tests.harness.sandbox import quick_measurements

RUN = ("run", "workload=synthetic", "scale=tiny", "lumos.lambda=0.01", "trainer.device=cpu", "workload.epochs=12",
       "trainer.checkpoint_steps=7")  # fmt: skip
MADE = ("run", "workload=fluid", "scale=tiny", "trainer.device=cpu", "trainer.max_steps=4")
"""A run whose data take their time."""
LOST = 60.0
"""Seconds within which the others notice that one of several processes is gone."""


@dataclass(frozen=True)
class Stage:
    """Where a call is killed.

    Attributes:
        name: Said in the record.
        mark: The part of a run, of :func:`marked`, in which it is; None for any moment.
        words: The call.
        processes: How many train together; one of them is killed.
        measured: The measurements are made; known figures stand in their place otherwise.
    """

    name: str
    mark: str | None
    words: tuple[str, ...]
    processes: int = 1
    measured: bool = False


STAGES = {
    stage.name: stage
    for stage in (
        Stage("generation", "generation", MADE),
        Stage("dense training", "dense training", RUN),
        Stage("gated training", "gated training", RUN),
        Stage("cut", "cut", RUN),
        Stage("measurement", "measurement", RUN, measured=True),
        Stage("record", "record", RUN),
        Stage("sweep", None, (RUN[0], "-m", *RUN[1:], "seed=1,2")),
        Stage("two processes", None, (*RUN, "trainer.devices=2", "trainer.join_seconds=45"), processes=2),
    )
}


def marked(marks: Path) -> None:
    """Let a run of this process write to a file when it begins and ends a part of its work."""
    file = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            os.write(file, f"+{name} {time.monotonic()}\n".encode())
            try:
                return function(*args, **kwargs)
            finally:
                os.write(file, f"-{name} {time.monotonic()}\n".encode())

        return call

    runner.distributed.one_after_another = noted("generation", runner.distributed.one_after_another)
    runner.dense_baseline = noted("dense training", runner.dense_baseline)
    runner.train = noted("gated training", runner.train)
    TrainState.prune = noted("cut", TrainState.prune)  # type: ignore[method-assign]
    runner.measure_both = noted("measurement", runner.measure_both)
    record.write = noted("record", record.write)


def lengths(marks: Path) -> dict[str, float]:
    """Seconds of each part of a whole run."""
    began, found = {}, {}
    for line in marks.read_text().splitlines():
        name, _, at = line[1:].rpartition(" ")
        if line[0] == "+":
            began[name] = float(at)
        else:
            found[name] = float(at) - began[name]
    return found


def results(home: Path) -> dict[str, Any]:
    """All that the finished runs below a folder found, less times and what else differs from call to call."""
    found: dict[str, Any] = {}
    for path in sorted((home / "results" / "runs").glob("*/*/record.json")):
        entry = json.loads(path.read_text())
        sides = {side: [entry[side][k] for k in ("score", "valid_score", "steps", "phases")]
                 for side in ("dense", "compact")} if entry["status"] == "finished" else entry["error"]  # fmt: skip
        rows = [line.split(",") for line in (path.parent / "curve.csv").read_text().splitlines()]
        seconds = rows[0].index("seconds")
        state = compact_file.read(path.parent / "compact.pt").state
        found[path.parent.name] = [
            entry["status"], sides, entry["gates"], entry["steering"], entry["data"], entry["baselines"],
            (path.parent / "features.csv").read_text(), [row[:seconds] + row[seconds + 1 :] for row in rows],
            {name: tensor.tolist() for name, tensor in state.items()},
        ]  # fmt: skip
    return found


class Killing:
    """Kills of one stage, each in a folder of its own below ``root``."""

    def __init__(self, stage: Stage, root: Path, figures: dict[str, Any]) -> None:
        self.stage, self.root, self.figures = stage, root, figures
        self.whole = root / "whole"
        began = time.monotonic()
        outcome = self._call(self.whole)
        if outcome is not None:
            raise AssertionError(f"{stage.name}: the undisturbed call: {outcome}")
        self.seconds = time.monotonic() - began
        self.expected = results(self.whole)
        self.lengths = lengths(self.whole / "marks-0")

    def kill(self, number: int, draws: random.Random) -> str | None:
        """Kill a call, do the same again, and compare. Returns what is wrong, or None."""
        home = self.root / str(number)
        pids = self._start(home)
        mark = self.stage.mark
        length = self.lengths[mark] if mark else self.seconds
        until = time.monotonic() + 120
        marks = home / "marks-0"
        while mark and time.monotonic() < until and not (marks.exists() and f"+{mark} " in marks.read_text()):
            time.sleep(0.001)
        time.sleep(draws.uniform(0, 1) * length)
        killed = draws.choice(pids)
        with suppress(ProcessLookupError):
            os.kill(killed, signal.SIGKILL)
        for pid in pids:
            said = home / f"said-{pids.index(pid)}"
            outcome = end(pid, said, patience=LOST)
            if pid != killed and (outcome.fault or outcome.asked):
                return f"the other process: {outcome.fault or 'does not notice'}: {outcome.said[-300:]}"
        wrong = self._call(home)
        if wrong:
            return f"the same call again: {wrong}"
        if (found := results(home)) != self.expected:
            return f"other results: {[k for k in found if found[k] != self.expected.get(k)] or 'other runs'}"
        left = [str(p.relative_to(home)) for p in home.rglob("*") if p.suffix in (".ckpt", ".tmp")]
        return f"left behind: {left}" if left else None

    def _call(self, home: Path) -> str | None:
        """Do the whole call; what is wrong with its end, if anything is."""
        for number, pid in enumerate(self._start(home, measured=False)):
            outcome = end(pid, home / f"said-{number}", patience=300)
            if outcome.fault or outcome.code or outcome.asked:
                return f"code {outcome.code}: {outcome.fault or outcome.said[-500:]}"
        return None

    def _start(self, home: Path, measured: bool | None = None) -> list[int]:
        home.mkdir(parents=True, exist_ok=True)
        for old in home.glob("marks-*"):
            old.unlink()
        real = self.stage.measured if measured is None else measured
        places = (f"paths.results={home}/results", f"paths.cache={home}/cache")
        port = _free_port() if self.stage.processes > 1 else 0
        return [start(lambda rank=rank: self._do(home, rank, port, real, places), home / f"said-{rank}", home)
                for rank in range(self.stage.processes)]  # fmt: skip

    def _do(self, home: Path, rank: int, port: int, measured: bool, places: Sequence[str]) -> None:
        if not measured:
            quick_measurements(self.figures)
        torch.set_num_threads(1)
        marked(home / f"marks-{rank}")
        if self.stage.processes > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(self.stage.processes),
                              MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))  # fmt: skip
        cli.main((*self.stage.words, *places))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
