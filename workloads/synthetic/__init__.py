"""Synthetic: a function of 200 normal numbers, of which as many matter as one asks for (200 -> 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from lumos.errors import DataError
from lumos.suite.workload import Metric
from lumos.workloads.common.base import at_least
from lumos.workloads.common.table_workload import TableWorkload
from lumos.workloads.common.tables import Splits, Table


def target(x: Float[np.ndarray, "rows relevant"]) -> Float[np.ndarray, "rows 1"]:
    """Compute y = sum_j (x_j^2 + 15 sin^3 x_j) over the columns; no unit. Source: SciML-Bench's synthetic regression.

    Example:
        >>> target(np.array([[0.0, np.pi / 2]])).round(2)
        array([[17.47]])
    """
    return (x**2 + 15 * np.sin(x) ** 3).sum(1, keepdims=True)


def interactions(x: Float[np.ndarray, "rows relevant"]) -> Float[np.ndarray, "rows 1"]:
    """Compute y = sum over pairs of columns (a, b) of (a b + sin 2 a), for an even number of columns; no unit.

    Of the variance, 2/3 is that of the products, in which no single column correlates with y at all. A straight line
    explains 5% of it: (2 exp(-2))^2 of 1 + (1 - exp(-8)) / 2 for each pair.

    Example:
        >>> interactions(np.array([[np.pi / 4, 2.0]])).round(2)
        array([[2.57]])
    """
    a, b = x[:, 0::2], x[:, 1::2]
    return (a * b + np.sin(2 * a)).sum(1, keepdims=True)


TRUTHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"sum": target, "interactions": interactions}


@dataclass(frozen=True)
class Synthetic(TableWorkload):
    """A regression whose right features are known; ``README.md`` has the numbers.

    ``relevant_features`` of the ``n_features`` inputs enter the output (None: all of them), at places that follow the
    seed; the others are noise. ``truth`` is the published ``sum``, or ``interactions``. There is no public data to
    read. Raises DataError for settings that cannot be used.
    """

    n_features: int = 200
    relevant_features: int | None = None
    truth: Literal["sum", "interactions"] = "sum"
    train_rows: int = 51_200
    valid_rows: int = 1024
    test_rows: int = 1024
    widths: Sequence[int] = (300, 300, 300, 300)
    batch_size: int = 256
    epochs: int = 10
    learning_rate: float = 1e-3

    name = "synthetic"
    core_seconds_per_gb = 10
    metric = Metric("R2")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.generated:
            raise DataError("workload=synthetic has no public data; use data=generated")
        at_least(self, n_features=1, train_rows=1, valid_rows=1, test_rows=1)
        if not 1 <= self.n_relevant <= self.n_features:
            raise DataError(
                f"workload.relevant_features={self.relevant_features}: expected 1 to {self.n_features}, or null for all"
            )

        if self.truth not in TRUTHS:
            raise DataError(f"workload.truth={self.truth}: expected one of {', '.join(TRUTHS)}")
        if self.truth == "interactions" and self.n_relevant % 2:
            raise DataError(f"workload.relevant_features={self.n_relevant}: expected an even number, for pairs of them")

    @property
    def n_relevant(self) -> int:
        """How many of the features matter."""
        return self.n_features if self.relevant_features is None else self.relevant_features

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        how = "equally" if self.truth == "sum" else "in pairs"
        return f"{self.n_relevant} of {self.n_features} normal inputs matter, {how}; no noise in the output"

    @cached_property
    def relevant(self) -> tuple[int, ...]:
        """Places of the features that matter, ascending."""
        order = np.random.default_rng([self.seed, 0]).permutation(self.n_features)
        return tuple(sorted(order[: self.n_relevant].tolist()))

    def make_splits(self) -> Splits:
        """The samples; independent draws for each split."""
        rng = np.random.default_rng([self.seed, 1])

        def draw(rows: int) -> Table:
            x = rng.standard_normal((rows, self.n_features), dtype=np.float32)
            y = TRUTHS[self.truth](x[:, list(self.relevant)].astype(np.float64))
            return Table(torch.from_numpy(x), torch.from_numpy(y.astype(np.float32)))

        return Splits(draw(self.train_rows), draw(self.valid_rows), draw(self.test_rows))

    def split_rows(self) -> dict[str, int]:
        """Count the rows of each split."""
        return {"train": self.train_rows, "valid": self.valid_rows, "test": self.test_rows}

    def outputs(self) -> Sequence[str]:
        """Name the one output."""
        return ["y"]

    def features(self) -> Sequence[str]:
        """Name the inputs: x0, x1, .."""
        return [f"x{k}" for k in range(self.n_features)]

    def true_features(self) -> Sequence[str]:
        """Name the features that matter: the right answer of a selection."""
        return [f"x{k}" for k in self.relevant]

    def tiny(self) -> Synthetic:
        """Shrink it to 20 features (at most 4 of them relevant, where a number is given) and a narrow network."""
        few = None if self.relevant_features is None else min(self.relevant_features, 4)
        return replace(
            self,
            n_features=20,
            relevant_features=few,
            train_rows=2000,
            valid_rows=500,
            test_rows=500,
            widths=(32, 32),
            batch_size=100,
            epochs=2,
            learning_rate=3e-3,
        )
