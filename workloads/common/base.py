"""What every workload of the suite is built on: where its data are, how it is trained, loaders that are made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lumos.errors import DataError
from lumos.suite.data_size import GB, check_limit
from lumos.suite.workload import DataSource, Loaders, Recipe, Schedule


class Training:
    """Settings of the training; each workload has them as fields of its own, with defaults of its own."""

    batch_size: int
    epochs: int
    learning_rate: float
    weight_decay: float = 0.0
    schedule: Schedule = "decay"

    @property
    def recipe(self) -> Recipe:
        """How the network is trained, dense and gated."""
        return Recipe(self.epochs, self.learning_rate, self.weight_decay, self.schedule)


@dataclass(frozen=True)
class BaseWorkload(Training):
    """The part of the contract that does not depend on the science.

    Subclasses are frozen dataclasses: their fields are the keys of ``conf/workload/<name>.yaml``. Raises DataError for
    settings that cannot be used.
    """

    data: DataSource | Mapping[str, object] = field(default_factory=DataSource)
    seed: int = 0
    schedule: Schedule = "decay"

    name: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_source(self.data))
        at_least(self, batch_size=1, seed=0)

    @property
    def source(self) -> DataSource:
        """Where samples come from."""
        return as_source(self.data)

    @property
    def generated(self) -> bool:
        """Whether the workload's own simulation makes the samples; else they are public files."""
        return self.source.source == "generated"

    def files(self) -> list[Path]:
        """Return the user's files and folders that the samples are read from; none where they are generated."""
        return [] if self.generated else [self.source.public_root()]

    @property
    def cache(self) -> Path:
        """The folder for what is generated or decoded."""
        return self.source.cache / self.name

    # ---- before there are samples ----

    core_seconds_per_gb: ClassVar[float] = 75.0
    """What generating 10^9 bytes takes one core; to within a factor of three."""

    def split_bytes(self) -> Mapping[str, int]:
        """Count the bytes of each split's samples as they are stored, before compression, from the settings alone."""
        raise NotImplementedError

    def held_bytes(self) -> int:
        """Count the bytes of them, at most, that stay in memory while a network trains."""
        return sum(self.split_bytes().values())

    def generation_seconds(self) -> float:
        """Estimate the seconds that generating the samples takes one core."""
        return sum(self.split_bytes().values()) / GB * self.core_seconds_per_gb

    def check_size(self) -> None:
        """Refuse to generate more than ``data.limit_gb``. Raises DataError."""
        if self.generated:
            check_limit(self.name, self, self.source.limit_gb)

    def outline(self) -> tuple[nn.Module, tuple[Any, ...]]:
        """Build the network and random inputs of its shapes from the settings alone, without any sample."""
        raise NotImplementedError

    def loaders(self) -> Loaders:
        """Return the splits; they are generated or read at the first call, and the same object at every call."""
        return self._loaders

    @cached_property
    def _loaders(self) -> Loaders:
        self.check_size()
        return self.make_loaders()

    def make_loaders(self) -> Loaders:
        """Generate or read the splits."""
        raise NotImplementedError


# ---- settings -------------------------------------------------------------------------------------------------------


def as_source(data: DataSource | Mapping[str, object]) -> DataSource:
    """Make a DataSource of a workload's ``data``, which Hydra passes as a mapping.

    Raises:
        DataError: there is a key that DataSource lacks, or a path of no letter.
    """
    if isinstance(data, DataSource):
        return data
    if not isinstance(data, Mapping):
        raise DataError(f"workload.data={data}: expected the keys of data; set data.root, data.cache … instead")
    known = [field.name for field in fields(DataSource)]
    unknown = [str(key) for key in data if key not in known]
    if unknown:
        raise DataError(f"data.{unknown[0]}: no such key; expected one of {', '.join(known)}")
    paths = {key: Path(str(data[key])) for key in ("root", "cache") if data.get(key) is not None}
    for key in paths:
        if not str(data[key]).strip():
            raise DataError(f"data.{key}={data[key]}: expected a path")
    return DataSource(**{**data, **paths})  # type: ignore[arg-type]


def drawn(*shape: int) -> Tensor:
    """Draw numbers between 0 and 1, the same at every call, as inputs of this shape."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def as_tuples(workload: object, kind: Callable[[Any], Any], *keys: str) -> None:
    """Turn settings that are lists, as Hydra passes them, into tuples of numbers of one ``kind`` (int or float)."""
    for key in keys:
        object.__setattr__(workload, key, tuple(kind(value) for value in getattr(workload, key)))


def at_least(workload: object, **least: float) -> None:
    """Check settings that are numbers against the least that each can be.

    Raises:
        DataError: a setting is below it.
    """
    for key, bound in least.items():
        if getattr(workload, key) < bound:
            raise DataError(f"workload.{key}={getattr(workload, key)}: expected at least {bound:g}")


def at_least_if_given(workload: object, **least: float) -> None:
    """Check settings that are numbers, or None for the published number, as :func:`at_least` does."""
    at_least(workload, **{key: bound for key, bound in least.items() if getattr(workload, key) is not None})


def positive_sizes(workload: object, *keys: str) -> None:
    """Check settings that are tuples of sizes: the widths of layers, say.

    Raises:
        DataError: a tuple is empty or holds a number below 1.
    """
    for key in keys:
        sizes = getattr(workload, key)
        if not sizes or min(sizes) < 1:
            raise DataError(f"workload.{key}={list(sizes)}: expected one or more whole numbers of at least 1")
