"""Turns every expected error into one clear line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lumos.errors import ConfigError, LostProcessError, LumosError, OtherProcessError, one_line
from lumos.suite.child import LAUNCHED_HERE
from lumos.suite.training.signals import StoppedError

EXPECTED = (LumosError, OSError, MemoryError)
"""Errors of which the line says enough; others keep their traceback."""


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the process with one line on stderr: code 2 for a wrong configuration, 1 for a failed run.

    An error that nobody expected keeps its traceback, and LUMOS_TRACEBACK=1 shows it for all.
    """
    try:
        yield
    except KeyboardInterrupt:
        leave("interrupted; the same call goes on from the last checkpoint", 130)
    except LostProcessError as error:
        if LAUNCHED_HERE in os.environ or (os.environ.get("RANK", "0") != "0" and _launcher_speaks()):
            sys.exit(1)  # the launcher says it, and the first process where that is left
        leave(one_line(error), 1)
    except OtherProcessError:
        sys.exit(1)  # the first process has said it
    except StoppedError as error:
        if LAUNCHED_HERE in os.environ:
            sys.exit(error.code)  # the launcher, which may have stopped it because of another process, says why
        leave(one_line(error), error.code)
    except ConfigError as error:
        leave(one_line(error), 2)
    except EXPECTED as error:
        leave(one_line(error), 1)


def _launcher_speaks() -> bool:
    """Whether what started this process and others (torchrun, srun, mpirun) says itself which of them is gone."""
    return any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"))


def leave(message: str, code: int) -> None:
    """End the process with a line, which one of several processes says for all unless the run failed."""
    if os.environ.get("LUMOS_TRACEBACK"):
        raise
    if os.environ.get("RANK", "0") == "0" or code == 1:
        print(f"lumos: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
