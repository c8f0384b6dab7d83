"""One run, one folder, one JSON file: the only source of every table and figure. Imports no torch."""

from __future__ import annotations

import csv
import fcntl
import json
import math
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from lumos.errors import RecordError
from lumos.files import atomic

SCHEMA = 1
FILE = "record.json"


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write a run's record; a reader sees the old one or the new one."""
    with atomic(folder / FILE) as temporary:
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
    if record.get("schema") != SCHEMA:
        raise RecordError(f"{path}: record of schema {record.get('schema')}, expected {SCHEMA}; run it again")
    return record


def finished(folder: Path) -> dict[str, Any] | None:
    """The record of a finished run, or None where the run has to be done."""
    if not (folder / FILE).exists():
        return None
    try:
        record = read(folder)
    except RecordError:
        return None
    return record if record["status"] == "finished" else None


def all_records(results: Path) -> list[dict[str, Any]]:
    """Every record below a results folder, oldest first."""
    records = [read(path) for path in sorted((results / "runs").glob(f"*/*/{FILE}"))]
    return sorted(records, key=lambda r: r["provenance"]["started_utc"])


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a run's folder; a second process that wants it gets a RecordError at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecordError(f"{folder}: another process is at this very run; wait for it, or change a key") from None
        yield


def write_curve(folder: Path, rows: Sequence[dict[str, Any]], name: str = "curve.csv") -> None:
    """Write a run's training curve, or another table, as a CSV file."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic(folder / name) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def provenance(device: str) -> dict[str, Any]:
    """Where and with what a run was made."""
    packages = ("torch", "numpy", "hydra-core", "torch-geometric", "timm")
    return {
        "git": _git("rev-parse", "HEAD"),
        "dirty": None if _git("rev-parse", "HEAD") is None else bool(_git("status", "--porcelain", "-uno")),
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in packages}},
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
    try:
        done = subprocess.run(
            ["git", *command], capture_output=True, text=True, timeout=10, cwd=Path(__file__).parent, check=True
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
