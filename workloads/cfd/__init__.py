"""CFD: the flux through one face of an unstructured Euler solver, as a function of 20 numbers (20 -> 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lumos.errors import DataError
from lumos.suite.dependence import TrueDependence
from lumos.suite.workload import Metric
from lumos.workloads.cfd.data import INPUTS, OUTPUTS, SHARES, VERSION, domn_files, generate, held_out
from lumos.workloads.cfd.dependence import DEPENDENCE
from lumos.workloads.cfd.mesh import Mesh, box_with_bump, read_domn
from lumos.workloads.common.arrays import cached
from lumos.workloads.common.base import as_tuples, at_least
from lumos.workloads.common.damaged import readable
from lumos.workloads.common.files import file_sha256
from lumos.workloads.common.table_workload import TableWorkload
from lumos.workloads.common.tables import Splits, linear_r2


@dataclass(frozen=True)
class CFD(TableWorkload):
    """A surrogate of the kernel ``compute_flux`` of Rodinia's euler3d; ``README.md`` has equations and numbers.

    Samples are faces: inputs :data:`INPUTS`, outputs :data:`OUTPUTS`, in the solver's units (see ``solver.py``).
    ``data.source=generated`` simulates on the project's own mesh, ``public`` on the ``.domn`` file, or the folder of
    them, at ``data.root``. Train, valid and test are different flows. Raises DataError for settings or files that
    cannot be used.
    """

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
    core_seconds_per_gb = 1000
    # The paper's pruned network reaches this R2 on its own split.
    metric = Metric("R2", target=0.9732)

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuples(self, float, "mach", "angle")
        as_tuples(self, int, "cells")
        at_least(self, iterations=1, rows=1)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        where = "the project's own mesh" if self.generated else f"{self.source.root}"
        mach, angle = (f"{min(values):g} to {max(values):g}" for values in (self.mach, self.angle))
        return f"faces of {where}, Mach {mach}, angles {angle} degrees; tested on flows not trained on"

    def make_splits(self) -> Splits:
        """The samples, simulated at the first call or read from the cache."""
        names = ("seed", "mach", "angle", "iterations", "snapshots", "rows")
        key: dict[str, object] = {"version": VERSION, **{name: getattr(self, name) for name in names}}
        conditions = held_out(self.mach, self.angle)
        if self.generated:
            key |= {"cells": self.cells}
        else:
            key |= {"files": [file_sha256(file) for file in domn_files(self.source.public_root())]}

        def make() -> dict[str, np.ndarray]:
            return generate(self.meshes(), conditions, self.iterations, self.snapshots, self.rows, self.seed)

        return Splits.from_arrays(cached(self.cache, key, make))

    def split_rows(self) -> dict[str, int]:
        """Count the faces of each split."""
        return {split: round(share * self.rows) for split, share in SHARES.items()}

    def meshes(self) -> list[Mesh]:
        """Build the project's own mesh, or read those of the public files."""
        if self.generated:
            return [box_with_bump(self.cells)]
        files = domn_files(self.source.public_root())
        meshes = [mesh for _, mesh in readable(files, read_domn, self.source.on_error)]
        if not meshes:
            raise DataError(f"data.root={self.source.root}: no .domn file there could be read")
        return meshes

    def baselines(self) -> dict[str, float]:
        """Compute R2 on the test flows of the mean, of a linear regression, and of one on the normal alone."""
        normal = [INPUTS.index(name) for name in ("nx", "ny", "nz")]
        alone = linear_r2(self.splits.train, self.splits.test, normal)
        return {**super().baselines(), "linear_on_normal": alone}

    def features(self) -> Sequence[str]:
        """Name the 20 inputs."""
        return INPUTS

    def outputs(self) -> Sequence[str]:
        """Name the five outputs."""
        return OUTPUTS

    def true_dependence(self) -> TrueDependence:
        """Say what the equations of the flux say of the inputs."""
        return DEPENDENCE

    def tiny(self) -> CFD:
        """Shrink it to 480 elements, four flows of a few iterations and a narrow network."""
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


__all__ = ["CFD", "INPUTS", "OUTPUTS"]
