"""EM-denoise: the clean micrograph of graphene behind one that few electrons have made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from lumos.errors import DataError
from lumos.suite.workload import Metric
from lumos.workloads.common.base import as_tuples, at_least, at_least_if_given, drawn
from lumos.workloads.common.files import digest_files
from lumos.workloads.common.streamed_workload import StreamedWorkload
from lumos.workloads.common.unet import UNet
from lumos.workloads.em_denoise.data import HALVINGS, ImagePairs, PairSamples, find_root, generate

Batch = tuple[Float[Tensor, "n 1 h w"], Float[Tensor, "n 1 h w"]]

VALID_SHARE = 0.1
"""Of the pairs of train/, the last ones, at least one."""

SIGMAS = tuple(0.5 * k for k in range(1, 11))
"""Widths of the Gaussian filter that are tried, pixels."""

STATISTICS_IMAGES = 256
"""Training images, at most, that the loss's scale and a trivial predictor's mean are taken from."""


@dataclass(frozen=True)
class EMDenoise(StreamedWorkload):
    """Denoising of graphene's scanning transmission electron micrographs; ``README.md`` has physics and numbers.

    Samples are pairs of a noisy and a clean image. With ``data.source=generated`` the project's own flakes are written
    in the published layout, and then read as ``public`` files are: ``data.root`` is the folder em_graphene_sim or the
    one that holds it. Batches are ``(noisy (n, 1, h, w), clean (n, 1, h, w))``, float32. Raises DataError for settings
    or files that cannot be used.
    """

    train_pairs: int = 1600
    valid_pairs: int | None = None
    test_pairs: int = 200
    size: int = 64
    channels: Sequence[int] = (8, 16, 32, 64)
    batch_size: int = 8
    epochs: int = 8
    learning_rate: float = 2e-3

    name = "em_denoise"
    core_seconds_per_gb = 1000
    metric = Metric("MSE", higher_is_better=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuples(self, int, "channels")
        at_least(self, train_pairs=2, test_pairs=1, size=16)
        at_least_if_given(self, valid_pairs=1)
        if self._held_of(self.train_pairs) >= self.train_pairs:
            raise DataError(
                f"workload.valid_pairs={self.valid_pairs}: expected fewer than workload.train_pairs={self.train_pairs},"
                " of which they are a part"
            )
        if not 2 <= len(self.channels) <= HALVINGS + 1 or min(self.channels) < 1:
            raise DataError(
                f"workload.channels={list(self.channels)}: expected 2 to {HALVINGS + 1} numbers of at least 1"
            )
        if self.size % 2**HALVINGS:
            raise DataError(f"workload.size={self.size}: expected a multiple of {2**HALVINGS}")

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        if not self.generated:
            return f"micrographs of {self.source.root}"
        return f"the project's own flakes of graphene, {self.size} x {self.size}; MSE in units of a carbon atom's peak"

    def generate(self) -> Path:
        """Draw the micrographs where they are not in the cache yet; returns the folder of train/ and test/."""
        return generate(self.cache, seed=self.seed, train=self.train_pairs, test=self.test_pairs, size=self.size)

    def split_bytes(self) -> dict[str, int]:
        """Count the bytes of each split: pairs of float32 images."""
        pair = 2 * self.size**2 * 4
        held = self._held_of(self.train_pairs)
        counts = {"train": self.train_pairs - held, "valid": held, "test": self.test_pairs}
        return {split: count * pair for split, count in counts.items()}

    def _held_of(self, pairs: int) -> int:
        """How many of the pairs of train/ validate: the last ones, in a block."""
        given = self.valid_pairs if self.generated else None
        return max(1, round(VALID_SHARE * pairs)) if given is None else given

    def held_bytes(self) -> int:
        """Count nothing: pairs are read anew each time."""
        return 0

    def outline(self) -> tuple[nn.Module, tuple[Tensor]]:
        """Build the network and two random images of the generated size."""
        return self.model(), (drawn(2, 1, self.size, self.size),)

    @cached_property
    def root(self) -> Path:
        """The folder that holds train/ and test/; generated at the first call."""
        self.check_size()
        return self.generate() if self.generated else find_root(self.source.public_root())

    @cached_property
    def splits(self) -> dict[str, tuple[ImagePairs, range]]:
        """The pairs of each split: valid is the last part of train/, a block, so that no neighbours are parted."""
        train, test = ImagePairs(self.root / "train"), ImagePairs(self.root / "test")
        if len(train) < 2:
            raise DataError(f"{self.root / 'train'}: {len(train)} pairs; expected at least 2, one of them to validate")
        end = len(train) - self._held_of(len(train))
        return {
            "train": (train, range(end)),
            "valid": (train, range(end, len(train))),
            "test": (test, range(len(test))),
        }

    @cached_property
    def clean_spread(self) -> tuple[float, float]:
        """Mean and variance of the pixels of the first clean training images."""
        pairs, rows = self.splits["train"]
        pixels = np.stack([pairs.pair(row)[1] for row in rows[:STATISTICS_IMAGES]])
        variance = float(pixels.var(dtype=np.float64))
        return float(pixels.mean(dtype=np.float64)), variance if variance > 0 else 1.0

    @cached_property
    def samples(self) -> Mapping[str, PairSamples]:
        """The pairs of each split; those of ``train`` are turned and mirrored anew in each epoch."""
        plain = {split: PairSamples(*pairs) for split, pairs in self.splits.items()}
        return {**plain, "train": PairSamples(*self.splits["train"], self.seed)}

    def digest(self) -> str:
        """Compute SHA-256 of the files, in hex."""
        return digest_files(self.root, [file for split in ("train", "test") for file in self.splits[split][0].files])

    def model(self) -> nn.Module:
        """Build a fresh U-Net."""
        return UNet(1, 1, self.channels, normalise=True)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Compute the mean squared error of the pixels in units of the clean images' variance."""
        noisy, clean = batch
        return (model(noisy) - clean).square().mean() / self.clean_spread[1]

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Compute the mean squared error over all pixels of all images."""
        return self.scores(model, batches)["MSE"]

    @torch.no_grad()
    def scores(self, model: Callable[[Tensor], Tensor], batches: Iterable[Batch]) -> dict[str, float]:
        """Compute MSE over all pixels, MAE likewise, and PSNR (dB): of each image, for a peak of 1, then averaged."""
        squares, sizes = [], []
        for noisy, clean in batches:
            gap = (model(noisy) - clean).to("cpu", torch.float64).flatten(1)
            squares.append(gap.square().mean(1))
            sizes.append(gap.abs().mean(1))
        if not squares:
            raise DataError("a split has no samples to score; ask for more data")
        square, size = torch.cat(squares), torch.cat(sizes)
        return {
            "MSE": square.mean().item(),
            "MAE": size.mean().item(),
            "PSNR": (-10 * square.clamp_min(1e-30).log10()).mean().item(),
        }

    @torch.no_grad()
    def score_terms(self, model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
        """Compute the mean squared error of each image."""
        return torch.cat(
            [(model(noisy) - clean).to("cpu", torch.float64).square().flatten(1).mean(1) for noisy, clean in batches]
        ).numpy()

    def baselines(self) -> dict[str, float]:
        """Compute MSE on the test images of the mean, the noisy image, and a Gaussian filter.

        The filter's width is the best on valid.
        """

        def error(predict: Callable[[np.ndarray], np.ndarray], split: str) -> float:
            batches = self.in_order(split, batch_size=16)
            squares = [np.square(predict(noisy.numpy()) - clean.numpy()).mean((1, 2, 3)) for noisy, clean in batches]
            return float(np.concatenate(squares).mean())

        def smooth(sigma: float) -> Callable[[np.ndarray], np.ndarray]:
            return lambda noisy: gaussian_filter(noisy, (0, 0, sigma, sigma))

        best = min(SIGMAS, key=lambda sigma: error(smooth(sigma), "valid"))
        return {
            "mean": error(lambda noisy: np.full_like(noisy, self.clean_spread[0]), "test"),
            "noisy_input": error(lambda noisy: noisy, "test"),
            f"gaussian_filter_{best:g}px": error(smooth(best), "test"),
        }

    def example(self) -> tuple[Float[Tensor, "2 1 h w"]]:
        """Draw two images of the size that training has."""
        _, *shape, _ = self.splits["train"][0].shape
        generator = torch.Generator().manual_seed(0)
        return (torch.poisson(torch.full((2, 1, *shape), 3.0), generator=generator) / 3,)

    def features(self) -> Sequence[str]:
        """Name nothing: the one channel is the image."""
        return []

    def tiny(self) -> EMDenoise:
        """Shrink it to images of 32 x 32 and a network of two narrow levels."""
        return replace(
            self, train_pairs=20, valid_pairs=None, test_pairs=4, size=32, channels=(4, 8), batch_size=6, epochs=2
        )


__all__ = ["EMDenoise"]
