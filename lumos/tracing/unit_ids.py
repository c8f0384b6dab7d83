"""Questions that one asks of a shadow: where it repeats, and where its units change."""

from __future__ import annotations

from torch import Tensor


def has_values(t: Tensor) -> bool:
    """Whether a tensor holds numbers that units can stand for, and not places or flags."""
    return t.is_floating_point() or t.is_complex()


def squash(*shadows: Tensor, keep: int | None = None) -> list[Tensor]:
    """The shadows of one shape, each dimension along which all of them repeat cut to one position.

    Only repetition that the strides show is seen, which is what expansion leaves; this keeps big activations cheap.
    """
    strides = [s.stride() for s in shadows]
    size = list(shadows[0].shape)
    cut = [d for d, n in enumerate(size) if n > 1 and d != keep and not any(stride[d] for stride in strides)]
    if not cut:
        return list(shadows)
    for d in cut:
        size[d] = 1
    return [s.as_strided(size, stride) for s, stride in zip(shadows, strides, strict=True)]


def varies(shadow: Tensor, dim: int) -> bool:
    """Whether the units change along a dimension."""
    if shadow.shape[dim] <= 1 or shadow.stride(dim) == 0:
        return False
    one = squash(shadow, keep=dim)[0]
    return bool((one != one.narrow(dim, 0, 1)).any())
