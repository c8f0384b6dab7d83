"""Several processes that train one model: what the gates need to be the same on all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

from lumos.errors import LumosError

T = TypeVar("T")


def started() -> bool:
    """Tell whether a group of processes was started."""
    return dist.is_available() and dist.is_initialized()


def count() -> int:
    """Return how many processes train together; 1 where no group was started."""
    return dist.get_world_size() if started() else 1


def rank() -> int:
    """Return this process's number among those that train together."""
    return dist.get_rank() if started() else 0


def mean(value: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes, without gradient."""
    if count() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / count()


def average(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over the processes."""
    for tensor in tensors if count() > 1 else []:
        tensor.copy_(mean(tensor))


def shared(number: int) -> int:
    """Return the first process's number, on all of them."""
    if count() == 1:
        return number
    found = [number]
    dist.broadcast_object_list(found)
    return found[0]


def of_first(make: Callable[[], T]) -> T:
    """Return what the first process makes, on all of them; what it raises is raised by all. Plain values only."""
    if count() == 1:
        return make()
    found: list[T | Exception | None] = [None]
    if dist.get_rank() == 0:
        try:
            found = [make()]
        except Exception as error:  # the others wait for an answer
            found = [error if isinstance(error, LumosError) else LumosError(f"{type(error).__name__}: {error}")]
    dist.broadcast_object_list(found)
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]  # pyright: ignore[reportReturnType]
