"""What is known about tensors, without writing anything on them."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class TensorTable(Generic[Value]):
    """A table with tensors as keys, by identity. An entry goes when its tensor does.

    An in-place call returns the tensor that it was given: its entry is replaced. A view is another tensor.

    Example:
        >>> import torch
        >>> table, x = TensorTable(), torch.zeros(2)
        >>> table.set(x, "first")
        >>> table.get(x.add_(1)), table.get(x.view(2))
        ('first', None)
    """

    def __init__(self) -> None:
        # Equal tensors are not the same key, so that a dict keyed by tensors will not do. The weak reference tells a
        # tensor from a later one with the same address.
        self._entries: dict[int, tuple[weakref.ref[Tensor], Value]] = {}

    def get(self, t: Tensor) -> Value | None:
        """Return the tensor's entry; None where it has none."""
        entry = self._entries.get(id(t))
        return entry[1] if entry is not None and entry[0]() is t else None

    def set(self, t: Tensor, value: Value) -> None:
        """Give the tensor an entry, or another one."""
        key, entries = id(t), self._entries
        entries[key] = weakref.ref(t, lambda _: entries.pop(key, None)), value

    def __contains__(self, t: Tensor) -> bool:
        return self.get(t) is not None

    def __len__(self) -> int:
        return len(self._entries)
