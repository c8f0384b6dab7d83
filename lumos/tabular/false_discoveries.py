"""Which columns of a table do better than columns that can say nothing: their own values, shuffled."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lumos.shapes import Float

MOST_COPIES = 500
"""More shuffled columns than this are not made for a table that has fewer columns itself."""


def copies_needed(columns: int, rate: float) -> int:
    """Return how many shuffled copies of each column there have to be, so that a single true one can be told.

    The smallest p-value is 1 / (copies of all + 1), and of n columns a single one needs one of ``rate / n``.

    Example:
        >>> copies_needed(6, 0.1), copies_needed(1000, 0.1)
        (10, 1)
    """
    return max(1, math.ceil(min(columns / rate, MOST_COPIES) / columns))


def shuffled(x: Float[Tensor, "rows columns"], copies: int, seed: int) -> Float[Tensor, "rows others"]:
    """Return copies of the columns, each of them in an order of its own: its values, and nothing that they say."""
    generator = torch.Generator().manual_seed(seed)
    found = [x[torch.randperm(len(x), generator=generator), k] for _ in range(copies) for k in range(x.shape[1])]
    return torch.stack(found, 1) if found else x[:, :0]


def p_values(importances: Float[np.ndarray, " columns"], of_shuffled: Float[np.ndarray, " others"]) -> np.ndarray:
    """Return, for each column, the share of shuffled ones that are as important, itself counted.

    Example:
        >>> p_values(np.array([0.5, 0.0]), np.array([0.0, 0.1, 0.0])).tolist()
        [0.25, 1.0]
    """
    ordered = np.sort(of_shuffled)
    as_large = len(ordered) - np.searchsorted(ordered, importances, side="left")
    return (1 + as_large) / (1 + len(ordered))
