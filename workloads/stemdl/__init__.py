"""STEM-DL: the space group of a crystal from diffraction patterns of a convergent electron beam, down three axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lumos.errors import DataError
from lumos.suite.workload import Metric
from lumos.workloads.common.base import as_tuples, at_least_if_given, drawn, positive_sizes
from lumos.workloads.common.classifiers import (
    centroid_accuracy,
    confusion_matrix,
    logistic_accuracy,
    majority_accuracy,
)
from lumos.workloads.common.files import dataset_folder, digest_files
from lumos.workloads.common.sample_cache import CachedSamples
from lumos.workloads.common.score_terms import accuracy_terms
from lumos.workloads.common.streamed_workload import StreamedWorkload
from lumos.workloads.common.streaming import Samples
from lumos.workloads.stemdl.crystals import GROUPS
from lumos.workloads.stemdl.data import FOLDER, FOLDERS, Patterns, RandomQuarterTurns, Simulation, find_splits, generate
from lumos.workloads.stemdl.model import LAYERS, VGG11
from lumos.workloads.stemdl.multislice import ZONES

CLASSES = 231
"""Outputs of the network: one for each number of a space group, 1 to 230, and number 0, which is none."""

Batch = tuple[Float[Tensor, "rows 3 p p"], Int[Tensor, " rows"]]


@dataclass(frozen=True)
class StemDL(StreamedWorkload):
    """Space groups from CBED patterns, the three zone axes as channels; ``README.md`` has equations and numbers.

    With ``data.source=generated`` the project's own multislice simulates crystals of 12 space groups; with ``public``
    the SciML-Bench folder ``stemdl_ds1`` (or raw ``batch_*.h5`` files) at ``data.root`` is read. No material is in
    two splits. Batches are ``(patterns (rows, 3, pattern, pattern) float32, space groups (rows,) int64)``. Raises
    DataError for settings or files that cannot be used.
    """

    materials: int = 2400
    valid_materials: int | None = None
    test_materials: int | None = None
    energies: int = 1
    pattern: int = 32
    width: float = 24.0
    dose: float = 1e5
    rotation: float = 180.0
    tilt: float = 1.0
    augment: bool = True
    log_scale: bool = True
    widths: Sequence[int] = (16, 32, 48, 64, 64)
    hidden: Sequence[int] = (128, 128)
    dropout: float = 0.0
    batch_size: int = 64
    epochs: int = 30
    learning_rate: float = 2e-3

    name = "stemdl"
    core_seconds_per_gb = 3400
    metric = Metric("accuracy")

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuples(self, int, "widths", "hidden")
        if len(self.widths) != len(LAYERS) or min(self.widths) < 1:
            raise DataError(f"workload.widths={list(self.widths)}: expected {len(LAYERS)} widths of at least 1")
        positive_sizes(self, "hidden")
        if self.pattern < 32:
            raise DataError(
                f"workload.pattern={self.pattern}: expected at least 32, which five poolings leave a pixel of"
            )
        at_least_if_given(self, valid_materials=len(GROUPS), test_materials=len(GROUPS))
        _ = self._simulation

    @property
    def _simulation(self) -> Simulation:
        return Simulation(
            *(self.seed, self.materials, self.energies, self.pattern),
            *(self.width, self.dose, self.rotation, self.tilt, self.valid_materials, self.test_materials),
        )

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        if not self.generated:
            return "diffraction patterns of the published data set"
        return f"simulated patterns of {self.materials} crystals of 12 space groups; tested on materials not trained on"

    def generate(self) -> Path:
        """Simulate the patterns where they are not in the cache yet; returns the data set's folder."""
        return generate(self._simulation, self.cache)

    def split_bytes(self) -> dict[str, int]:
        """Count the bytes of each split: a float32 pattern down each zone axis."""
        sample = len(ZONES) * self.pattern**2 * 4
        folders = self._simulation.folders()
        return {split: len(folders[folder]) * self.energies * sample for split, folder in FOLDERS.items()}

    def outline(self) -> tuple[nn.Module, tuple[Tensor]]:
        """Build the network and two random samples."""
        return self.model(), (drawn(2, len(ZONES), self.pattern, self.pattern),)

    @cached_property
    def splits(self) -> dict[str, Patterns]:
        """The patterns of ``train``, ``valid`` and ``test``, simulated at the first call or read from the disk."""
        return find_splits(self.root, self.pattern, self.source.on_error, log_scale=self.log_scale)

    @cached_property
    def samples(self) -> Mapping[str, Samples]:
        """The patterns of each split, kept in memory once read; of ``train`` turned where ``augment`` says so."""
        samples: dict[str, Samples] = {split: CachedSamples(patterns) for split, patterns in self.splits.items()}
        return {**samples, "train": RandomQuarterTurns(samples["train"], self.seed)} if self.augment else samples

    def digest(self) -> str:
        """Compute SHA-256 of the files, in hex."""
        files = sorted({path for patterns in self.splits.values() for path, _ in patterns.places})
        return digest_files(dataset_folder(self.root, FOLDER, FOLDERS["train"]), files)

    def model(self) -> nn.Module:
        """Build a fresh VGG11 with :data:`CLASSES` outputs."""
        network = VGG11(len(ZONES), self.pattern, CLASSES, self.widths, self.hidden, self.dropout)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] -- faster on a CPU

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Compute the cross entropy over that of a guess among all space groups there are: 12, in public data 230."""
        x, group = batch
        known = len(GROUPS) if self.generated else 230
        return functional.cross_entropy(model(x), group) / math.log(known)

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Compute the share of samples whose space group is the network's first choice."""
        return self.scores(model, batches)["accuracy"]

    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute ``accuracy``, and ``macro_f1``: F1, averaged over the space groups that occur in truth or guess."""
        confusion = confusion_matrix(model, batches, CLASSES)
        right, truth, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        met = truth + guessed > 0
        f1 = 2 * right[met].double() / (truth + guessed)[met]
        return {"accuracy": (right.sum() / truth.sum()).item(), "macro_f1": f1.mean().item()}

    def score_terms(self, model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
        """Compute what each sample adds to the accuracy: 1 or 0."""
        return accuracy_terms(model, batches)

    def baselines(self) -> dict[str, float]:
        """Compute accuracy on the test split of three simple predictors; the last two see patterns of 16 x 16 pixels.

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

    def features(self) -> Sequence[str]:
        """Name the channels: the zone axes."""
        return list(ZONES)

    def tiny(self) -> StemDL:
        """Shrink it to 120 crystals, patterns of 32 x 32 pixels and a narrow network."""
        return replace(
            self,
            materials=120,
            valid_materials=None,
            test_materials=None,
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
