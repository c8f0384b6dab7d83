"""The workloads whose samples are read when they are needed: images, cubes and patterns in files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from lumos.suite.workload import Loaders
from lumos.workloads.common.base import BaseWorkload
from lumos.workloads.common.sample_cache import LIMIT
from lumos.workloads.common.streaming import Samples, collate_tuple, sample_loader, stream_splits


class StreamedWorkload(BaseWorkload):
    """Samples on disk in the layout that they are published in; what is generated is written there in that layout.

    A subclass has ``generate()``, ``samples`` and ``digest()``, beside the model, the loss and the score.
    """

    def generate(self) -> Path:
        """Simulate the samples where they are not in the cache yet; returns their folder, as published data's."""
        raise NotImplementedError

    @cached_property
    def root(self) -> Path:
        """The folder of the samples: generated at the first call, or where the published files are."""
        self.check_size()
        return self.generate() if self.generated else self.source.public_root()

    def held_bytes(self) -> int:
        """Count what is kept of each split once it was read, at most."""
        return sum(min(size, LIMIT) for size in self.split_bytes().values())

    @cached_property
    def samples(self) -> Mapping[str, Samples]:
        """The samples of ``train``, ``valid`` and ``test``, as training reads them."""
        raise NotImplementedError

    def digest(self) -> str:
        """Compute SHA-256 of what the samples are read from, in hex."""
        raise NotImplementedError

    @staticmethod
    def collate(samples: list[Any]) -> Any:
        """Make a batch of samples. It is static, so that worker processes get it without the workload."""
        return collate_tuple(samples)

    def make_loaders(self) -> Loaders:
        """Make the loaders; training samples come in an order that follows seed and epoch."""
        return stream_splits(
            self.samples,
            batch_size=self.batch_size,
            seed=self.seed,
            source=self.source,
            sha256=self.digest(),
            collate=self.collate,
        )

    def in_order(self, split: str, batch_size: int | None = None) -> DataLoader:
        """Make a loader of a split's samples in order, each once, read by this process."""
        return sample_loader(
            self.samples[split],
            batch_size=batch_size or self.batch_size,
            on_error=self.source.on_error,
            collate=self.collate,
        )

    def example(self) -> tuple[Tensor]:
        """Return the inputs of the first two test samples, or of the only one twice."""
        x = next(iter(self.loaders().test))[0]
        return (x[:2].repeat(2, *[1] * (x.ndim - 1))[:2].clone(),)
