"""What simple statistics say of each input column of a table."""

from __future__ import annotations

import importlib

import numpy as np
from jaxtyping import Float

from lumos.scaling import standardised

MUTUAL_INFORMATION_ROWS = 2000
"""Rows, evenly spaced, from which mutual information is estimated."""


def relevance(
    inputs: Float[np.ndarray, "rows features"], outputs: Float[np.ndarray, "rows outputs"]
) -> dict[str, list[float]]:
    """Compute what statistics say of each input column: ``abs_pearson`` and, with scikit-learn, ``mutual_information``.

    Each is the largest over the outputs. |Pearson| is over all rows, in [0, 1], 0 for a constant column; mutual
    information is in nats, the nearest-neighbour estimate of Kraskov, Stögbauer and Grassberger (2004) on at most
    2,000 rows; that column is left out where scikit-learn is not installed.
    """
    x, y = np.asarray(inputs, np.float64), np.asarray(outputs, np.float64).reshape(len(outputs), -1)
    x, y = standardised(x), standardised(y)
    columns = {"abs_pearson": np.abs(x.T @ y / len(x)).max(1).round(4).tolist()}
    try:
        selection = importlib.import_module("sklearn.feature_selection")
    except ImportError:
        return columns
    picked = np.linspace(0, len(x) - 1, min(len(x), MUTUAL_INFORMATION_ROWS)).astype(int)
    varying = [k for k in range(y.shape[1]) if y[picked, k].std() > 0]
    found = [selection.mutual_info_regression(x[picked], y[picked, k], random_state=0) for k in varying]
    columns["mutual_information"] = np.max([np.zeros(x.shape[1]), *found], axis=0).round(4).tolist()
    return columns
