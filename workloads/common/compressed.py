"""Gzipped files of anyone: whatever their bytes are, they are read or named, and never fill the memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from lumos.errors import DataError

DAMAGED = (OSError, EOFError, zlib.error)
"""What reading a damaged gzip file raises."""
LIMIT = 4 << 30
"""Bytes that one file may unpack to where it is read whole; a kilobyte of zeros can stand for a megabyte."""
LONGEST = 1 << 20
"""Bytes of the longest line of a table."""


def cannot_read(file: Path, error: Exception) -> DataError:
    """Say that a file is damaged, and what to do."""
    return DataError(f"{file}: cannot be read ({error}); it is damaged, fetch it again")


def unpacked(file: Path, limit: int = LIMIT) -> bytes:
    """Unpack a whole gzip file.

    Args:
        file: The file.
        limit: Bytes that it may unpack to.

    Raises:
        DataError: It is damaged, or unpacks to more.
    """
    try:
        with gzip.open(file) as opened:
            content = bytearray()
            while part := opened.read(1 << 20):  # what is asked for at once is also reserved at once
                content += part
                if len(content) > limit:
                    raise DataError(f"{file}: unpacks to more than {limit >> 20} MB; expected a file of a data set")
    except DAMAGED as error:
        raise cannot_read(file, error) from error
    return bytes(content)


def lines_of(file: Path) -> Iterator[bytes]:
    """Unpack a gzipped text line by line.

    Raises:
        DataError: The file is damaged, or has a line of more than a megabyte.
    """
    try:
        with gzip.open(file) as opened:
            while line := opened.readline(LONGEST + 1):
                if len(line) > LONGEST:
                    raise DataError(f"{file}: a line of more than {LONGEST >> 20} MB; expected a table")
                yield line
    except DAMAGED as error:
        raise cannot_read(file, error) from error
