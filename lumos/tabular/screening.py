"""Which columns of a wide table say anything about the outputs, alone or in pairs: a test before the training.

With more columns than rows a network remembers its rows before it sees what two columns say together. A test of every
column and of every pair is a few products of matrices and sees both.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial import legendre
from scipy.stats import chi2, rankdata
from torch import Tensor

from lumos.errors import ConfigError
from lumos.shapes import Float

DEGREE = 4
"""Degree of the polynomials of a column's ranks: a ring in two columns needs the fourth."""
COLUMNS_AT_ONCE = 256
"""Columns of one product of matrices."""
LEAST_VARIANCE = 1e-6
"""Share of the largest variance below which a direction is a repetition of the others."""


@dataclass(frozen=True)
class Screening:
    """What the test found.

    Attributes:
        expected: For each column, how many columns or pairs of pure noise would look as good as it does, or better, in
            a table of this size: far below 1 for one that matters. The best of three kinds of tests (a column alone,
            the products of a pair, both together), each counted by itself.
        partner: The column with which it tells the most.
        alone: Whether it tells more by itself than with its partner.
    """

    expected: np.ndarray
    partner: np.ndarray
    alone: np.ndarray

    def order(self) -> np.ndarray:
        """The columns, the most telling one first."""
        return np.argsort(self.expected, kind="stable")

    def chosen(self, least: int, most: float = 1.0) -> np.ndarray:
        """Choose the columns with ``expected <= most``, and at least ``least`` columns, in the order of the table."""
        order = self.order()
        count = max(min(least, len(order)), int((self.expected <= most).sum()))
        return np.sort(order[:count])


def screen(
    x: Float[np.ndarray, "rows columns"],
    y: Float[np.ndarray, "rows outputs"],
    *,
    categories: Collection[int] = (),
    degree: int = DEGREE,
) -> Screening:
    """Test what every column, and every pair of columns, says about the outputs.

    A column becomes orthogonal polynomials of its ranks, a category its most common levels. A column is tested by their
    covariance with an output; in a pair, their products are tested besides. Each sum of squares is divided by what it
    would be if there were no relation, whatever the spread of the output (White 1980), and its chi-square probability
    is multiplied by the number of tests. What three columns say only together, no pair shows: such a relation is not
    found.

    Args:
        x: The columns; NaN stands for a missing value, and counts as the middle rank.
        y: The outputs; for classes, an indicator column for each.
        categories: The places of the columns that are categories.
        degree: Polynomials of a column, or levels of a category less one.

    Returns:
        For each column, how likely chance is as an explanation.

    Raises:
        ConfigError: There are fewer than four rows, or x and y have different numbers of rows.

    Example:
        >>> import numpy as np
        >>> from lumos.tabular.screening import screen
        >>> x = np.random.default_rng(0).random((300, 200))
        >>> y = (x[:, 3] - 0.5) * (x[:, 7] - 0.5) > 0
        >>> found = screen(x, y[:, None].astype(float))
        >>> sorted(found.order()[:2].tolist()), found.partner[3], bool(found.expected[3] < 1e-9)
        ([3, 7], np.int64(7), True)
    """
    if len(x) != len(y) or len(x) < 4:
        raise ConfigError(f"screen: {len(x)} rows of x and {len(y)} of y; expected as many, and four or more")
    parts = [_levels(x[:, k], degree) if k in set(categories) else _polynomials(x[:, k], degree)
             for k in range(x.shape[1])]  # fmt: skip
    basis = torch.from_numpy(np.stack(parts, 1)).float()
    freedom = (basis != 0).any(0).sum(1).double().numpy()
    logs = np.full(x.shape[1], -np.inf)
    partner, alone = np.zeros(x.shape[1], np.int64), np.ones(x.shape[1], bool)
    for column in y.T:
        spread = column.std()
        if not spread > 0:
            continue
        found, best, single = _tested(basis, freedom, torch.from_numpy((column - column.mean()) / spread).float())
        found = found - np.log(y.shape[1])
        better = found > logs
        logs, partner, alone = (np.where(better, a, b) for a, b in ((found, logs), (best, partner), (single, alone)))
    return Screening(np.exp(-np.maximum(logs, -700.0)), partner, alone.astype(bool))


def _tested(basis: Tensor, freedom: np.ndarray, y: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each column: minus the log of the expected number, its partner, and whether it does better alone."""
    rows, columns, width = basis.shape
    flat = basis.reshape(rows, -1)
    single = _ratio((flat.T @ y).square(), flat.T.square() @ y.square()).view(columns, width).sum(1).double()
    weighted, squares = flat * y[:, None], flat.square()
    squares_weighted = squares * y.square()[:, None]
    together = torch.zeros(columns, dtype=torch.float64)
    joint, partner = torch.zeros(columns, dtype=torch.float64), torch.zeros(columns, dtype=torch.int64)
    degrees = torch.from_numpy(freedom)
    standing = torch.full((columns,), -torch.inf, dtype=torch.float64)
    for first in range(0, columns, COLUMNS_AT_ONCE):
        block = slice(first * width, (first + COLUMNS_AT_ONCE) * width)
        own = slice(first, min(columns, first + COLUMNS_AT_ONCE))
        pair = _ratio((weighted[:, block].T @ flat).square(), squares_weighted[:, block].T @ squares)
        pair = pair.view(-1, width, columns, width).sum((1, 3)).double()
        pair[torch.arange(len(pair)), torch.arange(own.start, own.stop)] = 0.0
        # Of pairs with different degrees of freedom, the best one by the cube root's normal approximation.
        freedoms = degrees[own, None] * degrees[None]
        score = _normal(pair, freedoms)
        best = score.argmax(1)
        standing[own], partner[own] = score.gather(1, best[:, None])[:, 0], best
        together[own] = pair.gather(1, best[:, None])[:, 0]
        joint[own] = together[own] + single[own]
    of_pair = freedom * freedom[partner.numpy()]
    tests = max(1.0, columns * (columns - 1) / 2)
    by = np.stack([
        _minus_log(single.numpy(), freedom) - np.log(columns),
        _minus_log(together.numpy(), of_pair) - np.log(tests),
        _minus_log(joint.numpy(), of_pair + freedom) - np.log(tests),
    ])  # fmt: skip
    return by.max(0), partner.numpy(), by.argmax(0) == 0


def _ratio(square: Tensor, variance: Tensor) -> Tensor:
    return torch.where(variance > 0, square / variance.clamp(min=1e-30), 0.0)


def _normal(value: Tensor, freedom: Tensor) -> Tensor:
    """A chi-square variable as a standard normal one (Wilson and Hilferty 1931)."""
    share = 2.0 / (9.0 * freedom.clamp(min=1))
    found = ((value / freedom.clamp(min=1)).pow(1 / 3) - (1 - share)) / share.sqrt()
    return torch.where(freedom > 0, found, -torch.inf)


def _minus_log(value: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    return np.where(freedom > 0, -chi2.logsf(value, np.maximum(freedom, 1)), 0.0)


def _polynomials(column: np.ndarray, degree: int) -> np.ndarray:
    """Orthonormal polynomials (rows, degree) of a column's ranks in (-1, 1); zeros where it has too few values."""
    known = np.isfinite(column)
    place = np.zeros(len(column))
    place[known] = (2 * rankdata(column[known]) - 1) / max(1, known.sum()) - 1
    return _orthonormal(legendre.legvander(place, degree)[:, 1:], degree)


def _levels(column: np.ndarray, degree: int) -> np.ndarray:
    """Orthonormal indicators (rows, degree) of a category's most common levels."""
    levels, counts = np.unique(column[np.isfinite(column)], return_counts=True)
    levels = levels[np.argsort(-counts, kind="stable")][:degree]
    return _orthonormal((column[:, None] == levels).astype(np.float64), degree)


def _orthonormal(columns: np.ndarray, width: int) -> np.ndarray:
    """Centre columns and make them orthonormal, one after the other; directions that repeat others become zeros."""
    out = np.zeros((len(columns), width))
    used = 0
    for column in (columns - columns.mean(0)).T if columns.size else ():
        rest = column - out[:, :used] @ (out[:, :used].T @ column) / len(columns)
        if rest @ rest > LEAST_VARIANCE * max(column @ column, 1e-300) and column @ column > 1e-12 * len(columns):
            out[:, used] = rest * np.sqrt(len(columns) / (rest @ rest))
            used += 1
    return out
