"""Unit ids: for every value of a tensor, the number of the unit that it belongs to.

A tensor's unit ids are an int64 tensor of its shape. Where they repeat along a dimension, they are expanded with stride
zero; this keeps large activations cheap.
"""

from __future__ import annotations

import torch
from torch import Tensor

NO_UNIT = 0
"""Id of a value that belongs to no unit: it has this size in every compact model."""
ANY_UNIT = -1
"""Id of a value of a fresh constant (``zeros``, ``ones``…), which fits whatever unit it meets."""


def has_values(t: Tensor) -> bool:
    """Return whether a tensor holds numbers that units can stand for, and not indices or flags."""
    return t.is_floating_point() or t.is_complex()


def no_units(shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
    """Return the unit ids of values of this shape that belong to no unit."""
    return torch.zeros((), dtype=torch.int64).expand(shape)


def any_units(shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
    """Return the unit ids of a fresh constant of this shape."""
    return torch.full((), ANY_UNIT).expand(shape)


def collapse_repeats(*ids: Tensor, keep: int | None = None) -> list[Tensor]:
    """Reduce each dimension along which all the given ids repeat to one position.

    Only repetition that the strides show is seen, which is what expansion leaves. A dimension without any position (an
    expert that gets no rows) has one too: the ids that others would have.

    Args:
        ids: Unit ids of one common shape.
        keep: A dimension that is left as it is.

    Returns:
        Views of the ids; dimensions that repeat have size one.
    """
    strides = [x.stride() for x in ids]
    size = list(ids[0].shape)
    repeats = [d for d, n in enumerate(size) if n != 1 and d != keep and not any(stride[d] for stride in strides)]
    if not repeats:
        return list(ids)
    for d in repeats:
        size[d] = 1
    return [x.as_strided(size, stride) for x, stride in zip(ids, strides, strict=True)]


def expanded_repeats(ids: Tensor) -> Tensor:
    """Return the same ids with stride zero along each dimension along which they repeat.

    Example:
        >>> expanded_repeats(torch.tensor([[4, 5], [4, 5]])).stride()
        (0, 1)
    """
    shape = ids.shape
    ids = collapse_repeats(ids)[0]
    for d, size in enumerate(ids.shape):
        first = ids.narrow(d, 0, 1)
        # Where the last position differs already, which is quick to see, they do not repeat.
        if size > 1 and torch.equal(first, ids.narrow(d, size - 1, 1)) and bool((ids == first).all()):
            ids = first
    return ids.expand(shape)


def varies_along(ids: Tensor, dim: int) -> bool:
    """Return whether the unit ids change along a dimension."""
    if ids.shape[dim] <= 1 or ids.stride(dim) == 0:
        return False
    one = collapse_repeats(ids, keep=dim)[0]
    return bool((one != one.narrow(dim, 0, 1)).any())
