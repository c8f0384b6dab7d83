"""Checksums of what a cache holds, so that what a disk or a copy damaged is made again and never trained on.

They stand beside the files, in a text file ``checksums``: ``<CRC-32> <bytes> <name>`` a line. Lines are only ever
added, by any number of processes at once; a file is sound where one of the lines of its name fits.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from lumos.workloads.common.parallel import run_all

log = logging.getLogger("lumos")

FILE = "checksums"
BLOCK = 1 << 20

_sound: set[tuple[str, int, int]] = set()
"""Files that this process has checked: path, bytes and time. None is read twice for it."""


def crc32(file: Path) -> int:
    """Compute the CRC-32 of a file's content. Raises OSError."""
    value = 0
    with file.open("rb", buffering=0) as stream:
        while block := stream.read(BLOCK):
            value = zlib.crc32(block, value)
    return value


def note(folder: Path, name: str, file: Path) -> None:
    """Write down the checksum of ``file``, which is going to be ``folder/name``. Raises OSError."""
    line = f"{crc32(file):08x} {file.stat().st_size} {name}\n".encode()
    # One write to the end of the file: lines of several processes do not mix.
    to = os.open(folder / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(to, line)
    finally:
        os.close(to)


def damaged(folder: Path, names: Iterable[str] | None = None) -> list[str]:
    """Find files that are not what was written: each is read once in a process, several at a time.

    Args:
        folder: Where the files and their checksums are.
        names: Those to look at; all that have a checksum by default. Files that are not there, or that an older
            version wrote without a checksum, count as sound.

    Returns:
        The names of the damaged ones.
    """
    known = _read(folder / FILE)
    wrong: list[str] = []
    jobs = []
    for name in known if names is None else names:
        file = folder / name
        if name in known and file.exists():
            found = file.stat()
            if (str(file), found.st_size, found.st_mtime_ns) not in _sound:
                jobs.append(partial(_check, file, name, known[name], wrong))
    if jobs:
        run_all(jobs, "checking the cache")
    return sorted(wrong)


def identity(folder: Path, file: Path) -> list[object]:
    """Say what tells one content of a file in ``folder`` from another, as JSON.

    Returns:
        The checksum that was written down for it, where the content fits: the same when the file is made again. Else
        its size in bytes and its time.

    Raises:
        OSError: the file is not there.
    """
    name = file.relative_to(folder).as_posix()
    known = _read(folder / FILE).get(name)
    if known and not damaged(folder, [name]):
        return [f"{value:08x} {size}" for value, size in sorted(known)]
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def _check(file: Path, name: str, expected: set[tuple[int, int]], wrong: list[str]) -> None:
    found = file.stat()
    sizes = {size for _, size in expected}
    try:
        fits = found.st_size in sizes and (crc32(file), found.st_size) in expected
    except OSError:
        fits = False
    if fits:
        _sound.add((str(file), found.st_size, found.st_mtime_ns))
    else:
        wrong.append(name)


def _read(file: Path) -> dict[str, set[tuple[int, int]]]:
    """The checksums and sizes that were written down for each name; a line that is damaged itself says nothing."""
    known: dict[str, set[tuple[int, int]]] = {}
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return known
    for line in text.splitlines():
        value, _, rest = line.partition(" ")
        size, _, name = rest.partition(" ")
        try:
            known.setdefault(name, set()).add((int(value, 16), int(size)))
        except ValueError:
            continue
    return known
