"""A progress bar for simulations that take longer than a moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import rich.progress
from rich.console import Console

T = TypeVar("T")


def track(steps: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the steps, with a bar on stderr while they last; silent where stderr is no terminal (a log, a pipe)."""
    console = Console(stderr=True)
    yield from rich.progress.track(
        steps, description, total=total, console=console, transient=True, disable=not console.is_terminal
    )
