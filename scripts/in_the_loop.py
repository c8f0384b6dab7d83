"""Replace a simulation's kernel by its surrogates and run on: drift, error and speed, also where the kernel wins.

    python scripts/in_the_loop.py workload=cfd                                   # of the run that run.py makes of this
    python scripts/in_the_loop.py record=3240cc39c0ee steps=50     # of this one (its id or folder)

Takes the arguments of run.py and finds the finished run that they made; it trains nothing. ``steps`` is how far to run
on, ``threads`` (1) how many the networks may use (with one, times are the processor's), ``out`` a folder for
``<workload>-<run>.{json,csv}``.
"""

from __future__ import annotations

import csv
import importlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from finished_run import PROJECT, FinishedRun, find
from rich.console import Console
from rich.table import Table

from lumos.errors import ConfigError, DataError
from lumos.files import atomic
from lumos.suite.cli import exit_on_error
from lumos.workloads.common.progress import track
from lumos.workloads.common.simulation import Kernel, Simulation, Stopwatch, Surrogate, clock

NUDGED = "kernel, start nudged"
ABANDONED = (DataError, FloatingPointError)
"""How a simulation says that a state is no longer physical."""


@dataclass
class Course:
    """One run of the simulation: what was found after each step, and the time it took.

    ``seconds`` of all steps, ``watch`` of the kernel or of what replaces it (building its inputs included).
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    seconds: float = 0.0
    watch: Stopwatch = field(default_factory=Stopwatch)
    ended: str = ""


def run_on(sim: Simulation, start: Any, kernel: Kernel, steps: int, true: Sequence[Any] = (), name: str = "") -> Course:
    """Run the simulation from ``start``; ``true`` are the states of the true run, from the start on.

    Ends early where the simulation says that there is no next state.
    """
    course = Course()

    def timed(call: Any) -> Any:
        return course.watch.timed(lambda: kernel(call), sim.rows(call))

    state = start
    for step in track(range(steps + 1), name, total=steps + 1):
        course.states.append(state)
        apart = sim.apart(state, true[step]) if true else {}
        course.rows.append({"step": step, **sim.conserved(state, kernel), **apart})
        if step == steps:
            break
        started = clock()
        try:
            state = sim.step(state, timed)
        except ABANDONED as error:
            course.ended = f"stopped at step {step + 1}: {error}"
            break
        course.seconds += clock() - started
    return course


def compare(sim: Simulation, surrogates: Mapping[str, Surrogate], steps: int) -> dict[str, Course]:
    """The true run, one from a nudged start, and one with each network in the kernel's place."""
    start = sim.start()
    kernels: dict[str, Kernel] = {"kernel": sim.exact, NUDGED: sim.exact}
    for name, surrogate in surrogates.items():
        kernels[name] = _replacement(sim, surrogate)
    courses: dict[str, Course] = {}
    for name, kernel in kernels.items():
        with suppress(*ABANDONED):
            sim.step(start, kernel)  # compiled code and threads are ready before the clock starts
        for surrogate in surrogates.values():
            surrogate.watch = Stopwatch()
        true = courses["kernel"].states if courses else ()
        first = sim.nudged(start) if name == NUDGED else start
        # What conserved() asks of the network beside the steps is not part of its time.
        courses[name] = run_on(sim, first, kernel, steps, true, name)
    return courses


def _replacement(sim: Simulation, surrogate: Surrogate) -> Callable[[Any], Any]:
    return lambda call: sim.replaced(call, surrogate)


def network_rate(sim: Simulation, surrogate: Surrogate) -> float:
    """Rows a second of the network alone, inputs ready: the best of three calls on the first state's."""
    surrogate.watch = Stopwatch()
    best = math.inf
    for _ in range(3):
        before = surrogate.watch.seconds, surrogate.watch.rows
        with suppress(*ABANDONED):
            sim.step(sim.start(), _replacement(sim, surrogate))
        seconds, rows = surrogate.watch.seconds - before[0], surrogate.watch.rows - before[1]
        best = min(best, seconds / max(rows, 1))
    return 1 / best


def summary(sim: Simulation, courses: Mapping[str, Course], surrogates: Mapping[str, Surrogate]) -> dict[str, Any]:
    """For each run: steps done, speed, errors against the true run and drift of what should be conserved."""
    out: dict[str, Any] = {}
    kernel = courses["kernel"]
    for name, course in courses.items():
        first, last = course.rows[0], course.rows[-1]
        done = max(1, last["step"])
        keep = sim.conserved(course.states[-1], sim.exact)
        surrogate = surrogates.get(name)
        out[name] = {
            "steps": last["step"],
            "ended": course.ended,
            "kernel_ms_per_step": 1e3 * course.watch.seconds / done,
            "step_ms": 1e3 * course.seconds / done,
            "rows_per_second": course.watch.rows / max(course.watch.seconds, 1e-12),
            "network_rows_per_second": network_rate(sim, surrogate) if surrogate else None,
            "parameters": sum(p.numel() for p in surrogate.model.parameters()) if surrogate else None,
            "inputs_read": len(surrogate.reads) if surrogate else None,
            "first": {key: first[key] for key in keep},
            "last": {key: last[key] for key in keep},
            "apart": {key: value for key, value in last.items() if key != "step" and key not in keep},
        }
        speedup = out["kernel"]["kernel_ms_per_step"] / max(out[name]["kernel_ms_per_step"], 1e-12)
        out[name]["speed_against_kernel"] = speedup if kernel is not course else 1.0
    return out


def table(sim: Simulation, found: Mapping[str, Any]) -> Table:
    """The summary as it is printed: a column for each run."""
    out = Table(title=f"{sim.kernel_name}; a step is an {sim.step_name}".replace("an step", "a step"))
    out.add_column("")
    for name in found:
        out.add_column(name, justify="right")

    def row(title: str, value: Callable[[Mapping[str, Any]], Any], form: str) -> None:
        cells = [value(one) for one in found.values()]
        out.add_row(title, *("" if cell is None else format(cell, form) for cell in cells))

    row("steps done", lambda one: one["steps"], "d")
    row("parameters", lambda one: one["parameters"], ",d")
    row("inputs read", lambda one: one["inputs_read"], "d")
    row("kernel's part of a step, ms", lambda one: one["kernel_ms_per_step"], ".3g")
    row("whole step, ms", lambda one: one["step_ms"], ".3g")
    row("rows a second", lambda one: one["rows_per_second"], ",.0f")
    row("rows a second, network alone", lambda one: one["network_rows_per_second"], ",.0f")
    row("speed, kernel = 1", lambda one: one["speed_against_kernel"], ".3g")
    for key in next(iter(found.values()))["last"]:
        row(f"{key} at the start", lambda one, key=key: one["first"][key], ".6g")
        row(f"{key}, change", lambda one, key=key: one["last"][key] - one["first"][key], "+.3g")
    for key in found[NUDGED]["apart"]:
        row(key, lambda one, key=key: one["apart"].get(key), ".3g")
    return out


def write(folder: Path, run: FinishedRun, sim: Simulation, courses: Mapping[str, Course], found: Any) -> Path:
    """The summary as JSON and the course of every run as CSV; returns the JSON's path."""
    stem = f"{run.workload.name}-{run.entry['run_id']}"
    rows = [{"run": name, **row} for name, course in courses.items() for row in course.rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic(folder / f"{stem}.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    facts = {
        "workload": run.workload.name,
        "run_id": run.entry["run_id"],
        "kernel": sim.kernel_name,
        "step": sim.step_name,
        "threads": torch.get_num_threads(),
        "runs": found,
    }
    with atomic(folder / f"{stem}.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n")
    return folder / f"{stem}.json"


def _options(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """This script's own options, and what goes to the configuration."""
    own: dict[str, str] = {}
    rest = []
    for argument in argv:
        key, _, value = argument.partition("=")
        if key in ("steps", "threads", "record", "out"):
            own[key] = value
        else:
            rest.append(argument)
    return own, rest


def _count(own: Mapping[str, str], key: str, default: int) -> int:
    value = own.get(key)
    if value is None:
        return default
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"{key}={value}: expected a whole number >= 1")
    return int(value)


def main(argv: Sequence[str]) -> int:
    """Find the run, run the simulations, print and write."""
    own, overrides = _options(argv)
    threads, steps = _count(own, "threads", 1), _count(own, "steps", 0)
    torch.set_num_threads(threads)
    run = find(overrides, own.get("record"))
    try:
        module = importlib.import_module(f"workloads.{run.workload.name}.in_the_loop")
    except ModuleNotFoundError:
        known = sorted(file.parent.name for file in (PROJECT / "workloads").glob("*/in_the_loop.py"))
        raise ConfigError(f"workload={run.workload.name} has no simulation; expected {', '.join(known)}") from None
    run.check_data()
    sim: Simulation = module.simulation(run.workload)
    dense = run.dense
    surrogates = {} if dense is None else {"dense": Surrogate(dense, run.workload.features())}
    surrogates["compact"] = Surrogate(run.compact, run.compact.features)
    courses = compare(sim, surrogates, steps or sim.steps)
    found = summary(sim, courses, surrogates)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(sim, found))
    for name, course in courses.items():
        if course.ended:
            console.print(f"{name} {course.ended}")
    if dense is None:
        console.print(f"the dense network of this run is not kept here; for its column: {run.command}, then this again")
    folder = Path(own["out"]) if "out" in own else run.config.results / "in_the_loop"
    console.print(f"wrote {write(folder, run, sim, courses, found)}")
    return 0


if __name__ == "__main__":
    with exit_on_error():
        sys.exit(main(sys.argv[1:]))
