"""What can go wrong and is expected to. Every message is one line: what was wrong, what was expected, what to do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class LumosError(Exception):
    """An expected error; the command line prints its line without a traceback."""


class ConfigError(LumosError, ValueError):
    """A setting, or a key or a value of the configuration, cannot be used."""


class DataError(LumosError):
    """A file or a setting of a workload is missing or wrong."""


class StructureError(LumosError):
    """The model cannot be traced or gated as asked."""


class CompactionError(LumosError):
    """The compact model does not compute what the gated one does, or a saved one cannot be read."""


class TrainingError(LumosError):
    """A training went wrong."""


class UnsupportedError(LumosError):
    """A method cannot treat a model; the record says so and why."""


class OtherProcessError(LumosError):
    """The first of several processes failed and said why; the others stop with it."""


class LostProcessError(OtherProcessError):
    """Another of several processes is gone, and nobody said why: it was killed, or its machine went down."""


class JoinError(LumosError):
    """Processes that are to train together did not find each other."""


class RecordError(LumosError):
    """A record cannot be read, or its run is busy."""


class ExportError(LumosError):
    """A model cannot be written as a file for another runtime, or the file does not compute the same."""


def one_line(error: BaseException) -> str:
    """An exception's message on one line."""
    return " ".join(str(error).split())


SHOWN = 300
"""Characters of a library's message that a line repeats."""


def reads(
    expected: str = "fetch it again",
    file: Callable[..., object] | None = None,
    error: type[LumosError] = DataError,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate what reads a file: whatever it raises for the file's bytes becomes one line that names the file.

    It is the boundary between the bytes of a file and all else: libraries raise what they like for a file that is none
    of theirs. Errors of LUMOS pass, since they say what is wrong.

    Args:
        expected: What the line ends with: what was expected, or what to do.
        file: Called with the reader's own arguments; returns the file. By default it is the first argument.
        error: The class of the error.

    Example:
        >>> @reads("expected numbers")
        ... def total(file):
        ...     return sum(map(float, ["1", "x"]))
        >>> total("a.txt")
        Traceback (most recent call last):
        lumos.errors.DataError: a.txt: cannot be read (could not convert string to float: 'x'); expected numbers
    """

    def decorate(reader: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(reader)
        def read(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return reader(*args, **kwargs)
            except LumosError:
                raise
            except Exception as cause:
                given: Any = args
                place = file(*given, **kwargs) if file else given[0]
                if _is_pointer(place):
                    raise error(f"{place}: a Git LFS pointer, not the file itself; fetch it (git lfs pull)") from cause
                raise error(f"{place}: cannot be read ({_reason(cause)}); {expected}") from cause

        return read

    return decorate


POINTER = b"version https://git-lfs.github.com/spec/"
"""What stands in the place of a file that a clone did not fetch begins with it."""


def _is_pointer(place: object) -> bool:
    try:
        with open(str(place), "rb") as stream:
            return stream.read(len(POINTER)) == POINTER
    except OSError:
        return False


def _reason(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
    return said[:SHOWN] or type(error).__name__
