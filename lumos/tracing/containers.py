"""Tensors inside whatever a model takes or returns: tuples, dicts, dataclasses, graphs, objects of any class.

Each tensor has a path: the keys, positions and attribute names that lead to it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from types import FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

TensorPath = tuple[Any, ...]
"""Where a tensor stands: ``(0,)`` is the first of several values, ``(0, "x")`` the first one's ``x``."""

Change = Callable[[TensorPath, Tensor], Tensor]


def tensors_in(value: Any) -> list[Tensor]:
    """Return every tensor inside a value, in order; one that stands at two places is there twice.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> [t.shape[0] for t in tensors_in({"a": torch.zeros(1), "b": SimpleNamespace(c=[torch.zeros(2)])})]
        [1, 2]
    """
    return [leaf for _, leaf in leaves_in(value) if isinstance(leaf, Tensor)]


def leaves_in(value: Any, path: TensorPath = (), inside: frozenset[int] = frozenset()) -> Iterator[tuple[Any, Any]]:
    """Go through the tensors and the plain numbers inside a value, each with its path."""
    if isinstance(value, Tensor | bool | int | float | complex):
        yield path, value
        return
    if id(value) in inside:  # an object that holds itself
        return
    for key, item in _items(value):
        yield from leaves_in(item, (*path, key), inside | {id(value)})


def map_tensors(value: Any, change: Change, path: TensorPath = ()) -> Any:
    """Return a value with each tensor changed; containers and objects are copied where something in them changes.

    Args:
        value: The value; it stays as it is.
        change: Takes a tensor's path and the tensor, and returns what is to stand there.
        path: Where the value itself stands.
    """
    return _map(value, change, path, frozenset())


def _map(value: Any, change: Change, path: TensorPath, inside: frozenset[int]) -> Any:
    if isinstance(value, Tensor):
        return change(path, value)
    if id(value) in inside:
        return value
    inside = inside | {id(value)}
    found = list(_items(value))
    new = [(key, item, _map(item, change, (*path, key), inside)) for key, item in found]
    if type(value) in (dict, list):  # the model may write into them
        return {key: other for key, _, other in new} if type(value) is dict else [other for _, _, other in new]
    if all(item is other for _, item, other in new):
        return value
    if isinstance(value, tuple):
        items = [other for _, _, other in new]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    copied = copy.copy(value)
    for key, item, other in new:
        if other is not item:
            _put(copied, key, other)
    return copied


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    """The parts of a container or an object that may hold tensors, each with its key."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple | list):
        yield from enumerate(value)
    elif _has_stores(value):
        # A graph of several kinds of nodes: a store for each, under the key of its kind.
        for store in value.stores:
            for key, item in store.items():
                yield (key if store._key is None else (store._key, key)), item
    elif _is_record(value):
        yield from ((key, value[key]) for key in list(value.keys()))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if hasattr(value, f.name))
    elif hasattr(value, "__dict__") and not isinstance(value, _NO_CONTAINERS):
        yield from vars(value).items()


def _put(value: Any, key: Any, item: Any) -> None:
    if _has_stores(value):
        kind, name = key if isinstance(key, tuple) else (None, key)
        store = next(s for s in value.stores if s._key == kind)
        store[name] = item
    elif isinstance(value, MutableMapping | list) or _is_record(value):
        value[key] = item
    else:
        object.__setattr__(value, key, item)  # a frozen dataclass has no other way


def _has_stores(value: Any) -> bool:
    """Return whether a value keeps its tensors as torch-geometric's graphs do."""
    return hasattr(type(value), "stores") and hasattr(type(value), "node_stores")


def _is_record(value: Any) -> bool:
    """Return whether a value holds tensors by name and can be given others."""
    return all(hasattr(type(value), name) for name in ("keys", "__getitem__", "__setitem__"))


_NO_CONTAINERS = (type, FunctionType, ModuleType, nn.Module)
