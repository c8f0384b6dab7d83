"""The names of a model's input features, as a user gives them: one list, or one for each input."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from lumos.errors import StructureError
from lumos.tracing.inputs import InputPath

FeatureNames = Sequence[str] | Sequence[Sequence[str] | None] | Mapping[str, Sequence[str]]
"""Names of all features in order; or a list for each input that has features, by position or by the input's name."""


def name_features(
    given: FeatureNames | None, widths: Mapping[InputPath, int], model: nn.Module, *, strict: bool = True
) -> tuple[str, ...]:
    """Return one name for each feature of a model's inputs.

    A feature of an input that no names are given for is x0, x1… by its place among all features. A name that two inputs
    have is told apart by the input's, as in ``left.charge``.

    Args:
        given: What the user gave.
        widths: The number of features of each input that has some, in order.
        model: The model; the arguments of its forward name the inputs.
        strict: Whether names that do not fit are an error; else there are the default ones in place of them.

    Raises:
        StructureError: Names are too many or too few, or of an input that is not there.

    Example:
        >>> class Pair(nn.Module):
        ...     def forward(self, left, right):
        ...         return left + right
        >>> name_features({"left": ["charge", "mass"], "right": ["charge", "spin"]}, {(0,): 2, (1,): 2}, Pair())
        ('left.charge', 'mass', 'right.charge', 'spin')
    """
    size = sum(widths.values())
    default = tuple(f"x{i}" for i in range(size))
    try:
        return default if given is None or len(given) == 0 else _named(given, widths, model, default)
    except StructureError:
        if strict:
            raise
        return default


def _named(
    given: FeatureNames, widths: Mapping[InputPath, int], model: nn.Module, default: tuple[str, ...]
) -> tuple[str, ...]:
    if isinstance(given, Mapping):
        lists = _by_input(given, widths, model)
    elif any(name is None or (isinstance(name, Iterable) and not isinstance(name, str)) for name in given):
        if len(given) != len(widths):
            raise StructureError(
                f"features: {_count(given, 'list')} of names for {len(widths)} inputs with features; give a list, "
                f"or None, for each of {_shown(widths, model)}"
            )
        lists = dict(zip(widths, given, strict=True))
    else:
        if len(given) != len(default):
            several = f" ({_shown(widths, model)})" if len(widths) > 1 else ""
            raise StructureError(
                f"{len(given)} feature names for inputs with {len(default)} features{several}; give one name for each"
            )
        return tuple(given)  # pyright: ignore[reportReturnType]
    named: list[tuple[InputPath, str]] = []
    for path, width in widths.items():
        names = lists.get(path)
        if isinstance(names, str) or (names is not None and len(names) != width):
            found = "the text" if isinstance(names, str) else _count(names, "name")
            raise StructureError(
                f"features: {found} for input {label(path, model)}, which has {width} features; give a list of {width}"
            )
        first = len(named)
        named += [(path, name) for name in (default[first : first + width] if names is None else names)]
    inputs_with = Counter(name for name, _ in {(name, path) for path, name in named})
    return tuple(name if inputs_with[name] == 1 else f"{label(path, model)}.{name}" for path, name in named)


def _by_input(
    given: Mapping[str, Any], widths: Mapping[InputPath, int], model: nn.Module
) -> dict[InputPath, Sequence[str]]:
    """The lists by the path of their input, which may be named in full, or less the argument that holds it."""
    found: dict[InputPath, Sequence[str]] = {}
    for key, names in given.items():
        exact = [path for path in widths if label(path, model) == key]
        tails = [path for path in widths if ".".join(map(str, path[1:])) == key]
        below = [path for path in widths if label(path[:1], model) == key]
        fitting = exact or tails or below
        if len(fitting) != 1:
            several = "several inputs are" if fitting else "no input with features is"
            raise StructureError(f"features: {several} called {key!r}; there are {_shown(widths, model)}")
        found[fitting[0]] = names
    return found


def label(path: InputPath, model: nn.Module) -> str:
    """Return the name of an input: the argument of the model's forward, and the keys that lead to it inside."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    first = min(path[0], len(parameters) - 1)
    several = bool(parameters) and parameters[first].kind is inspect.Parameter.VAR_POSITIONAL
    name = [parameters[first].name] if parameters else []
    return ".".join(map(str, [*name, *([path[0] - first] if several or not name else []), *path[1:]]))


def _shown(widths: Mapping[InputPath, int], model: nn.Module) -> str:
    return ", ".join(f"{label(path, model)} ({width})" for path, width in widths.items()) or "none"


def _count(items: Any, word: str) -> str:
    return f"{len(items)} {word}{'s' * (len(items) != 1)}"
