"""SLSTR: cloud masks of Sentinel-3's radiometer, pixel by pixel, from six reflectances and three temperatures."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lumos.errors import DataError
from lumos.suite.dependence import Derived, TrueDependence
from lumos.suite.workload import Metric
from lumos.workloads.common.base import as_tuples, at_least_if_given, drawn, positive_sizes
from lumos.workloads.common.files import dataset_folder, digest_files
from lumos.workloads.common.sample_cache import CachedSamples
from lumos.workloads.common.streamed_workload import StreamedWorkload
from lumos.workloads.common.streaming import Samples
from lumos.workloads.common.unet import UNet
from lumos.workloads.slstr.baselines import pixel_baselines
from lumos.workloads.slstr.data import (
    ARRAYS,
    FOLDER,
    Patches,
    Simulation,
    find_splits,
    generate,
    held_out,
    missing_values,
)
from lumos.workloads.slstr.scenes import CHANNELS

log = logging.getLogger("lumos")

Batch = tuple[Float[Tensor, "rows 9 p p"], Float[Tensor, "rows 1 p p"]]


@dataclass(frozen=True)
class SLSTR(StreamedWorkload):
    """Cloud or clear, for every pixel; ``README.md`` has the physics and the numbers.

    With ``data.source=generated`` the project's own scenes are simulated; with ``public`` the SciML-Bench folder
    ``cloud_slstr_ds1`` at ``data.root`` is read. Every scene is in one split only. Batches are ``(channels (rows, 9,
    patch, patch), mask (rows, 1, patch, patch))``, float32. Raises DataError for settings or files that cannot be used.
    """

    scenes: int = 80
    valid_scenes: int | None = None
    test_scenes: int | None = None
    scene: Sequence[int] = (300, 375)
    crop: Sequence[int] = (256, 320)
    patch: int = 64
    widths: Sequence[int] = (8, 16, 32, 64)
    batch_size: int = 16
    epochs: int = 45
    learning_rate: float = 3e-3

    name = "slstr"
    core_seconds_per_gb = 230
    # The paper lists SLSTR among the workloads scored by an error and not by a share of right answers.
    metric = Metric("BCE", unit="nats a pixel", higher_is_better=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuples(self, int, "scene", "crop", "widths")
        positive_sizes(self, "widths")
        halvings = 2 ** (len(self.widths) - 1)
        if self.patch < halvings or self.patch % halvings:
            raise DataError(
                f"workload.patch={self.patch}: expected a multiple of {halvings}, to be halved at each level"
            )
        if len(self.crop) != 2 or any(side < self.patch or side % self.patch for side in self.crop):
            raise DataError(f"workload.crop={list(self.crop)}: expected two multiples of workload.patch={self.patch}")
        if len(self.scene) != 2 or any(side < cut for side, cut in zip(self.scene, self.crop, strict=True)):
            raise DataError(f"workload.scene={list(self.scene)}: expected at least workload.crop={list(self.crop)}")
        tenths = dict(zip(("valid_scenes", "test_scenes"), held_out(self.scenes), strict=True))
        at_least_if_given(self, **tenths)
        _ = self._simulation

    @property
    def _simulation(self) -> Simulation:
        return Simulation(self.seed, self.scenes, (self.scene[0], self.scene[1]), self._more)

    @property
    def _more(self) -> tuple[int, int]:
        """Generated scenes that validate and test beside a tenth of ``scenes`` each."""
        valid, test = held_out(self.scenes)
        wanted = self.valid_scenes, self.test_scenes
        valid, test = (0 if n is None else n - tenth for n, tenth in zip(wanted, (valid, test), strict=True))
        return valid, test

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        what = f"{self.scenes} simulated scenes" if self.generated else "scenes of Sentinel-3"
        return f"patches of {self.patch} x {self.patch} pixels of {what}; tested on scenes not trained on"

    def generate(self) -> Path:
        """Simulate the scenes where they are not in the cache yet; returns the data set's folder."""
        return generate(self._simulation, self.cache)

    def split_bytes(self) -> dict[str, int]:
        """Count the bytes of each split: whole scenes of float32, masks included."""
        scene = self.scene[0] * self.scene[1] * sum(ARRAYS.values()) * 4
        valid, test = held_out(self.scenes)
        more = self._more
        return {"train": (self.scenes - valid - test) * scene, "valid": (valid + more[0]) * scene,
                "test": (test + more[1]) * scene}  # fmt: skip

    def outline(self) -> tuple[nn.Module, tuple[Tensor]]:
        """Build the network and two random patches."""
        return self.model(), (drawn(2, len(CHANNELS), self.patch, self.patch),)

    @cached_property
    def splits(self) -> dict[str, Patches]:
        """The patches of ``train``, ``valid`` and ``test``, simulated at the first call or read from the disk."""
        more = self._more if self.generated else (0, 0)
        return find_splits(self.root, (self.crop[0], self.crop[1]), self.patch, self.seed, more)

    @cached_property
    def samples(self) -> Mapping[str, Samples]:
        """The patches of each split, kept in memory once read; the log says where values are missing."""
        missing = {name: share for name, share in missing_values(self.splits["train"]).items() if share}
        if missing:
            shares = ", ".join(f"{share:.2%} of {name}" for name, share in missing.items())
            log.info(f"slstr: not a number in 100 training patches: {shares}; they count as the middle value, or clear")
        return {split: CachedSamples(patches) for split, patches in self.splits.items()}

    def digest(self) -> str:
        """Compute SHA-256 of the files, in hex."""
        return digest_files(
            dataset_folder(self.root, FOLDER, "training"),
            sorted(path for patches in self.splits.values() for path in patches.files),
        )

    def model(self) -> nn.Module:
        """Build a fresh UNet without normalisation; its output is a logit of cloud for every pixel."""
        network = UNet(len(CHANNELS), 1, self.widths, transposed=True)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] -- faster on a CPU

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Compute the binary cross entropy in units of that of a coin, ln 2."""
        x, mask = batch
        return functional.binary_cross_entropy_with_logits(model(x), mask) / math.log(2)

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Compute the binary cross entropy, the mean over all pixels, in nats."""
        return self.scores(model, batches)["BCE"]

    @torch.no_grad()
    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute over all pixels ``BCE`` in nats, ``accuracy``, ``IoU`` of the clouds, ``MSE`` of the probability.

        Cloud is where the probability is above one half.
        """
        pixels = both = either = right = 0
        entropy = square = 0.0
        for x, mask in batches:
            logit = model(x)
            entropy += functional.binary_cross_entropy_with_logits(logit, mask, reduction="sum").double().item()
            square += (logit.sigmoid() - mask).square().sum().double().item()
            guess, truth = logit > 0, mask > 0.5
            pixels += mask.numel()
            right += int((guess == truth).sum())
            both += int((guess & truth).sum())
            either += int((guess | truth).sum())
        if not pixels:
            raise DataError("a split has no samples to score; ask for more data")
        overlap = both / either if either else 1.0
        return {"BCE": entropy / pixels, "accuracy": right / pixels, "IoU": overlap, "MSE": square / pixels}

    @torch.no_grad()
    def score_terms(self, model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
        """Compute the binary cross entropy of each patch, in nats a pixel."""
        found = [
            functional.binary_cross_entropy_with_logits(model(x), mask, reduction="none").double().flatten(1).mean(1)
            for x, mask in batches
        ]
        return torch.cat(found).cpu().numpy()

    def test_groups(self) -> np.ndarray:
        """Number the scene of each test patch."""
        patches = self.splits["test"]
        return np.arange(len(patches)) // patches.per_file

    def baselines(self) -> dict[str, float]:
        """Compute the binary cross entropy in nats of predictors of single pixels; see :meth:`pixel_scores`."""
        return {name: scores["BCE"] for name, scores in self.pixel_scores().items()}

    def pixel_scores(self) -> dict[str, dict[str, float]]:
        """Score what needs no neighbours: the share of clouds, logistic regression, boosted trees.

        Fitted to 40,000 training pixels, scored on at most 400,000 test pixels, evenly spread.
        """
        loaders = self.loaders()
        return pixel_baselines(
            _pixels(loaders.train, loaders.n_train * self.patch**2, 40_000),
            _pixels(loaders.test, loaders.n_test * self.patch**2, 400_000),
        )

    def features(self) -> Sequence[str]:
        """Name the channels."""
        return list(CHANNELS)

    def true_dependence(self) -> TrueDependence | None:
        """Say that S1 and S2 are nearly the same in simulated scenes, so that one is enough; the others matter.

        They correlate by more than 0.99: a cloud has one reflectance in both, and surfaces nearly so.
        """
        if not self.generated:
            return None
        return TrueDependence(
            {name: ("cloud",) for name in CHANNELS if name != "S2"}, {"S2": Derived(("S1",), ("S1",))}
        )

    def tiny(self) -> SLSTR:
        """Shrink it to a dozen small scenes and a narrow network."""
        return replace(
            self,
            scenes=12,
            valid_scenes=None,
            test_scenes=None,
            scene=(72, 90),
            crop=(64, 80),
            patch=16,
            widths=(4, 8, 8),
            batch_size=16,
            epochs=2,
        )


def _pixels(batches: Iterable[Batch], known: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """About ``wanted`` of the pixels, evenly spread: channels (pixels, 9), and whether there is cloud."""
    step = max(1, known // wanted) | 1  # odd, so that it visits every column of a patch
    kept = [
        (x.movedim(1, -1).reshape(-1, len(CHANNELS))[::step], mask.reshape(-1)[::step] > 0.5) for x, mask in batches
    ]
    return torch.cat([x for x, _ in kept]).numpy(), torch.cat([mask for _, mask in kept]).numpy()
