"""``lumos run``: from Hydra's configuration to one run, or to the jobs of a sweep over many."""

from __future__ import annotations

import logging
import os
import platform
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import hydra
from filelock import BaseFileLock
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from lumos.errors import ConfigError, LumosError, one_line
from lumos.suite import record, report, sweep
from lumos.suite.config import RunConfig, check_groups, describe_error, quoted, read, register_resolvers
from lumos.suite.exit_codes import EXPECTED, exit_on_error, leave
from lumos.suite.paths import CONF
from lumos.suite.training.signals import StoppedError, ending_by_exception
from lumos.suite.workload_class import build_workload

register_resolvers()  # here, so that a batch job that unpickles the program has them too


def main(words: Sequence[str], program: str = "lumos run") -> None:
    """Compose the configuration of these words and do the run, or with ``-m`` the sweep, that it describes.

    Args:
        words: What Hydra takes: ``KEY=VALUE``, ``-m``, ``--cfg job`` …
        program: How the process was started, for messages and records.

    Raises:
        ConfigError: A word or a value is wrong.
        LumosError: The run failed.
        SystemExit: Jobs of the sweep failed; the code is 1.
    """
    sys.argv = [program, *words]  # Hydra reads it, and so do records
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra would print its own pages of help and end the process
    check_groups([word for word in words if not word.startswith("-")])
    Begun.by_hydra = False
    with ending_by_exception(), summarised():
        try:
            _start()
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(describe_error(error)) from error
        except LumosError:
            raise
        except Exception as error:
            if said := _said_by_scheduler(error):
                raise LumosError(said) from error
            if Begun.by_hydra:
                raise
            # Nothing but words and YAML files has been read so far, whatever Hydra raises for them.
            raise ConfigError(describe_error(error)) from error


def _said_by_scheduler(error: Exception) -> str | None:
    """One line for what submitit raises: the scheduler takes a sweep's jobs not, or lost one of them."""
    if not type(error).__module__.startswith("submitit"):
        return None
    if type(error).__name__ == "FailedJobError" and "sbatch" in str(error):
        return (
            f"the scheduler does not take the jobs: {one_line(error)}; expected keys of hydra.launcher that this "
            "cluster allows (partition, account, mem_gb, timeout_min, …); nothing was started"
        )
    where = f"lumos sweep status {SweepFolder.folder}" if SweepFolder.folder else "lumos sweep status FOLDER"
    return f"a job of the sweep ended without a result: {one_line(error)}; the others go on, and `{where}` says how far"


class Begun:
    """Whether Hydra has called a run or a job: from then on an error is no wrong word's."""

    by_hydra: ClassVar[bool] = False


def _run_or_job(cfg: DictConfig) -> float | None:
    """What Hydra calls: once for a run, and once for each job of a sweep, which returns its score."""
    Begun.by_hydra = True
    here = HydraConfig.get()
    if here.mode is RunMode.RUN:
        with exit_on_error():  # here, since Hydra would print a page about an exception that it sees
            run(cfg)
        return None
    return job(cfg, Path(here.sweep.dir) / here.sweep.subdir, here.job.num, list(here.overrides.task))


_start = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_run_or_job)


def run(cfg: DictConfig, *, brief: bool = False) -> dict[str, Any]:
    """Do one run of one workload; a finished run is shown at once.

    Args:
        cfg: The composed configuration.
        brief: Show a finished run in one line.

    Returns:
        The run's record; an empty one in all but the first of several processes that train together.
    """
    config = read(cfg)
    if config.trainer.processes == 1:
        return _finished(cfg, config, brief) or _run(cfg, config)
    from lumos.suite.training import distributed  # only now torch, which takes seconds to load

    if not distributed.launched() and config.trainer.nodes == 1:
        distributed.start(config.trainer.devices, sys.argv[1:])
    with distributed.group(config.trainer):
        done = distributed.from_main(lambda: _finished(cfg, config, brief))
        return done or _run(cfg, config)


def _finished(cfg: DictConfig, config: RunConfig, brief: bool) -> dict[str, Any] | None:
    """The record of this very run, shown, where it is finished and its data are what they were."""
    for folder in [] if config.force else config.results.glob(f"runs/*/{config.run_id}"):
        done = record.finished(folder)
        if done is None or not _same_data(cfg, done):
            continue
        if brief:
            print(f"finished before: {folder}")  # noqa: T201
        else:
            report.print_run(done, folder, finished_before=True)
        record.remove_checkpoints(folder)
        return done
    return None


def _same_data(cfg: DictConfig, done: dict[str, Any]) -> bool:
    """Whether a finished run's samples are generated ones, or those that the user's files have now."""
    data = done.get("data") or {}
    if data.get("source", "generated") == "generated" and "files" not in data:
        return True
    from lumos.suite import data_files  # only now torch, which takes seconds to load

    return data_files.unchanged(done, build_workload(cfg))


def _run(cfg: DictConfig, config: RunConfig) -> dict[str, Any]:
    from lumos.suite import runner  # only now torch, which takes seconds to load

    return runner.run(config, build_workload(cfg))


# ---- sweeps ---------------------------------------------------------------------------------------------------------


class SweepFolder(Callback):
    """Hydra's callback that gives a sweep a folder of its own, and notes it for the summary at the end."""

    folder: ClassVar[Path | None] = None
    lock: ClassVar[BaseFileLock | None] = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called once, in the process that starts the jobs."""
        SweepFolder.folder, SweepFolder.lock = sweep.claim(Path(config.hydra.sweep.dir))
        with open_dict(config):
            config.hydra.sweep.dir = str(SweepFolder.folder)
            # Each job is composed anew from the words alone, and would go to the folder that was wished for.
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(str(SweepFolder.folder))}")
        if "submitit_launcher.SlurmLauncher" in str(config.hydra.launcher.get("_target_")):
            from lumos.suite.slurm_states import ask_the_controller  # submitit is not needed elsewhere

            ask_the_controller()
        # Where the batch system does not answer, submitit says so at every look.
        logging.getLogger("submitit").addFilter(lambda said: "Bypassing sacct error" not in said.getMessage())


@contextmanager
def summarised() -> Iterator[None]:
    """At the end of a sweep, however it ends, print its summary; end with code 1 where a job failed."""
    try:
        yield
    finally:
        stopped = isinstance(sys.exc_info()[1], StoppedError | KeyboardInterrupt)
        failed = sweep.finish(SweepFolder.folder, stopped=stopped) if SweepFolder.folder else 0
        if SweepFolder.lock:
            SweepFolder.lock.release()
        SweepFolder.folder = SweepFolder.lock = None
        if failed and sys.exc_info()[0] is None:
            sys.exit(1)


def job(cfg: DictConfig, folder: Path, number: int, overrides: list[str]) -> float | None:
    """Do one job of a sweep. A failed one says so in its folder and the sweep goes on; a request to stop ends it.

    Args:
        cfg: The composed configuration.
        folder: The job's folder.
        number: Its number in the sweep.
        overrides: What the sweep set, for the summary.

    Returns:
        The validation score, for sweepers that look for the best; None where it failed.
    """
    rank, log = _place()
    facts = {"job": number, "overrides": overrides, "node": os.environ.get("SLURMD_NODENAME") or platform.node(),
             "log": log, "error": None, "record": None, **sweep.place()}  # fmt: skip
    if cfg.get("stop_at_failure") is True and (other := sweep.failed_before(folder.parent)) is not None:
        if rank == 0:
            sweep.note(folder, **facts | {"status": "skipped", "error": f"job {other['job']} failed"})
        return None
    if rank == 0:
        sweep.note(folder, **facts, status="running")
    outcome: dict[str, Any] = {"status": "failed"}
    score: float | None = None  # a NaN would end Optuna's sweeper
    try:
        entry = run(cfg, brief=True)
        if entry:
            config = read(cfg)
            if entry["status"] == "finished":
                score = float(entry["compact"]["valid_score"])
            outcome = {
                "status": entry["status"],
                "error": (entry["error"] or {}).get("line"),
                "record": config.folder(entry["workload"]).resolve(),
            }
    except StoppedError as error:
        outcome = {"status": "stopped", "error": one_line(error)}
        if "SUBMITIT_EXECUTOR" in os.environ:
            raise LumosError(outcome["error"]) from error  # of an Exception submitit tells its driver
        # Hydra takes an exception for a job that failed, and would begin the next one.
        leave(outcome["error"], error.code)
    except KeyboardInterrupt:
        outcome = {"status": "stopped", "error": "interrupted"}
        raise
    except EXPECTED as error:
        outcome["error"] = one_line(error)
        print(f"lumos: {outcome['error']}", file=sys.stderr)  # noqa: T201
    except Exception as error:
        outcome["error"] = f"{type(error).__name__}: {one_line(error)}"
        traceback.print_exc()  # to the job's log
    finally:
        if rank == 0:
            sweep.note(folder, **_log_of(cfg, log), **outcome)
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
