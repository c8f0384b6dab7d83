"""The contract that a workload fulfils: a model, its data, a loss and a score.

A workload is any object with the attributes and methods of :class:`Workload`; there is no base class and no
registry. ``lumos.suite.conformance.check_workload`` runs the conformance suite on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler, TensorDataset

from lumos.errors import DataError

Schedule = Literal["decay", "hold", "better", "given"]
"""How a dense baseline's learning rate goes, or that it is not trained; see :class:`Recipe`."""
GIVEN: Schedule = "given"
"""The schedule of a dense network that comes trained."""

Batch = Any
"""What a loader yields: a tensor, or a tuple, list or dict of them, or any object with a ``to(device)``."""


@dataclass(frozen=True)
class Metric:
    """How a workload is scored: ``R2``, ``accuracy``, ``MSE``… (``unit`` is empty for a pure number).

    ``target`` is the score to aim at, published or measured, or None; it is shown beside a run's own score.
    """

    name: str
    unit: str = ""
    higher_is_better: bool = True
    target: float | None = None


@dataclass(frozen=True)
class Recipe:
    """How the workload is trained; the same for the dense baseline and for the gated network.

    ``learning_rate`` is the peak rate of AdamW. A gated training stays at it until the cut and then falls to zero along
    a cosine; ``schedule`` says how the dense baseline's goes: ``decay``, a cosine from the first step, ``hold``, as a
    gated one's, or ``better``: both are trained, and the one of the better validation score is the baseline. With
    ``given`` the dense network comes trained: what ``model()`` returns, or ``init_from`` holds, is the baseline as it
    is. Raises DataError for values that cannot be used.
    """

    epochs: int
    learning_rate: float
    weight_decay: float = 0.0
    schedule: Schedule = "decay"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise DataError(f"workload.epochs={self.epochs}: expected at least 1")
        if not self.learning_rate > 0:
            raise DataError(f"workload.learning_rate={self.learning_rate}: expected a number > 0")
        if self.weight_decay < 0:
            raise DataError(f"workload.weight_decay={self.weight_decay}: expected a number >= 0")
        if self.schedule not in get_args(Schedule):
            raise DataError(f"workload.schedule={self.schedule}: expected decay, hold, better or given")


@dataclass(frozen=True)
class DataSource:
    """Where samples come from: ``generated`` by the workload's own simulation, or ``public`` files at ``root``; or a
    ``file`` of the user's own.

    ``cache`` holds what was generated, by content hash, so that a second run reads it. ``on_error`` says what a
    corrupt file among many does: ``fatal`` stops the run, ``skip`` names it and goes on. More than ``limit_gb`` (10^9
    bytes, None for no limit) is not generated.
    """

    source: Literal["generated", "public", "file"] = "generated"
    root: Path | None = None
    cache: Path = Path("data")
    on_error: Literal["fatal", "skip"] = "fatal"
    workers: int = 0
    limit_gb: float | None = None

    def __post_init__(self) -> None:
        if self.source not in ("generated", "public", "file"):
            raise DataError(f"data.source={self.source}: expected generated, public or file")
        if self.on_error not in ("fatal", "skip"):
            raise DataError(f"data.on_error={self.on_error}: expected fatal or skip")
        if type(self.workers) is not int or not 0 <= self.workers < 2**15:
            raise DataError(f"data.workers={self.workers}: expected a whole number >= 0 of processes")
        limit = self.limit_gb
        if limit is not None and not (isinstance(limit, int | float) and limit is not True and 0 < limit < math.inf):
            raise DataError(f"data.limit_gb={limit}: expected a number > 0, or null for no limit")
        for name in ("root", "cache"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value).expanduser())

    def public_root(self) -> Path:
        """Return the file or folder of the published data. Raises DataError where it is not given or not there."""
        if self.root is None:
            raise DataError(f"data={self.source} needs data.root=PATH, the file or folder of the data")
        if not self.root.exists():
            raise DataError(f"data.root={self.root}: there is no such file or folder")
        return self.root


@dataclass(frozen=True)
class Loaders:
    """The three splits and what is known of them.

    ``train`` may have a sampler with ``set_epoch`` (as ``torch.utils.data.DistributedSampler``); the suite calls it,
    so that the order of the samples is a function of seed and epoch alone. ``sha256`` is a digest of the samples.
    """

    train: Iterable[Batch]
    valid: Iterable[Batch]
    test: Iterable[Batch]
    n_train: int
    n_valid: int
    n_test: int
    source: str
    sha256: str


@runtime_checkable
class Workload(Protocol):
    """A scientific problem that the suite can train on, dense and gated.

    Further members are optional: ``baselines() -> dict[str, float]``, the test scores of trivial predictors in the
    metric's unit; ``note``, one line that a run's table prints (what generated data stands for, say);
    ``true_features()``, the names of the features that matter, where they are known; ``files()``, the user's files and
    folders that samples are read from, so that a change of them is seen; and ``table() -> (x, y)``,
    the training rows as numpy arrays (rows, features) and (rows, outputs), where the inputs are a table: the feature
    report then has correlation and mutual information beside the gates; and ``write_predictor(folder, features)``,
    which writes what the compact network in a run's folder needs to take other files (``lumos predict``); ``outline()
    -> (model, inputs)``, the network and random inputs of its shapes without any sample (see :func:`outline`); and
    those of :class:`lumos.suite.data_size.Sized`, which say how much is generated before it is; and
    ``score_terms(model, batches)``, what each sample adds to the score, numbers whose mean is the score, with
    ``test_groups()``, a number for each test sample (or None) that is the same for samples that are not independent: a
    record then has standard errors, see :mod:`lumos.suite.standard_error`.
    """

    @property
    def name(self) -> str:
        """The word that selects it: lower-case letters, digits and _."""
        ...

    @property
    def metric(self) -> Metric:
        """How it is scored."""
        ...

    @property
    def recipe(self) -> Recipe:
        """How it is trained, dense and gated."""
        ...

    def model(self) -> nn.Module:
        """A fresh dense network on the CPU; its weights follow torch's global seed."""
        ...

    def loaders(self) -> Loaders:
        """The splits, held out by condition, snapshot or subject; generated or read at the first call, then kept."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The scalar that training minimises, of the order of 1 for a trivial predictor (the penalty adds to it)."""
        ...

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """The metric over a whole split; the model is in eval mode and the batches are on its device."""
        ...

    def example(self) -> tuple[Any, ...]:
        """Positional inputs on the CPU with which ``model()`` can be called: a few samples, at least two."""
        ...

    def features(self) -> Sequence[str]:
        """Names of the input features that can be selected, in the model's order; empty where there are none."""
        ...

    def tiny(self) -> Workload:
        """The same workload made so small that it is generated and trained within seconds on a CPU."""
        ...


def outline(workload: Workload) -> tuple[nn.Module, tuple[Any, ...]]:
    """Return a workload's network and inputs to call it with, without generating samples where it can do without.

    For what depends on shapes alone: what can be removed, and how many parameters there are. Numbers that come from
    samples (means, deviations) are 0 and 1 in it, so that it is no network to train.
    """
    if hasattr(workload, "outline"):
        return workload.outline()  # type: ignore[attr-defined]
    return workload.model(), workload.example()


def tensor_loader(
    *tensors: Tensor, batch_size: int, seed: int | None = None, num_replicas: int = 1, rank: int = 0
) -> DataLoader:
    """Make a loader of rows of tensors that fit into memory, as tuples in the order given.

    With a ``seed``, rows are shuffled anew each epoch, as a function of seed and epoch, and an incomplete last batch
    is dropped unless it is the only one; without, rows come in order and all of them do.
    """
    rows = TensorDataset(*tensors)
    if not len(rows):
        raise DataError("a split has no samples; ask for more data")
    if seed is None:
        order = BatchSampler(SequentialSampler(rows), batch_size, drop_last=False)
    else:
        shuffled = DistributedSampler(rows, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)
        order = BatchSampler(shuffled, batch_size, drop_last=len(shuffled) >= batch_size)
    # Whole batches are indexed at once: far faster than collating rows one by one.
    return DataLoader(rows, sampler=order, batch_size=None, collate_fn=_as_is)


def _as_is(batch: Any) -> Any:
    return batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move all of a batch that can move to the device: tensors, containers, and objects with ``to``."""
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        moved = [to_device(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch.to(device, non_blocking=True) if hasattr(batch, "to") else batch
