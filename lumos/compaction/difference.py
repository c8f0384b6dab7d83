"""How far two outputs are apart, column by column."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lumos.tracing.containers import leaves_in

FLOOR = {torch.float64: 1e-4, torch.complex128: 1e-4}
"""Columns smaller than this share of their tensor's largest value are judged by that share: what they hold is lost in
the rounding of the rest. In lower precision all columns are judged by the largest value."""
UNSEEN = 1e-4
"""In lower precision a column smaller than this share of the largest value shows nothing, be it right or wrong."""
MANY_COLUMNS = 64
"""Columns from which on those of a single value each are judged together."""


class Gap(NamedTuple):
    """A difference, and whether a wrong column could hide in the rounding of the others."""

    absolute: float
    relative: float
    hides: bool


def difference(a: Any, b: Any) -> tuple[float, float]:
    """Compute the largest difference between two outputs: tensors, or containers and objects that hold some.

    In double precision each column is judged by its own values. Columns lie along dimension 1 and along the last one.
    Places that are not finite have to be the same in both, and so have tensors of flags and whole numbers.

    Args:
        a: The output that is right.
        b: The output that is compared with it.

    Returns:
        The absolute difference, and that over the largest absolute value of the same column of ``a``; infinite where
        the outputs have other tensors, other shapes or other places that are not finite, or no value at all.

    Example:
        >>> import torch
        >>> big = torch.tensor([[1e3, 4.0]], dtype=torch.float64)
        >>> difference({"y": big}, {"y": big + torch.tensor([0.0, 1.0])})
        (1.0, 0.25)
    """
    return gap_between(a, b)[:2]


def gap_between(a: Any, b: Any) -> Gap:
    """Compute what :func:`difference` does, and whether the outputs' precision hides columns."""
    mine, other = dict(leaves_in(a)), dict(leaves_in(b))
    if mine.keys() != other.keys():
        return _APART
    gaps = [_of_tensor(torch.as_tensor(x).detach(), torch.as_tensor(other[path]).detach()) for path, x in mine.items()]
    gaps = [gap for gap in gaps if gap is not None]
    return Gap(*map(max, zip(*gaps, strict=True))) if gaps else _APART


def _of_tensor(x: Tensor, y: Tensor) -> Gap | None:
    """The gap of two tensors; None where they are empty."""
    if x.shape != y.shape or x.dtype != y.dtype:
        return _APART
    if not x.numel():
        return None
    if not (x.is_floating_point() or x.is_complex()):
        return _SAME if torch.equal(x, y) else _APART
    gap, size = (x - y).abs(), x.abs()
    if not bool(torch.isfinite(gap).all()):
        odd = ~(torch.isfinite(x) & torch.isfinite(y))
        if not bool(((x == y) | (x.isnan() & y.isnan()))[odd].all()):
            return _APART
        gap, size = gap.masked_fill(odd, 0.0), size.masked_fill(odd, 0.0)
    largest = float(size.max())
    floor = max(FLOOR.get(x.dtype, 1.0) * largest, torch.finfo(x.dtype).tiny)
    gaps, sizes = (torch.cat([_columns(t, d) for d in {1, x.ndim - 1}]) if x.ndim > 1 else t.amax()[None]
                   for t in (gap, size))  # fmt: skip
    hides = x.dtype not in FLOOR and bool(((sizes > 0) & (sizes < UNSEEN * largest) & (gaps > 0)).any())
    return Gap(float(gaps.max()), float((gaps / sizes.clamp(min=floor)).max()), hides)


def _columns(t: Tensor, dim: int) -> Tensor:
    """The largest value of each column along a dimension; of many single values, that of all."""
    if t.shape[dim] == t.numel() > MANY_COLUMNS:
        return t.amax()[None]
    return t.amax([d for d in range(t.ndim) if d != dim])


_SAME, _APART = Gap(0.0, 0.0, False), Gap(math.inf, math.inf, False)
