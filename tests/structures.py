"""Comparing structures, and what a model is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def assert_same_structure(a, b) -> None:
    """Every field but the example is equal."""
    assert (a.groups, a.fixed, a.shapes, a.contractions) == (b.groups, b.fixed, b.shapes, b.contractions)
    assert (a.dataflow, a.layers, a.written, a.feature_names) == (b.dataflow, b.layers, b.written, b.feature_names)
    for field in ("maps", "sites", "module_maps"):
        mine, other = getattr(a, field), getattr(b, field)
        assert mine.keys() == other.keys(), field
        assert all(torch.equal(units, other[axis]) for axis, units in mine.items()), field
    assert torch.equal(a.pairs, b.pairs)
    for mine, other in zip((*a.inputs, *a.sizes, *a.scales), (*b.inputs, *b.sizes, *b.scales), strict=True):
        assert torch.equal(mine.units, other.units)


class Snapshot:
    """All that a model and its inputs are made of: attributes of modules, classes and tensors, flags, hooks, values."""

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...] = ()) -> None:
        self.model, self.inputs = model, inputs
        self.found = dict(self._facts())
        self.keep = list(self._objects())  # what is alive has an address of its own

    def assert_unchanged(self) -> None:
        now = dict(self._facts())
        assert now.keys() == self.found.keys(), now.keys() ^ self.found.keys()
        for place, fact in now.items():
            before = self.found[place]
            same = torch.equal(fact, before) if isinstance(fact, Tensor) else fact == before
            assert same, (place, before, fact)

    def _objects(self) -> Iterator[Any]:
        yield from self.inputs
        for module in self.model.modules():
            yield from vars(module).values()
            for store in (module._parameters, module._buffers):
                yield from store.values()

    def _facts(self) -> Iterator[tuple[str, Any]]:
        for name in vars(nn.modules.module):
            if name.startswith("_global_") and name.endswith("hooks"):
                yield name, len(getattr(nn.modules.module, name))
        for path, module in self.model.named_modules(remove_duplicate=False):
            for kind in type(module).__mro__:
                yield f"{path}: class {kind.__qualname__}", {k: id(v) for k, v in vars(kind).items()}
            for key, value in vars(module).items():
                yield f"{path}.{key}", _identity(value)
            for store in (module._parameters, module._buffers):
                for key, t in store.items():
                    if t is not None:
                        yield from _of_tensor(f"{path}.{key}", t)
        for i, value in enumerate(self.inputs):
            if isinstance(value, Tensor):
                yield from _of_tensor(f"input {i}", value)


def _identity(value: Any) -> Any:
    """What a value is: containers by what they hold, all else by identity."""
    if isinstance(value, dict):
        return {k: id(v) for k, v in value.items()}
    return [id(v) for v in value] if isinstance(value, list) else id(value)


def _of_tensor(name: str, t: Tensor) -> Iterator[tuple[str, Any]]:
    yield f"{name}, attributes", {k: id(v) for k, v in vars(t).items()}
    yield f"{name}, place", (id(t), t.data_ptr(), t.shape, t.stride(), t.dtype, t.requires_grad, id(t.grad))
    yield f"{name}, hooks", len(t._backward_hooks or ())
    yield f"{name}, values", t.detach().clone()
