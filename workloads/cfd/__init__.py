"""CFD: the flux through one face of an unstructured Euler solver, as a function of 20 numbers (20 -> 5)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from lumos.suite.workload import DataError, DataSource, Loaders, Metric, Recipe
from lumos.workloads.cfd.data import INPUTS, OUTPUTS, VERSION, generate, held_out
from lumos.workloads.cfd.dependence import DEPENDENCE
from lumos.workloads.cfd.mesh import Mesh, box_with_bump, read_domn
from lumos.workloads.common.dependence import TrueDependence
from lumos.workloads.common.mlp import ScaledMLP
from lumos.workloads.common.tabular import Splits, as_source, cached, linear_r2, r2_score, standardised_mse

logger = logging.getLogger(__name__)

Batch = tuple[Float[Tensor, "rows 20"], Float[Tensor, "rows 5"]]


@dataclass(frozen=True)
class CFD:
    """A surrogate of the kernel ``compute_flux`` of Rodinia's euler3d; ``README.md`` has equations and numbers.

    Samples are faces: inputs :data:`INPUTS`, outputs :data:`OUTPUTS`, in the solver's units (see ``solver.py``).
    ``data.source=generated`` simulates on the project's own mesh, ``public`` on the ``.domn`` file, or the folder of
    them, at ``data.root``. Train, valid and test are different flows. Raises DataError for settings or files that
    cannot be used.
    """

    data: DataSource | Mapping[str, object] = field(default_factory=DataSource)
    seed: int = 0
    mach: Sequence[float | int] = (0.5, 0.8, 1.1, 1.4, 1.7)
    angle: Sequence[float | int] = (-4.0, 0.0, 4.0)
    cells: Sequence[int] = (12, 5, 8)
    iterations: int = 24
    snapshots: int = 6
    rows: int = 100_000
    widths: Sequence[int] = (784, 300, 100)
    batch_size: int = 1000
    epochs: int = 20
    learning_rate: float = 1e-3

    name = "cfd"
    # The paper's pruned network reaches this R2 on its own split.
    metric = Metric("R2", target=0.9732)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_source(self.data))
        for key, kind in (("mach", float), ("angle", float), ("cells", int), ("widths", int)):
            object.__setattr__(self, key, tuple(kind(value) for value in getattr(self, key)))
        for key in ("iterations", "rows", "batch_size"):
            if getattr(self, key) < 1:
                raise DataError(f"workload.{key}={getattr(self, key)}: expected at least 1")
        if not self.widths or min(self.widths) < 1:
            raise DataError(f"workload.widths={list(self.widths)}: expected one or more widths of at least 1")

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
        where = "the project's own mesh" if self._source.source == "generated" else f"{self._source.root}"
        mach, angle = (f"{min(values):g} to {max(values):g}" for values in (self.mach, self.angle))
        return f"faces of {where}, Mach {mach}, angles {angle} degrees; tested on flows not trained on"

    @cached_property
    def splits(self) -> Splits:
        """The samples, simulated at the first call or read from the cache."""
        names = ("seed", "mach", "angle", "iterations", "snapshots", "rows")
        key: dict[str, object] = {"version": VERSION, **{name: getattr(self, name) for name in names}}
        conditions = held_out(self.mach, self.angle)
        if self._source.source == "generated":
            key |= {"cells": self.cells}
        else:
            files = _domn_files(self._source.public_root())
            key |= {"files": [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]}

        def make() -> dict[str, np.ndarray]:
            return generate(self.meshes(), conditions, self.iterations, self.snapshots, self.rows, self.seed)

        return Splits.from_arrays(cached(self._source.cache / self.name, key, make))

    def meshes(self) -> list[Mesh]:
        """The project's own mesh, or those of the public files."""
        if self._source.source == "generated":
            return [box_with_bump(self.cells)]
        return self._read(_domn_files(self._source.public_root()))

    def _read(self, files: Sequence[Path]) -> list[Mesh]:
        meshes = []
        for file in files:
            try:
                meshes.append(read_domn(file))
            except DataError as error:
                if self._source.on_error == "fatal":
                    raise
                logger.warning("skipped: %s", error)
        if not meshes:
            raise DataError(f"data.root={self._source.root}: no .domn file there could be read")
        return meshes

    @cached_property
    def output_std(self) -> Float[Tensor, " 5"]:
        """Standard deviation of each output over the training rows, in its own unit."""
        return self.splits.train.output_std()

    def model(self) -> nn.Module:
        """A fresh network, ReLU between the layers, scaled by the training rows' means and deviations."""
        return ScaledMLP(self.splits.train.inputs, self.splits.train.outputs, self.widths)

    def loaders(self) -> Loaders:
        """Batches ``(inputs (rows, 20), outputs (rows, 5))``, float32."""
        return self._loaders

    @cached_property
    def _loaders(self) -> Loaders:
        return self.splits.loaders(self.batch_size, self.seed, self._source.source)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Mean squared error of the outputs, each in units of its training standard deviation."""
        return standardised_mse(model, batch, self.output_std)

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """R2 of each output over all rows, averaged over the five (constant ones left out)."""
        return r2_score(model, batches)

    def baselines(self) -> dict[str, float]:
        """R2 on the test flows of the mean, of a linear regression, and of one on the normal (nx, ny, nz) alone."""
        normal = [INPUTS.index(name) for name in ("nx", "ny", "nz")]
        alone = linear_r2(self.splits.train, self.splits.test, normal)
        return {**self.splits.baselines(), "linear_on_normal": alone}

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """The training rows: inputs (rows, n_inputs) and outputs (rows, n_outputs), in physical units."""
        return self.splits.train.inputs.numpy(), self.splits.train.outputs.numpy()

    def example(self) -> tuple[Float[Tensor, "4 20"]]:
        """Four faces."""
        return (self.splits.train.inputs[:4].clone(),)

    def features(self) -> Sequence[str]:
        """Names of the 20 inputs."""
        return INPUTS

    def true_dependence(self) -> TrueDependence:
        """What the equations of the flux say of the inputs."""
        return DEPENDENCE

    def tiny(self) -> CFD:
        """480 elements, four flows of a few iterations, a narrow network."""
        return replace(
            self,
            mach=(0.8, 1.2),
            angle=(0.0, 4.0),
            cells=(5, 4, 4),
            iterations=6,
            snapshots=3,
            rows=4000,
            widths=(32, 32),
            batch_size=100,
            epochs=2,
            learning_rate=3e-3,
        )


def _domn_files(root: Path) -> list[Path]:
    files = sorted(root.glob("*.domn*")) if root.is_dir() else [root]
    if not files:
        raise DataError(f"data.root={root}: there is no .domn file in that folder; give the file itself or its folder")
    return files


__all__ = ["CFD", "INPUTS", "OUTPUTS"]
