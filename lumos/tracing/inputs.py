"""A model's inputs: tensors, also inside tuples, lists, dicts and objects, each named by its path."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lumos.tracing.containers import TensorPath, map_tensors

InputPath = TensorPath
"""Where a tensor stands among the positional inputs: ``(0,)`` is the first one, ``(0, "x")`` the first one's ``x``."""


def as_positional(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call of a model with those by position that may be so; the defaults fill the gaps.

    Args:
        model: The model that is called.
        args: Positional arguments.
        kwargs: Keyword arguments.

    Raises:
        TypeError: The model does not take these arguments.
    """
    if not kwargs:
        return args, {}
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.args, {name: value for name, value in bound.kwargs.items() if name in kwargs}


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
    return map_tensors(inputs, function)
