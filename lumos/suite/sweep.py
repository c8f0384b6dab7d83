"""A sweep's jobs: each leaves a line about itself on disk, and the end is one table, the Pareto front and a verdict.

The lines are files, because jobs run on other machines and may die without a word. Imports no torch.
"""

from __future__ import annotations

import csv
import itertools
import json
import logging
import os
import platform
import shutil
import subprocess
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
from lumos.suite import record, record_fields
from lumos.suite.record_fields import what_is_wrong
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


def jobs(folder: Path, *, ended: bool = True) -> list[Job]:
    """Read all jobs of a sweep, by number.

    A job that died still says that it is ``running``. Where the batch system knows better, its word counts; else
    that is taken for ``died``.

    Args:
        folder: The sweep's folder.
        ended: No job is at work any more: the sweep is over.
    """
    found = [job for path in folder.glob(f"*/{JOB}") if (job := _read(path))]
    running = [job for job in found if job["status"] == "running"]
    states = slurm_states([job["slurm"] for job in running if job.get("slurm")])
    for job in running:
        state = states.get(job.get("slurm") or "", "")
        if state in AT_WORK:  # whatever the process that started it says
            continue
        if state:
            job |= {"status": "cancelled" if state == "CANCELLED" else "died", "error": f"Slurm says {state}"}
        elif ended or not _at_work(job):
            job["status"] = "died"
    return sorted(found, key=lambda job: job["job"])


AT_WORK = ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "CONFIGURING", "SUSPENDED", "RESIZING", "REQUEUE_HOLD")
"""Slurm's states of a job that may still say something."""


def slurm_states(ids: Sequence[str]) -> dict[str, str]:
    """Ask Slurm for the states of jobs: its accounting, or the controller where there is none.

    Returns:
        The state of each job that is known, without what follows it (``CANCELLED by 0``). Nothing without Slurm.
    """
    for command in (
        ["sacct", "-n", "-X", "-P", "-o", "JobID,State", "-j"],
        ["squeue", "-h", "-a", "-t", "all", "-o", "%i|%T", "-j"],
    ):
        if not ids or shutil.which(command[0]) is None:
            continue
        said = subprocess.run([*command, ",".join(ids)], capture_output=True, text=True, timeout=60, check=False)
        pairs = [line.split("|")[:2] for line in said.stdout.splitlines() if "|" in line]
        if pairs:
            return {job: state.split()[0] for job, state in pairs if state}
    return {}


def place() -> dict[str, Any]:
    """Say where this process is at work: what :func:`jobs` asks whether it still is."""
    if "SUBMITIT_EXECUTOR" not in os.environ:  # inside another job, whose number says nothing of this one
        return {"slurm": None, "host": platform.node(), "pid": os.getpid()}
    array = [os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK")]
    slurm = "_".join(a for a in array if a) if all(array) else os.environ.get("SLURM_JOB_ID")
    return {"slurm": slurm, "host": platform.node(), "pid": os.getpid()}


def _at_work(job: Job) -> bool:
    """Whether a job's process lives; on another machine it is believed what it says."""
    if job.get("host") != platform.node() or not job.get("pid"):
        return job.get("host") is not None
    try:
        os.kill(int(job["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def failed_before(folder: Path) -> Job | None:
    """Return a job of a sweep that failed, if one did."""
    return next(
        (job for job in jobs(folder, ended=False) if job["status"] not in (*record.DONE, "running", "skipped")), None
    )


def _read(path: Path) -> Job | None:
    """What a job said of itself; None where that cannot be read."""
    job: Any = None
    try:
        job = json.loads(path.read_text())
        wrong = what_is_wrong(record_fields.Job, job) if isinstance(job, dict) else "no names with values"
    except (OSError, ValueError) as error:
        wrong = one_line(error)
    if wrong:
        log.warning(f"{path}: not what a job says of itself ({wrong}); left out")
        return None
    return job


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
            scores = ["-" if row[side] is None else f"{row[side]:.4f}" for side in ("dense", "compact")]
            cells += [row["metric"], *scores, f"{100 * (row['params_share'] - 1):+.1f}%", features]  # fmt: skip
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
    return show(folder, found, console, stopped=stopped)


def status(folder: Path, console: Console | None = None) -> int:
    """Print how far a sweep is, from what its jobs and the batch system say, and write it to ``summary.csv``.

    The process that started the sweep may have ended long ago.

    Args:
        folder: The sweep's folder.
        console: Where it is printed.

    Returns:
        How many jobs failed.

    Raises:
        RecordError: The folder is none of a sweep.
    """
    found = jobs(folder, ended=False)
    if not found:
        raise RecordError(
            f"{folder}: no job of a sweep has left a word there; expected the folder of one, "
            "RESULTS/sweeps/DATE_TIME, whose jobs have begun"
        )
    return show(folder, found, console or Console())


def show(folder: Path, found: Sequence[Job], console: Console, *, stopped: bool = False) -> int:
    """Print jobs as a table, write ``summary.csv``, and say of each that failed why; returns how many did."""
    table = rows(found)
    console.print(summary(table))
    columns = list(dict.fromkeys(key for row in table for key in row))
    with record.writing(folder), atomic(folder / SUMMARY) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(table)
    failed = [job for job in found if job["status"] not in (*record.DONE, "running", "skipped")]
    at_work, skipped = (sum(job["status"] == what for job in found) for what in ("running", "skipped"))
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
    if skipped:
        console.print(Text(f"{skipped} of {len(found)} did not begin, since another one failed (stop_at_failure=true)"))
    if at_work:
        console.print(Text(f"{at_work} of {len(found)} at work"))
    console.print(Text(f"summary: {folder / SUMMARY}"), soft_wrap=True)
    return len(failed)
