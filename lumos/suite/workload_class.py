"""From a configuration to a workload: its class is imported and given the settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from lumos.errors import ConfigError, DataError, one_line
from lumos.suite.identity import full_target
from lumos.suite.wording import one_of

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

    settings: Any = OmegaConf.to_container(cfg.workload, resolve=True)
    if not isinstance(settings, dict):
        raise ConfigError(f"workload={settings}: expected the name of a workload")
    kind = _import(str(settings.pop("_target_", None)))
    check_settings(kind, settings)
    try:
        workload = kind(**settings)
    except (ConfigError, DataError):
        raise
    except Exception as error:  # whatever a class of one's own raises
        raise ConfigError(f"workload: {one_line(error)}") from error
    if not isinstance(workload, Workload):
        raise ConfigError(f"workload: {kind.__name__} lacks a member of lumos.suite.workload.Workload")
    return workload


def check_settings(kind: type, settings: Mapping[str, Any]) -> None:
    """Check plain values against the types that a workload's class declares for its fields.

    A field whose type pydantic does not know is left to the class.

    Args:
        kind: The class.
        settings: Its keys, as in the YAML file.

    Raises:
        ConfigError: A value is of another type; the line says which key, and what is expected.

    Example:
        >>> from lumos.suite.workload import Recipe
        >>> check_settings(Recipe, {"epochs": 2, "learning_rate": 1})
        >>> check_settings(Recipe, {"epochs": 1.5, "learning_rate": 1})
        Traceback (most recent call last):
        ...
        lumos.errors.ConfigError: workload.epochs=1.5: expected a whole number
    """
    try:
        hints = get_type_hints(kind)
    except (NameError, TypeError):  # names that only a type checker sees
        return
    for key, value in settings.items():
        if key == "data" or key not in hints:
            continue
        try:
            # As JSON a list can become a tuple, and a word a path, while no word becomes a number.
            TypeAdapter(hints[key], config=STRICT).validate_json(json.dumps(value))
        except ValidationError:
            raise ConfigError(f"workload.{key}={_shown(value)}: expected {phrase(hints[key])}") from None
        except (PydanticUserError, TypeError):
            continue
        if any(isinstance(number, int) and not -BEYOND < number < BEYOND for number in _leaves(value)):
            raise ConfigError(f"workload.{key}={_shown(value)}: expected a whole number below 2^63")


STRICT = ConfigDict(strict=True, allow_inf_nan=False)
BEYOND = 2**63
"""No whole number of torch or numpy is as large."""

PHRASES = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", Path: "a path",
           type(None): "null"}  # fmt: skip
SEVERAL = {int: "whole numbers", float: "numbers", str: "words"}


def phrase(hint: Any) -> str:
    """Say in words what values a type stands for.

    Example:
        >>> phrase(int | None), phrase(Sequence[float])
        ('a whole number or null', 'a list of numbers')
    """
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        words = dict.fromkeys(phrase(part) for part in inside)
        return " or ".join(words)
    if origin is Literal:
        return one_of([str(choice) for choice in inside])
    if isinstance(origin, type) and issubclass(origin, Sequence):
        kinds = [kind for part in inside for kind in (get_args(part) or (part,)) if kind is not Ellipsis]
        return f"a list of {SEVERAL.get(float if float in kinds else kinds[0], 'values')}" if kinds else "a list"
    return PHRASES.get(hint, getattr(hint, "__name__", str(hint)))


def _shown(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | dict | bool | None) else str(value)


def _leaves(value: Any) -> Iterator[Any]:
    """All values that are in lists and mappings of lists and mappings."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _leaves(inner)
    if not isinstance(value, dict | list):
        yield value


def _import(target: str) -> type:
    module, _, name = full_target(target).rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except Exception as error:  # a module of one's own can fail in any way
        raise ConfigError(f"workload._target_={target}: cannot be imported ({one_line(error)})") from error
    if not isinstance(kind, type):
        raise ConfigError(f"workload._target_={target}: expected a class that fulfils the workload's contract")
    return kind
