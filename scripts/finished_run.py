"""A finished run, found by the arguments it was made with or by its folder, and its networks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict
from torch import nn

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import lumos  # noqa: E402
from lumos.errors import ConfigError, RecordError
from lumos.suite import archive, record
from lumos.suite.archive import Run
from lumos.suite.cli import build_workload
from lumos.suite.config import RunConfig, read, register_resolvers
from lumos.suite.paths import CONF, RESULTS


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, its configuration and the workload as the run had it."""

    run: Run
    config: RunConfig
    workload: Any
    arguments: tuple[str, ...]

    @property
    def entry(self) -> dict[str, Any]:
        """Its record."""
        return self.run.record

    @property
    def command(self) -> str:
        """What makes this run."""
        return " ".join(["python", *self.arguments])

    @cached_property
    def compact(self) -> lumos.CompactModel:
        """The compact network, which takes the full inputs."""
        return lumos.load(self.run.folder / "compact.pt", self.workload.model())

    @property
    def dense(self) -> nn.Module | None:
        """The dense network of the same run; None where its weights are not kept (they are not committed)."""
        sha256 = self.workload.loaders().sha256
        folder = self.config.results / "baselines" / self.workload.name
        file = folder / f"{self.config.baseline_id}-{sha256[:12]}" / "dense.pt"
        if not file.exists():
            return None
        model = self.workload.model()
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        return model

    def check_data(self) -> None:
        """Raises RecordError where this machine's samples are not those that the run was trained on."""
        here, there = self.workload.loaders().sha256, self.entry["data"]["sha256"]
        if here != there:
            raise RecordError(
                f"{self.run.name}: trained on other samples ({there[:12]}, here {here[:12]}), so that its network does "
                f"not fit; make the run anew: {self.command}"
            )


def find(overrides: Sequence[str], name: str | None = None) -> FinishedRun:
    """The finished run that ``run.py`` makes of these arguments, or the one of this folder or run id.

    Raises RecordError, with the command to run first, where there is none.
    """
    if name is not None:
        return finished_run(archive.find(name, RESULTS))
    cfg = _composed(overrides)
    config = read(cfg)
    workload = build_workload(cfg)
    place, arguments = config.folder(workload.name), ("run.py", *overrides)
    entry = record.finished(place)
    if entry is None:
        raise RecordError(f"{place}: there is no finished run; make it first: {' '.join(['python', *arguments])}")
    return FinishedRun(Run(entry, place), config, workload, arguments)


def finished_run(run: Run) -> FinishedRun:
    """A run with its configuration and its workload. Raises RecordError where it is not finished."""
    entry = run.record
    if entry["status"] != "finished":
        raise RecordError(f"{run.name}: the run is {entry['status']}, not finished; run it again")
    kept = entry["config"]
    cfg = _composed([f"workload={entry['workload']}", f"scale={kept['scale']}", f"seed={kept['seed']}"])
    with open_dict(cfg):
        for group in ("workload", "lumos", "trainer", "data"):
            values = {k: v for k, v in kept[group].items() if k in cfg[group] and k not in ("_target_", "data")}
            cfg[group] = OmegaConf.merge(cfg[group], values)
        cfg.paths.results = str(run.results)
    arguments = [a for a in entry["provenance"]["command"].split() if not a.startswith("paths.")]
    return FinishedRun(run, read(cfg), build_workload(cfg), tuple(arguments))


def _composed(overrides: Sequence[str]) -> Any:
    if not any(argument.startswith("workload=") for argument in overrides):
        raise ConfigError("workload=NAME is missing, or record=FOLDER of a finished run")
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))
