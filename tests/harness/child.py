"""A call in a forked process of its own, and what became of it."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

TRACEBACK = "Traceback (most recent call last)"
UNEXPECTED = 70
"""The exit code of an exception that reached the top."""
PATIENCE = 20.0
"""Seconds of work after which a call is asked to end; three times as many where it waits for the processor."""
LAST = 15.0
"""Seconds that it may take for that."""
PIPE = 1 << 20
"""Bytes of a pipe, the most that a user may ask for."""
MEMORY = 24 << 30
"""Bytes of address space of a child: a wrong number must not take the machine's memory."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended: its exit code (minus the signal that killed it), and what it said."""

    code: int
    said: str
    seconds: float
    asked: bool = False
    """It was at work for so long that it was asked to end."""
    hung: bool = False
    """It did not end when asked."""

    @property
    def fault(self) -> str | None:
        """What is wrong with this end, if anything is."""
        if self.hung:
            return f"hangs: {self.seconds:.0f} s and no end after SIGTERM"
        if TRACEBACK in self.said or self.code == UNEXPECTED:
            return f"traceback: {self.said.strip().splitlines()[-1] if self.said.strip() else ''}"
        if self.code < 0 and not (self.asked and self.code == -signal.SIGTERM):
            return f"killed by signal {-self.code}"
        if self.code > 0 and not self.said.strip():
            return f"ends with code {self.code} and says nothing"
        return None


def start(call: Callable[[], object], said: Path | int, folder: Path, most_bytes: int | None = None) -> int:
    """Fork a process that does the call in a folder and writes what it says to a file; returns its id.

    Args:
        call: The call; it may raise SystemExit.
        said: The file of its stdout and stderr, or the end of a pipe.
        folder: The working directory.
        most_bytes: No file may outgrow this, as on a full disk.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = UNEXPECTED
    try:
        os.setsid()
        out = said if isinstance(said, int) else os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, target in ((nothing, 0), (out, 1), (out, 2)):
            os.dup2(number, target)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", buffering=1) for n in (1, 2))
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        call()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        with suppress(BaseException):
            traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def end(pid: int, said: Path, patience: float = PATIENCE) -> Outcome:
    """Wait for a process; after its time it is asked to end, and killed if it does not."""
    began = time.monotonic()

    def ended(seconds: float) -> int | None:
        begun, worked = time.monotonic(), _worked(pid)
        while time.monotonic() < begun + 3 * seconds and _worked(pid) < worked + seconds:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return None

    code, asked, hung = ended(patience), False, False
    if code is None:
        asked = True
        os.kill(pid, signal.SIGTERM)
        code = ended(LAST)
    if code is None:
        hung = True
        os.killpg(pid, signal.SIGKILL)
        code = ended(60)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # what it began goes with it
    return Outcome(
        code if code is not None else -9, said.read_text(errors="replace"), time.monotonic() - began, asked, hung
    )


def _worked(pid: int) -> float:
    """Seconds of the processor that a process has had, with those that it waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def run(call: Callable[[], object], said: Path, folder: Path, most_bytes: int | None = None,
        patience: float = PATIENCE) -> Outcome:  # fmt: skip
    """Do a call in a process of its own; see :func:`start` and :func:`end`.

    Where files are limited, what it says goes through a pipe: a terminal is no file on the full disk.
    """
    if most_bytes is None:
        return end(start(call, said, folder), said, patience)
    read, write = os.pipe()
    fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, PIPE)  # room for all that a call says, since nobody reads meanwhile
    pid = start(call, write, folder, most_bytes)
    os.close(write)
    said.write_bytes(b"")
    outcome = end(pid, said, patience)
    with os.fdopen(read, "rb") as pipe:
        said.write_bytes(pipe.read())
    return replace(outcome, said=said.read_text(errors="replace"))
