"""Damage from how badly an image is reproduced: errors of images, area under the ROC curve, and a threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

from lumos.errors import DataError

WINDOW = 5
"""Side of the square of pixels over which the peak error is averaged: a pit and its first ring, not a pixel's noise."""

Reproduce = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Errors:
    """Of each image of a split: mean squared error, the largest within a window of it, and whether it is damaged."""

    mean: Float[Tensor, " images"]
    peak: Float[Tensor, " images"]
    damaged: Bool[Tensor, " images"]

    def undamaged_mse(self) -> float:
        """Compute the mean squared error over the images without damage. Raises DataError where there are none."""
        if bool(self.damaged.all()):
            raise DataError("a split has no undamaged images to score; look at its folder undamaged")
        return self.mean[~self.damaged].mean().item()


@torch.no_grad()
def errors(reproduce: Reproduce, batches: Iterable[tuple[Tensor, Tensor]]) -> Errors:
    """Measure the errors of a network, or of any function from images (n, 1, rows, columns) to images, over batches."""
    mean, peak, damaged = [], [], []
    for images, labels in batches:
        square = (reproduce(images) - images).square()
        # Sums in float64: a split of thousands must not depend on how it was cut into batches.
        mean.append(square.flatten(1).to("cpu", torch.float64).mean(1))
        smooth = functional.avg_pool2d(square, WINDOW, stride=1)
        peak.append(smooth.flatten(1).amax(1).to("cpu", torch.float64))
        damaged.append(labels.cpu() == 1)
    if not mean:
        raise DataError("a split has no samples to score; ask for more data")
    return Errors(torch.cat(mean), torch.cat(peak), torch.cat(damaged))


def area_under_roc(scores: Float[Tensor, " images"], positive: Bool[Tensor, " images"]) -> float:
    """Compute the probability that a positive image has a higher score than a negative one, ties counting half.

    From the sum of the positives' ranks (Mann and Whitney 1947).

    Raises:
        DataError: there are no positive or no negative images.
    """
    n = int(positive.sum())
    m = len(positive) - n
    if not n or not m:
        raise DataError(f"{n} damaged and {m} undamaged images; expected at least one of each for an AUC")
    ranks = rankdata(scores.numpy())
    return float((ranks[positive.numpy()].sum() - n * (n + 1) / 2) / (n * m))


def detection(valid: Errors, test: Errors, quantile: float) -> dict[str, float]:
    """Measure how well damage is found in ``test``: AUC of mean and peak error, and rates at a threshold of the latter.

    The threshold is a quantile of the undamaged images of ``valid``: what is known before any damage is seen. About 1 -
    ``quantile`` of the undamaged test images are expected above it.

    Raises:
        DataError: there are no damaged or no undamaged images.
    """
    scores = {f"AUC ({name} error)": area_under_roc(getattr(test, name), test.damaged) for name in ("mean", "peak")}
    threshold = torch.quantile(valid.peak[~valid.damaged], quantile)
    alarm = test.peak > threshold
    scores["true positive rate"] = alarm[test.damaged].double().mean().item()
    scores["false positive rate"] = alarm[~test.damaged].double().mean().item()
    return scores


@dataclass(frozen=True)
class PrincipalComponents:
    """The best linear reproduction through as many numbers an image as there are components."""

    mean: Float[Tensor, "1 rows columns"]
    components: Float[Tensor, "components pixels"]

    @classmethod
    def fit(cls, images: Float[Tensor, "images 1 rows columns"], count: int) -> PrincipalComponents:
        """Fit it to training images in memory; fewer components where there are fewer images than asked for."""
        mean = images.mean(0)
        centred = (images - mean).flatten(1).double()
        # The smaller of the two Gram matrices has all of the answer.
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        count = min(count, len(images) - 1)
        top = vectors[:, -count:] if count else vectors[:, :0]
        scale = values[-count:].clamp_min(1e-30).sqrt() if count else values[:0]
        return cls(mean, ((top / scale).T @ centred).float())

    def __call__(self, images: Float[Tensor, "images 1 rows columns"]) -> Float[Tensor, "images 1 rows columns"]:
        """The images as the components reproduce them."""
        flat = (images - self.mean).flatten(1)
        return (flat @ self.components.T @ self.components).view_as(images) + self.mean
