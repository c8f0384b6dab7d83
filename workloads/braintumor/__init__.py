"""BrainTumor: what kind of tumour a slice of a head's MRI shows, by a vision transformer (image -> 4 classes)."""

from __future__ import annotations

import logging
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
from lumos.suite.workload import Metric
from lumos.workloads.braintumor.data import (
    DRAWN_BYTES,
    SPLITS,
    VALID_SHARE,
    Duplicates,
    Slices,
    Split,
    find_parts,
    generate_phantoms,
    read_images,
    separate,
)
from lumos.workloads.braintumor.model import Sizes, build, find_weights
from lumos.workloads.braintumor.phantom import CLASSES
from lumos.workloads.common.arrays import digest
from lumos.workloads.common.base import at_least_if_given, drawn
from lumos.workloads.common.classifiers import (
    centroid_accuracy,
    confusion_matrix,
    logistic_accuracy,
    majority_accuracy,
)
from lumos.workloads.common.score_terms import accuracy_terms
from lumos.workloads.common.streamed_workload import StreamedWorkload

log = logging.getLogger("lumos")

Batch = tuple[Float[Tensor, "n channels y x"], Int[Tensor, " n"]]

CHANNELS: Mapping[int, tuple[str, ...]] = {1: ("intensity",), 3: ("red", "green", "blue")}
"""Names of an image's channels; the three are equal, as published weights for photographs want them."""

BASELINE_PIXELS = 16
"""The trivial classifiers see images of this width."""


@dataclass(frozen=True)
class BrainTumor(StreamedWorkload):
    """The class (:data:`CLASSES`) of an axial slice; ``README.md`` has the sources, the phantoms and numbers.

    With ``data.source=generated`` the images are the project's own phantoms, ``public`` reads the published folders
    or parquet files at ``data.root``. Training images that are also test images are dropped. Batches are ``(images (n,
    channels, pixels, pixels), labels (n,))``. ``pretrained`` is true (weights in the local cache), false or a file of
    weights. Raises DataError for settings or files that cannot be used.
    """

    train_images: int = 4000
    valid_images: int | None = None
    test_images: int = 800
    pixels: int = 64
    channels: int = 1
    patch: int = 8
    width: int = 64
    depth: int = 4
    heads: int = 4
    head_width: int = 0
    pool: str = "avg"
    pretrained: bool | str = False
    augment: bool = True
    batch_size: int = 32
    epochs: int = 12
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05

    name = "braintumor"
    core_seconds_per_gb = 700
    # The paper's pruned network reaches this accuracy on the published images.
    metric = Metric("accuracy", target=0.8177)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("train_images", "test_images"):
            if getattr(self, key) < 40:
                raise DataError(f"workload.{key}={getattr(self, key)}: expected at least 40, ten of each class")
        at_least_if_given(self, valid_images=1)
        if self._held >= self.train_images:
            raise DataError(
                f"workload.valid_images={self.valid_images}: expected fewer than workload.train_images="
                f"{self.train_images}, of which they are a part"
            )
        _ = self._sizes, self._weights  # what cannot be used is said before anything is drawn or read

    @property
    def _held(self) -> int:
        """How many of the generated training images validate."""
        return round(VALID_SHARE * self.train_images) if self.valid_images is None else self.valid_images

    @property
    def _sizes(self) -> Sizes:
        return Sizes(
            self.pixels, self.channels, self.patch, self.width, self.depth, self.heads, self.head_width, self.pool
        )  # fmt: skip

    @cached_property
    def _weights(self) -> Path | None:
        return find_weights(self.pretrained)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        if self.generated:
            return "drawn phantoms of heads, not patients: the score says nothing about real images"
        return f"the images of {self.source.root}; test images are dropped from training"

    def generate(self) -> Path:
        """Draw the phantoms where they are not in the cache yet; returns their folder."""
        counts: dict[Split, int] = {"train": self.train_images, "test": self.test_images}
        return generate_phantoms(self.cache, self.seed, self.pixels, counts)

    def split_bytes(self) -> dict[str, int]:
        """Count the bytes of each split: phantoms as they are drawn, and the grey images that they are read into."""
        image = int(self.pixels**2 * (DRAWN_BYTES + 1))
        counts = {"train": self.train_images - self._held, "valid": self._held, "test": self.test_images}
        return {split: count * image for split, count in counts.items()}

    def outline(self) -> tuple[nn.Module, tuple[Tensor]]:
        """Build the network and two random images."""
        return self.model(), (drawn(2, self.channels, self.pixels, self.pixels),)

    @cached_property
    def _images(self) -> tuple[dict[str, np.ndarray], dict[Split, np.ndarray], Duplicates]:
        arrays = read_images(self.cache, find_parts(self.root), self.pixels, self.source.on_error)
        rows, duplicates = separate(arrays, self.seed, self.valid_images if self.generated else None)
        if duplicates.dropped or not self.generated:
            log.info(f"{self.name}: {duplicates}")
        if duplicates.contradictory:
            log.warning(f"{self.name}: {duplicates.contradictory} images stand under two labels and were left so")
        return arrays, rows, duplicates

    @property
    def duplicates(self) -> Duplicates:
        """What the images hold more than once."""
        return self._images[2]

    @cached_property
    def samples(self) -> Mapping[str, Slices]:
        """The images of each split; those of ``train`` are mirrored and shifted where ``augment`` says so."""
        return {split: self._slices(split, augment=self.augment and split == "train") for split in SPLITS}

    def _slices(self, split: Split, *, augment: bool) -> Slices:
        arrays, rows, _ = self._images
        return Slices(arrays["images"], arrays["labels"], rows[split], self.channels, self.seed, augment)

    def digest(self) -> str:
        """Compute SHA-256 of the images and labels, in hex."""
        return digest(*(array[s.rows] for s in self.samples.values() for array in (s.images, s.labels)))

    def model(self) -> nn.Module:
        """Build a fresh network, or one with the weights that ``pretrained`` names: images to logits (n, 4)."""
        return build(self._sizes, len(CLASSES), self._weights)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Compute the cross entropy over that of an even guess among the classes, so that such a guess has loss 1."""
        images, labels = batch
        return functional.cross_entropy(model(images), labels) / np.log(len(CLASSES))

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Compute the share of the images whose class is named."""
        return self.scores(model, batches)["accuracy"]

    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute accuracy, the mean over classes of F1 (macro-F1), and each class's recall."""
        confusion = confusion_matrix(model, batches, len(CLASSES))
        right, true, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        recall = dict(zip(CLASSES, (right / true.clamp(min=1)).tolist(), strict=True))
        return {
            "accuracy": (right.sum() / true.sum()).item(),
            "macro_f1": (2 * right / (true + guessed).clamp(min=1)).mean().item(),
            **{f"recall_{name}": value for name, value in recall.items()},
        }

    def score_terms(self, model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
        """Compute what each sample adds to the accuracy: 1 or 0."""
        return accuracy_terms(model, batches)

    def baselines(self) -> dict[str, float]:
        """Compute test accuracy of the commonest class, and of two classifiers of pixels on images 16 wide."""
        (x, y), (test_x, test_y) = (self._small(split) for split in ("train", "test"))
        return {
            "majority": majority_accuracy(y, test_y),
            "nearest_centroid": centroid_accuracy(x, y, test_x, test_y),
            "logistic_regression": logistic_accuracy(x, y, test_x, test_y),
        }

    def _small(self, split: Split) -> tuple[Float[Tensor, "n columns"], Int[Tensor, " n"]]:
        """All images of a split at the baselines' size, as rows, and their labels."""
        arrays, rows, _ = self._images
        small = [
            functional.adaptive_avg_pool2d(torch.from_numpy(arrays["images"][part]).float()[:, None], BASELINE_PIXELS)
            for part in np.array_split(rows[split], max(1, len(rows[split]) // 256))
        ]
        return torch.cat(small).flatten(1), torch.from_numpy(arrays["labels"][rows[split]])

    def example(self) -> tuple[Float[Tensor, "n channels y x"]]:
        """Return four images of the training split, without augmentation."""
        plain = self._slices("train", augment=False)
        return (torch.stack([plain.read(k, 0)[0] for k in range(min(4, len(plain)))]),)

    def features(self) -> Sequence[str]:
        """Name the image's channels."""
        return CHANNELS[self.channels]

    def tiny(self) -> BrainTumor:
        """Shrink it to 240 images of 32 pixels and a narrow network of two blocks."""
        return replace(
            self,
            train_images=160,
            valid_images=None,
            test_images=80,
            pixels=32,
            patch=8,
            width=32,
            depth=2,
            heads=2,
            head_width=0,
            pretrained=False,
            batch_size=16,
            epochs=2,
        )


__all__ = ["CLASSES", "BrainTumor"]
