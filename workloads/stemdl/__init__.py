"""STEM-DL: the space group of a crystal from diffraction patterns of a convergent electron beam, down three axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from lumos.suite.workload import DataError, DataSource, Loaders, Metric, Recipe
from lumos.workloads.common.classifiers import centroid_accuracy, logistic_accuracy, majority_accuracy
from lumos.workloads.common.files import digest_files
from lumos.workloads.common.memory import Remembered
from lumos.workloads.common.streaming import Samples, sample_loader
from lumos.workloads.common.tabular import as_source
from lumos.workloads.stemdl.crystals import GROUPS
from lumos.workloads.stemdl.data import Patterns, Simulation, Turned, collate, generate, home, splits_of
from lumos.workloads.stemdl.model import LAYERS, VGG11
from lumos.workloads.stemdl.multislice import ZONES

CLASSES = 231
"""Outputs of the network: one for each number of a space group, 1 to 230, and number 0, which is none."""

Batch = tuple[Float[Tensor, "rows 3 p p"], Int[Tensor, " rows"]]


@dataclass(frozen=True)
class StemDL:
    """Space groups from CBED patterns, the three zone axes as channels; ``README.md`` has equations and numbers.

    With ``data.source=generated`` the project's own multislice simulates crystals of 12 space groups; with ``public``
    the SciML-Bench folder ``stemdl_ds1`` (or raw ``batch_*.h5`` files) at ``data.root`` is read. No material is in
    two splits. Raises DataError for settings or files that cannot be used.
    """

    data: DataSource | Mapping[str, object] = field(default_factory=DataSource)
    seed: int = 0
    materials: int = 2400
    energies: int = 1
    pattern: int = 32
    width: float = 24.0
    dose: float = 1e5
    rotation: float = 180.0
    tilt: float = 1.0
    augment: bool = True
    widths: Sequence[int] = (16, 32, 48, 64, 64)
    hidden: Sequence[int] = (128, 128)
    dropout: float = 0.0
    batch_size: int = 64
    epochs: int = 30
    learning_rate: float = 2e-3

    name = "stemdl"
    metric = Metric("accuracy")

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_source(self.data))
        for key in ("widths", "hidden"):
            object.__setattr__(self, key, tuple(int(width) for width in getattr(self, key)))
        if len(self.widths) != len(LAYERS) or min(self.widths) < 1:
            raise DataError(f"workload.widths={list(self.widths)}: expected {len(LAYERS)} widths of at least 1")
        if not self.hidden or min(self.hidden) < 1:
            raise DataError(f"workload.hidden={list(self.hidden)}: expected one or more widths of at least 1")
        if self.pattern < 32:
            raise DataError(
                f"workload.pattern={self.pattern}: expected at least 32, which five poolings leave a pixel of"
            )
        if self.batch_size < 1:
            raise DataError(f"workload.batch_size={self.batch_size}: expected at least 1")
        _ = self._simulation

    @property
    def _source(self) -> DataSource:
        return as_source(self.data)

    @property
    def _simulation(self) -> Simulation:
        return Simulation(
            *(self.seed, self.materials, self.energies, self.pattern),
            *(self.width, self.dose, self.rotation, self.tilt),
        )

    @property
    def recipe(self) -> Recipe:
        """How the network is trained."""
        return Recipe(epochs=self.epochs, learning_rate=self.learning_rate)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        if self._source.source != "generated":
            return "diffraction patterns of the published data set"
        return f"simulated patterns of {self.materials} crystals of 12 space groups; tested on materials not trained on"

    @cached_property
    def splits(self) -> dict[str, Patterns]:
        """The samples of ``train``, ``valid`` and ``test``, simulated at the first call or read from the disk."""
        return splits_of(self._root, self.pattern, self._source.on_error)

    @cached_property
    def _root(self) -> Path:
        source = self._source
        return (
            source.public_root() if source.source == "public" else generate(self._simulation, source.cache / self.name)
        )

    def model(self) -> nn.Module:
        """A fresh VGG11 with :data:`CLASSES` outputs."""
        network = VGG11(len(ZONES), self.pattern, CLASSES, self.widths, self.hidden, self.dropout)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] -- faster on a CPU

    def loaders(self) -> Loaders:
        """Batches ``(patterns (rows, 3, pattern, pattern) float32, space groups (rows,) int64)``."""
        return self._loaders

    @cached_property
    def _loaders(self) -> Loaders:
        loaders = {split: self._loader(split, samples) for split, samples in self.splits.items()}
        files = sorted({path for samples in self.splits.values() for path, _ in samples.places})
        return Loaders(
            train=loaders["train"],
            valid=loaders["valid"],
            test=loaders["test"],
            n_train=len(self.splits["train"]),
            n_valid=len(self.splits["valid"]),
            n_test=len(self.splits["test"]),
            source=self._source.source,
            sha256=digest_files(home(self._root), files),
        )

    def _loader(self, split: str, patterns: Patterns) -> DataLoader:
        samples: Samples = Remembered(patterns)
        training = split == "train"
        return sample_loader(
            Turned(samples, self.seed) if training and self.augment else samples,
            batch_size=self.batch_size,
            seed=self.seed if training else None,
            workers=self._source.workers,
            on_error=self._source.on_error,
            collate=collate,
        )

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Cross entropy in units of that of a guess among all space groups there are: 12, in public data 230."""
        x, group = batch
        known = len(GROUPS) if self._source.source == "generated" else 230
        return functional.cross_entropy(model(x), group) / math.log(known)

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """The share of samples whose space group is the network's first choice."""
        return self.scores(model, batches)["accuracy"]

    @torch.no_grad()
    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """``accuracy``, and ``macro_f1``, the mean over the space groups that occur, in truth or guess, of their F1."""
        confusion = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
        for x, group in batches:
            guess = model(x).argmax(1)
            confusion += torch.bincount((group * CLASSES + guess).cpu(), minlength=CLASSES**2).view(CLASSES, CLASSES)
        right, truth, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        met = truth + guessed > 0
        if not met.any():
            raise DataError("a split has no samples to score; ask for more data")
        f1 = 2 * right[met].double() / (truth + guessed)[met]
        return {"accuracy": (right.sum() / truth.sum()).item(), "macro_f1": f1.mean().item()}

    def baselines(self) -> dict[str, float]:
        """Accuracy on the test split of three simple predictors; the last two see patterns of 16 x 16 pixels.

        They are the commonest space group, the nearest mean of a space group, and logistic regression, fitted to at
        most 4,096 training samples.
        """
        loaders = self.loaders()
        x, y = _coarse(islice(loaders.train, max(1, 4096 // self.batch_size)))
        test_x, test_y = _coarse(loaders.test)
        _, numbered = torch.cat([y, test_y]).unique(return_inverse=True)  # only the space groups that are there
        y, test_y = numbered[: len(y)], numbered[len(y) :]
        return {
            "majority": majority_accuracy(y, test_y),
            "nearest_mean": centroid_accuracy(x, y, test_x, test_y),
            "logistic": logistic_accuracy(x, y, test_x, test_y, decay=1e-2),
        }

    def example(self) -> tuple[Float[Tensor, "2 3 p p"]]:
        """Two samples."""
        x, _ = next(iter(self.loaders().test))
        return (x[:2].repeat(2, 1, 1, 1)[:2].clone(),)

    def features(self) -> Sequence[str]:
        """Names of the channels: the zone axes."""
        return list(ZONES)

    def tiny(self) -> StemDL:
        """120 crystals, patterns of 32 x 32 pixels, a narrow network."""
        return replace(
            self,
            materials=120,
            energies=1,
            pattern=32,
            width=16.0,
            widths=(4, 8, 8, 8, 8),
            hidden=(16, 16),
            batch_size=16,
            epochs=2,
        )


def _coarse(batches: Iterable[Batch]) -> tuple[Float[Tensor, "rows columns"], Int[Tensor, " rows"]]:
    read = [(functional.adaptive_avg_pool2d(x, 16).flatten(1), y) for x, y in batches]
    return torch.cat([x for x, _ in read]), torch.cat([y for _, y in read])
