"""What a person sees while a run works: log lines, and progress bars where there is a terminal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("lumos")
console = Console(stderr=True)


class _LogFile(logging.FileHandler):
    """A log that is left where its disk is full: what the run itself cannot write says so, and says where."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Called inside the handling of what a line's writing raised."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file; what it still holds may not go to a full disk."""
        with suppress(OSError):
            super().close()


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Send the run's log lines to the terminal and to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    screen = RichHandler(console=console, show_path=False, show_level=False, markup=False, highlighter=None,
                         log_time_format="%H:%M:%S")  # fmt: skip
    file = _LogFile(path, mode="w")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in (screen, file):
        log.addHandler(handler)
    try:
        yield
    finally:
        log.setLevel(before[0])
        log.propagate = before[1]
        for handler in (screen, file):
            log.removeHandler(handler)
            handler.close()


def silence() -> None:
    """Say nothing but errors: another process speaks."""
    log.propagate = False
    log.addHandler(logging.NullHandler())


class Bar:
    """A training's progress: a live bar on a terminal, a line now and then elsewhere."""

    def __init__(self, live: Progress, label: str, total: int, done: int = 0) -> None:
        self.live, self.label, self.total, self.done = live, label, total, done
        self.task = live.add_task(label, total=total, completed=done, info="")
        self.said = done / total

    def advance(self) -> None:
        """One step is done."""
        self.done += 1
        self.live.advance(self.task)

    def show(self, **values: Any) -> None:
        """Show the latest loss and scores; in a log, at every tenth of the way."""
        info = "  ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items() if v is not None
        )
        self.live.update(self.task, info=info)
        if self.done / self.total >= self.said + 0.1 or self.done == self.total:
            self.said = self.done / self.total
            log.info(f"{self.label}: step {self.done}/{self.total}  {info}")


@contextmanager
def progress(label: str, total: int, done: int = 0) -> Iterator[Bar]:
    """Show a progress bar over ``total`` steps, of which some are done; only one of several processes shows it."""
    hidden = not console.is_terminal or os.environ.get("RANK", "0") != "0"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[info]}"))  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=hidden) as live:
        yield Bar(live, label, total, done)
