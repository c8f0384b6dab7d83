"""Protects a model's tensors from the model's own code: what it writes into them is taken back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lumos.tracing.calls import tensor_leaves
from lumos.tracing.derivatives import untransformed


@contextmanager
def own_grads(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Give tensors their gradients back at the end of a ``with`` block: a model's own code may differentiate."""
    kept = [(t, t.grad) for t in tensors if t.is_leaf and t.requires_grad]
    try:
        for t, grad in kept:
            if grad is not None:
                t.grad = None
        yield
    finally:
        for t, grad in kept:
            if t.grad is not grad:
                t.grad = grad


class _Original(NamedTuple):
    tensor: Tensor
    data: Tensor
    values: Tensor
    requires_grad: bool
    grad: Tensor | None


class TensorProtection(TorchFunctionMode):
    """Remembers what a model's tensors hold before a call writes into them, and puts it back.

    A forward may write into parameters and buffers (counters, running statistics, codebooks, tables with ``max_norm``,
    weights that ``eval`` merges). Nearly no model does while it is traced, so that copying all tensors would cost too
    much: a tensor is copied right before the first call that writes into it or into a view of it.

    While it is active as a context it watches every call; a mode that sees the calls anyway calls :meth:`before`.

    Args:
        tensors: The model's parameters and buffers.

    Example:
        >>> layer = torch.nn.BatchNorm1d(3)
        >>> protection = TensorProtection(layer.buffers())
        >>> with protection:
        ...     out = layer(torch.randn(4, 3))
        >>> protection.restore()
        >>> int(layer.num_batches_tracked)
        0
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self._tensors = list(tensors)
        self._by_storage: dict[int, list[Tensor]] | None = None
        self._originals: dict[int, _Original] = {}

    def before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember what the call is about to overwrite."""
        for t in _written(func, args, kwargs):
            for own in self._sharing(t):
                if id(own) not in self._originals:
                    data = own.detach()
                    grad = own.grad if own.is_leaf else None
                    self._originals[id(own)] = _Original(own, data, data.clone(), own.requires_grad, grad)

    def restore(self) -> None:
        """Give every tensor back what it held, where it held it."""
        with torch.no_grad(), torch._C.DisableTorchFunction():
            for original in self._originals.values():
                t = original.tensor
                original.data.copy_(original.values)
                if t.data_ptr() != original.data.data_ptr() or t.shape != original.data.shape:
                    t.data = original.data
                if t.is_leaf:
                    t.requires_grad_(original.requires_grad).grad = original.grad

    def __contains__(self, t: Tensor) -> bool:
        """Return whether a call wrote into one of the tensors."""
        return id(t) in self._originals

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.before(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _sharing(self, t: Tensor) -> list[Tensor]:
        """The model's tensors that have the storage of this one."""
        if self._by_storage is None:
            self._by_storage = {}
            for own in self._tensors:
                self._by_storage.setdefault(_storage(own), []).append(own)
        return self._by_storage.get(_storage(t), [])


def _storage(t: Tensor) -> int:
    return untransformed(t).untyped_storage()._cdata


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The operands that a call writes into."""
    name = getattr(func, "__name__", "")
    if name.endswith("_"):
        return tensor_leaves(args[:1], []) if name in _OPERATORS or not name.endswith("__") else []
    if kwargs.get("inplace"):
        return tensor_leaves(args[:1], [])
    if "out" in kwargs:
        return tensor_leaves(kwargs["out"], [])
    if name in _STATEFUL:
        (position, key, default), places = _STATEFUL[name]
        if args[position] if len(args) > position else kwargs.get(key, default):
            found = [args[at] if len(args) > at else kwargs.get(key) for at, key in places]
            return tensor_leaves(found, [])
    return []


_IN_PLACE = "add and div floordiv lshift matmul mod mul or pow rshift sub truediv xor"
_OPERATORS = {"__setitem__", "__set__", *(f"__i{name}__" for name in _IN_PLACE.split())}
"""Operators that write into their first operand; ``x.data = y`` and the like are ``__set__``."""

_Argument = tuple[int, str]
_STATEFUL: dict[str, tuple[tuple[int, str, Any], tuple[_Argument, ...]]] = {
    "batch_norm": ((5, "training", False), ((1, "running_mean"), (2, "running_var"))),
    "instance_norm": ((5, "use_input_stats", True), ((1, "running_mean"), (2, "running_var"))),
    "embedding": ((3, "max_norm", None), ((1, "weight"),)),
    "embedding_bag": ((3, "max_norm", None), ((1, "weight"),)),
}
"""Functions that write into some of their operands where another argument says so: that argument, and the operands."""
