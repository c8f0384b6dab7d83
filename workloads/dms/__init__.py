"""DMS: diffuse multiple scattering of X-rays, from which to tell a monoclinic crystal from a tetragonal one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lumos.errors import DataError
from lumos.scaling import varies
from lumos.suite.dependence import Derived, TrueDependence
from lumos.suite.workload import Metric
from lumos.workloads.common.base import as_tuples, at_least, at_least_if_given, drawn, positive_sizes
from lumos.workloads.common.classifiers import centroid_accuracy, logistic_accuracy, majority_accuracy
from lumos.workloads.common.damaged import readable
from lumos.workloads.common.sample_cache import LIMIT, CachedSamples
from lumos.workloads.common.score_terms import accuracy_terms
from lumos.workloads.common.streamed_workload import StreamedWorkload
from lumos.workloads.common.streaming import Samples
from lumos.workloads.dms.crystal import PHASES
from lumos.workloads.dms.data import CHANNELS, Patterns, SingleImages, find_data, generate, hold_out, read_labels
from lumos.workloads.dms.model import DMSNet
from lumos.workloads.dms.pattern import DETECTOR, Scene

Batch = tuple[Float[Tensor, "images 3 rows columns"], Int[Tensor, " images"]]

HELD_OUT = 0.1
"""Share of the training group that validates."""
STATISTICS_IMAGES = 500
"""Training images, evenly spaced, from which the inputs' mean and deviation are taken."""
DIGEST_IMAGES = 20
"""Images of each split that go into the digest of the data."""
SQUARE = 6
"""Pixels along a side of the squares whose means the trivial classifiers see."""


@dataclass(frozen=True)
class DMS(StreamedWorkload):
    """A classifier of scattering patterns, 3 channels, two logits; ``README.md`` has the physics, layout and numbers.

    Label 0 is monoclinic, 1 tetragonal. The three channels are equal (the published images are colour renders of one
    quantity), so that a selection should keep one. Batches are ``(images (n, 3, rows, columns) float32, labels (n,)
    int64)``. Raises DataError for settings or files that cannot be used.
    """

    shape: Sequence[int] = DETECTOR
    jitter: float = 0.5
    train_images: int = 6448
    valid_images: int | None = None
    test_images: int = 1612
    inference_images: int = 100
    channels: Sequence[int] = (8, 16, 32, 64, 128)
    hidden: Sequence[int] = (512, 256)
    batch_size: int = 1024
    epochs: int = 200
    learning_rate: float = 5e-4

    name = "dms"
    core_seconds_per_gb = 700
    metric = Metric("accuracy")

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuples(self, int, "shape", "channels", "hidden")
        positive_sizes(self, "shape", "channels", "hidden")
        if len(self.shape) != 2:
            raise DataError(f"workload.shape={list(self.shape)}: expected two numbers, pixels along each side")
        at_least(self, train_images=20, test_images=4, inference_images=4)
        at_least_if_given(self, valid_images=2)
        if self.train_images - self._held < 2:
            raise DataError(
                f"workload.valid_images={self.valid_images}: expected fewer than workload.train_images="
                f"{self.train_images}, of which they are a part"
            )
        if not 0 <= self.jitter <= 10:
            raise DataError(f"workload.jitter={self.jitter}: expected 0 (a fixed geometry) to 10")

    @property
    def _held(self) -> int:
        """How many of the generated training images validate."""
        return round(HELD_OUT * self.train_images) if self.valid_images is None else self.valid_images

    @property
    def _shape(self) -> tuple[int, int]:
        rows, columns = self.shape
        return rows, columns

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        if not self.generated:
            return f"patterns of {self.source.root}"
        return f"simulated patterns, each of another crystal; jitter of the geometry {self.jitter:g}"

    def generate(self) -> Path:
        """Simulate the patterns where they are not in the cache yet; returns the data set's folder."""
        counts = {"train": self.train_images, "test": self.test_images, "inference": self.inference_images}
        return generate(self.cache, Scene(self._shape, self.jitter), counts, self.seed)

    def split_bytes(self) -> dict[str, int]:
        """Count the bytes of each split: float32 images of three channels."""
        image = self.shape[0] * self.shape[1] * CHANNELS * 4
        counts = {"train": self.train_images - self._held, "valid": self._held, "test": self.test_images}
        return {split: count * image for split, count in counts.items()}

    def held_bytes(self) -> int:
        """Count what is kept of training and validation once it was read, at most."""
        sizes = self.split_bytes()
        return sum(min(sizes[split], LIMIT) for split in ("train", "valid"))

    def outline(self) -> tuple[nn.Module, tuple[Tensor]]:
        """Build the network, without scaling, and two random images."""
        network = DMSNet(torch.zeros(CHANNELS), torch.ones(CHANNELS), self._shape, self.channels, self.hidden)
        return network, (drawn(2, CHANNELS, *self._shape),)

    @cached_property
    def samples(self) -> Mapping[str, Samples]:
        """The patterns of each split, and of ``inference``, the single files; all but ``test`` stay in memory."""
        file, singles = find_data(self.root)
        labels = {split: read_labels(file, split, self._shape) for split in ("train", "test")}
        train, valid = hold_out(labels["train"], self._held / self.train_images if self.generated else HELD_OUT)
        splits: dict[str, Samples] = {
            "train": Patterns(file, "train", train, labels["train"]),
            "valid": Patterns(file, "train", valid, labels["train"]),
            "test": Patterns(file, "test", range(len(labels["test"])), labels["test"]),
            "inference": SingleImages(self.root, singles, self._shape),
        }
        # The test images are the most and are seen once or twice: they are read each time.
        return {name: samples if name == "test" else CachedSamples(samples) for name, samples in splits.items()}

    def _evenly_spaced(self, split: str, count: int) -> list[tuple[Tensor, int]]:
        """Up to ``count`` samples of a split, evenly spaced; damaged ones are left out where that is configured."""
        samples = self.samples[split]
        spaced = np.linspace(0, len(samples) - 1, min(len(samples), count)).astype(int).tolist()
        found = [sample for _, sample in readable(spaced, lambda k: samples.read(k, 0), self.source.on_error)]
        if not found:
            raise DataError(f"{self.root}: none of {count} images of the {split} split that were tried can be read")
        return found

    def digest(self) -> str:
        """Compute SHA-256 of the folder's name (a hash of the settings, where generated), counts and some images."""
        state = hashlib.sha256(self.root.name.encode() if self.generated else b"public")
        for split in ("train", "valid", "test"):
            state.update(f"{split} {len(self.samples[split])}".encode())
            for image, label in self._evenly_spaced(split, DIGEST_IMAGES):
                state.update(image.numpy().tobytes() + bytes([label]))
        return state.hexdigest()

    @cached_property
    def _statistics(self) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """Mean and standard deviation of each channel over training images."""
        images = torch.stack([image for image, _ in self._evenly_spaced("train", STATISTICS_IMAGES)])
        changing = varies(images.movedim(1, -1).flatten(0, -2))
        return images.mean((0, 2, 3)), torch.where(changing, images.std((0, 2, 3)), 1.0)

    def model(self) -> nn.Module:
        """Build a fresh network, with the training images' mean and deviation inside."""
        mean, std = self._statistics
        return DMSNet(mean, std, self._shape, self.channels, self.hidden)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Compute the cross entropy of the logits in bits: 1 for a coin."""
        images, labels = batch
        return functional.cross_entropy(model(images), labels) / math.log(2)

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Compute the share of the images that are classified rightly."""
        right = total = 0
        for images, labels in batches:
            right += int((model(images).argmax(1) == labels).sum())
            total += len(labels)
        if not total:
            raise DataError("a split has no samples to score; ask for more data")
        return right / total

    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute the accuracy, that of each class, and of the single files to infer where there are any."""
        right, total = torch.zeros(2), torch.zeros(2)
        for images, labels in batches:
            hit = (model(images).argmax(1) == labels).float().cpu()
            for value in (0, 1):
                right[value] += hit[labels.cpu() == value].sum()
                total[value] += (labels == value).sum().cpu()
        if not total.any():
            raise DataError("a split has no samples to score; ask for more data")
        found = {"accuracy": int(right.sum()) / int(total.sum())}
        found |= {f"accuracy, {name}": (right[v] / total[v]).item() for v, name in enumerate(PHASES)}
        if len(self.samples["inference"]):
            device = next(model.parameters()).device
            singles = ((images.to(device), labels.to(device)) for images, labels in self.in_order("inference"))
            found["accuracy, single files"] = self.score(model, singles)
        return found

    def score_terms(self, model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
        """Compute what each sample adds to the accuracy: 1 or 0."""
        return accuracy_terms(model, batches)

    def baselines(self) -> dict[str, float]:
        """Compute accuracy of the commonest class, and of two simple classifiers of images averaged over squares."""
        (x, y), (test_x, test_y) = (self._coarse(split) for split in ("train", "test"))
        return {
            "majority": majority_accuracy(y, test_y),
            "nearest mean": centroid_accuracy(x, y, test_x, test_y),
            "logistic regression": logistic_accuracy(x, y, test_x, test_y),
        }

    def _coarse(self, split: str) -> tuple[Float[Tensor, "images squares"], Int[Tensor, " images"]]:
        """The images' mean over their channels, averaged over squares of pixels."""
        rows, labels = [], []
        for images, batch_labels in self.in_order(split):
            side = min(SQUARE, *images.shape[2:])
            rows.append(functional.avg_pool2d(images.mean(1, keepdim=True), side).flatten(1))
            labels.append(batch_labels)
        return torch.cat(rows), torch.cat(labels)

    def example(self) -> tuple[Float[Tensor, "few 3 rows columns"]]:
        """Return four test images."""
        return (torch.stack([image for image, _ in self._evenly_spaced("test", 4)]),)

    def features(self) -> Sequence[str]:
        """Name the channels of a colour image."""
        return ["red", "green", "blue"]

    def true_dependence(self) -> TrueDependence | None:
        """Say that the channels of a simulated image are equal, so that one is enough; nothing of public ones."""
        if not self.generated:
            return None
        red, *others = self.features()
        return TrueDependence({red: ("monoclinic",)}, {name: Derived([red], [red]) for name in others})

    def tiny(self) -> DMS:
        """Shrink it to a fifth of the size, few images and two convolutions; public files keep their own size."""
        return replace(
            self,
            shape=(61, 25) if self.generated else self.shape,
            train_images=60,
            valid_images=None,
            test_images=20,
            inference_images=4,
            channels=(4, 8),
            hidden=(16,),
            batch_size=16,
            epochs=2,
            learning_rate=3e-3,
        )
