"""What a cosmologist would look at first: power spectra and counts in cells, and a ridge regression on them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Integer

from lumos.scaling import spread
from lumos.workloads.common.random_fields import measured_power

BINS = 12
"""Bins of |k|, equally wide from the longest wave in the cube to the shortest of the grid along an axis."""

LARGEST_COUNT = 12
"""Cells with more particles than this count as having this many."""

STRENGTHS = np.logspace(-3, 4, 15)


def power_and_counts(count: Integer[np.ndarray, "n n n redshifts"]) -> Float[np.ndarray, " summaries"]:
    """Summarise each redshift: log P(k) in bins of k (of the density contrast, in cells), log shares of counts."""
    n = count.shape[0]
    edges = np.linspace(0.999 * 2 * np.pi / n, np.pi, BINS + 1)
    summaries = []
    for channel in np.moveaxis(count, -1, 0):
        mean = max(channel.mean(), 1 / channel.size)
        _, power, modes = measured_power(channel / mean - 1, 1.0, edges)
        shares = np.bincount(np.minimum(channel, LARGEST_COUNT).ravel(), minlength=LARGEST_COUNT + 1) / channel.size
        summaries += [np.log(power[modes > 0] + 1e-6), np.log(shares + 1 / channel.size)]
    return np.concatenate(summaries)


def ridge(
    train: tuple[np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray],
    inputs: Float[np.ndarray, "rows columns"],
) -> Float[np.ndarray, "rows outputs"]:
    """Predict for ``inputs`` by a ridge regression fitted to ``train``, its strength the best on ``valid``.

    Both are pairs (inputs, outputs). Columns are standardised; the intercept is not penalised.
    """
    x, y = train
    centre, scale = x.mean(0), spread(torch.from_numpy(x)).numpy()
    u, s, vt = np.linalg.svd((x - centre) / scale, full_matrices=False)
    right = u.T @ (y - y.mean(0))

    def predict(strength: float, rows: np.ndarray) -> np.ndarray:
        weights = vt.T @ ((s / (s**2 + strength))[:, None] * right)
        return (rows - centre) / scale @ weights + y.mean(0)

    best = min(STRENGTHS, key=lambda strength: np.square(predict(strength, valid[0]) - valid[1]).mean())
    return predict(best, inputs)
