"""A request to stop: a batch system's before a time limit or a pre-emption, or a person's Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""By these a process is asked to end: by ``kill``, a batch system, or a terminal that closes."""

SIGNALS = (*ENDING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
"""SIGUSR2 is submitit's before a time limit; it goes on to submitit's own handler, which queues the job again."""


class StoppedError(BaseException):
    """The run was asked to stop; ``code`` is the exit code that says by which signal.

    As KeyboardInterrupt it is no Exception: it may be raised wherever the process is, and what expects that code of
    somebody else fails must not take it for that.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.code = 128 + number


def stopped_by(number: int, done: str = "") -> str:
    """Word the line of a run that a signal stopped."""
    return f"stopped by {signal.Signals(number).name}{done}; the same call goes on from there"


class StopRequest:
    """The signal that asked to stop, if one did, and what to do once the state is saved."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._frame: FrameType | None = None
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.number is not None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note the signal, as its handler; the second Ctrl-C no longer waits for the step to end."""
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number, self._frame = number, frame

    def stop(self, done: str) -> None:
        """Hand the signal on to a handler that was there before; otherwise, or where that returns, stop.

        submitit passes SIGTERM by: Slurm sends it with every requeue, and the job's end follows by itself.
        """
        number = self.number if self.number is not None else signal.SIGTERM
        before = self._before.get(number)
        self.number = None
        if callable(before) and before is not signal.default_int_handler and not isinstance(before, _Ending):
            before(number, self._frame)
            return
        raise StoppedError(number, stopped_by(number, f", {done}"))


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note requests to stop instead of dying of them; outside a main thread there are none to note."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            stop._before[number] = signal.signal(number, stop.receive)
    try:
        yield stop
    finally:
        for number, before in stop._before.items():
            signal.signal(number, before)


class _Ending:
    """A handler that ends the process through its ``finally`` clauses; a forked child ends as by default."""

    def __init__(self) -> None:
        self.process = os.getpid()

    def __call__(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self.process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise StoppedError(number, stopped_by(number))


@contextmanager
def ending_by_exception() -> Iterator[None]:
    """Raise StoppedError where a signal would end this process at once: tables and records are then written.

    Signals that are ignored (``nohup``) or that someone handles stay as they are.
    """
    main = threading.current_thread() is threading.main_thread()
    mine = [number for number in ENDING if main and signal.getsignal(number) is signal.SIG_DFL]
    handler = _Ending()
    for number in mine:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
