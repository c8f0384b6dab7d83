"""CosmoFlow: the parameters of a universe from the distribution of its matter at four redshifts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumos.errors import DataError
from lumos.suite.workload import Metric
from lumos.workloads.common.base import as_tuples, at_least, at_least_if_given, positive_sizes
from lumos.workloads.common.damaged import readable
from lumos.workloads.common.files import dataset_folder, digest_files
from lumos.workloads.common.streamed_workload import StreamedWorkload
from lumos.workloads.cosmoflow.data import Cube, CubeSamples, Survey, collate, find_cubes, generate, read_cube
from lumos.workloads.cosmoflow.model import CosmoNet
from lumos.workloads.cosmoflow.summary import power_and_counts, ridge
from lumos.workloads.cosmoflow.universe import PARAMETERS, REDSHIFTS

Batch = tuple[Float[Tensor, "n 4 d h w"], Float[Tensor, "n 4"]]

VALID_SHARE = 0.1
"""Of the training universes, at least one."""

SUMMARISED = 2000
"""Cubes of each split, at most, that the trivial predictors are fitted to and scored on."""

LABEL_VARIANCE = 1 / 3
"""Of a number uniform in [-1, 1]."""

log = logging.getLogger("lumos")

FOLDER = "cosmoUniverse_2019_05_4parE_tf_v2"
"""What the published archive unpacks to; those of smaller ones are found by what they hold."""


@dataclass(frozen=True)
class CosmoFlow(StreamedWorkload):
    """Regression of (omega_m, sigma_8, n_s, h0), each scaled to [-1, 1]; ``README.md`` has physics and numbers.

    Samples are cubes of particle counts at z = 0, 0.5, 1.5 and 3. With ``data.source=generated`` the project's own
    universes are written in the published layout, and then read as ``public`` files are: the folder at ``data.root``
    holds ``train/`` and ``validation/``. No universe is in two splits. Batches are ``(cubes (n, 4, cells, cells,
    cells), labels (n, 4))``, float32. Raises DataError for settings or files that cannot be used.
    """

    train_universes: int = 2000
    valid_universes: int | None = None
    test_universes: int = 400
    cells: int = 32
    parts: int = 1
    spacing: float = 4.0
    spread: float = 0.3
    fresh: bool = False
    channels: Sequence[int] = (8, 16, 32)
    hidden: Sequence[int] = (128, 64)
    means: bool = True
    strided: bool = False
    batch_size: int = 16
    epochs: int = 20
    learning_rate: float = 4e-3
    weight_decay: float = 0.0

    name = "cosmoflow"
    metric = Metric("MSE", higher_is_better=False)
    collate = staticmethod(collate)

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuples(self, int, "channels", "hidden")
        positive_sizes(self, "channels", "hidden")
        at_least(self, train_universes=2, test_universes=1, parts=1)
        at_least_if_given(self, valid_universes=1)
        if self.valid_universes is not None and self.valid_universes >= self.train_universes:
            raise DataError(
                f"workload.valid_universes={self.valid_universes}: expected fewer than workload.train_universes="
                f"{self.train_universes}, of which they are a part"
            )
        if self.fresh and (self.parts > 1 or not self.generated):
            raise DataError("workload.fresh=true: expected data=generated and workload.parts=1, a universe a cube")
        if self.parts > 9:
            raise DataError(
                f"workload.parts={self.parts}: expected at most 9, the cubes of a universe have three digits"
            )
        if not self.spacing > 0:
            raise DataError(f"workload.spacing={self.spacing}: expected a number > 0, Mpc/h")
        if not 0 < self.spread <= 0.5:
            raise DataError(f"workload.spread={self.spread}: expected a share of the parameters > 0, at most 0.5")
        least = 2 ** (len(self.channels) + self.strided)
        if self.cells < 1 or self.cells % least:
            raise DataError(
                f"workload.cells={self.cells}: expected a multiple of {least}, since each of the {len(self.channels)} "
                f"blocks halves the cube{', and the first one twice' if self.strided else ''}"
            )

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        if not self.generated:
            return f"cubes of {self.source.root}; tested on the universes of validation/"
        box = self.spacing * self.cells * self.parts
        return f"the project's own universes, boxes of {box:g} Mpc/h moved by 2LPT; tested on universes not trained on"

    def generate(self) -> Path:
        """Simulate the universes where they are not in the cache yet; returns the folder of train/ and validation/."""
        return generate(self.cache, self._survey)

    def split_bytes(self) -> dict[str, int]:
        """Count the bytes of each split: int16 counts of whole universes at each redshift."""
        universe = (self.cells * self.parts) ** 3 * len(REDSHIFTS) * 2
        held = _held_out(self.valid_universes, self.train_universes)
        counts = {"train": self.train_universes - held, "valid": held, "test": self.test_universes}
        return {split: count * universe for split, count in counts.items()}

    def held_bytes(self) -> int:
        """Count nothing: cubes are read anew each time."""
        return 0

    def outline(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Build the network and four cubes of random counts."""
        return self.model(), self.example()

    @cached_property
    def root(self) -> Path:
        """The folder that holds train/ and validation/; generated at the first call."""
        self.check_size()
        if self.generated:
            return self.generate()
        return dataset_folder(self.source.public_root(), FOLDER, "train", "validation")

    @property
    def _survey(self) -> Survey:
        settings = {key: getattr(self, key) for key in ("seed", "train_universes", "test_universes", "cells", "parts")}
        return Survey(spacing=self.spacing, spread=self.spread, **settings)

    @cached_property
    def splits(self) -> dict[str, list[Cube]]:
        """The cubes of each split: test is validation/, valid a part of the universes of train/."""
        return split_universes(
            find_cubes(self.root / "train", self.cells, self.source.on_error),
            find_cubes(self.root / "validation", self.cells, self.source.on_error),
            self.valid_universes if self.generated else None,
        )

    @cached_property
    def samples(self) -> Mapping[str, CubeSamples]:
        """The cubes of each split; those of ``train`` are mirrored and moved around anew in each epoch."""
        # Only a whole universe is periodic; a cube that was cut from one is not.
        rolls = self.generated and self.parts == 1
        plain = {split: CubeSamples(cubes, self.cells, rolls=rolls) for split, cubes in self.splits.items()}
        train = replace(plain["train"], seed=self.seed, fresh=self._survey if self.fresh else None)
        return {**plain, "train": train}

    def digest(self) -> str:
        """Compute SHA-256 of the files, in hex."""
        return digest_files(self.root, sorted({cube.file for split in self.splits.values() for cube in split}))

    def model(self) -> nn.Module:
        """Build a fresh network."""
        return CosmoNet(self.cells, self.channels, self.hidden, means=self.means, strided=self.strided)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Compute the mean squared error in units of the labels' variance."""
        cubes, labels = batch
        return (model(cubes) - labels).square().mean() / LABEL_VARIANCE

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Compute the mean squared error over all cubes and the four labels in [-1, 1]."""
        return self.scores(model, batches)["MSE"]

    @torch.no_grad()
    def scores(self, model: Callable[[Tensor], Tensor], batches: Iterable[Batch]) -> dict[str, float]:
        """Compute MSE and MAE (the measure of MLPerf HPC) of the labels in [-1, 1], and R2 of each."""
        pairs = [(model(cubes).to("cpu", torch.float64), labels.to("cpu", torch.float64)) for cubes, labels in batches]
        guesses, labels = (torch.cat([pair[k] for pair in pairs]).numpy() for k in (0, 1))
        return errors(guesses, labels)

    @torch.no_grad()
    def score_terms(self, model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
        """Compute the mean squared error of each cube's labels."""
        return torch.cat(
            [(model(cubes) - labels).to("cpu", torch.float64).square().mean(1) for cubes, labels in batches]
        ).numpy()

    def test_groups(self) -> np.ndarray:
        """Number the universe of each test cube."""
        return np.unique([cube.universe for cube in self.splits["test"]], return_inverse=True)[1]

    def baselines(self) -> dict[str, float]:
        """Compute MSE on the test cubes of the middle of all labels, and of a ridge regression.

        It sees P(k) and counts in cells.
        """
        train, valid, test = (self._summaries(split) for split in ("train", "valid", "test"))
        return {
            "constant": errors(np.zeros_like(test[1]), test[1])["MSE"],
            "ridge_on_power_and_counts": errors(ridge(train, valid, test[0]), test[1])["MSE"],
        }

    def _summaries(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Of the first cubes of a split (from different universes first): what the ridge regression sees, labels."""
        cubes = sorted(self.splits[split], key=lambda cube: (cube.number, cube.file.stem[-3:], cube.universe))
        read = readable(cubes[:SUMMARISED], lambda cube: read_cube(cube, self.cells), self.source.on_error)
        pairs = [(power_and_counts(count), label) for _, (count, label) in read]
        return np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs]).astype(np.float64)

    def example(self) -> tuple[Float[Tensor, "4 4 d h w"]]:
        """Draw four cubes of random counts."""
        generator = torch.Generator().manual_seed(0)
        shape = (4, self.cells, self.cells, self.cells, len(REDSHIFTS))
        cubes = torch.poisson(torch.ones(shape), generator=generator).log1p()
        return (cubes.permute(0, 4, 1, 2, 3),)

    def features(self) -> Sequence[str]:
        """Name the redshifts of the four channels."""
        return [f"z={z:g}" for z in REDSHIFTS]

    def tiny(self) -> CosmoFlow:
        """Shrink it to boxes of 8 cells a side and a network of two narrow blocks."""
        return replace(
            self,
            train_universes=40,
            valid_universes=None,
            test_universes=10,
            cells=8,
            parts=1,
            channels=(4, 8),
            strided=True,
            hidden=(16,),
            batch_size=8,
            epochs=2,
        )


def errors(guesses: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compute MSE and MAE over rows and columns, and R2 of each column, of guesses (rows, 4) for labels (rows, 4)."""
    gap = guesses - labels
    spread = np.maximum(labels.var(0), np.finfo(np.float64).tiny)
    r2 = 1 - np.square(gap).mean(0) / spread
    named = {f"R2 {name}": float(value) for name, value in zip(PARAMETERS, r2, strict=True)}
    return {"MSE": float(np.square(gap).mean()), "MAE": float(np.abs(gap).mean()), **named}


def _held_out(wanted: int | None, universes: int) -> int:
    """How many universes validate: as many as were asked for, else a tenth, one at least; one is left to train on."""
    return min(universes - 1, wanted or max(1, round(VALID_SHARE * universes)))


def split_universes(
    train: Sequence[Cube], test: Sequence[Cube], valid_universes: int | None = None
) -> dict[str, list[Cube]]:
    """Split the cubes into train, valid and test; no universe is in two of them.

    Valid gets ``valid_universes`` of the universes of ``train``; a tenth of them, at least one, where None. Cubes of
    ``train`` whose universe is also in ``test`` are left out, which the log says.

    Raises:
        DataError: fewer than two universes are left to train on.
    """
    tested = {cube.universe for cube in test}
    own = [cube for cube in train if cube.universe not in tested]
    if len(own) < len(train):
        log.warning(f"{len(train) - len(own)} cubes of train/ left out: their universes are in validation/ too")
    universes = sorted({cube.universe for cube in own})
    if len(universes) < 2:
        raise DataError(f"{len(universes)} universes in train/ that are not in validation/; expected at least 2")
    held_out = _held_out(valid_universes, len(universes))
    valid = {universes[k] for k in np.random.default_rng(0).permutation(len(universes))[:held_out]}
    return {
        "train": [cube for cube in own if cube.universe not in valid],
        "valid": [cube for cube in own if cube.universe in valid],
        "test": list(test),
    }


__all__ = ["PARAMETERS", "REDSHIFTS", "CosmoFlow"]
