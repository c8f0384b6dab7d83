"""A model's inputs: tensors, also inside tuples, lists, dicts and graph objects, each named by its path."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

InputPath = tuple[int | str, ...]
"""Where a tensor stands among the positional inputs: ``(0,)`` is the first one, ``(0, "x")`` the first one's ``x``."""


def input_tensors(inputs: tuple[Any, ...]) -> dict[InputPath, Tensor]:
    """Return every tensor of the inputs by its path, in order."""
    found: dict[InputPath, Tensor] = {}
    map_inputs(inputs, lambda path, t: found.setdefault(path, t))
    return found


def replace_inputs(inputs: tuple[Any, ...], new: Mapping[InputPath, Tensor]) -> tuple[Any, ...]:
    """Return the inputs with some tensors replaced; what was given stays as it is."""
    return map_inputs(inputs, lambda path, t: new.get(path, t)) if new else inputs


def map_inputs(inputs: tuple[Any, ...], function: Callable[[InputPath, Tensor], Tensor]) -> tuple[Any, ...]:
    """Apply a function to the path and the tensor of every input; containers and objects are copied, not changed."""
    return _walk(inputs, (), function)


def _walk(value: Any, path: InputPath, function: Callable[[InputPath, Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(path, value)
    if isinstance(value, dict):
        return {k: _walk(v, (*path, k), function) for k, v in value.items()}
    if isinstance(value, tuple | list):
        items = [_walk(v, (*path, i), function) for i, v in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if _is_record(value):
        found = {k: value[k] for k in list(value.keys())}
        new = {k: _walk(v, (*path, k), function) for k, v in found.items() if isinstance(v, Tensor)}
        changed = {k: t for k, t in new.items() if t is not found[k]}
        if changed:
            value = copy.copy(value)
            for key, t in changed.items():
                value[key] = t
    return value


def _is_record(value: Any) -> bool:
    """Return whether a value holds tensors by name and can be given others, as torch-geometric's Data can."""
    return all(hasattr(type(value), name) for name in ("keys", "__getitem__", "__setitem__"))
