"""Fluid: the acceleration that one pair of smoothed particles gives each other (15 -> 3)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from lumos.suite.workload import DataError, DataSource, Loaders, Metric, Recipe
from lumos.workloads.common.dependence import TrueDependence
from lumos.workloads.common.mlp import ScaledMLP
from lumos.workloads.common.shards import Rows, make_shards, read_shards
from lumos.workloads.common.tabular import Splits, as_source, linear_r2, r2_score, standardised_mse
from lumos.workloads.fluid.data import (
    INPUTS,
    OUTPUTS,
    SHARES,
    SPLITS,
    VERSION,
    Schedule,
    Split,
    falling_block,
    read_fluid,
    simulate,
)
from lumos.workloads.fluid.dependence import DEPENDENCE
from lumos.workloads.fluid.solver import Kernel, State

logger = logging.getLogger(__name__)

Batch = tuple[Float[Tensor, "rows 15"], Float[Tensor, "rows 3"]]


@dataclass(frozen=True)
class Fluid:
    """A surrogate of the kernel ``ComputeForces`` of PARSEC's fluidanimate; ``README.md`` has equations and numbers.

    Samples are pairs of particles: inputs :data:`INPUTS`, outputs :data:`OUTPUTS`, SI units. With
    ``data.source=generated`` the project's own blocks of water fall and slosh in the box; with ``public`` the
    simulation starts from the ``.fluid`` file, or each of those in the folder, at ``data.root``. Train, valid and
    test are different snapshots, with a snapshot left out between them. Raises DataError for settings or files that
    cannot be used.
    """

    data: DataSource | Mapping[str, object] = field(default_factory=DataSource)
    seed: int = 0
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
    # The paper gives no R2 for Fluid alone; this is the project's own goal for the dense network.
    metric = Metric("R2", target=0.99)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_source(self.data))
        object.__setattr__(self, "widths", tuple(int(width) for width in self.widths))
        for key in ("conditions", "rows", "batch_size"):
            if getattr(self, key) < 1:
                raise DataError(f"workload.{key}={getattr(self, key)}: expected at least 1")
        if not self.widths or min(self.widths) < 1:
            raise DataError(f"workload.widths={list(self.widths)}: expected one or more widths of at least 1")
        if not 30 <= self.particles_per_metre <= 500:
            raise DataError(f"workload.particles_per_metre={self.particles_per_metre}: expected 30 to 500")
        self._schedule(1)

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
        if self._source.source == "generated":
            where = f"{self.conditions} falling blocks of water"
        else:
            where = f"the fluid of {self._source.root}"
        return f"pairs of particles of {where}, a snapshot every {self.steps} ms; tested on snapshots not trained on"

    @cached_property
    def splits(self) -> Splits:
        """The samples, simulated at the first call or read from the cache: one shard a condition."""
        key: dict[str, object] = {"version": VERSION}
        key |= {name: getattr(self, name) for name in ("seed", "snapshots", "steps", "rows")}
        if self._source.source == "generated":
            key |= {"conditions": self.conditions, "particles_per_metre": self.particles_per_metre}
            starts = {f"block-{k:03d}": k for k in range(self.conditions)}
        else:
            files = self._fluid_files(self._source.public_root())
            # The same file under another name gives the same samples, so that its content is its name.
            starts = {f"file-{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}": file for file in files}
            key |= {"files": list(starts)}

        def make(name: str) -> Iterator[Rows]:
            number = list(starts).index(name)
            rng = np.random.default_rng([self.seed, number])
            return simulate(*self._start(starts[name], rng), self._schedule(len(starts), number), rng)

        return Splits.from_arrays(
            read_shards(make_shards(self._source.cache / self.name, key, list(starts), make, "simulating fluids"))
        )

    def _schedule(self, conditions: int, number: int = 0) -> Schedule:
        """That of one of the conditions: its share of the rows, and its own place to start the cycle of splits at."""
        rows: dict[Split, int] = {}
        for split in SPLITS:
            total = round(SHARES[split] * self.rows)
            rows[split] = total * (number + 1) // conditions - total * number // conditions
        return Schedule(self.snapshots, self.steps, rows, 3 * number)

    def _start(self, start: int | Path, rng: np.random.Generator) -> tuple[State, Kernel]:
        if isinstance(start, int):
            return falling_block(self.particles_per_metre, rng), Kernel.at(self.particles_per_metre)
        rest, state = read_fluid(start)
        return state, Kernel.at(rest)

    def fresh_start(self) -> tuple[State, Kernel]:
        """A start that no sample comes from: another block of water, or the first public file as it is."""
        if self._source.source == "generated":
            return self._start(0, np.random.default_rng([self.seed, self.conditions]))
        return self._start(self._fluid_files(self._source.public_root())[0], np.random.default_rng(0))

    def _fluid_files(self, root: Path) -> list[Path]:
        files = sorted(root.glob("*.fluid")) if root.is_dir() else [root]
        good = []
        for file in files:
            try:
                rest, _ = read_fluid(file)
                if not 0 < rest < float("inf"):
                    raise DataError(
                        f"{file}: byte 0: {rest} particles a metre; expected more than 0: frames that the benchmark "
                        "writes do not keep it, start from an in_*.fluid file"
                    )
                good.append(file)
            except DataError as error:
                if self._source.on_error == "fatal":
                    raise
                logger.warning("skipped: %s", error)
        if not good:
            raise DataError(f"data.root={root}: no .fluid file there could be read; give the file itself or its folder")
        return good

    @cached_property
    def output_std(self) -> Float[Tensor, " 3"]:
        """Standard deviation of each output over the training rows, m/s2."""
        return self.splits.train.output_std()

    def model(self) -> nn.Module:
        """A fresh network, ReLU between the layers, scaled by the training rows' means and deviations."""
        return ScaledMLP(self.splits.train.inputs, self.splits.train.outputs, self.widths)

    def loaders(self) -> Loaders:
        """Batches ``(inputs (rows, 15), outputs (rows, 3))``, float32."""
        return self._loaders

    @cached_property
    def _loaders(self) -> Loaders:
        return self.splits.loaders(self.batch_size, self.seed, self._source.source)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Mean squared error of the outputs, each in units of its training standard deviation."""
        return standardised_mse(model, batch, self.output_std)

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """R2 of each component of the acceleration over all rows, averaged over the three."""
        return r2_score(model, batches)

    def baselines(self) -> dict[str, float]:
        """R2 on the test snapshots of the mean, of a linear regression, and of one on the displacement alone."""
        alone = linear_r2(self.splits.train, self.splits.test, [0, 1, 2])
        return {**self.splits.baselines(), "linear_on_displacement": alone}

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """The training rows: inputs (rows, n_inputs) and outputs (rows, n_outputs), in physical units."""
        return self.splits.train.inputs.numpy(), self.splits.train.outputs.numpy()

    def example(self) -> tuple[Float[Tensor, "4 15"]]:
        """Four pairs."""
        return (self.splits.train.inputs[:4].clone(),)

    def features(self) -> Sequence[str]:
        """Names of the 15 inputs."""
        return INPUTS

    def true_dependence(self) -> TrueDependence:
        """What the equation of a pair says of the inputs."""
        return DEPENDENCE

    def tiny(self) -> Fluid:
        """One small block for 0.1 s, a narrow network."""
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
