"""One run, one folder, one JSON file: the only source of every table and figure. Imports no torch."""

from __future__ import annotations

import csv
import errno
import json
import logging
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lumos import __version__
from lumos.errors import RecordError
from lumos.files import atomic
from lumos.suite import paths
from lumos.suite.record_fields import with_defaults, wrong_in_record

SCHEMA = 1
FILE = "record.json"
CODE = (":/", ":(exclude,top)results")
"""What makes a run: everything in the repository but the records of runs, as git's paths."""

ANEW = "anew"
"""Where, in its folder, a finished run is done anew: what there is stays until that is finished too."""

DONE = ("finished", "unsupported")
"""What a run's status is when it need not be done again."""
POLL = 1.0
"""Seconds between two tries to get a folder that another process holds."""

log = logging.getLogger("lumos")


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write a run's record; a reader sees the old one or the new one."""
    with writing(folder), atomic(folder / FILE) as temporary:
        temporary.write_text(json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    """Read a record, from its file or its folder. Raises RecordError."""
    path = path / FILE if path.is_dir() else path
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise RecordError(f"{path}: there is no record; run it first") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a readable record ({error}); delete it and run again") from None
    return checked(record, path)


def checked(record: Any, path: Path) -> dict[str, Any]:
    """Return what was read from ``path`` if it is a record. Raises RecordError."""
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise RecordError(f"{path}: record of schema {schema}, expected {SCHEMA}; run it again")
    if wrong := wrong_in_record(record):
        raise RecordError(f"{path}: not a whole record ({wrong}); delete it and run again")
    return with_defaults(record)


def finished(folder: Path) -> dict[str, Any] | None:
    """Read the record of a run that is done (``unsupported`` is a result too); None where the run has to be done."""
    if not (folder / FILE).exists():
        return None
    try:
        record = read(folder)
    except RecordError:
        return None
    return record if record["status"] in DONE else None


def replace(folder: Path) -> dict[str, Any] | None:
    """Put a run that was done anew in the place of the old one.

    The record comes last. So where a process is killed here, the next one goes on.

    Returns:
        The new record; None where there is no run that was done anew, or it is not finished.

    Raises:
        RecordError: The folder cannot be written.
    """
    anew = folder / ANEW
    new = finished(anew)
    if new is None:
        return None
    with writing(folder):
        names = sorted(path.name for path in anew.iterdir() if path.is_file() and path.name != FILE)
        names = [name for name in names if not name.startswith(".")]  # what a killed process was writing
        for name in names:
            (anew / name).replace(folder / name)
        (anew / FILE).replace(folder / FILE)
        shutil.rmtree(anew)
    return new


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a finished run: its process may have been killed before it could."""
    for path in folder.glob("*.ckpt"):
        with suppress(OSError):
            path.unlink()


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a folder while this process works in it. A process that dies lets go of it.

    Args:
        folder: The folder; it is made where it is not there.
        wait: Wait for another process that holds it.

    Raises:
        RecordError: Another process holds it and ``wait`` is not set, or the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise RecordError(
                    f"{folder}: another process is at this very run; wait for it, or change a key"
                ) from None
            log.info(f"{folder}: waiting for another process that is at this very training")
            lock.acquire(poll_interval=POLL)
        except (OSError, NotImplementedError) as error:
            if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            log.warning(f"{folder}: this file system has no locks; take care that no run is started twice")
        else:
            for stale in folder.glob(".*.tmp"):  # what a killed process was writing
                stale.unlink(missing_ok=True)
    try:
        yield
    finally:
        lock.release()


def in_batch_system() -> bool:
    """Tell whether a batch system runs this process: then it is better to wait for an equal run than to fail."""
    return "SLURM_JOB_ID" in os.environ or "SUBMITIT_EXECUTOR" in os.environ


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what a full disk or a read-only folder raises into one line: RecordError."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a file that it cannot write
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RecordError(
            f"{folder}: cannot be written ({reason}); make room or set paths.results (LUMOS_RESULTS) to another "
            "folder. What is trained is kept: the same call goes on from there"
        ) from error


def write_curve(folder: Path, rows: Sequence[dict[str, Any]], name: str = "curve.csv") -> None:
    """Write a run's training curve, or another table, as a CSV file."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with writing(folder), atomic(folder / name) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def provenance(device: str) -> dict[str, Any]:
    """Tell where and with what a run was made."""
    packages = ("torch", "numpy", "hydra-core", "torch-geometric", "timm")
    commit = _git("rev-parse", "HEAD")
    return {
        "git": commit,
        "dirty": bool(_git("status", "--porcelain", "-uno", "--", *CODE)) if commit else None,
        "versions": {"lumos": __version__, "python": platform.python_version(), **{p: _version(p) for p in packages}},
        "device": device,
        "host": platform.node(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*command: str) -> str | None:
    """What git says of the checkout; None for an installed package, whatever repository its folder is in."""
    if paths.CHECKOUT is None:
        return None
    try:
        done = subprocess.run(
            ["git", *command], capture_output=True, text=True, timeout=10, cwd=paths.CHECKOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _plain(value: Any) -> Any:
    """JSON has no NaN, no infinity and no paths."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)
