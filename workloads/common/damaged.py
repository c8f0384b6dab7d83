"""What a damaged file among many does: it ends the run, or it is named and left out (``data.on_error``)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from lumos.errors import DataError

log = logging.getLogger("lumos")

T = TypeVar("T")
Read = TypeVar("Read")


def skip_or_raise(error: DataError, on_error: str) -> None:
    """Log the error with ``on_error="skip"``; otherwise raise it."""
    if on_error != "skip":
        raise error
    log.warning(f"left out (data.on_error=skip): {error}")


def readable(items: Iterable[T], read: Callable[[T], Read], on_error: str) -> Iterator[tuple[T, Read]]:
    """Read each item; yields it with what was read, less the damaged ones where ``on_error`` is ``skip``.

    Raises:
        DataError: an item is damaged, and ``on_error`` is ``fatal``.
    """
    for item in items:
        try:
            found = read(item)
        except DataError as error:
            skip_or_raise(error, on_error)
        else:
            yield item, found
