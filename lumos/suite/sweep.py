"""A sweep's jobs: each leaves a line about itself on disk, and the end is one table, the Pareto front and a verdict.

The lines are files, because jobs run on other machines and may die without a word. Imports no torch.
"""

from __future__ import annotations

import csv
import itertools
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lumos.errors import RecordError, one_line
from lumos.files import atomic
from lumos.suite import record
from lumos.suite.report.results import dominates

log = logging.getLogger("lumos")

SILENT = "it ended without a word: killed, out of memory, or its node went down"
STOPPED = "the sweep was stopped before it ended"

JOB = "job.json"
SUMMARY = "summary.csv"

Job = dict[str, Any]
"""``job`` its number, ``overrides`` of the command line, ``status``, and as known: ``error``, ``record``, ``log``."""


def claim(folder: Path) -> tuple[Path, BaseFileLock]:
    """Take a folder for a sweep; where another sweep is at work in it, one beside it: ``NAME-2``, ``NAME-3`` …

    What jobs of an earlier sweep in it said of themselves is deleted: they would be shown as this one's.

    Args:
        folder: The folder that is wished for; it is made.

    Returns:
        The folder, and the lock that holds it for this process.

    Raises:
        RecordError: No folder can be made there.
    """
    for number in itertools.count(1):
        mine = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        with record.writing(mine):
            mine.mkdir(parents=True, exist_ok=True)
        lock = FileLock(mine / ".lock")
        with record.writing(mine), suppress(Timeout):
            with suppress(NotImplementedError):  # a file system without locks
                lock.acquire(timeout=0)
            for path in mine.glob(f"*/{JOB}"):
                path.unlink(missing_ok=True)
            return mine, lock
    raise AssertionError


def note(folder: Path, **facts: Any) -> None:
    """Write what is known of a job into its folder; what was known before stays."""
    path = folder / JOB
    known = (_read(path) or {}) if path.exists() else {}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps({**known, **facts}, indent=1, default=str) + "\n")


def jobs(folder: Path) -> list[Job]:
    """Read all jobs of a sweep, by number; one that died is still ``running``, and then counts as ``died``."""
    found = [job for path in folder.glob(f"*/{JOB}") if (job := _read(path))]
    for job in found:
        job["status"] = "died" if job["status"] == "running" else job["status"]
    return sorted(found, key=lambda job: job["job"])


def _read(path: Path) -> Job | None:
    """What a job said of itself; None where that cannot be read."""
    try:
        job = json.loads(path.read_text())
        return {"job": int(job["job"]), "overrides": [str(o) for o in job["overrides"]], **job}
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning(f"{path}: not what a job says of itself ({one_line(error)}); left out")
        return None


def rows(found: Sequence[Job]) -> list[dict[str, Any]]:
    """Make a row for each job: what it was told beyond the others, what became of it, and whether it is on the front.

    A run is on the Pareto front where no other of its workload, metric and scale is smaller and no worse.
    """
    common = set.intersection(*(set(job["overrides"]) for job in found)) if len(found) > 1 else set()
    out: list[dict[str, Any]] = []
    for job in found:
        row: dict[str, Any] = {"job": job["job"], "settings": " ".join(o for o in job["overrides"] if o not in common),
                               "status": job["status"], "error": job.get("error") or ""}  # fmt: skip
        entry = _entry(job)
        if entry is not None:
            row |= {
                "workload": entry["workload"], "scale": entry["scale"], "seed": entry["seed"],
                "run": entry["run_id"], "metric": entry["metric"]["name"],
                "higher_is_better": entry["metric"]["higher_is_better"],
                "dense": entry["dense"]["score"], "compact": entry["compact"]["score"],
                "params": entry["compact"]["params"],
                "params_share": entry["compact"]["params"] / entry["dense"]["params"],
                "features": len(entry["gates"]["features_kept"]) if entry["gates"] else None,
            }  # fmt: skip
        out.append(row)
    problem = ("workload", "scale", "metric")
    for row in out:
        rivals = [
            r for r in out if "run" in r and all(r[k] == row.get(k) for k in problem) and r["compact"] is not None
        ]
        if all(r is not row for r in rivals):
            row["front"] = ""
            continue
        points = [(r["params"], r["compact"]) for r in rivals]
        mine = row["params"], row["compact"]
        row["front"] = "no" if any(dominates(p, mine, row["higher_is_better"]) for p in points) else "yes"
    return out


def _entry(job: Job) -> dict[str, Any] | None:
    if job["status"] != "finished" or not job.get("record"):
        return None
    try:
        return record.read(Path(job["record"]))
    except RecordError:
        return None


def summary(found: Sequence[dict[str, Any]]) -> Table:
    """Lay out the rows as a table for people; runs on the Pareto front have a star."""
    table = Table(title=f"{len(found)} jobs (* on the Pareto front of score and size)", title_justify="left")
    for name in ("", "settings", "status", "metric", "dense", "compact", "parameters", "features"):
        text = name in ("settings", "status", "metric")
        table.add_column(name, justify="left" if text else "right", overflow="fold", no_wrap=name != "settings")
    for row in found:
        settings = row["settings"].replace(" ", "\n")
        cells = [f"{row['job']}{'*' if row['front'] == 'yes' else ' '}", settings, row["status"]]
        if "run" in row:
            features = "-" if row["features"] is None else str(row["features"])
            cells += [row["metric"], f"{row['dense']:.4f}", f"{row['compact']:.4f}",
                      f"{100 * (row['params_share'] - 1):+.1f}%", features]  # fmt: skip
        table.add_row(*(escape(cell) for cell in cells))
    return table


def finish(folder: Path, console: Console | None = None, *, stopped: bool = False) -> int:
    """Print the summary of a sweep and write it to ``summary.csv``.

    Args:
        folder: The sweep's folder.
        console: Where it is printed.
        stopped: The sweep was stopped while jobs were at work.

    Returns:
        How many jobs failed.
    """
    console = console or Console()
    found = jobs(folder)
    if not found:
        return 0
    table = rows(found)
    console.print(summary(table))
    columns = list(dict.fromkeys(key for row in table for key in row))
    with record.writing(folder), atomic(folder / SUMMARY) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(table)
    failed = [job for job in found if job["status"] not in record.DONE]
    for job in found:
        if job["status"] == "unsupported":
            line = f"job {job['job']} unsupported: {' '.join(job['overrides'])}: {job.get('error')}"
            console.print(Text(line), soft_wrap=True)
    for job in failed:
        why = job.get("error") or (STOPPED if stopped else SILENT)
        console.print(Text(f"job {job['job']} {job['status']}: {' '.join(job['overrides'])}: {why}"), soft_wrap=True)
        console.print(Text(f"  log: {job.get('log') or 'none'}"), soft_wrap=True)
    if failed:
        console.print(Text(f"{len(failed)} of {len(found)} failed; the same command runs only those again"))
    console.print(Text(f"summary: {folder / SUMMARY}"), soft_wrap=True)
    return len(failed)
