"""How much a workload is about to generate: said before it does, and refused beyond ``data.limit_gb``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from lumos.errors import DataError

GB = 1e9


@runtime_checkable
class Sized(Protocol):
    """A workload that can say how large its samples are before there are any."""

    def split_bytes(self) -> Mapping[str, int]:
        """Count the bytes of the samples of each split as they are stored, before compression, from settings alone."""
        ...

    def held_bytes(self) -> int:
        """Count the bytes of them, at most, that stay in memory while a network trains."""
        ...

    def generation_seconds(self) -> float:
        """Estimate the seconds that generating them takes one core."""
        ...


def describe(workload: object) -> str:
    """Say how much is generated, how much of it is held in memory, and how long it takes; empty where it cannot say.

    Args:
        workload: A workload; it may be none that is :class:`Sized`.

    Returns:
        A part of a sentence.
    """
    if not isinstance(workload, Sized) or not getattr(workload, "generated", True):
        return ""
    total = sum(workload.split_bytes().values())
    held = f"{amount(workload.held_bytes())} of them in memory"
    return f"{amount(total)} of samples, {held}; where they are not there yet, {_time(workload)}"


def check_limit(name: str, workload: Sized, limit_gb: float | None) -> None:
    """Refuse to generate more than a limit.

    Args:
        name: The workload's name.
        workload: The workload that is about to generate its samples.
        limit_gb: The limit, 10^9 bytes; None for none.

    Raises:
        DataError: There would be more; the line has the size, the time and what to set.
    """
    total = sum(workload.split_bytes().values())
    if limit_gb is None or total <= limit_gb * GB:
        return
    raise DataError(
        f"{name}: {amount(total)} of samples would be generated, {_time(workload)}; data.limit_gb="
        f"{limit_gb:g} refuses that. Set data.limit_gb={-(-total // int(GB))} to generate them, or use a smaller scale"
    )


def amount(size: float) -> str:
    """Write a number of bytes for people.

    Example:
        >>> amount(4.948e12), amount(70_400_000), amount(12)
        ('4.9 TB', '70 MB', '12 B')
    """
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}" if size < 10 * scale else f"{size / scale:,.0f} {unit}"
    return f"{size:.0f} B"


def duration(seconds: float) -> str:
    """Write seconds for people.

    Example:
        >>> duration(2), duration(600), duration(20_000), duration(4e6)
        ('2 seconds', '10 minutes', '6 hours', '46 days')
    """
    for unit, scale in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * scale:
            return f"{seconds / scale:,.0f} {unit}"
    return f"{max(1, round(seconds))} second{'s' * (round(seconds) > 1)}"


def _time(workload: Sized) -> str:
    cores = os.cpu_count() or 1
    return f"roughly {duration(workload.generation_seconds() / cores)} on {cores} core{'s' * (cores > 1)}"
