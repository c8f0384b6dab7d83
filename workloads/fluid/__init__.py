"""Fluid: the acceleration that one pair of smoothed particles gives each other (15 -> 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lumos.errors import DataError
from lumos.suite.dependence import TrueDependence
from lumos.suite.workload import Metric
from lumos.workloads.common.base import at_least
from lumos.workloads.common.files import file_sha256
from lumos.workloads.common.shards import Rows, make_shards, read_shards
from lumos.workloads.common.table_workload import TableWorkload
from lumos.workloads.common.tables import Splits, linear_r2
from lumos.workloads.fluid.data import (
    INPUTS,
    OUTPUTS,
    SHARES,
    VERSION,
    Schedule,
    falling_block,
    find_starts,
    read_fluid,
    simulate,
)
from lumos.workloads.fluid.dependence import DEPENDENCE
from lumos.workloads.fluid.solver import Kernel, State


@dataclass(frozen=True)
class Fluid(TableWorkload):
    """A surrogate of the kernel ``ComputeForces`` of PARSEC's fluidanimate; ``README.md`` has equations and numbers.

    Samples are pairs of particles: inputs :data:`INPUTS`, outputs :data:`OUTPUTS`, SI units. With
    ``data.source=generated`` the project's own blocks of water fall and slosh in the box; with ``public`` the
    simulation starts from the ``.fluid`` file, or each of those in the folder, at ``data.root``. Train, valid and
    test are different snapshots, with a snapshot left out between them. Raises DataError for settings or files that
    cannot be used.
    """

    conditions: int = 8
    particles_per_metre: float = 140.0
    snapshots: int = 40
    steps: int = 20
    rows: int = 125_000
    widths: Sequence[int] = (784, 300, 100)
    batch_size: int = 500
    epochs: int = 20
    learning_rate: float = 1e-3

    name = "fluid"
    core_seconds_per_gb = 10_000
    # The paper gives no R2 for Fluid alone; this is the project's own goal for the dense network.
    metric = Metric("R2", target=0.99)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, conditions=1, rows=1)
        if not 30 <= self.particles_per_metre <= 500:
            raise DataError(f"workload.particles_per_metre={self.particles_per_metre}: expected 30 to 500")
        self._schedule(1)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        where = f"{self.conditions} falling blocks of water" if self.generated else f"the fluid of {self.source.root}"
        return f"pairs of particles of {where}, a snapshot every {self.steps} ms; tested on snapshots not trained on"

    def make_splits(self) -> Splits:
        """The samples, simulated at the first call or read from the cache: one shard a condition."""
        key: dict[str, object] = {"version": VERSION}
        key |= {name: getattr(self, name) for name in ("seed", "snapshots", "steps", "rows")}
        if self.generated:
            key |= {"conditions": self.conditions, "particles_per_metre": self.particles_per_metre}
            starts = {f"block-{k:03d}": k for k in range(self.conditions)}
        else:
            # The same file under another name gives the same samples, so that its content is its name.
            starts = {f"file-{file_sha256(file)[:16]}": file for file in self._public_starts()}
            key |= {"files": list(starts)}

        def make(name: str) -> Iterator[Rows]:
            number = list(starts).index(name)
            rng = np.random.default_rng([self.seed, number])
            return simulate(*self._start(starts[name], rng), self._schedule(len(starts), number), rng)

        return Splits.from_arrays(read_shards(make_shards(self.cache, key, list(starts), make, "simulating fluids")))

    def split_rows(self) -> dict[str, int]:
        """Count the pairs of particles of each split."""
        return {split: round(share * self.rows) for split, share in SHARES.items()}

    def _schedule(self, conditions: int, number: int = 0) -> Schedule:
        return Schedule.of(number, conditions, snapshots=self.snapshots, steps=self.steps, rows=self.rows)

    def _start(self, start: int | Path, rng: np.random.Generator) -> tuple[State, Kernel]:
        if isinstance(start, int):
            return falling_block(self.particles_per_metre, rng), Kernel.at(self.particles_per_metre)
        rest, state = read_fluid(start)
        return state, Kernel.at(rest)

    def _public_starts(self) -> list[Path]:
        return find_starts(self.source.public_root(), self.source.on_error)

    def fresh_start(self) -> tuple[State, Kernel]:
        """Make a start that no sample comes from: another block of water, or the first public file as it is."""
        if self.generated:
            return self._start(0, np.random.default_rng([self.seed, self.conditions]))
        return self._start(self._public_starts()[0], np.random.default_rng(0))

    def baselines(self) -> dict[str, float]:
        """Compute R2 on the test snapshots of the mean, a linear regression, and one on the displacement alone."""
        alone = linear_r2(self.splits.train, self.splits.test, [0, 1, 2])
        return {**super().baselines(), "linear_on_displacement": alone}

    def features(self) -> Sequence[str]:
        """Name the 15 inputs."""
        return INPUTS

    def outputs(self) -> Sequence[str]:
        """Name the three outputs."""
        return OUTPUTS

    def true_dependence(self) -> TrueDependence:
        """Say what the equation of a pair says of the inputs."""
        return DEPENDENCE

    def tiny(self) -> Fluid:
        """Shrink it to one small block for 0.1 s and a narrow network."""
        return replace(
            self,
            conditions=1,
            particles_per_metre=100.0,
            snapshots=10,
            steps=10,
            rows=3000,
            widths=(32, 32),
            batch_size=100,
            epochs=2,
            learning_rate=3e-3,
        )


__all__ = ["INPUTS", "OUTPUTS", "Fluid"]
