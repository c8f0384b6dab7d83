"""Samples that are read when they are needed: data sets larger than memory, read by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from lumos.errors import DataError
from lumos.suite.workload import DataSource, Loaders
from lumos.workloads.common.damaged import skip_or_raise


@runtime_checkable
class Samples(Protocol):
    """Samples by number."""

    def __len__(self) -> int:
        """Count them."""
        ...

    def read(self, index: int, epoch: int) -> Any:
        """Read one sample. What is random about it (a flip, say) is a function of index and epoch alone.

        Raises:
            DataError: it is damaged; the message names the file.
        """
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
    """Make a loader of batches that are read as they are asked for.

    Args:
        samples: The samples of one split.
        batch_size: Samples in a batch.
        seed: With one, samples are shuffled anew each epoch, as a function of seed and epoch, and an incomplete last
            batch is dropped unless it is the only one; without, they come in order and all of them do.
        workers: Processes that read; 0: this one.
        on_error: ``skip`` names a damaged sample in the log and leaves it out of its batch; ``fatal`` ends the run.
        collate: Makes a batch of a list of samples.

    Raises:
        DataError: there are no samples.
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


def stream_splits(
    splits: Mapping[str, Samples],
    *,
    batch_size: int,
    seed: int,
    source: DataSource,
    sha256: str,
    collate: Callable[[list[Any]], Any],
) -> Loaders:
    """Make the loaders of ``train`` (shuffled by the seed), ``valid`` and ``test``; see :func:`sample_loader`."""

    def loader(split: str) -> DataLoader:
        return sample_loader(
            splits[split],
            batch_size=batch_size,
            seed=seed if split == "train" else None,
            workers=source.workers,
            on_error=source.on_error,
            collate=collate,
        )

    return Loaders(
        train=loader("train"),
        valid=loader("valid"),
        test=loader("test"),
        n_train=len(splits["train"]),
        n_valid=len(splits["valid"]),
        n_test=len(splits["test"]),
        source=source.source,
        sha256=sha256,
    )


def collate_tuple(samples: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Make a batch of samples that are tuples, as a tuple (torch's own ``default_collate`` makes it a list)."""
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
            return skip_or_raise(error, self.on_error)


class _Collate:
    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, read: Sequence[Any]) -> Any:
        whole = [sample for sample in read if sample is not None]
        if not whole:
            raise DataError("every sample of a batch is damaged; look at the files named above")
        return self.collate(whole)
