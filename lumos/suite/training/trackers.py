"""Curves and results of a run in TensorBoard, MLflow or Weights & Biases, where ``trainer.log`` names one."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lumos.errors import ConfigError
from lumos.suite.config import RunConfig
from lumos.suite.training import distributed


class Tracker:
    """Where numbers go while a training runs; this one lets them go."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers of a step."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard(Tracker):
    """Event files in the run's folder, one folder for each training, so that they lie over one another."""

    def __init__(self, folder: Path, workload: str, name: str, part: str, config: dict[str, Any]) -> None:
        _needed("tensorboard")
        self.writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(folder / "tensorboard" / part)
        self.writer.add_text("config", "\n".join(f"    {key}={value}" for key, value in config.items()))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve."""
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


class MLflow(Tracker):
    """A run of the experiment that has the workload's name; where to, ``MLFLOW_TRACKING_URI`` says."""

    def __init__(self, folder: Path, workload: str, name: str, part: str, config: dict[str, Any]) -> None:
        mlflow = _needed("mlflow")
        try:
            self.client = mlflow.MlflowClient()
            found = self.client.get_experiment_by_name(workload)
        except (
            ImportError,
            mlflow.MlflowException,
        ) as error:  # a place that this version or installation cannot write to
            said = " ".join(str(error).split()).split(". ")[0]
            raise ConfigError(f"trainer.log=mlflow: {said}; MLFLOW_TRACKING_URI says where to") from None
        experiment = found.experiment_id if found else self.client.create_experiment(workload)
        tags = {"lumos.run": name, "lumos.part": part}
        self.run = self.client.create_run(experiment, run_name=f"{name}-{part}", tags=tags).info.run_id
        for key, value in config.items():
            self.client.log_param(self.run, key, value)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics of a step."""
        for key, value in values.items():
            self.client.log_metric(self.run, key, value, step=step)

    def close(self) -> None:
        """End the run."""
        self.client.set_terminated(self.run)


class WandB(Tracker):
    """A run of the project ``lumos`` in the workload's group; offline unless ``WANDB_MODE`` says otherwise."""

    def __init__(self, folder: Path, workload: str, name: str, part: str, config: dict[str, Any]) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")  # online it would ask for a key
        self.run = _needed("wandb").init(
            project="lumos", group=workload, job_type=part, name=f"{name}-{part}", config=config, dir=str(folder),
            mode=mode, reinit="create_new",
        )  # fmt: skip

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers of a step."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self.run.finish()


KINDS: dict[str, type[TensorBoard] | type[MLflow] | type[WandB]] = {
    "tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB,
}  # fmt: skip


@contextmanager
def tracking(config: RunConfig, workload: str, part: str) -> Iterator[Tracker]:
    """Open what ``trainer.log`` names, in the first of several processes, for the length of a ``with`` block.

    Args:
        config: The run's settings.
        workload: The workload's name.
        part: Which of the run's trainings it is, or ``results``.

    Raises:
        ConfigError: Its package is not installed.
    """
    kind = config.trainer.log
    if kind is None or not distributed.world().main:
        yield Tracker()
        return
    tracker = KINDS[kind](config.folder(workload), workload, config.run_id, part, flattened(config.recorded, "."))
    try:
        yield tracker
    finally:
        tracker.close()


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers in nested values, by their paths with slashes.

    Example:
        >>> numbers({"dense": {"score": 0.5, "peak": None}, "name": "cfd"})
        {'dense/score': 0.5}
    """
    found = flattened(values, "/")
    return {k: float(v) for k, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def flattened(values: Mapping[str, Any], by: str) -> dict[str, Any]:
    """Return what nested values hold, less what is None, by their paths.

    Example:
        >>> flattened({"lumos": {"lambda": 0.1, "tolerance": None}}, ".")
        {'lumos.lambda': 0.1}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{key}{by}{inner}": v for inner, v in flattened(value, by).items()}
        elif value is not None:
            found[str(key)] = value
    return found


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"trainer.log={module}: {module} is not installed; pip install {module}") from None
