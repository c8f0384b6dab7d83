"""Tables of samples: rows of numbers in, rows of numbers out; their splits, score, loss and trivial baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumos.errors import DataError
from lumos.scaling import spread
from lumos.suite.workload import Loaders, tensor_loader
from lumos.workloads.common.arrays import digest

CHUNK = 65_536
"""Rows that are widened to float64 at a time."""


@dataclass(frozen=True)
class Table:
    """Samples of one split: ``inputs`` (rows, n_inputs) and ``outputs`` (rows, n_outputs), float32, in physical units.

    Raises DataError where the two disagree on the number of rows or hold a value that is not finite.
    """

    inputs: Tensor
    outputs: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.outputs):
            raise DataError(f"{len(self.inputs)} rows of inputs, but {len(self.outputs)} of outputs; expected as many")
        for name in ("inputs", "outputs"):
            wrong = (~torch.isfinite(getattr(self, name))).nonzero()
            if len(wrong):
                row, column = wrong[0].tolist()
                value = float(getattr(self, name)[row, column])
                raise DataError(
                    f"the {name} hold {len(wrong)} values that are not finite, the first {value} in row {row}, column "
                    f"{column}, counted from 0; check the settings of the simulation"
                )

    def __len__(self) -> int:
        return len(self.inputs)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the rows in order, in batches of a bounded size."""
        return zip(self.inputs.split(CHUNK), self.outputs.split(CHUNK), strict=True)

    def output_std(self) -> Float[Tensor, " outputs"]:
        """Compute the standard deviation of each output, in its unit; 1 where an output does not vary."""
        return spread(self.outputs)


@dataclass(frozen=True)
class Splits:
    """The three tables of a workload, held out from one another."""

    train: Table
    valid: Table
    test: Table

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Splits:
        """Build them from arrays named ``{train,valid,test}_{inputs,outputs}``."""

        def table(split: str) -> Table:
            x, y = (torch.from_numpy(np.asarray(arrays[f"{split}_{part}"])) for part in ("inputs", "outputs"))
            return Table(x, y)

        return cls(table("train"), table("valid"), table("test"))

    def loaders(self, batch_size: int, seed: int, source: str) -> Loaders:
        """Put the rows into batches ``(inputs, outputs)``; training rows come in an order of seed and epoch."""
        train, valid, test = self.train, self.valid, self.test
        tensors = [tensor.numpy() for table in (train, valid, test) for tensor in (table.inputs, table.outputs)]
        return Loaders(
            train=tensor_loader(train.inputs, train.outputs, batch_size=batch_size, seed=seed),
            valid=tensor_loader(valid.inputs, valid.outputs, batch_size=batch_size),
            test=tensor_loader(test.inputs, test.outputs, batch_size=batch_size),
            n_train=len(train),
            n_valid=len(valid),
            n_test=len(test),
            source=source,
            sha256=digest(*tensors),
        )

    def baselines(self) -> dict[str, float]:
        """Compute R2 on the test split of two trivial predictors, ``mean`` and ``linear`` (regression)."""
        return table_baselines(self.train, self.test)


def r2_score(model: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Compute R2 of the predictions for batches ``(inputs, outputs)``: 1 minus residual over total sum of squares.

    One R2 per output over all rows, then their plain mean: an output counts the same whatever its scale. Outputs
    that are constant over the split do not count. Sums are kept in float64, batch by batch.

    Raises:
        DataError: there are no rows, or no output varies.
    """
    each = r2_each(model, batches)
    return each[~each.isnan()].mean().item()


@torch.no_grad()
def r2_each(model: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> Float[Tensor, " outputs"]:
    """Compute R2 of each output as :func:`r2_score` does; NaN for one that is constant over the split.

    Raises:
        DataError: there are no rows, or no output varies.
    """
    rows, origin = 0, None
    residual = total = shift = torch.zeros(1, dtype=torch.float64)
    for x, y in batches:
        target, guess = y.to("cpu", torch.float64), model(x).to("cpu", torch.float64)
        if origin is None:
            # Sums of squares about a value near the mean lose no digits to it.
            origin = target.mean(0)
        rows += len(target)
        residual = residual + (target - guess).square().sum(0)
        shift = shift + (target - origin).sum(0)
        total = total + (target - origin).square().sum(0)
    if origin is None or not rows:
        raise DataError("a split has no samples to score; ask for more data")
    total = total - shift.square() / rows
    # A spread below float32's resolution of the value is rounding, not variation.
    varies = total > rows * (torch.finfo(torch.float32).eps * origin).square()
    if not varies.any():
        raise DataError("every output is constant over the split, so that R2 is undefined; ask for more varied data")
    return torch.where(varies, 1 - residual / total, torch.nan)


def standardised_mse(
    model: nn.Module, batch: tuple[Tensor, Tensor], output_std: Float[Tensor, " outputs"]
) -> Float[Tensor, ""]:
    """Compute the mean squared error of ``(inputs, outputs)`` in units of each output's ``output_std``.

    It is about 1 for a network that predicts the mean, where ``output_std`` is that of the training split.
    """
    inputs, outputs = batch
    return ((model(inputs) - outputs) / output_std.to(outputs.device, non_blocking=True)).square().mean()


def table_baselines(train: Table, test: Table) -> dict[str, float]:
    """Compute R2 on ``test`` of two trivial predictors fitted to ``train``: ``mean`` and ``linear`` (regression)."""
    return {"mean": linear_r2(train, test, columns=[]), "linear": linear_r2(train, test)}


def linear_r2(train: Table, test: Table, columns: Sequence[int] | None = None) -> float:
    """Compute R2 on ``test`` of a least-squares fit to ``train``, with an intercept, on some input columns (None: all).

    Solved in float64 from the normal equations of standardised inputs. Columns that repeat others change nothing.
    """
    picked = list(range(train.inputs.shape[1])) if columns is None else list(columns)
    known = train.inputs[:, picked].double()
    centre = known.mean(0)
    scale = spread(known)

    def design(x: Tensor) -> Float[Tensor, "rows columns"]:
        return torch.cat([(x[:, picked].double() - centre) / scale, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)

    gram = torch.zeros(len(picked) + 1, len(picked) + 1, dtype=torch.float64)
    right = torch.zeros(len(picked) + 1, train.outputs.shape[1], dtype=torch.float64)
    for x, y in train.chunks():
        a = design(x)
        gram += a.T @ a
        right += a.T @ y.double()
    weights = torch.linalg.pinv(gram, hermitian=True, rtol=1e-10) @ right
    return r2_score(lambda x: design(x) @ weights, test.chunks())
