"""Synthetic: a sum of equal functions of 200 normal numbers, of which as many matter as one asks for (200 -> 1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumos.suite.workload import DataError, DataSource, Loaders, Metric, Recipe
from lumos.workloads.common.mlp import ScaledMLP
from lumos.workloads.common.tabular import Splits, Table, as_source, r2_score, standardised_mse

Batch = tuple[Float[Tensor, "rows features"], Float[Tensor, "rows 1"]]


def target(x: Float[np.ndarray, "rows relevant"]) -> Float[np.ndarray, "rows 1"]:
    """y = sum_j (x_j^2 + 15 sin^3 x_j) over the columns given; no unit. Source: SciML-Bench's synthetic regression."""
    return (x**2 + 15 * np.sin(x) ** 3).sum(1, keepdims=True)


@dataclass(frozen=True)
class Synthetic:
    """A regression whose right features are known; ``README.md`` has the numbers.

    ``relevant_features`` of the ``n_features`` inputs enter the sum (None: all of them), at places that follow the
    seed; the others are noise. There is no public data to read. Raises DataError for settings that cannot be used.
    """

    data: DataSource | Mapping[str, object] = field(default_factory=DataSource)
    seed: int = 0
    n_features: int = 200
    relevant_features: int | None = None
    train_rows: int = 51_200
    valid_rows: int = 1024
    test_rows: int = 1024
    widths: Sequence[int] = (300, 300, 300, 300)
    batch_size: int = 256
    epochs: int = 10
    learning_rate: float = 1e-3

    name = "synthetic"
    metric = Metric("R2")

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_source(self.data))
        object.__setattr__(self, "widths", tuple(self.widths))
        if self._source.source != "generated":
            raise DataError("workload=synthetic has no public data; use data=generated")
        for key in ("n_features", "train_rows", "valid_rows", "test_rows", "batch_size"):
            if getattr(self, key) < 1:
                raise DataError(f"workload.{key}={getattr(self, key)}: expected at least 1")
        if not self.widths or min(self.widths) < 1:
            raise DataError(f"workload.widths={list(self.widths)}: expected one or more widths of at least 1")
        if not 1 <= self.n_relevant <= self.n_features:
            raise DataError(
                f"workload.relevant_features={self.relevant_features}: expected 1 to {self.n_features}, or null for all"
            )

    @property
    def n_relevant(self) -> int:
        """How many of the features matter."""
        return self.n_features if self.relevant_features is None else self.relevant_features

    @property
    def _source(self) -> DataSource:
        return as_source(self.data)

    @property
    def recipe(self) -> Recipe:
        """How the network is trained."""
        return Recipe(epochs=self.epochs, learning_rate=self.learning_rate)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        return f"{self.n_relevant} of {self.n_features} normal inputs matter, equally; no noise in the output"

    @cached_property
    def relevant(self) -> tuple[int, ...]:
        """Places of the features that matter, ascending."""
        order = np.random.default_rng([self.seed, 0]).permutation(self.n_features)
        return tuple(sorted(order[: self.n_relevant].tolist()))

    @cached_property
    def splits(self) -> Splits:
        """The samples; independent draws for each split."""
        rng = np.random.default_rng([self.seed, 1])

        def draw(rows: int) -> Table:
            x = rng.standard_normal((rows, self.n_features), dtype=np.float32)
            y = target(x[:, list(self.relevant)].astype(np.float64))
            return Table(torch.from_numpy(x), torch.from_numpy(y.astype(np.float32)))

        return Splits(draw(self.train_rows), draw(self.valid_rows), draw(self.test_rows))

    @cached_property
    def output_std(self) -> Float[Tensor, " 1"]:
        """Standard deviation of the output over the training rows."""
        return self.splits.train.output_std()

    def model(self) -> nn.Module:
        """A fresh network, ReLU between the layers, scaled by the training rows' means and deviations."""
        return ScaledMLP(self.splits.train.inputs, self.splits.train.outputs, self.widths)

    def loaders(self) -> Loaders:
        """Batches ``(inputs (rows, n_features), outputs (rows, 1))``, float32."""
        return self._loaders

    @cached_property
    def _loaders(self) -> Loaders:
        return self.splits.loaders(self.batch_size, self.seed, self._source.source)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Mean squared error in units of the output's training variance."""
        return standardised_mse(model, batch, self.output_std)

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """R2 over all rows."""
        return r2_score(model, batches)

    def baselines(self) -> dict[str, float]:
        """R2 on the test rows of the mean and of a linear regression."""
        return self.splits.baselines()

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """The training rows: inputs (rows, n_inputs) and outputs (rows, n_outputs), in physical units."""
        return self.splits.train.inputs.numpy(), self.splits.train.outputs.numpy()

    def example(self) -> tuple[Float[Tensor, "4 features"]]:
        """Four rows."""
        return (self.splits.train.inputs[:4].clone(),)

    def features(self) -> Sequence[str]:
        """Names of the inputs: x0, x1, .."""
        return [f"x{k}" for k in range(self.n_features)]

    def true_features(self) -> Sequence[str]:
        """Names of the features that matter: the right answer of a selection."""
        return [f"x{k}" for k in self.relevant]

    def tiny(self) -> Synthetic:
        """20 features (at most 4 of them relevant, where a number is given) and a narrow network."""
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
