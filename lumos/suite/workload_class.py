"""From a configuration to a workload: its class is imported and given the settings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from lumos.errors import ConfigError, DataError, one_line
from lumos.suite.identity import full_target

if TYPE_CHECKING:
    from lumos.suite.workload import Workload


def build_workload(cfg: DictConfig) -> Workload:
    """Build the workload that a composed configuration names.

    The class comes from a file of the configuration (``conf/workload``, or a folder on ``hydra.searchpath``) and never
    from a record.

    Args:
        cfg: A composed configuration; its key ``workload`` has ``_target_``, a class by its path, and settings.

    Returns:
        The workload; no sample is read or generated yet.

    Raises:
        ConfigError: There is no such class, it refuses the settings, or it lacks a member of the contract.
        DataError: A setting or a file of the workload is wrong.
    """
    from lumos.suite.workload import Workload  # only now torch, which takes seconds to load

    settings: dict[str, Any] = OmegaConf.to_container(cfg.workload, resolve=True)  # type: ignore[assignment]
    kind = _import(str(settings.pop("_target_", None)))
    try:
        workload = kind(**settings)
    except (ConfigError, DataError):
        raise
    except Exception as error:  # whatever a class of one's own raises
        raise ConfigError(f"workload: {one_line(error)}") from error
    if not isinstance(workload, Workload):
        raise ConfigError(f"workload: {kind.__name__} lacks a member of lumos.suite.workload.Workload")
    return workload


def _import(target: str) -> type:
    module, _, name = full_target(target).rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"workload._target_={target}: cannot be imported ({one_line(error)})") from error
    if not isinstance(kind, type):
        raise ConfigError(f"workload._target_={target}: expected a class that fulfils the workload's contract")
    return kind
