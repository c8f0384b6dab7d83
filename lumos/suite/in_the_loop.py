"""``lumos in-the-loop``: replace a simulation's kernel by its surrogates and run on: drift, error and speed."""

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
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lumos.errors import ConfigError, DataError
from lumos.files import atomic
from lumos.suite.console import console as stderr
from lumos.suite.finished_run import FinishedRun, find_run, read_run
from lumos.suite.simulation import Kernel, Simulation, Stopwatch, Surrogate, clock

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
    bar = {"console": stderr, "transient": True, "disable": not stderr.is_terminal}
    for step in track(range(steps + 1), name, **bar):
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
    """Run the simulation: truly, from a nudged start, and with each network in the kernel's place."""
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
    """Measure rows a second of the network alone, inputs ready: the best of three calls on the first state's."""
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
    """Sum up each run: steps done, speed, errors against the true run and drift of what should be conserved."""
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
    """Lay out the summary as it is printed: a column for each run."""
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
    """Write the summary as JSON and the course of every run as CSV; returns the JSON's path."""
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


def run_in_the_loop(
    words: Sequence[str], *, steps: int | None = None, threads: int = 1, folder: Path | None = None
) -> Path:
    """Find a run, run its simulation with the kernel and with the networks in its place, print and write.

    Args:
        words: The folder or the id of a finished run, or what ``lumos run`` made it of.
        steps: How far to run on; the simulation's own choice where None.
        threads: Threads of the networks.
        folder: Where to write ``<workload>-<run>.json`` and ``.csv``; ``in_the_loop`` in the results folder where None.

    Returns:
        The path of the JSON.

    Raises:
        ConfigError: The workload has no simulation.
        RecordError: There is no such run.
    """
    torch.set_num_threads(threads)
    run = read_run(words[0]) if len(words) == 1 and "=" not in words[0] else find_run(words)
    sim = _simulation(run)
    run.check_data()
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
    path = write(folder or run.config.results / "in_the_loop", run, sim, courses, found)
    console.print(f"wrote {path}")
    return path


def _simulation(run: FinishedRun) -> Simulation:
    """The simulation in the module ``in_the_loop`` beside the workload's class."""
    package = type(run.workload).__module__
    try:
        module = importlib.import_module(f"{package}.in_the_loop")
    except ModuleNotFoundError as error:
        if error.name != f"{package}.in_the_loop":
            raise
        raise ConfigError(f"workload={run.workload.name} has no simulation (a module {package}.in_the_loop)") from None
    return module.simulation(run.workload)
