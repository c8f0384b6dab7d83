"""The workloads whose samples are rows of numbers: CFD, Fluid, PureMD and Synthetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from lumos.suite.workload import Loaders
from lumos.workloads.common.base import BaseWorkload, as_tuples, positive_sizes
from lumos.workloads.common.mlp import ScaledMLP
from lumos.workloads.common.tables import Splits, r2_score, standardised_mse

Batch = tuple[Float[Tensor, "rows inputs"], Float[Tensor, "rows outputs"]]


class TableWorkload(BaseWorkload):
    """A kernel as a table, in physical units, and a fully connected network in its place, scored by R2.

    Batches are ``(inputs (rows, inputs), outputs (rows, outputs))``, float32. A subclass has ``splits``, ``features()``
    and ``tiny()``.
    """

    widths: Sequence[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuples(self, int, "widths")
        positive_sizes(self, "widths")

    @cached_property
    def splits(self) -> Splits:
        """The samples, simulated at the first call or read from the cache."""
        raise NotImplementedError

    @cached_property
    def output_std(self) -> Float[Tensor, " outputs"]:
        """Standard deviation of each output over the training rows, in its own unit."""
        return self.splits.train.output_std()

    def make_loaders(self) -> Loaders:
        """Put the rows into batches; the training rows come in an order that follows seed and epoch."""
        return self.splits.loaders(self.batch_size, self.seed, self.source.source)

    def model(self) -> nn.Module:
        """Build a fresh network, ReLU between the layers, scaled by the training rows' means and deviations."""
        return ScaledMLP(self.splits.train.inputs, self.splits.train.outputs, self.widths)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Compute the mean squared error of the outputs, each in units of its training standard deviation."""
        return standardised_mse(model, batch, self.output_std)

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Compute R2 of each output over all rows, and average it over the outputs (constant ones are left out)."""
        return r2_score(model, batches)

    def baselines(self) -> dict[str, float]:
        """Compute R2 on the test split of the training mean and of a linear regression on all inputs."""
        return self.splits.baselines()

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the training rows: inputs (rows, inputs) and outputs (rows, outputs), in physical units."""
        return self.splits.train.inputs.numpy(), self.splits.train.outputs.numpy()

    def example(self) -> tuple[Float[Tensor, "4 inputs"]]:
        """Return the inputs of four training rows."""
        return (self.splits.train.inputs[:4].clone(),)
