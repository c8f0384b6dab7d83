"""What each sample adds to a score: numbers whose mean is the score, and whose spread gives its standard error.

Each is the score plus the sample's influence on it, with which ``lumos.suite.standard_error`` makes a standard error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from lumos.errors import DataError

Terms = Float[np.ndarray, " samples"]


@torch.no_grad()
def accuracy_terms(model: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> Terms:
    """Compute 1 for each sample that is classified rightly, 0 for the others: batches are (inputs, labels)."""
    hits = [(model(inputs).argmax(1) == labels).cpu().numpy() for inputs, labels in batches]
    if not hits:
        raise DataError("a split has no samples to score; ask for more data")
    return np.concatenate(hits).astype(np.float64)


def balanced_accuracy_terms(labels: Int[np.ndarray, " samples"], named: Int[np.ndarray, " samples"]) -> Terms:
    """Compute each sample's part of the accuracy averaged over the classes that occur.

    Example:
        >>> float(balanced_accuracy_terms(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])).mean())
        0.75
    """
    classes, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    hit = (labels == named).astype(np.float64)
    recall = np.bincount(which, weights=hit) / counts
    weight = len(labels) / (len(classes) * counts)
    return recall.mean() + weight[which] * (hit - recall[which])


def auc_terms(labels: Int[np.ndarray, " samples"], guesses: Float[np.ndarray, " samples"]) -> Terms:
    """Compute each sample's part of the area under the ROC curve, by its rank among the samples of the other label.

    These are DeLong's structural components (E. DeLong, D. DeLong and D. Clarke-Pearson, Biometrics 44, 837, 1988),
    from midranks as X. Sun and W. Xu have them (IEEE Signal Process. Lett. 21, 1389, 2014).

    Example:
        >>> float(auc_terms(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])).mean())
        0.75
    """
    positive = np.asarray(labels).astype(bool)
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        raise DataError("all samples of a split have one label, so that ROC-AUC is undefined; use more samples")
    rank = rankdata(guesses)
    above = np.empty(len(rank))
    above[positive] = (rank[positive] - rankdata(guesses[positive])) / zeros
    above[~positive] = 1 - (rank[~positive] - rankdata(guesses[~positive])) / ones
    area = above[positive].mean()
    weight = np.where(positive, len(rank) / ones, len(rank) / zeros)
    return area + weight * (above - area)


@torch.no_grad()
def r2_terms(model: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> Terms:
    """Compute each row's part of R2, averaged over the outputs that vary, for batches (inputs, outputs)."""
    pairs = [(model(x).to("cpu", torch.float64).numpy(), y.to("cpu", torch.float64).numpy()) for x, y in batches]
    if not pairs:
        raise DataError("a split has no samples to score; ask for more data")
    guess, truth = (np.concatenate([pair[k] for pair in pairs]) for k in (0, 1))
    return r2_terms_of(guess, truth)


def r2_terms_of(guess: Float[np.ndarray, "rows outputs"], truth: Float[np.ndarray, "rows outputs"]) -> Terms:
    """Compute each row's part of R2 of guesses, averaged over the outputs that vary.

    Example:
        >>> truth = np.array([[1.0], [2.0], [3.0]])
        >>> float(r2_terms_of(truth + [[0.5], [0.0], [-0.5]], truth).mean())
        0.75
    """
    residual, total = np.square(truth - guess), np.square(truth - truth.mean(0))
    # A spread below float32's resolution of the value is rounding, not variation.
    varies = total.mean(0) > np.square(np.finfo(np.float32).eps * truth[0])
    if not varies.any():
        raise DataError("every output is constant over the split, so that R2 is undefined; ask for more varied data")
    residual, total = residual[:, varies], total[:, varies]
    score = 1 - residual.mean(0) / total.mean(0)
    return (score + ((1 - score) * total - residual) / total.mean(0)).mean(1)
