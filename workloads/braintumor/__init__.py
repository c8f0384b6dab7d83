"""BrainTumor: what kind of tumour a slice of a head's MRI shows, by a vision transformer (image -> 4 classes)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from lumos.suite.workload import DataError, DataSource, Loaders, Metric, Recipe
from lumos.workloads.braintumor.data import SPLITS, Repeats, Split, find_parts, phantom_folder, read_images, separate
from lumos.workloads.braintumor.model import Sizes, build, find_weights
from lumos.workloads.braintumor.phantom import CLASSES
from lumos.workloads.common.classifiers import centroid_accuracy, logistic_accuracy, majority_accuracy
from lumos.workloads.common.streaming import collate_tuple, sample_loader
from lumos.workloads.common.tabular import as_source, digest

log = logging.getLogger("lumos")

Batch = tuple[Float[Tensor, "n channels y x"], Int[Tensor, " n"]]

CHANNELS: Mapping[int, tuple[str, ...]] = {1: ("intensity",), 3: ("red", "green", "blue")}
"""Names of an image's channels; the three are equal, as published weights for photographs want them."""

BASELINE_PIXELS = 16
"""The trivial classifiers see images of this width."""


@dataclass(frozen=True)
class Slices:
    """Images of one split, as the network takes them: (channels, pixels, pixels), float32 in [-1, 1], and a label.

    With ``augment``, an image is mirrored in half of the epochs and shifted by up to a thirty-second of its width, as a
    function of seed, epoch and number alone.
    """

    images: UInt8[np.ndarray, "all y x"]
    labels: Int[np.ndarray, " all"]
    rows: Int[np.ndarray, " rows"]
    channels: int
    seed: int
    augment: bool

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int, epoch: int) -> tuple[Float[Tensor, "channels y x"], Int[Tensor, ""]]:
        """One image and its label."""
        row = self.rows[index]
        image = self.images[row]
        if self.augment:
            image = self._moved(image, np.random.default_rng([self.seed, epoch, index]))
        scaled = torch.from_numpy(image.astype(np.float32)) / 127.5 - 1
        return scaled.expand(self.channels, -1, -1), torch.tensor(self.labels[row])

    def _moved(self, image: UInt8[np.ndarray, "y x"], rng: np.random.Generator) -> UInt8[np.ndarray, "y x"]:
        if rng.random() < 0.5:
            image = image[:, ::-1]
        reach = len(image) // 32
        dy, dx = rng.integers(-reach, reach + 1, 2)
        # What is shifted in repeats the border: heads are surrounded by air.
        padded = np.pad(image, reach, mode="edge")
        return padded[reach + dy :, reach + dx :][: len(image), : len(image)]


@dataclass(frozen=True)
class BrainTumor:
    """The class (:data:`CLASSES`) of an axial slice; ``README.md`` has the sources, the phantoms and numbers.

    With ``data.source=generated`` the images are the project's own phantoms, ``public`` reads the published folders
    or parquet files at ``data.root``. Training images that are also test images are dropped. ``pretrained`` is true
    (weights in the local cache), false or a file of weights. Raises DataError for settings or files that cannot be
    used.
    """

    data: DataSource | Mapping[str, object] = field(default_factory=DataSource)
    seed: int = 0
    train_images: int = 4000
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
    # The paper's pruned network reaches this accuracy on the published images.
    metric = Metric("accuracy", target=0.8177)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_source(self.data))
        for key in ("train_images", "test_images"):
            if getattr(self, key) < 40:
                raise DataError(f"workload.{key}={getattr(self, key)}: expected at least 40, ten of each class")
        if self.batch_size < 1:
            raise DataError(f"workload.batch_size={self.batch_size}: expected at least 1")
        _ = self._sizes, self._weights  # what cannot be used is said before anything is drawn or read

    @property
    def _source(self) -> DataSource:
        return as_source(self.data)

    @property
    def _sizes(self) -> Sizes:
        return Sizes(
            self.pixels, self.channels, self.patch, self.width, self.depth, self.heads, self.head_width, self.pool
        )  # fmt: skip

    @cached_property
    def _weights(self) -> Path | None:
        return find_weights(self.pretrained)

    @property
    def recipe(self) -> Recipe:
        """How the network is trained."""
        return Recipe(epochs=self.epochs, learning_rate=self.learning_rate, weight_decay=self.weight_decay)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        if self._source.source == "generated":
            return "drawn phantoms of heads, not patients: the score says nothing about real images"
        return f"the images of {self._source.root}; test images are dropped from training"

    @cached_property
    def _images(self) -> tuple[dict[str, np.ndarray], dict[Split, np.ndarray], Repeats]:
        cache = self._source.cache / self.name
        if self._source.source == "generated":
            counts: dict[Split, int] = {"train": self.train_images, "test": self.test_images}
            root = phantom_folder(cache, self.seed, self.pixels, counts)
        else:
            root = self._source.public_root()
        arrays = read_images(cache, find_parts(root), self.pixels, self._source.on_error)
        rows, repeats = separate(arrays, self.seed)
        if repeats.dropped or self._source.source == "public":
            log.info(f"{self.name}: {repeats}")
        if repeats.contradictory:
            log.warning(f"{self.name}: {repeats.contradictory} images stand under two labels and were left so")
        return arrays, rows, repeats

    @property
    def repeats(self) -> Repeats:
        """What the images hold more than once."""
        return self._images[2]

    def slices(self, split: Split) -> Slices:
        """The images of a split; those of ``train`` are mirrored and shifted where ``augment`` says so."""
        arrays, rows, _ = self._images
        augment = self.augment and split == "train"
        return Slices(arrays["images"], arrays["labels"], rows[split], self.channels, self.seed, augment)

    def model(self) -> nn.Module:
        """A fresh network, or one with the weights that ``pretrained`` names: images to logits (n, 4)."""
        return build(self._sizes, len(CLASSES), self._weights)

    def loaders(self) -> Loaders:
        """Batches ``(images (n, channels, pixels, pixels), labels (n))``."""
        return self._loaders

    @cached_property
    def _loaders(self) -> Loaders:
        parts = {split: self.slices(split) for split in SPLITS}

        def loader(split: Split) -> DataLoader:
            seed = self.seed if split == "train" else None
            return sample_loader(
                parts[split],
                batch_size=self.batch_size,
                seed=seed,
                workers=self._source.workers,
                collate=collate_tuple,
            )

        contents = [array[p.rows] for p in parts.values() for array in (p.images, p.labels)]
        return Loaders(
            train=loader("train"),
            valid=loader("valid"),
            test=loader("test"),
            n_train=len(parts["train"]),
            n_valid=len(parts["valid"]),
            n_test=len(parts["test"]),
            source=self._source.source,
            sha256=digest(*contents),
        )

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Cross entropy over that of an even guess among the classes, so that such a guess has loss 1."""
        images, labels = batch
        return functional.cross_entropy(model(images), labels) / np.log(len(CLASSES))

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Share of the images whose class is named."""
        return self.scores(model, batches)["accuracy"]

    @torch.no_grad()
    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Accuracy, the mean over classes of F1 (macro-F1), and each class's recall."""
        confusion = torch.zeros(len(CLASSES), len(CLASSES))
        for images, labels in batches:
            cells = (labels * len(CLASSES) + model(images).argmax(1)).cpu()
            confusion += cells.bincount(minlength=confusion.numel()).view_as(confusion)
        if not confusion.any():
            raise DataError("a split has no images to score; ask for more data")
        right, true, guessed = confusion.diag(), confusion.sum(1), confusion.sum(0)
        recall = dict(zip(CLASSES, (right / true.clamp(min=1)).tolist(), strict=True))
        return {
            "accuracy": (right.sum() / true.sum()).item(),
            "macro_f1": (2 * right / (true + guessed).clamp(min=1)).mean().item(),
            **{f"recall_{name}": value for name, value in recall.items()},
        }

    def baselines(self) -> dict[str, float]:
        """Test accuracy of the commonest class, and of two classifiers of pixels on images 16 wide."""
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
        """Four images of the training split, without augmentation."""
        arrays, rows, _ = self._images
        plain = Slices(arrays["images"], arrays["labels"], rows["train"][:4], self.channels, self.seed, augment=False)
        return (torch.stack([plain.read(k, 0)[0] for k in range(len(plain))]),)

    def features(self) -> Sequence[str]:
        """Names of the image's channels."""
        return CHANNELS[self.channels]

    def tiny(self) -> BrainTumor:
        """240 images of 32 pixels, a narrow network of two blocks."""
        return replace(
            self,
            train_images=160,
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
