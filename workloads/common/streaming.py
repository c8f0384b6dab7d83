"""Samples that are read when they are needed: data sets larger than memory, read by worker processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from lumos.suite.workload import DataError

log = logging.getLogger("lumos")


@runtime_checkable
class Samples(Protocol):
    """Samples by number. Reading one raises DataError, naming the file, where it is damaged."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def read(self, index: int, epoch: int) -> Any:
        """One sample. What is random about it (a flip, say) is a function of index and epoch alone."""
        ...


def sample_loader(
    samples: Samples,
    *,
    batch_size: int,
    seed: int | None = None,
    workers: int = 0,
    on_error: str = "fatal",
    collate: Callable[[list[Any]], Any] = default_collate,
) -> DataLoader:
    """Batches of samples, read as they are asked for, by ``workers`` processes (0: by this one).

    With a ``seed``, samples are shuffled anew each epoch, as a function of seed and epoch, and an incomplete last
    batch is dropped unless it is the only one; without, they come in order and all of them do. With
    ``on_error="skip"`` a damaged sample is named in the log and left out of its batch; otherwise it ends the run.
    """
    if not len(samples):
        raise DataError("a split has no samples; ask for more data")
    order = _Order(samples, shuffle=seed is not None, seed=seed or 0)
    return DataLoader(
        _Read(samples, on_error),
        batch_size=min(batch_size, len(samples)),
        sampler=order,
        drop_last=seed is not None,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_Collate(collate),
        # Without its own, a loader draws from torch's global one at every pass, and the weights of a model made
        # after it would depend on who has looked at the data before.
        generator=torch.Generator(),
    )


def collate_tuple(samples: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """A batch of samples that are tuples, as a tuple (torch's own ``default_collate`` makes it a list)."""
    return tuple(default_collate(list(samples)))


class _Order(DistributedSampler):
    """The order of the samples, with the epoch beside each number, so that worker processes know it."""

    def __init__(self, samples: Samples, *, shuffle: bool, seed: int) -> None:
        super().__init__(samples, num_replicas=1, rank=0, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        return ((index, self.epoch) for index in super().__iter__())


class _Read(Dataset):
    def __init__(self, samples: Samples, on_error: str) -> None:
        self.samples, self.on_error = samples, on_error

    def __getitem__(self, key: tuple[int, int]) -> Any:
        try:
            return self.samples.read(*key)
        except DataError as error:
            if self.on_error != "skip":
                raise
            log.warning(f"left out (data.on_error=skip): {error}")
            return None


class _Collate:
    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, read: Sequence[Any]) -> Any:
        whole = [sample for sample in read if sample is not None]
        if not whole:
            raise DataError("every sample of a batch is damaged; look at the files named above")
        return self.collate(whole)
