"""Reading a split's batches: from any of them on, a process's share of each, and what is said when that fails."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lumos.errors import ConfigError, DataError
from lumos.suite.training.distributed import ALONE, World
from lumos.suite.workload import Batch


def set_epoch(loader: Any, epoch: int) -> None:
    """Tell a loader's samplers the epoch, as torch's DistributedSampler wants it, wherever they sit."""
    seen, queue = set(), [loader]
    while queue:
        sampler = queue.pop(0)
        if sampler is None or id(sampler) in seen:
            continue
        seen.add(id(sampler))
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
            return
        queue += [getattr(sampler, "batch_sampler", None), getattr(sampler, "sampler", None)]


def pinned(loader: Iterable[Batch], device: torch.device) -> Iterable[Batch]:
    """Let a loader put its batches where a GPU reads them without being waited for: in page-locked memory."""
    if device.type == "cuda" and isinstance(loader, DataLoader):
        loader.pin_memory = True
    return loader


def iterate(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Iterate over a loader, with the same draws from torch's global generator whatever the number of its workers."""
    if isinstance(loader, DataLoader) and loader.num_workers:
        if loader.generator is None:
            loader.generator = _OwnGenerator()
        if isinstance(loader.generator, _OwnGenerator):
            torch.empty((), dtype=torch.int64).random_()  # what it would draw without workers when it starts
    return iter(loader)


class _OwnGenerator(torch.Generator):
    """The generator of a loader that came without one."""


class Reader:
    """The training batches, epoch by epoch.

    With several processes each gets every n-th sample of each batch. Raises ConfigError where that needs a loader of
    another kind: a torch DataLoader over a data set with numbers.
    """

    def __init__(self, loader: Iterable[Batch], world: World = ALONE) -> None:
        self.loader, self.world = loader, world
        self.batches = len(loader)  # type: ignore[arg-type]
        self._items = _items(loader)
        if world.size > 1 and self._items is None:
            raise ConfigError(
                "trainer.devices and trainer.nodes: this workload's training batches cannot be shared out; "
                "its loader has to be a torch DataLoader over a data set that is read by number"
            )
        self._share = None if self._items is None else _Share(self._items, world)
        self._derived: DataLoader | None = None

    def open(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Read the batches of an epoch from number ``skip`` on; those before it are not read."""
        set_epoch(self.loader, epoch)
        if skip == 0 and self.world.size == 1:
            return iterate(self.loader)
        if self._share is None:
            return islice(iterate(self.loader), skip, None)
        self._share.skip = skip
        if self._derived is None:
            assert isinstance(self.loader, DataLoader)
            self._derived = _over(self.loader, self._share)
        return iterate(self._derived)

    def latest(self, epoch: int, batch: int, count: int) -> Iterator[Batch]:
        """Read the ``count`` batches before number ``batch`` of an epoch; fewer where the training had not as many."""
        end = epoch * self.batches + batch
        for e in range(max(0, end - count) // max(1, self.batches), epoch + 1):
            first = max(0, end - count - e * self.batches)
            yield from islice(self.open(e, first), min(self.batches, end - e * self.batches) - first)

    def sample_numbers(self, epoch: int, batch: int) -> list[Any] | None:
        """Return the numbers of the samples of a batch, over all processes; None where the loader does not say."""
        if self._items is None:
            return None
        set_epoch(self.loader, epoch)
        item = next(islice(iter(self._items), batch, None), None)
        if not isinstance(item, list | tuple):
            return None
        return [i[0] if isinstance(i, tuple) else i for i in item]

    def weighted(self, loss: Tensor, batch: int) -> Tensor:
        """Weight a loss of this process's share of a batch by what it counts in the mean over the processes."""
        if self._share is None or self.world.size == 1:
            return loss
        return loss * self._share.weights[batch - self._share.skip]


class _Share:
    """The items of a loader's own sampler, from one on, each cut to a process's share."""

    def __init__(self, items: Iterable[Any], world: World) -> None:
        self.items, self.world, self.skip = items, world, 0
        self.weights: list[float] = []

    def __iter__(self) -> Iterator[Any]:
        self.weights = []
        size = self.world.size
        for item in islice(iter(self.items), self.skip, None):
            if size == 1:
                yield item
                continue
            if len(item) < size:
                raise ConfigError(
                    f"a batch of {len(item)} samples for {size} processes; enlarge workload.batch_size or lower "
                    "trainer.devices"
                )
            mine = item[self.world.rank :: size]
            self.weights.append(len(mine) * size / len(item))
            yield mine

    def __len__(self) -> int:
        return len(self.items) - self.skip  # type: ignore[arg-type]


def _items(loader: Any) -> Any:
    """What yields the numbers of each batch: a loader's batch sampler, or a sampler of whole batches; None: neither."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    return loader.batch_sampler if loader.batch_sampler is not None else loader.sampler


def _over(loader: DataLoader, items: Any) -> DataLoader:
    """A loader of the same samples in the same way, for other batches."""
    how: dict[str, Any] = {"batch_sampler": items} if loader.batch_sampler is not None else \
        {"sampler": items, "batch_size": None}  # fmt: skip
    workers: dict[str, Any] = {"prefetch_factor": loader.prefetch_factor} if loader.num_workers else {}
    return DataLoader(
        loader.dataset, num_workers=loader.num_workers, collate_fn=loader.collate_fn, pin_memory=loader.pin_memory,
        timeout=loader.timeout, worker_init_fn=loader.worker_init_fn, generator=loader.generator,
        multiprocessing_context=loader.multiprocessing_context, **how, **workers,
    )  # fmt: skip


@contextmanager
def readable_worker_errors() -> Iterator[None]:
    """Turn what a loader's worker process ends in into one line: DataError where it died, its own error otherwise."""
    try:
        yield
    except DataError as error:
        said = str(error)
        if not re.match(r"Caught \w+ in DataLoader worker", said):
            raise
        raise DataError(said.rpartition("DataError: ")[2]) from error  # torch puts the worker's traceback before it
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a process that reads samples died ({str(error).splitlines()[0]}); it may have been out of memory: try "
            "fewer data.workers. The next call goes on from the last checkpoint"
        ) from error
