"""Samples that stay in memory once they are read, as long as they fit."""

from __future__ import annotations

from typing import Any

from torch.utils import _pytree as pytree

from lumos.workloads.common.streaming import Samples

LIMIT = 2 * 1024**3
"""Bytes that a split's samples may take in memory."""


class CachedSamples:
    """Samples in memory, each read once only; those beyond ``limit`` bytes are read anew every time.

    For samples that do not depend on the epoch. Every worker process keeps those that it has read itself.
    """

    def __init__(self, samples: Samples, limit: int = LIMIT) -> None:
        self.samples, self.left = samples, limit
        self.known: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int, epoch: int) -> Any:
        """Return one sample. Raises DataError, naming the file, where it is damaged."""
        if index in self.known:
            return self.known[index]
        sample = self.samples.read(index, 0)
        size = sum(getattr(leaf, "nbytes", 64) for leaf in pytree.tree_leaves(sample))
        if size <= self.left:
            self.known[index] = sample
            self.left -= size
        return sample
