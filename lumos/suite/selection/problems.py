"""Nonlinear signals among uniform noise: the four problems of Passemiers et al., Scientific Reports 14 (2024).

A quantitative benchmark of neural network feature selection methods for detecting nonlinear signals,
doi:10.1038/s41598-024-82583-5. 1,000 rows, uniform on [0, 1]^m, are cut into six folds; a method sees five of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROWS, FOLDS = 1000, 6
TRUE = {"ring": 2, "xor": 2, "ring+xor": 4, "ring+xor+sum": 6}
"""The problems, and how many features carry the signal of each: the first ones, before they are shuffled."""


@dataclass(frozen=True)
class Problem:
    """The training rows of a fold.

    Attributes:
        x: Inputs (rows, features) in [-1, 1].
        y: Classes, 0 and 1.
        true: The places of the features that carry the signal.
    """

    x: np.ndarray
    y: np.ndarray
    true: np.ndarray


def sizes(name: str) -> list[int]:
    """List the numbers of features that a problem is posed with."""
    first = {"ring": [2, 4], "xor": [2, 4], "ring+xor": [4], "ring+xor+sum": [6]}[name]
    return [*first, *(2**k for k in range(3, 12))]


def problem(name: str, features: int, fold: int, seed: int = 0) -> Problem:
    """Draw a problem.

    Args:
        name: ``ring``, ``xor``, ``ring+xor`` or ``ring+xor+sum``.
        features: Their number.
        fold: Which sixth of the rows is left out.
        seed: Of the rows; the folds of one seed share them, as in the paper.

    Example:
        >>> found = problem("xor", 8, fold=0)
        >>> found.x.shape, len(found.true)
        ((833, 8), 2)
    """
    rng = np.random.default_rng([seed, list(TRUE).index(name), features])
    x = rng.random((ROWS, features))
    y = _classes(name, x, rng)
    kept = np.concatenate([part for k, part in enumerate(np.array_split(np.arange(ROWS), FOLDS)) if k != fold])
    order = np.random.default_rng([seed, list(TRUE).index(name), features, fold]).permutation(features)
    return Problem(2 * x[kept][:, order] - 1, y[kept].astype(np.int64), np.flatnonzero(order < TRUE[name]))


def _classes(name: str, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    def ring(width: float) -> np.ndarray:
        return np.abs(np.hypot(x[:, 0] - 0.5, x[:, 1] - 0.5) - 0.35) <= width

    def xor(a: int, least: float) -> np.ndarray:
        return (x[:, a] - 0.5) * (0.5 - x[:, a + 1]) >= least

    if name == "ring":
        return ring(0.1151)
    if name == "xor":
        return xor(0, 0.0)
    if name == "ring+xor":
        return ring(0.0704) | xor(2, 0.0337)
    return ring(0.0479) | xor(2, 0.0598) | (x[:, 4] + x[:, 5] + rng.normal(0, 0.2, len(x)) >= 1.4074)
