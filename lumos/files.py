"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; at the end it is flushed to disk and takes its place, on an error it goes.

    Raises OSError where the folder cannot be written or the disk is full; ``path`` is then as it was before.
    """
    if path.exists() and not path.is_file():  # a folder, or a device, which a file would take the place of
        raise OSError(errno.EEXIST, "there is something that is no file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
