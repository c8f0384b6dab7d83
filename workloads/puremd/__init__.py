"""PureMD: one step of the loop that turns ReaxFF's bond orders into forces (10 -> 3), or one bond of it (31 -> 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from lumos.errors import DataError
from lumos.suite.dependence import TrueDependence
from lumos.suite.workload import Metric
from lumos.workloads.common.base import as_tuples, at_least
from lumos.workloads.common.damaged import readable
from lumos.workloads.common.files import file_sha256
from lumos.workloads.common.shards import Rows, make_shards, read_shards
from lumos.workloads.common.table_workload import TableWorkload
from lumos.workloads.common.tables import Splits
from lumos.workloads.puremd.bond_order import Box
from lumos.workloads.puremd.data import (
    INPUTS,
    OUTPUTS,
    SPLITS,
    VERSION,
    Replicas,
    Variant,
    one_thread,
    read_system,
    replica_parts,
    systems,
)
from lumos.workloads.puremd.dependence import DEPENDENCE
from lumos.workloads.puremd.forcefield import ForceField, published
from lumos.workloads.puremd.molecules import build_box, geometry


@dataclass(frozen=True)
class PureMD(TableWorkload):
    """A surrogate of the kernel ``Add_dBond_to_Forces`` of PuReMD; ``README.md`` has equations and numbers.

    ``variant=inner`` samples the inner loop over neighbours, ``bond`` a whole bond; inputs :data:`INPUTS`, outputs
    :data:`OUTPUTS`, in kcal/mol and Å. With ``data.source=generated`` the boxes of ``molecules`` are the project's
    own; with ``public`` they are the files of atoms at ``data.root``, jittered anew for each replica. Train, valid
    and test are different replicas. Raises DataError for settings or files that cannot be used.
    """

    variant: Variant = "inner"
    molecules: Mapping[str, int] = field(default_factory=lambda: {"H2O": 80, "H2O2": 20})
    volume: float = 60.0
    force_field: str | None = None
    kelvin: Sequence[float] = (300.0, 600.0)
    replicas: int = 400
    rows: int = 125_000
    widths: Sequence[int] = (300, 300, 100)
    batch_size: int = 500
    epochs: int = 30
    learning_rate: float = 2e-3

    name = "puremd"
    core_seconds_per_gb = 1300
    # The paper's pruned network reaches this R2 on its own split.
    metric = Metric("R2", target=0.9988)

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuples(self, float, "kelvin")
        object.__setattr__(self, "molecules", {str(name): int(n) for name, n in self.molecules.items()})
        if self.variant not in INPUTS:
            raise DataError(f"workload.variant={self.variant}: expected one of {', '.join(INPUTS)}")
        at_least(self, rows=1, replicas=3)
        if len(self.kelvin) != 2 or not 0 <= self.kelvin[0] <= self.kelvin[1] <= 5000:
            raise DataError(f"workload.kelvin={list(self.kelvin)}: expected two temperatures, 0 <= low <= high <= 5000")
        if not self.volume > 0:
            raise DataError(f"workload.volume={self.volume}: expected Å3 a molecule, > 0")
        for molecule, count in self.molecules.items():
            geometry(molecule)
            if count < 0:
                raise DataError(f"workload.molecules.{molecule}={count}: expected a number of molecules >= 0")

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        if self.generated:
            what = "boxes of " + ", ".join(f"{count} {name}" for name, count in self.molecules.items() if count)
        else:
            what = f"copies of the atoms of {self.source.root}"
        return f"variant {self.variant}: {self.replicas} jittered {what}; tested on replicas not trained on"

    def make_splits(self) -> Splits:
        """The samples, computed at the first call or read from the cache: one shard a replica."""
        key: dict[str, object] = {"version": VERSION}
        key |= {name: getattr(self, name) for name in ("seed", "variant", "kelvin", "replicas", "rows")}
        sources: list[tuple[Path, Path] | None] = [None]
        if self.generated:
            key |= {"molecules": self.molecules, "volume": self.volume}
        else:
            sources = [*self._public_systems()]
            key |= {"files": [[file_sha256(file) for file in source] for source in sources if source]}
        parts = {f"{part[0]}-{part[1]:05d}": part for part in replica_parts(self.replicas, self.rows)}
        replicas = Replicas(self.variant, (self.kelvin[0], self.kelvin[1]), self.molecules, self.volume)

        def make(name: str) -> Iterator[Rows]:
            torch.set_num_threads(1)  # OpenMP keeps this number for each thread
            split, number, rows = parts[name]
            seed = [self.seed, SPLITS.index(split), number]
            yield replicas.make(sources[number % len(sources)], rows, split, seed)

        with one_thread():
            shards = make_shards(self.cache, key, list(parts), make, "computing bond orders")
        return Splits.from_arrays(read_shards(shards))

    def split_rows(self) -> dict[str, int]:
        """Count the rows of each split."""
        parts = replica_parts(self.replicas, self.rows)
        return {split: sum(rows for name, _, rows in parts if name == split) for split in SPLITS}

    def _public_systems(self) -> list[tuple[Path, Path]]:
        root = self.source.public_root()
        good = [
            files
            for files, _ in readable(
                systems(root, self.force_field), lambda files: read_system(*files), self.source.on_error
            )
        ]
        if not good:
            raise DataError(f"data.root={root}: none of the files of atoms there could be read")
        return good

    def features(self) -> Sequence[str]:
        """Name the inputs of the variant."""
        return INPUTS[self.variant]

    def outputs(self) -> Sequence[str]:
        """Name the outputs of the variant."""
        return OUTPUTS[self.variant]

    def true_dependence(self) -> TrueDependence:
        """Say what the equations of the variant say of the inputs."""
        return DEPENDENCE[self.variant]

    def fresh_box(self) -> tuple[Box, ForceField]:
        """Make molecules that no sample comes from, without jitter: a box of their own, or the first public file's."""
        if self.generated:
            ff = published()
            return build_box(self.molecules, self.volume, 0.0, ff, np.random.default_rng([self.seed, 3])), ff
        return read_system(*self._public_systems()[0])

    def tiny(self) -> PureMD:
        """Shrink it to ten boxes of 30 molecules and a narrow network."""
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


__all__ = ["INPUTS", "OUTPUTS", "PureMD"]
