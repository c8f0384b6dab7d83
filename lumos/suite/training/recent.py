"""The latest training batches, over which batch statistics are taken anew: in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from torch.utils import _pytree as pytree

from lumos.suite.workload import Batch

LIMIT = 1 << 30
"""Bytes of batches that are kept; larger ones are fewer, one at least."""


class RecentBatches:
    """The latest batches as the loader made them, not on the device, where training needs the room.

    Args:
        count: How many, at most.
        limit: Bytes of them, at most, where one alone is not larger.
    """

    def __init__(self, count: int, limit: int = LIMIT) -> None:
        self.count, self.limit = count, limit
        self._kept: deque[tuple[Batch, int]] = deque()

    def append(self, batch: Batch) -> None:
        """Keep one more, and forget the oldest that are too many."""
        if not self.count:
            return
        self._kept.append((batch, sum(getattr(leaf, "nbytes", 0) for leaf in _leaves(batch))))
        while len(self._kept) > 1 and (len(self._kept) > self.count or self.nbytes > self.limit):
            self._kept.popleft()

    def __iter__(self) -> Iterator[Batch]:
        return (batch for batch, _ in self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(size for _, size in self._kept)


def _leaves(batch: Batch) -> list[object]:
    """The tensors of a batch; those of an object that is a mapping, as PyG's are, by its own word."""
    values = getattr(batch, "to_dict", None)
    return pytree.tree_leaves(values() if values is not None else batch)
