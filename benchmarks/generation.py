"""Seconds and memory to make the samples of a simulation, by their number.

``python benchmarks/generation.py cfd,fluid,puremd 1000000,10000000`` simulates each into an empty cache, in a process
of its own, reads the cache in another one, and adds rows to ``generation.csv`` in the results folder: the seconds until
the samples can be trained on, the peak resident memory of the process that simulated and read them, and of the one that
only read them.
"""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lumos.files import atomic
from lumos.suite.config import compose
from lumos.suite.exit_codes import exit_on_error
from lumos.suite.paths import PROJECT
from lumos.suite.workload_class import build_workload

FILE = "generation.csv"
COLUMNS = ("workload", "rows", "settings", "seconds", "peak_mb", "peak_reading_mb", "date", "commit")


def enough(name: str, rows: int) -> list[str]:
    """Settings with which there are so many rows to draw: more recorded states, more boxes."""
    if name == "cfd":
        return ["workload.cells=[20,8,12]"] if rows <= 10**6 else ["workload.cells=[32,12,16]", "workload.snapshots=24"]
    if name == "fluid":
        return [] if rows <= 10**6 else ["workload.snapshots=400"]
    return [f"workload.replicas={max(400, rows * 3 // 4000)}"] if name == "puremd" else []


def here(overrides: list[str]) -> None:
    """Make or read the samples, and print what it took as JSON."""
    cfg = compose(overrides)
    began = time.perf_counter()
    loaders = build_workload(cfg).loaders()
    seconds = time.perf_counter() - began
    rows = loaders.n_train + loaders.n_valid + loaders.n_test
    print(json.dumps([rows, round(seconds, 1), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]))


def measured(name: str, rows: int, overrides: list[str]) -> dict[str, Any]:
    """The row of one workload at one number of rows."""
    settings = [f"workload.rows={rows}", *enough(name, rows), *overrides]
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "here", f"workload={name}", *settings, f"paths.cache={cache}"]
        runs = [subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    if any(run.returncode for run in runs):
        sys.exit(f"{name}: no {rows} rows, for the reason above")
    made, read = (json.loads(run.stdout.splitlines()[-1]) for run in runs)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False)
    values = (name, made[0], " ".join(settings), made[1], made[2], read[2], time.strftime("%F"), commit.stdout.strip())
    return dict(zip(COLUMNS, values, strict=True))


def write(path: Path, row: dict[str, Any]) -> None:
    """Replace the row of the same workload and number of rows."""
    found = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
    kept = [r for r in found if (r["workload"], r["rows"]) != (row["workload"], str(row["rows"]))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as draft, draft.open("w", newline="") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows([*kept, row])


def main(arguments: list[str]) -> None:
    """Measure, print, and write the rows."""
    if arguments[:1] == ["here"]:
        with exit_on_error():
            here(arguments[1:])
        return
    if len(arguments) < 2 or not arguments[1].replace(",", "").isdigit():
        sys.exit("usage: python benchmarks/generation.py NAME[,NAME…] ROWS[,ROWS…] [KEY=VALUE …]")
    names, rows, *overrides = arguments
    with exit_on_error():
        path = Path(compose([o for o in overrides if o.startswith("paths.")]).paths.results) / FILE
    for name in names.split(","):
        for number in map(int, rows.split(",")):
            row = measured(name, number, [o for o in overrides if not o.startswith("paths.")])
            write(path, row)
            print("  ".join(str(value) for value in row.values()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
