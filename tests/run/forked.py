"""Runs in processes of their own. They are forked from one that has imported everything and has never trained, since a
process whose autograd has started threads cannot be forked to train."""

import multiprocessing
import os
import resource
import traceback
from multiprocessing.process import BaseProcess
from pathlib import Path

from lumos import measure
from lumos.errors import LumosError
from lumos.suite import measurements, runner
from lumos.suite.config import compose, read
from lumos.suite.training import loop  # noqa: F401 -- what a run imports late is there before the fork
from lumos.suite.training.signals import StoppedError
from lumos.suite.workload_class import build_workload

KEYS = ("workload=synthetic", "scale=tiny", "lumos.lambda=0.01", "trainer.device=cpu", "trainer.checkpoint_steps=7")

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


def described(home: Path, *changes: str):
    """The configuration and the workload of a run whose results are below a folder."""
    paths = (f"paths.results={home / 'results'}", f"paths.cache={home / 'data'}")
    cfg = compose([*KEYS, "workload.epochs=12", *paths, *changes])
    return read(cfg), build_workload(cfg)


def wait_until_ready() -> None:
    """Start the process that runs are forked from, where it does not stand yet; its imports take seconds."""
    first = _processes.Process()
    first.start()
    first.join()


def child(home: Path, *changes: str, most_bytes: int | None = None) -> BaseProcess:
    """Start the run in a process of its own; what it says is in home/said. No file outgrows ``most_bytes``."""
    process = _processes.Process(target=_run, args=(home, changes, most_bytes))
    process.start()
    return process


def ended(process: BaseProcess) -> int:
    """The child's exit code; minus the signal that killed it."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run(home: Path, changes: tuple[str, ...], most_bytes: int | None) -> None:
    """Do the run; measurements take their time and are tested elsewhere."""
    measure.inference_cost = not_measured
    measurements.step_cost = lambda *_, **__: None
    runner.report.print_run = lambda *_: None
    code = 1
    try:
        with (home / "said").open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            try:
                found = described(home, *changes)
                if most_bytes is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
                runner.run(*found)
                code = 0
            except (LumosError, StoppedError) as error:
                said.write(f"lumos: {error}\n")
                code = getattr(error, "code", 1)
            except BaseException:
                traceback.print_exc(file=said)
    finally:
        os._exit(code)


def not_measured(models, *_, **__):
    """What a record says of the networks, had each call taken a millisecond."""
    return {
        name: {"params": sum(p.numel() for p in model.parameters()), "macs": 1, "bytes": 1, "throughput": 1e3,
               "latency_ms": {"p50": 1.0, "batch": 1}, "peak_mb": 1.0, "threads": 1, "energy_j": None,
               "energy_meter": None}
        for name, model in models.items()
    }  # fmt: skip
