"""Optical: images of laser optics, reproduced by an autoencoder that has seen undamaged ones only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lumos.errors import DataError
from lumos.suite.workload import Metric
from lumos.workloads.common.base import as_tuples, at_least, drawn
from lumos.workloads.common.sample_cache import CachedSamples
from lumos.workloads.common.streamed_workload import StreamedWorkload
from lumos.workloads.optical.beamline import CROP, PLANE
from lumos.workloads.optical.data import SHOTS, Images, View, digest_files, find_files, generate
from lumos.workloads.optical.detection import PrincipalComponents, area_under_roc, detection, errors
from lumos.workloads.optical.model import Autoencoder

Batch = tuple[Float[Tensor, "images 1 rows columns"], Int[Tensor, " images"]]

FITTED = 2000
"""Training images that the principal components of the baseline are fitted to, at most."""


@dataclass(frozen=True)
class Optical(StreamedWorkload):
    """An autoencoder of diagnostic images of laser optics; ``README.md`` has the physics, the layout and numbers.

    A sample is the crop of an image, scaled so that the whole image goes from 0 to 1, and whether it is damaged. The
    network is trained and chosen on undamaged images. The test split has both kinds: the score is that of the
    undamaged ones, and :meth:`scores` says how well the others are told from them. Batches are ``(images (n, 1, rows,
    columns) float32, damaged (n,) int64)``. Raises DataError for settings or files that cannot be used.
    """

    plane: Sequence[int] = PLANE
    crop: Sequence[int] = CROP
    train_images: int = 10_533
    valid_images: int = 1476
    test_undamaged: int = 2047
    test_damaged: int = 4499
    encoder: Sequence[int] = (64, 32, 16)
    latent: int = 512
    decoder: Sequence[int] = (16, 32, 32, 64, 64)
    quantile: float = 0.95
    batch_size: int = 192
    epochs: int = 200
    learning_rate: float = 5e-4

    name = "optical"
    core_seconds_per_gb = 270
    metric = Metric("MSE", higher_is_better=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuples(self, int, "plane", "crop", "encoder", "decoder")
        for key, length in (("plane", 2), ("crop", 4), ("encoder", 3), ("decoder", 5)):
            values = getattr(self, key)
            if len(values) != length:
                raise DataError(f"workload.{key}={list(values)}: expected {length} whole numbers")
        at_least(self, train_images=1, valid_images=1, test_undamaged=1, test_damaged=1, latent=1)
        if min(*self.encoder, *self.decoder) < 1:
            raise DataError("workload.encoder and workload.decoder: expected channels of at least 1")
        if not 0 < self.quantile < 1:
            raise DataError(f"workload.quantile={self.quantile}: expected between 0 and 1")
        _ = self.view

    @property
    def view(self) -> View:
        """The size of the images, and the part that is looked at."""
        rows, columns = self.plane
        top, bottom, left, right = self.crop
        return View((rows, columns), (top, bottom, left, right))

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        where = "a simulated beam line" if self.generated else str(self.source.root)
        rows, columns = self.view.size
        return f"images of {where}, {rows} x {columns}; trained on undamaged ones, sessions held out"

    def generate(self) -> Path:
        """Simulate the images where they are not in the cache yet; returns the data set's folder."""
        counts = {
            "training/undamaged": self.train_images,
            "validation/undamaged": self.valid_images,
            "inference/undamaged": self.test_undamaged,
            "inference/damaged": self.test_damaged,
        }
        return generate(self.cache, self.view.plane, counts, self.seed)

    def split_bytes(self) -> dict[str, int]:
        """Count the bytes of each split: whole planes of uint16."""
        plane = self.plane[0] * self.plane[1] * 2
        counts = {"train": self.train_images, "valid": self.valid_images,
                  "test": self.test_undamaged + self.test_damaged}  # fmt: skip
        return {split: count * plane for split, count in counts.items()}

    def outline(self) -> tuple[nn.Module, tuple[Tensor]]:
        """Build the autoencoder, without scaling, and two random images."""
        mean = torch.zeros(1, *self.view.size)
        network = Autoencoder(mean, torch.ones(()), self.encoder, self.latent, self.decoder)
        return network, (drawn(2, 1, *self.view.size),)

    @cached_property
    def _files(self) -> dict[str, list[tuple[Path, int]]]:
        return {
            "train": find_files(self.root, "training", ["undamaged"]),
            "valid": find_files(self.root, "validation", ["undamaged"]),
            "test": find_files(self.root, "inference"),
        }

    @cached_property
    def samples(self) -> Mapping[str, CachedSamples]:
        """The images of each split, kept in memory once read."""
        return {name: CachedSamples(Images(files, self.view)) for name, files in self._files.items()}

    def digest(self) -> str:
        """Compute SHA-256 of the files' names, sizes and parts of their content, in hex."""
        return digest_files([file for files in self._files.values() for file in files])

    @cached_property
    def _statistics(self) -> tuple[Float[Tensor, "1 rows columns"], Float[Tensor, ""]]:
        """The mean training image, and the standard deviation of the pixels from it."""
        total = square = torch.zeros(1, *self.view.size, dtype=torch.float64)
        count = 0
        for images, _ in self.in_order("train"):
            count += len(images)
            total = total + images.double().sum(0)
            square = square + images.double().square().sum(0)
        mean = total / count
        variance = (square / count - mean.square()).mean()
        if not variance > 0:
            raise DataError(f"{self.root}: all training images are the same within the crop; look at workload.crop")
        return mean.float(), variance.sqrt().float()

    def model(self) -> nn.Module:
        """Build a fresh autoencoder, with the training images' mean and deviation inside."""
        mean, std = self._statistics
        return Autoencoder(mean.clone(), std.clone(), self.encoder, self.latent, self.decoder)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Compute the mean squared error over the training images' variance about their mean: 1 for the mean image."""
        images, _ = batch
        return (model(images) - images).square().mean() / self._statistics[1].to(images.device) ** 2

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Compute the mean squared error of the undamaged images, each pixel on a scale of 0 to 1."""
        return errors(model, batches).undamaged_mse()

    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute AUC of the detection of damage, and its rates at a threshold from undamaged validation images."""
        device = next(model.parameters()).device
        valid = ((images.to(device), damaged) for images, damaged in self.loaders().valid)
        return detection(errors(model, valid), errors(model, batches), self.quantile)

    def score_terms(self, model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
        """Compute the mean squared error of each undamaged image."""
        found = errors(model, batches)
        return found.mean[~found.damaged].numpy()

    def test_groups(self) -> np.ndarray | None:
        """Number the session of each undamaged test image; published images do not say theirs."""
        return np.arange(self.test_undamaged) // SHOTS if self.generated else None

    def baselines(self) -> dict[str, float]:
        """Compute MSE of the mean image, and of as many principal components as the network has latent numbers."""
        return {name: errors(f, self.loaders().test).undamaged_mse() for name, f in self._predictors().items()}

    def baseline_auc(self) -> dict[str, float]:
        """Compute AUC of the peak error of the same predictors."""
        found = {name: errors(f, self.loaders().test) for name, f in self._predictors().items()}
        return {name: area_under_roc(e.peak, e.damaged) for name, e in found.items()}

    def _predictors(self) -> dict[str, PrincipalComponents]:
        images = []
        for batch, _ in self.in_order("train"):
            images.append(batch)
            if sum(map(len, images)) >= FITTED:
                break
        fitted = torch.cat(images)[:FITTED]
        counts = {"mean image": 0, f"PCA, {self.latent} components": self.latent}
        return {name: PrincipalComponents.fit(fitted, count) for name, count in counts.items()}

    def example(self) -> tuple[Float[Tensor, "few 1 rows columns"]]:
        """Return four test images."""
        images, _ = next(iter(self.in_order("test", 4)))
        return (images,)

    def features(self) -> Sequence[str]:
        """Name nothing: an image has one channel."""
        return []

    def tiny(self) -> Optical:
        """Shrink it to a tenth of the size, and few images; public files keep their own size."""
        return replace(
            self,
            plane=(49, 66) if self.generated else self.plane,
            crop=(15, 35, 27, 47) if self.generated else self.crop,
            train_images=60,
            valid_images=20,
            test_undamaged=20,
            test_damaged=20,
            encoder=(8, 8, 4),
            latent=8,
            decoder=(4, 8, 8, 8, 8),
            batch_size=10,
            epochs=2,
            learning_rate=3e-3,
        )
