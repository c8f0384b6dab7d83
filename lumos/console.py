"""What a person sees while a run works: log lines, and progress bars where there is a terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("lumos")
console = Console(stderr=True)


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Send the run's log lines to the terminal and to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    screen = RichHandler(console=console, show_path=False, show_level=False, markup=False, highlighter=None,
                         log_time_format="%H:%M:%S")  # fmt: skip
    file = logging.FileHandler(path, mode="w")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in (screen, file):
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in (screen, file):
            log.removeHandler(handler)
            handler.close()


class Bar:
    """A training's progress: a live bar on a terminal, a line now and then elsewhere."""

    def __init__(self, live: Progress, label: str, total: int) -> None:
        self.live, self.label, self.total, self.done = live, label, total, 0
        self.task = live.add_task(label, total=total, info="")
        self.said = 0.0

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
def progress(label: str, total: int) -> Iterator[Bar]:
    """A progress bar over ``total`` steps."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[info]}"))  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as live:
        yield Bar(live, label, total)
