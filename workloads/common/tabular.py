"""Tables of samples: rows of numbers in, rows of numbers out.

The splits and their loaders, the score and the loss, trivial baselines, a digest, and a cache on disk, for the
workloads whose samples are vectors (CFD, Fluid, PureMD, Synthetic).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumos.suite.workload import DataError, DataSource, Loaders, tensor_loader

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
            if not torch.isfinite(getattr(self, name)).all():
                raise DataError(f"the {name} hold values that are not finite; check the settings of the simulation")

    def __len__(self) -> int:
        return len(self.inputs)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows in order, in batches of a bounded size."""
        return zip(self.inputs.split(CHUNK), self.outputs.split(CHUNK), strict=True)

    def output_std(self) -> Float[Tensor, " outputs"]:
        """Standard deviation of each output, in its unit; 1 where an output is constant."""
        std = self.outputs.std(0, correction=0)
        return torch.where(std > 0, std, 1.0)


@dataclass(frozen=True)
class Splits:
    """The three tables of a workload, held out from one another."""

    train: Table
    valid: Table
    test: Table

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Splits:
        """From arrays named ``{train,valid,test}_{inputs,outputs}``, as :func:`cached` returns them."""

        def table(split: str) -> Table:
            x, y = (torch.from_numpy(np.asarray(arrays[f"{split}_{part}"])) for part in ("inputs", "outputs"))
            return Table(x, y)

        return cls(table("train"), table("valid"), table("test"))

    def loaders(self, batch_size: int, seed: int, source: str) -> Loaders:
        """Batches ``(inputs, outputs)``; the training rows in an order that follows seed and epoch."""
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
        """R2 on the test split of the training mean and of a linear regression on all inputs."""
        return table_baselines(self.train, self.test)


@torch.no_grad()
def r2_score(model: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """R2 of the predictions for batches ``(inputs, outputs)``: 1 minus residual over total sum of squares, no unit.

    One R2 per output over all rows, then their plain mean: an output counts the same whatever its scale. Outputs
    that are constant over the split do not count. Sums are kept in float64, batch by batch. Raises DataError where
    there are no rows or no output varies.
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
    return (1 - residual[varies] / total[varies]).mean().item()


def standardised_mse(
    model: nn.Module, batch: tuple[Tensor, Tensor], output_std: Float[Tensor, " outputs"]
) -> Float[Tensor, ""]:
    """Mean squared error of ``(inputs, outputs)`` in units of each output's standard deviation; no unit.

    About 1 for a network that predicts the mean. ``output_std`` is that of the training split.
    """
    inputs, outputs = batch
    return ((model(inputs) - outputs) / output_std.to(outputs.device, non_blocking=True)).square().mean()


def table_baselines(train: Table, test: Table) -> dict[str, float]:
    """R2 on ``test`` of two trivial predictors fitted to ``train``: ``mean`` and ``linear`` (regression)."""
    return {"mean": linear_r2(train, test, columns=[]), "linear": linear_r2(train, test)}


def linear_r2(train: Table, test: Table, columns: Sequence[int] | None = None) -> float:
    """R2 on ``test`` of a least-squares fit to ``train``, with an intercept, on the given input columns (all: None).

    Solved in float64 from the normal equations of standardised inputs. Columns that repeat others change nothing.
    """
    picked = list(range(train.inputs.shape[1])) if columns is None else list(columns)
    known = train.inputs[:, picked].double()
    centre = known.mean(0)
    std = (known - centre).square().mean(0).sqrt()
    scale = torch.where(std > 0, std, 1.0)

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


def as_source(data: DataSource | Mapping[str, object]) -> DataSource:
    """A workload's ``data``, which Hydra passes as a mapping. Raises DataError for a key that DataSource lacks."""
    if isinstance(data, DataSource):
        return data
    known = [field.name for field in fields(DataSource)]
    unknown = [str(key) for key in data if key not in known]
    if unknown:
        raise DataError(f"data.{unknown[0]}: no such key; expected one of {', '.join(known)}")
    paths = {key: Path(str(data[key])) for key in ("root", "cache") if data.get(key) is not None}
    return DataSource(**{**data, **paths})  # type: ignore[arg-type]


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 in hex of the arrays' types, shapes and values, in order."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def cached(
    folder: Path, key: Mapping[str, object], make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays that ``make`` returns, from ``folder`` where an equal ``key`` has been made before.

    ``key`` holds all that the arrays depend on, a version of the generator included; it must be JSON. On disk:
    ``folder/<hash of key>/{key.json, <array>.npy}``, written under a temporary name and then renamed. The arrays
    are memory-mapped; writing to them changes only the copy in memory. Raises DataError for a file that is damaged,
    or where the folder cannot be written.
    """
    text = json.dumps(key, sort_keys=True, default=str)
    place = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not place.is_dir():
        _store(place, text, make())
    try:
        return {file.stem: np.load(file, mmap_mode="c", allow_pickle=False) for file in sorted(place.glob("*.npy"))}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{place}: cannot read the cached samples ({error}); delete that folder") from error


def _store(place: Path, text: str, arrays: Mapping[str, np.ndarray]) -> None:
    draft = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        draft.mkdir(parents=True)
        (draft / "key.json").write_text(text + "\n")
        for name, array in arrays.items():
            np.save(draft / f"{name}.npy", array, allow_pickle=False)
        os.replace(draft, place)
    except OSError as error:
        # Another process may have been first with the same samples; then its copy serves.
        if not place.is_dir():
            raise DataError(f"{place}: cannot write the cache ({error}); set data.cache to another folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
