"""The workloads whose samples are rows of numbers: CFD, Fluid, PureMD and Synthetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumos.suite.workload import Loaders
from lumos.workloads.common.base import BaseWorkload, as_tuples, drawn, positive_sizes
from lumos.workloads.common.mlp import ScaledMLP
from lumos.workloads.common.score_terms import r2_terms
from lumos.workloads.common.tables import Splits, r2_score, standardised_mse

Batch = tuple[Float[Tensor, "rows inputs"], Float[Tensor, "rows outputs"]]


class TableWorkload(BaseWorkload):
    """A kernel as a table, in physical units, and a fully connected network in its place, scored by R2.

    Batches are ``(inputs (rows, inputs), outputs (rows, outputs))``, float32. A subclass has ``make_splits()``,
    ``split_rows()``, ``features()``, ``outputs()`` and ``tiny()``.
    """

    widths: Sequence[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuples(self, int, "widths")
        positive_sizes(self, "widths")

    @cached_property
    def splits(self) -> Splits:
        """The samples, simulated at the first call or read from the cache."""
        self.check_size()
        return self.make_splits()

    def make_splits(self) -> Splits:
        """Simulate the samples, or read them from the cache."""
        raise NotImplementedError

    def split_rows(self) -> Mapping[str, int]:
        """Count the rows of each split, from the settings."""
        raise NotImplementedError

    def features(self) -> Sequence[str]:
        """Name the inputs."""
        raise NotImplementedError

    def outputs(self) -> Sequence[str]:
        """Name the outputs."""
        raise NotImplementedError

    def split_bytes(self) -> Mapping[str, int]:
        """Count the bytes of each split: rows of float32."""
        row = 4 * (len(self.features()) + len(self.outputs()))
        return {split: rows * row for split, rows in self.split_rows().items()}

    def outline(self) -> tuple[nn.Module, tuple[Tensor]]:
        """Build the network, without scaling, and four rows of random inputs."""
        x = drawn(4, len(self.features()))
        return ScaledMLP(torch.zeros_like(x), torch.zeros(4, len(self.outputs())), self.widths), (x,)

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

    def score_terms(self, model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
        """Compute what each row adds to R2."""
        return r2_terms(model, batches)

    def baselines(self) -> dict[str, float]:
        """Compute R2 on the test split of the training mean and of a linear regression on all inputs."""
        return self.splits.baselines()

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the training rows: inputs (rows, inputs) and outputs (rows, outputs), in physical units."""
        return self.splits.train.inputs.numpy(), self.splits.train.outputs.numpy()

    def example(self) -> tuple[Float[Tensor, "4 inputs"]]:
        """Return the inputs of four training rows."""
        return (self.splits.train.inputs[:4].clone(),)
