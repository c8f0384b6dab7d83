"""The command line's two ends: build and run what was asked for, and turn every expected error into one clear line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import hydra.utils
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lumos import record, report
from lumos.config import did_you_mean, one_line, one_of, read
from lumos.errors import ConfigError, DataError, LumosError

if TYPE_CHECKING:
    from lumos.workload import Workload

_EXPECTED = (LumosError, OSError, MemoryError)


def run(cfg: DictConfig) -> dict[str, Any]:
    """One run of one workload, from its composed configuration to its record; a finished run is shown at once."""
    config = read(cfg)
    for folder in [] if config.force else config.results.glob(f"runs/*/{config.run_id}"):
        done = record.finished(folder)
        if done is not None:
            report.print_run(done, folder, finished_before=True)
            return done
    # Only now torch, which takes seconds to load.
    from lumos import engine

    return engine.run(config, build_workload(cfg))


def build_workload(cfg: DictConfig) -> Workload:
    """The workload that the configuration names. Raises ConfigError, DataError."""
    from lumos.workload import Workload

    try:
        workload = hydra.utils.instantiate(cfg.workload, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, DataError | ConfigError):
            raise cause from None
        raise ConfigError(f"workload: {one_line(cause or error)}") from None
    if not isinstance(workload, Workload):
        raise ConfigError(f"workload: {type(workload).__name__} lacks a member of the contract (see docs/workloads.md)")
    return workload


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the process with one line on stderr and a non-zero code: 2 for a wrong configuration, 1 for a failed run.

    An error that nobody expected keeps its traceback, and LUMOS_TRACEBACK=1 shows it for all.
    """
    # Hydra would print its own pages of help and swallow the exception; we want the exception.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        yield
    except KeyboardInterrupt:
        _leave("interrupted; the next call with the same configuration starts this run again", 130)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        _leave(explain(error), 2)
    except _EXPECTED as error:
        _leave(one_line(error), 1)


def _leave(message: str, code: int) -> None:
    if os.environ.get("LUMOS_TRACEBACK"):
        raise
    print(f"lumos: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


def explain(error: BaseException) -> str:
    """One line for an error of the configuration: what was wrong, what is allowed."""
    text = str(error)
    group = re.search(r"Could not find '(?P<group>[\w/]+)/(?P<choice>[^'/]+)'", text)
    if group:
        options = re.findall(r"^\t(\S+)", text.split("Available options", 1)[-1], re.M)
        options = [o for o in options if "provider" not in o]
        name, choice = group["group"], group["choice"]
        return f"{name}={choice}: there is no such {name}; expected {one_of(options)}{did_you_mean(choice, options)}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key and cause.parent_node is not None:
        siblings = [str(k) for k in getattr(cause.parent_node, "keys", list)()]
        word = str(cause.full_key).rsplit(".", 1)[-1]
        if siblings and word not in siblings:
            hint = did_you_mean(word, siblings)
            return f"{cause.full_key}: there is no such key{hint}; expected {one_of(siblings)}"
    return one_line(error)
