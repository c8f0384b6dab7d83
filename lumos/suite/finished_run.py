"""A finished run, found by the words it was made with or by its folder, and its networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from lumos.compaction.model import CompactModel, load
from lumos.errors import ConfigError, RecordError, one_line
from lumos.suite import archive, record
from lumos.suite.archive import Run
from lumos.suite.config import RunConfig, compose, read
from lumos.suite.identity import AS_BEFORE, short_target
from lumos.suite.paths import RESULTS
from lumos.suite.record_fields import Config, what_is_wrong
from lumos.suite.workload_class import build_workload


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, its configuration and the workload as the run had it."""

    run: Run
    config: RunConfig
    workload: Any
    command: str
    """What makes this run."""

    @property
    def entry(self) -> dict[str, Any]:
        """Its record."""
        return self.run.record

    @cached_property
    def compact(self) -> CompactModel:
        """The compact network, which takes the full inputs."""
        return load(self.run.folder / "compact.pt", self.workload.model())

    @property
    def dense(self) -> nn.Module | None:
        """The dense network of the same run; None where its weights are not kept (they are not committed)."""
        sha256 = self.workload.loaders().sha256
        folder = self.config.results / "baselines" / self.workload.name
        schedule = self.entry["dense"].get("schedule")
        file = folder / f"{self.config.baseline_of(schedule)}-{sha256[:12]}" / "dense.pt"
        if not file.exists():
            return None
        model = self.workload.model()
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        return model

    def check_data(self) -> None:
        """Generate or read the samples. Raises RecordError where they are not those that the run was trained on."""
        here, there = self.workload.loaders().sha256, self.entry["data"].get("sha256") or "nothing is said"
        if here != there:
            raise RecordError(
                f"{self.run.name}: trained on other samples ({there[:12]}, here {here[:12]}), so that its network does "
                f"not fit; make the run anew: {self.command}"
            )


def find_run(overrides: Sequence[str]) -> FinishedRun:
    """Find the finished run that ``lumos run`` makes of these words.

    Raises:
        ConfigError: The words are wrong, or none says which workload.
        RecordError: There is no such run; the line has the command to make it.
    """
    if not any(word.startswith("workload=") for word in overrides):
        raise ConfigError("expected the folder of a finished run, or workload=NAME and what else made it")
    cfg = compose(overrides)
    config, workload = read(cfg), build_workload(cfg)
    folder, command = config.folder(workload.name), " ".join(["lumos run", *overrides])
    entry = record.finished(folder)
    if entry is None:
        raise RecordError(f"{folder}: there is no finished run; make it first: {command}")
    return FinishedRun(Run(entry, folder), config, workload, command)


def read_run(name: str) -> FinishedRun:
    """Read the finished run of a folder or of the beginning of a run id. Raises RecordError where there is none."""
    return finished_run(archive.find(name, RESULTS))


def finished_run(run: Run) -> FinishedRun:
    """Compose a run's configuration and build its workload again. Raises RecordError where it is not finished."""
    entry = run.record
    if entry["status"] != "finished":
        raise RecordError(f"{run.name}: the run is {entry['status']}, not finished; run it again")
    cfg = recorded_config(entry)
    with open_dict(cfg):
        cfg.paths.results = str(run.results)
    words = entry["provenance"]["command"].removeprefix("lumos ").split()[1:]
    command = " ".join(["lumos run", *(word for word in words if not word.startswith("paths."))])
    return FinishedRun(run, read(cfg), build_workload(cfg), command)


def as_text(value: Any) -> Any:
    r"""Return plain values of a file in which ``${…}`` is text: it would read this machine's environment.

    Example:
        >>> as_text({"widths": [8, "${oc.env:HOME}"]})
        {'widths': [8, '\\${oc.env:HOME}']}
    """
    if isinstance(value, dict):
        return {as_text(key): as_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_text(inner) for inner in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


def recorded_config(entry: dict[str, Any], overrides: Sequence[str] = ()) -> DictConfig:
    """Compose a run's configuration again from its record.

    The class of the workload is the configuration's, whatever the record says: a record is data and names no code.

    Args:
        entry: The record.
        overrides: ``KEY=VALUE`` for what differs on this machine.

    Raises:
        ConfigError: The configuration here has no such workload, or another one of this name.
    """
    kept = entry.get("config") or {}
    if wrong := what_is_wrong(Config, kept):
        raise ConfigError(
            f"{entry['workload']}/{entry['run_id']}: not the configuration of a run of the suite ({wrong})"
        )
    words = [f"workload={entry['workload']}", f"data={kept['data']['source']}", f"scale={kept['scale']}"]
    cfg = compose([*words, f"seed={kept['seed']}", *overrides])
    here, there = short_target(str(cfg.workload._target_)), str(kept["workload"].get("_target_"))
    if here != there:
        raise ConfigError(f"workload={entry['workload']}: {here} here, but the run was made with {there}")
    given = {word.partition("=")[0].lstrip("+") for word in overrides}
    with open_dict(cfg):
        for group in ("workload", "lumos", "trainer", "data"):
            then = {**AS_BEFORE, **kept[group]} if group == "workload" else kept[group]
            known = [key for key in then if key in cfg[group] and f"{group}.{key}" not in given]
            values = {key: as_text(then[key]) for key in known if key not in ("_target_", "data")}
            try:
                cfg[group] = OmegaConf.merge(cfg[group], values)
            except OmegaConfBaseException as error:
                raise ConfigError(f"config.{group} of {entry['run_id']}: {one_line(error)}") from None
    return cfg
