"""PureMD: one step of the loop that turns ReaxFF's bond orders into forces (10 -> 3), or one bond of it (31 -> 6)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumos.suite.workload import DataError, DataSource, Loaders, Metric, Recipe
from lumos.workloads.common.dependence import TrueDependence
from lumos.workloads.common.mlp import ScaledMLP
from lumos.workloads.common.shards import Rows, make_shards, read_shards
from lumos.workloads.common.tabular import Splits, as_source, r2_score, standardised_mse
from lumos.workloads.puremd.bond_order import Box
from lumos.workloads.puremd.data import (
    INPUTS,
    OUTPUTS,
    SPLITS,
    VERSION,
    Replicas,
    Split,
    Variant,
    one_thread,
    read_system,
    systems,
)
from lumos.workloads.puremd.dependence import DEPENDENCE
from lumos.workloads.puremd.forcefield import ForceField, published
from lumos.workloads.puremd.molecules import build_box, geometry

logger = logging.getLogger(__name__)

Batch = tuple[Float[Tensor, "rows inputs"], Float[Tensor, "rows outputs"]]

Part = tuple[Split, int, int]
"""A replica's split, its number and the rows drawn from it."""


@dataclass(frozen=True)
class PureMD:
    """A surrogate of the kernel ``Add_dBond_to_Forces`` of PuReMD; ``README.md`` has equations and numbers.

    ``variant=inner`` samples the inner loop over neighbours, ``bond`` a whole bond; inputs :data:`INPUTS`, outputs
    :data:`OUTPUTS`, in kcal/mol and Å. With ``data.source=generated`` the boxes of ``molecules`` are the project's
    own; with ``public`` they are the files of atoms at ``data.root``, jittered anew for each replica. Train, valid
    and test are different replicas. Raises DataError for settings or files that cannot be used.
    """

    data: DataSource | Mapping[str, object] = field(default_factory=DataSource)
    seed: int = 0
    variant: Variant = "inner"
    molecules: Mapping[str, int] = field(default_factory=lambda: {"H2O": 80, "H2O2": 20})
    volume: float = 60.0
    kelvin: Sequence[float] = (300.0, 600.0)
    replicas: int = 400
    rows: int = 125_000
    widths: Sequence[int] = (300, 300, 100)
    batch_size: int = 500
    epochs: int = 30
    learning_rate: float = 2e-3

    name = "puremd"
    # The paper's pruned network reaches this R2 on its own split.
    metric = Metric("R2", target=0.9988)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_source(self.data))
        object.__setattr__(self, "widths", tuple(int(width) for width in self.widths))
        object.__setattr__(self, "kelvin", tuple(float(value) for value in self.kelvin))
        object.__setattr__(self, "molecules", {str(name): int(n) for name, n in self.molecules.items()})
        if self.variant not in INPUTS:
            raise DataError(f"workload.variant={self.variant}: expected one of {', '.join(INPUTS)}")
        for key, least in (("rows", 1), ("batch_size", 1), ("replicas", 3)):
            if getattr(self, key) < least:
                raise DataError(f"workload.{key}={getattr(self, key)}: expected at least {least}")
        if not self.widths or min(self.widths) < 1:
            raise DataError(f"workload.widths={list(self.widths)}: expected one or more widths of at least 1")
        if len(self.kelvin) != 2 or not 0 <= self.kelvin[0] <= self.kelvin[1] <= 5000:
            raise DataError(f"workload.kelvin={list(self.kelvin)}: expected two temperatures, 0 <= low <= high <= 5000")
        if not self.volume > 0:
            raise DataError(f"workload.volume={self.volume}: expected Å3 a molecule, > 0")
        for molecule, count in self.molecules.items():
            geometry(molecule)
            if count < 0:
                raise DataError(f"workload.molecules.{molecule}={count}: expected a number of molecules >= 0")

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
            what = "boxes of " + ", ".join(f"{count} {name}" for name, count in self.molecules.items() if count)
        else:
            what = f"copies of the atoms of {self._source.root}"
        return f"variant {self.variant}: {self.replicas} jittered {what}; tested on replicas not trained on"

    @cached_property
    def splits(self) -> Splits:
        """The samples, computed at the first call or read from the cache: one shard a replica."""
        key: dict[str, object] = {"version": VERSION}
        key |= {name: getattr(self, name) for name in ("seed", "variant", "kelvin", "replicas", "rows")}
        sources: list[tuple[Path, Path] | None] = [None]
        if self._source.source == "generated":
            key |= {"molecules": self.molecules, "volume": self.volume}
        else:
            sources = [*self._systems(self._source.public_root())]
            key |= {"files": [[_sha256(file) for file in source] for source in sources if source]}
        parts = {f"{part[0]}-{part[1]:05d}": part for part in self._parts()}
        replicas = Replicas(self.variant, (self.kelvin[0], self.kelvin[1]), self.molecules, self.volume)

        def make(name: str) -> Iterator[Rows]:
            torch.set_num_threads(1)  # OpenMP keeps this number for each thread
            split, number, rows = parts[name]
            seed = [self.seed, SPLITS.index(split), number]
            yield replicas.make(sources[number % len(sources)], rows, split, seed)

        with one_thread():
            shards = make_shards(self._source.cache / self.name, key, list(parts), make, "computing bond orders")
        return Splits.from_arrays(read_shards(shards))

    def _parts(self) -> list[Part]:
        """All replicas: 80% of them train, the rest, at least one each, valid and test; rows in equal shares."""
        held = max(1, round(0.1 * self.replicas))
        counts: dict[Split, int] = {"train": self.replicas - 2 * held, "valid": held, "test": held}
        parts: list[Part] = []
        for split in SPLITS:
            count = counts[split]
            rows = round(self.rows * count / self.replicas)
            parts.extend((split, n, rows * (n + 1) // count - rows * n // count) for n in range(count))
        return parts

    def _systems(self, root: Path) -> list[tuple[Path, Path]]:
        good = []
        for source in systems(root):
            try:
                read_system(*source)
                good.append(source)
            except DataError as error:
                if self._source.on_error == "fatal":
                    raise
                logger.warning("skipped: %s", error)
        if not good:
            raise DataError(f"data.root={root}: none of the files of atoms there could be read")
        return good

    @cached_property
    def output_std(self) -> Float[Tensor, " outputs"]:
        """Standard deviation of each output over the training rows, kcal/mol/Å."""
        return self.splits.train.output_std()

    def model(self) -> nn.Module:
        """A fresh network, ReLU between the layers, scaled by the training rows' means and deviations."""
        return ScaledMLP(self.splits.train.inputs, self.splits.train.outputs, self.widths)

    def loaders(self) -> Loaders:
        """Batches ``(inputs (rows, 10 or 31), outputs (rows, 3 or 6))``, float32."""
        return self._loaders

    @cached_property
    def _loaders(self) -> Loaders:
        return self.splits.loaders(self.batch_size, self.seed, self._source.source)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Mean squared error of the outputs, each in units of its training standard deviation."""
        return standardised_mse(model, batch, self.output_std)

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """R2 of each force component over all rows, averaged over the components."""
        return r2_score(model, batches)

    def baselines(self) -> dict[str, float]:
        """R2 on the test replicas of the mean and of a linear regression on all inputs."""
        return self.splits.baselines()

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """The training rows: inputs (rows, n_inputs) and outputs (rows, n_outputs), in physical units."""
        return self.splits.train.inputs.numpy(), self.splits.train.outputs.numpy()

    def example(self) -> tuple[Float[Tensor, "4 inputs"]]:
        """Four samples."""
        return (self.splits.train.inputs[:4].clone(),)

    def features(self) -> Sequence[str]:
        """Names of the inputs of the variant."""
        return INPUTS[self.variant]

    def true_dependence(self) -> TrueDependence:
        """What the equations of the variant say of the inputs."""
        return DEPENDENCE[self.variant]

    def fresh_box(self) -> tuple[Box, ForceField]:
        """Molecules that no sample comes from, without jitter: a box of their own, or the first public file's."""
        if self._source.source == "generated":
            ff = published()
            return build_box(self.molecules, self.volume, 0.0, ff, np.random.default_rng([self.seed, 3])), ff
        return read_system(*self._systems(self._source.public_root())[0])

    def tiny(self) -> PureMD:
        """Ten boxes of 30 molecules, a narrow network."""
        return replace(
            self,
            molecules={"H2O": 24, "H2O2": 6},
            replicas=10,
            rows=1000,
            widths=(32, 32),
            batch_size=100,
            epochs=2,
            learning_rate=3e-3,
        )


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


__all__ = ["INPUTS", "OUTPUTS", "PureMD"]
