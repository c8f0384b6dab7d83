"""Runs wherever they are kept: a folder each, or many of them in one file, an archive. Imports no torch.

An archive is a file of JSON lines, gzipped where its name ends in ``.gz``; the committed records are kept so. A line is
one run with the files of its folder, text as it is and other files in base64::

    {"run": "cfd/13d7bcc5a9d4", "record": {...}, "files": {"curve.csv": "phase,...", "compact.pt": {"base64": "..."}}}

`pack` and `unpack` (``lumos pack results -o mine.jsonl.gz``, ``lumos unpack mine.jsonl.gz -o results``) turn folders
into an archive and back; what is unpacked has the bytes that the run wrote. With pandas alone::

    runs = pandas.read_json("results/reference/suite.jsonl.gz", lines=True)
    curve = pandas.read_csv(io.StringIO(runs.files[0]["curve.csv"]))
"""

from __future__ import annotations

import atexit
import base64
import gzip
import json
import logging
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from lumos.errors import RecordError
from lumos.files import atomic
from lumos.suite import record
from lumos.suite.rows import Row, read_rows

SUFFIXES = (".jsonl", ".jsonl.gz")
LEFT_OUT = (".*", "*.ckpt", record.FILE)
"""Files of a run's folder that are no result of it; the record stands in the line itself."""

LONGEST = 1 << 30
"""Bytes of the longest line that is read: a few kilobytes can unpack to more than the memory holds."""

COLUMNS = {"curve.csv": ("phase", "step", "loss"), "features.csv": ("feature", "kept", "closed_at", "order")}
"""What readers of a run's tables rely on."""

log = logging.getLogger("lumos")


@dataclass(frozen=True)
class Run:
    """One run: its record, and the files beside it.

    ``place`` is its folder, or the archive that holds it; then ``packed`` has its files as the line has them.
    """

    record: dict[str, Any]
    place: Path
    packed: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Its folder below ``runs/``: workload and run id."""
        return f"{self.record['workload']}/{self.record['run_id']}"

    @property
    def results(self) -> Path:
        """The results folder that it belongs to: where ``runs/`` or its archive lies."""
        return self.place.parents[2] if self.packed is None else self.place.parent

    @property
    def files(self) -> list[str]:
        """The names of its files, without the record."""
        if self.packed is not None:
            return sorted(self.packed)
        names = (path.name for path in self.place.iterdir() if path.is_file())
        return sorted(name for name in names if not any(fnmatch(name, pattern) for pattern in LEFT_OUT))

    def read(self, name: str) -> bytes | None:
        """Read one of its files; None where it has no such file."""
        if self.packed is None:
            path = self.place / name
            return path.read_bytes() if path.is_file() else None
        content = self.packed.get(name)
        if isinstance(content, dict):
            return base64.b64decode(content["base64"])
        return None if content is None else content.encode()

    def table(self, name: str = "curve.csv") -> list[Row]:
        """Read a CSV file of it; see :func:`lumos.suite.rows.read_rows`. No rows without the file."""
        return read_rows(self.read(name) or b"", f"{self.place}: {name}", COLUMNS.get(name, ()))

    @cached_property
    def folder(self) -> Path:
        """Its folder; of a run in an archive a copy, which goes when the process ends."""
        if self.packed is None:
            return self.place
        results = Path(tempfile.mkdtemp(prefix="lumos-run-"))
        atexit.register(shutil.rmtree, results, ignore_errors=True)
        return self.write(results)

    def write(self, results: Path) -> Path:
        """Write record and files below a results folder, as the run left them. Returns the run's folder."""
        folder = results / "runs" / self.name
        with record.writing(folder):
            for name in self.files:
                with atomic(folder / name) as temporary:
                    temporary.write_bytes(self.read(name) or b"")
        record.write(folder, self.record)  # last: a folder with a record is whole
        return folder


def is_archive(path: Path) -> bool:
    """Whether a path is an archive, by its name."""
    return path.name.endswith(SUFFIXES)


def runs(place: Path) -> Iterator[Run]:
    """Read every run at a place: an archive, a run's folder, or a results folder (``runs/`` first, then archives).

    A record below a results folder that cannot be read, and a damaged line of an archive, are named in a warning and
    left out. Raises RecordError where the place is a run's folder, and its record cannot be read.
    """
    if is_archive(place):
        yield from _lines(place)
    elif (place / record.FILE).exists():
        yield Run(record.read(place), place)
    else:
        for path in sorted((place / "runs").glob(f"*/*/{record.FILE}")):
            try:
                yield Run(record.read(path), path.parent)
            except RecordError as error:
                log.warning(f"{error}; left out")
        for path in sorted(p for p in place.glob("*") if is_archive(p)):
            yield from _lines(path)


def find(name: str, places: Sequence[Path]) -> Run:
    """Find a run by its folder, a file in it, or the beginning of its run id below some places. Raises RecordError."""
    path = Path(name)
    if path.exists() and not is_archive(path):
        folder = path if path.is_dir() else path.parent
        return Run(record.read(folder), folder.resolve())
    known: dict[str, Run] = {}
    for run in (run for place in places for run in runs(place) if run.record["run_id"].startswith(name)):
        known.setdefault(run.record["run_id"], run)
    if len(known) == 1:
        return next(iter(known.values()))
    if not known:
        below = ", ".join(str(p) for p in places)
        raise RecordError(f"{name}: no such file, folder or run id below {below}; `lumos list` shows all")
    raise RecordError(f"{name}: {len(known)} runs begin with it ({', '.join(sorted(known))}); give more of it")


def pack(places: Sequence[Path], path: Path, without: Sequence[str] = ()) -> int:
    """Write the runs at some places into one archive. The same runs give the same bytes.

    Args:
        places: results folders, folders of runs, archives; a run that is in several counts once, from the first.
        path: the archive, ``*.jsonl`` or ``*.jsonl.gz``. One that is there is replaced: name it among the places to
            add to it.
        without: patterns of files to leave out, such as ``*.pt`` for the networks.

    Returns:
        The number of runs.

    Raises:
        RecordError: if there is no run, a record cannot be read, or ``path`` has another ending.

    >>> run = {"schema": 1, "workload": "cfd", "run_id": "13d7", "status": "failed", "scale": "tiny", "seed": 0,
    ...        "config": {}, "provenance": {"started_utc": "2026-01-01"},
    ...        "metric": {"name": "R2", "higher_is_better": True}}
    >>> folder = Path(tempfile.mkdtemp())
    >>> record.write(folder / "results" / "runs" / "cfd" / "13d7", run)
    >>> pack([folder / "results"], folder / "all.jsonl.gz")
    1
    >>> [path.name for path in unpack(folder / "all.jsonl.gz", folder / "back")]
    ['13d7']
    """
    if not is_archive(path):
        raise RecordError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}")
    known: dict[str, Run] = {}
    for run in (run for place in places for run in runs(place)):
        known.setdefault(run.name, run)
    if not known:
        where = ", ".join(map(str, places))
        raise RecordError(f"{where}: no run there; give results folders, folders of runs or archives")
    with record.writing(path.parent), atomic(path) as temporary, _opened(temporary, path.suffix == ".gz") as file:
        for name in sorted(known):
            file.write(_line(known[name], without))
    return len(known)


def unpack(path: Path, results: Path, ids: Sequence[str] = ()) -> list[Path]:
    """Write the runs of an archive as folders below ``results/runs``.

    Args:
        path: the archive.
        results: the results folder.
        ids: beginnings of run ids; all runs where there are none.

    Returns:
        The folders.

    Raises:
        RecordError: if there is no such archive or no such run, or a folder is there already.
    """
    chosen = [run for run in _lines(path) if not ids or run.record["run_id"].startswith(tuple(ids))]
    if not chosen:
        raise RecordError(f"{path}: no run {' or '.join(ids)} in it")
    there = [str(results / "runs" / run.name) for run in chosen if (results / "runs" / run.name).exists()]
    if there:
        raise RecordError(f"{there[0]}: is there already{f', and {len(there) - 1} more' * (len(there) > 1)}; "
                          "unpack into another folder")  # fmt: skip
    written: list[Path] = []
    try:
        for run in chosen:
            written.append(results / "runs" / run.name)
            run.write(results)
    except BaseException:  # a full disk, say: the same call is not to find its own beginnings
        for folder in written:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return written


def _line(run: Run, without: Sequence[str]) -> bytes:
    files: dict[str, Any] = {}
    for name in run.files:
        if not any(fnmatch(name, pattern) for pattern in without):
            content = run.read(name) or b""
            try:
                files[name] = content.decode()
            except UnicodeDecodeError:
                files[name] = {"base64": base64.b64encode(content).decode()}
    line = {"run": run.name, "record": run.record, "files": files}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _lines(path: Path) -> Iterator[Run]:
    """Read an archive; what is damaged is named in a warning and left out."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST + 1), b""), 1):
                if len(line) > LONGEST:
                    number -= 1
                    raise OSError(f"a line of more than {LONGEST >> 20} MB")
                if not line.strip():
                    continue
                try:
                    yield _run(line, path)
                except (ValueError, TypeError, KeyError, RecordError) as error:
                    log.warning(f"{path}:{number}: not a run's line ({error!s:.100}); it is left out")
    except FileNotFoundError:
        raise RecordError(f"{path}: there is no such archive") from None
    except (OSError, EOFError, zlib.error) as error:
        log.warning(f"{path}: damaged after line {number} ({error}); the rest is left out")


def _run(line: bytes, path: Path) -> Run:
    """The run of a line. Raises ValueError, TypeError, KeyError or RecordError where it is none."""
    content = json.loads(line)
    run = Run(record.checked(content["record"], path), path, dict(content["files"]))
    # Names come from a file that anyone may have written; they must not lead out of the results folder.
    for name in (*run.name.split("/"), *run.files):
        if Path(name).name != name or run.name.count("/") != 1:
            raise ValueError(f"{name!r} is not a file's name")
    for file, text in (run.packed or {}).items():
        if not isinstance(text, str) and set(text) != {"base64"}:
            raise ValueError(f"the content of {file}")
    return run


@contextmanager
def _opened(path: Path, zipped: bool) -> Iterator[IO[bytes]]:
    """A file to write to; of a gzipped one neither time nor name stands in it."""
    with path.open("wb") as file:
        if zipped:
            with gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
                yield packed  # type: ignore[misc]
        else:
            yield file
