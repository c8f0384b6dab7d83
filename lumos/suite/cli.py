"""The command line's two ends: build and run what was asked for, and turn every expected error into one clear line."""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import hydra.utils
from hydra.errors import HydraException, InstantiationException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lumos.errors import ConfigError, DataError, LumosError, OtherProcessError, one_line
from lumos.suite import record, report, sweep
from lumos.suite.config import RunConfig, did_you_mean, one_of, read, register_resolvers
from lumos.suite.training.signals import StoppedError

if TYPE_CHECKING:
    from lumos.suite.workload import Workload

_EXPECTED = (LumosError, OSError, MemoryError)


register_resolvers()  # here, so that a batch job that unpickles the program has them too


def run(cfg: DictConfig, *, brief: bool = False) -> dict[str, Any]:
    """One run of one workload, from its composed configuration to its record; a finished run is shown at once.

    ``brief`` shows a finished run in one line. With several processes, those after the first return an empty record.
    """
    config = read(cfg)
    if config.trainer.processes == 1:
        return _known(config, brief) or _run(cfg, config)
    from lumos.suite.training import distributed

    if not distributed.launched() and config.trainer.nodes == 1:
        distributed.start(config.trainer.devices)
    with distributed.group(config.trainer):
        done = distributed.from_main(lambda: _known(config, brief))
        return done or _run(cfg, config)


def _known(config: RunConfig, brief: bool) -> dict[str, Any] | None:
    """The record of this very run, shown, where it is finished."""
    for folder in [] if config.force else config.results.glob(f"runs/*/{config.run_id}"):
        done = record.finished(folder)
        if done is not None and brief:
            print(f"finished before: {folder}")  # noqa: T201
        elif done is not None:
            report.print_run(done, folder, finished_before=True)
        if done is not None:
            record.tidy(folder)
            return done
    return None


def _run(cfg: DictConfig, config: RunConfig) -> dict[str, Any]:
    # Only now torch, which takes seconds to load.
    from lumos.suite import runner

    return runner.run(config, build_workload(cfg))


# ---- sweeps ---------------------------------------------------------------------------------------------------------


class SweepFolder(Callback):
    """Hydra's callback that notes where a sweep keeps its jobs, for the summary at its end."""

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called once, in the process that starts the jobs."""
        SweepFolder.folder = Path(config.hydra.sweep.dir)
        # Without Slurm's accounting submitit asks the controller, and says so at every look.
        logging.getLogger("submitit").addFilter(lambda said: "Bypassing sacct error" not in said.getMessage())


@contextmanager
def summarised() -> Iterator[None]:
    """At the end of a sweep, however it ends, print its summary; end with code 1 where a job failed."""
    try:
        yield
    finally:
        failed = sweep.finish(SweepFolder.folder) if SweepFolder.folder and SweepFolder.folder.is_dir() else 0
        if failed and sys.exc_info()[0] is None:
            sys.exit(1)


def job(cfg: DictConfig, folder: Path, number: int, overrides: list[str]) -> float | None:
    """One job of a sweep: its validation score, for sweepers that look for the best; None where it failed.

    A failed job says so in its folder and the sweep goes on. A request to stop ends the sweep.
    """
    rank, log = _place()
    facts = {"job": number, "overrides": overrides, "node": os.environ.get("SLURMD_NODENAME") or platform.node(),
             "log": log, "error": None, "record": None}  # fmt: skip
    if rank == 0:
        sweep.note(folder, **facts, status="running")
    told: dict[str, Any] = {"status": "failed"}
    score: float | None = None  # a NaN would end Optuna's sweeper
    try:
        entry = run(cfg, brief=True)
        if entry:
            config = read(cfg)
            if entry["status"] == "finished":
                score = float(entry["compact"]["valid_score"])
            told = {
                "status": entry["status"],
                "error": (entry["error"] or {}).get("line"),
                "record": config.folder(entry["workload"]).resolve(),
            }
    except (HydraException, OmegaConfBaseException) as error:
        told["error"] = explain(error)
    except StoppedError as error:
        told = {"status": "stopped", "error": one_line(error)}
        if "SUBMITIT_EXECUTOR" in os.environ:
            raise
        # Hydra takes an exception for a job that failed, and would begin the next one.
        _leave(told["error"], error.code)
    except _EXPECTED as error:
        told["error"] = one_line(error)
        print(f"lumos: {told['error']}", file=sys.stderr)  # noqa: T201
    except Exception as error:
        told["error"] = f"{type(error).__name__}: {one_line(error)}"
        traceback.print_exc()  # to the job's log
    finally:
        if rank == 0:
            sweep.note(folder, **_log_of(cfg, log), **told)
    return score


def _place() -> tuple[int, str | None]:
    """This process's rank in its job, and the file that the batch system writes what it says to."""
    if "SUBMITIT_EXECUTOR" in os.environ:
        import submitit

        here = submitit.JobEnvironment()
        return here.global_rank, str(here.paths.stderr)
    return int(os.environ.get("RANK", "0")), None


def _log_of(cfg: DictConfig, log: str | None) -> dict[str, str]:
    """Where to read what a job said: the batch system's file, or the run's own log."""
    if log is None:
        try:
            config = read(cfg)
        except ConfigError:
            return {}
        log = next((str(path) for path in config.results.glob(f"runs/*/{config.run_id}/train.log")), None)
    return {"log": log} if log else {}


def build_workload(cfg: DictConfig) -> Workload:
    """The workload that the configuration names. Raises ConfigError, DataError."""
    from lumos.suite.workload import Workload

    try:
        workload = hydra.utils.instantiate(cfg.workload, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, DataError | ConfigError):
            raise cause from None
        raise ConfigError(f"workload: {one_line(cause or error)}") from None
    if not isinstance(workload, Workload):
        raise ConfigError(f"workload: {type(workload).__name__} lacks a member of the contract (see docs/how-to/workloads.md)")
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
        _leave("interrupted; the same call goes on from the last checkpoint", 130)
    except OtherProcessError:
        sys.exit(1)  # the first process has said it
    except StoppedError as error:
        _leave(one_line(error), error.code)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        _leave(explain(error), 2)
    except _EXPECTED as error:
        _leave(one_line(error), 1)


def _leave(message: str, code: int) -> None:
    if os.environ.get("LUMOS_TRACEBACK"):
        raise
    if os.environ.get("RANK", "0") == "0" or code == 1:
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
