"""DMS: diffuse multiple scattering of X-rays, from which to tell a monoclinic crystal from a tetragonal one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from lumos.suite.workload import DataError, DataSource, Loaders, Metric, Recipe
from lumos.workloads.common.classifiers import centroid_accuracy, logistic_accuracy, majority_accuracy
from lumos.workloads.common.memory import Remembered
from lumos.workloads.common.streaming import Samples, collate_tuple, sample_loader
from lumos.workloads.common.tabular import as_source
from lumos.workloads.dms.crystal import PHASES
from lumos.workloads.dms.data import Patterns, Singles, find_data, generate, hold_out, read_labels
from lumos.workloads.dms.model import DMSNet
from lumos.workloads.dms.pattern import DETECTOR, Scene

Batch = tuple[Float[Tensor, "images 3 rows columns"], Int[Tensor, " images"]]

HELD_OUT = 0.1
"""Share of the training group that validates."""
LOOKED_AT = 500
"""Training images, evenly spaced, from which the inputs' mean and deviation are taken."""
DIGESTED = 20
"""Images of each split that go into the digest of the data."""
COARSE = 6
"""Pixels along a side of the squares whose means the trivial classifiers see."""


@dataclass(frozen=True)
class DMS:
    """A classifier of scattering patterns, 3 channels, two logits; ``README.md`` has the physics, layout and numbers.

    Label 0 is monoclinic, 1 tetragonal. The three channels are equal (the published images are colour renders of one
    quantity), so that a selection should keep one. Raises DataError for settings or files that cannot be used.
    """

    data: DataSource | Mapping[str, object] = field(default_factory=DataSource)
    seed: int = 0
    shape: Sequence[int] = DETECTOR
    jitter: float = 0.5
    train_images: int = 6448
    test_images: int = 1612
    inference_images: int = 100
    channels: Sequence[int] = (8, 16, 32, 64, 128)
    hidden: Sequence[int] = (512, 256)
    batch_size: int = 1024
    epochs: int = 200
    learning_rate: float = 5e-4

    name = "dms"
    metric = Metric("accuracy")

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_source(self.data))
        for key in ("shape", "channels", "hidden"):
            values = tuple(int(value) for value in getattr(self, key))
            if not values or min(values) < 1:
                raise DataError(f"workload.{key}={list(values)}: expected whole numbers of at least 1")
            object.__setattr__(self, key, values)
        if len(self.shape) != 2:
            raise DataError(f"workload.shape={list(self.shape)}: expected two numbers, pixels along each side")
        for key, least in (("train_images", 20), ("test_images", 4), ("inference_images", 4), ("batch_size", 1)):
            if getattr(self, key) < least:
                raise DataError(f"workload.{key}={getattr(self, key)}: expected at least {least}")
        if not 0 <= self.jitter <= 10:
            raise DataError(f"workload.jitter={self.jitter}: expected 0 (a fixed geometry) to 10")

    @property
    def _source(self) -> DataSource:
        return as_source(self.data)

    @property
    def _shape(self) -> tuple[int, int]:
        rows, columns = self.shape
        return rows, columns

    @property
    def recipe(self) -> Recipe:
        """How the network is trained."""
        return Recipe(epochs=self.epochs, learning_rate=self.learning_rate)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        if self._source.source == "public":
            return f"patterns of {self._source.root}"
        return f"simulated patterns, each of another crystal; jitter of the geometry {self.jitter:g}"

    @cached_property
    def root(self) -> Path:
        """The data set: generated at the first call, or where the published files are."""
        if self._source.source == "public":
            return self._source.public_root()
        counts = {"train": self.train_images, "test": self.test_images, "inference": self.inference_images}
        return generate(self._source.cache / self.name, Scene(self._shape, self.jitter), counts, self.seed)

    @cached_property
    def _splits(self) -> dict[str, Remembered]:
        file, singles = find_data(self.root)
        labels = {split: read_labels(file, split, self._shape) for split in ("train", "test")}
        train, valid = hold_out(labels["train"], HELD_OUT)
        splits: dict[str, Samples] = {
            "train": Patterns(file, "train", train, labels["train"]),
            "valid": Patterns(file, "train", valid, labels["train"]),
            "test": Patterns(file, "test", range(len(labels["test"])), labels["test"]),
            "inference": Singles(self.root, singles, self._shape),
        }
        return {name: Remembered(samples) for name, samples in splits.items()}

    def _loader(self, split: str, seed: int | None = None, workers: int = 0) -> DataLoader:
        return sample_loader(
            self._splits[split],
            batch_size=self.batch_size,
            seed=seed,
            workers=workers,
            on_error=self._source.on_error,
            collate=collate_tuple,
        )

    def loaders(self) -> Loaders:
        """Batches ``(images (n, 3, rows, columns) float32, labels (n,) int64)``."""
        return self._loaders

    @cached_property
    def _loaders(self) -> Loaders:
        workers = self._source.workers
        return Loaders(
            train=self._loader("train", self.seed, workers),
            valid=self._loader("valid", workers=workers),
            test=self._loader("test", workers=workers),
            n_train=len(self._splits["train"]),
            n_valid=len(self._splits["valid"]),
            n_test=len(self._splits["test"]),
            source=self._source.source,
            sha256=self._digest(),
        )

    def _some(self, split: str, count: int) -> list[tuple[Tensor, int]]:
        """Up to ``count`` samples of a split, evenly spaced; damaged ones are left out where that is configured."""
        samples = self._splits[split]
        found = []
        for index in np.linspace(0, len(samples) - 1, min(len(samples), count)).astype(int):
            try:
                found.append(samples.read(int(index), 0))
            except DataError:
                if self._source.on_error != "skip":
                    raise
        if not found:
            raise DataError(f"{self.root}: none of {count} images of the {split} split that were tried can be read")
        return found

    def _digest(self) -> str:
        """Of the name of the folder (a hash of the settings, where generated), the counts and some of the images."""
        generated = self._source.source == "generated"
        state = hashlib.sha256(self.root.name.encode() if generated else b"public")
        for split in ("train", "valid", "test"):
            state.update(f"{split} {len(self._splits[split])}".encode())
            for image, label in self._some(split, DIGESTED):
                state.update(image.numpy().tobytes() + bytes([label]))
        return state.hexdigest()

    @cached_property
    def _statistics(self) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """Mean and standard deviation of each channel over training images."""
        images = torch.stack([image for image, _ in self._some("train", LOOKED_AT)])
        return images.mean((0, 2, 3)), images.std((0, 2, 3))

    def model(self) -> nn.Module:
        """A fresh network, with the training images' mean and deviation inside."""
        mean, std = self._statistics
        return DMSNet(mean, std, self._shape, self.channels, self.hidden)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Cross entropy of the logits in bits: 1 for a coin."""
        images, labels = batch
        return functional.cross_entropy(model(images), labels) / math.log(2)

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Share of the images that are classified rightly."""
        right = total = 0
        for images, labels in batches:
            right += int((model(images).argmax(1) == labels).sum())
            total += len(labels)
        if not total:
            raise DataError("a split has no samples to score; ask for more data")
        return right / total

    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Accuracy of each class, and of the single files to infer where there are any."""
        right, total = torch.zeros(2), torch.zeros(2)
        for images, labels in batches:
            hit = (model(images).argmax(1) == labels).float().cpu()
            for value in (0, 1):
                right[value] += hit[labels.cpu() == value].sum()
                total[value] += (labels == value).sum().cpu()
        found = {f"accuracy, {name}": (right[v] / total[v]).item() for v, name in enumerate(PHASES)}
        if len(self._splits["inference"]):
            device = next(model.parameters()).device
            singles = ((images.to(device), labels.to(device)) for images, labels in self._loader("inference"))
            found["accuracy, single files"] = self.score(model, singles)
        return found

    def baselines(self) -> dict[str, float]:
        """Accuracy of the commonest class, and of two simple classifiers of the images averaged over squares."""
        (x, y), (test_x, test_y) = (self._coarse(split) for split in ("train", "test"))
        return {
            "majority": majority_accuracy(y, test_y),
            "nearest mean": centroid_accuracy(x, y, test_x, test_y),
            "logistic regression": logistic_accuracy(x, y, test_x, test_y),
        }

    def _coarse(self, split: str) -> tuple[Float[Tensor, "images squares"], Int[Tensor, " images"]]:
        """The images' mean over their channels, averaged over squares of pixels."""
        rows, labels = [], []
        for images, batch_labels in self._loader(split):
            side = min(COARSE, *images.shape[2:])
            rows.append(functional.avg_pool2d(images.mean(1, keepdim=True), side).flatten(1))
            labels.append(batch_labels)
        return torch.cat(rows), torch.cat(labels)

    def example(self) -> tuple[Float[Tensor, "few 3 rows columns"]]:
        """Four test images."""
        return (torch.stack([image for image, _ in self._some("test", 4)]),)

    def features(self) -> Sequence[str]:
        """The channels of a colour image."""
        return ["red", "green", "blue"]

    def tiny(self) -> DMS:
        """A fifth of the size, few images and two convolutions; with public files, their own size."""
        generated = self._source.source == "generated"
        return replace(
            self,
            shape=(61, 25) if generated else self.shape,
            train_images=60,
            test_images=20,
            inference_images=4,
            channels=(4, 8),
            hidden=(16,),
            batch_size=16,
            epochs=2,
            learning_rate=3e-3,
        )
