"""CosmoFlow: the parameters of a universe from the distribution of its matter at four redshifts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumos.suite.workload import DataError, DataSource, Loaders, Metric, Recipe
from lumos.workloads.common.files import digest_files
from lumos.workloads.common.streaming import sample_loader
from lumos.workloads.common.tabular import as_source
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


@dataclass(frozen=True)
class CosmoFlow:
    """Regression of (omega_m, sigma_8, n_s, h0), each scaled to [-1, 1]; ``README.md`` has physics and numbers.

    Samples are cubes of particle counts at z = 0, 0.5, 1.5 and 3. With ``data.source=generated`` the project's own
    universes are written in the published layout, and then read as ``public`` files are: the folder at ``data.root``
    holds ``train/`` and ``validation/``. No universe is in two splits. Raises DataError for settings or files that
    cannot be used.
    """

    data: DataSource | Mapping[str, object] = field(default_factory=DataSource)
    seed: int = 0
    train_universes: int = 2000
    test_universes: int = 400
    cells: int = 32
    parts: int = 1
    spacing: float = 4.0
    fresh: bool = False
    channels: Sequence[int] = (32, 32, 64)
    hidden: Sequence[int] = (128, 64)
    means: bool = True
    strided: bool = True
    batch_size: int = 16
    epochs: int = 20
    learning_rate: float = 4e-3
    weight_decay: float = 0.0

    name = "cosmoflow"
    metric = Metric("MSE", higher_is_better=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_source(self.data))
        for key in ("channels", "hidden"):
            sizes = tuple(int(size) for size in getattr(self, key))
            object.__setattr__(self, key, sizes)
            if not sizes or min(sizes) < 1:
                raise DataError(f"workload.{key}={list(sizes)}: expected one or more numbers of at least 1")
        for key in ("train_universes", "test_universes", "parts", "batch_size"):
            least = 2 if key == "train_universes" else 1
            if getattr(self, key) < least:
                raise DataError(f"workload.{key}={getattr(self, key)}: expected at least {least}")
        if self.fresh and (self.parts > 1 or self._source.source == "public"):
            raise DataError("workload.fresh=true: expected data=generated and workload.parts=1, a universe a cube")
        if self.parts > 9:
            raise DataError(
                f"workload.parts={self.parts}: expected at most 9, the cubes of a universe have three digits"
            )
        if not self.spacing > 0:
            raise DataError(f"workload.spacing={self.spacing}: expected a number > 0, Mpc/h")
        least = 2 ** (len(self.channels) + self.strided)
        if self.cells < 1 or self.cells % least:
            raise DataError(
                f"workload.cells={self.cells}: expected a multiple of {least}, since each of the {len(self.channels)} "
                f"blocks halves the cube{', and the first one twice' if self.strided else ''}"
            )

    @property
    def _source(self) -> DataSource:
        return as_source(self.data)

    @property
    def recipe(self) -> Recipe:
        """How the network is trained."""
        return Recipe(epochs=self.epochs, learning_rate=self.learning_rate, weight_decay=self.weight_decay)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        if self._source.source == "public":
            return f"cubes of {self._source.root}; tested on the universes of validation/"
        box = self.spacing * self.cells * self.parts
        return f"the project's own universes, boxes of {box:g} Mpc/h moved by 2LPT; tested on universes not trained on"

    @cached_property
    def root(self) -> Path:
        """The folder that holds train/ and validation/; generated at the first call."""
        if self._source.source == "public":
            return self._source.public_root()
        return generate(self._source.cache / self.name, self._survey)

    @property
    def _survey(self) -> Survey:
        settings = {key: getattr(self, key) for key in ("seed", "train_universes", "test_universes", "cells", "parts")}
        return Survey(spacing=self.spacing, **settings)

    @cached_property
    def splits(self) -> dict[str, list[Cube]]:
        """The cubes of each split: test is validation/, valid a tenth of the universes of train/."""
        return split_universes(
            find_cubes(self.root / "train", self.cells, self._source.on_error),
            find_cubes(self.root / "validation", self.cells, self._source.on_error),
        )

    def model(self) -> nn.Module:
        """A fresh network."""
        return CosmoNet(self.cells, self.channels, self.hidden, means=self.means, strided=self.strided)

    def loaders(self) -> Loaders:
        """Batches ``(cubes (n, 4, cells, cells, cells), labels (n, 4))``, float32, read as they are asked for."""
        return self._loaders

    @cached_property
    def _loaders(self) -> Loaders:
        source = self._source
        # Only a whole universe is periodic; a cube that was cut from one is not.
        rolls = source.source == "generated" and self.parts == 1

        def loader(split: str) -> Iterable[Batch]:
            seed = self.seed if split == "train" else None
            fresh = self._survey if split == "train" and self.fresh else None
            return sample_loader(
                CubeSamples(self.splits[split], self.cells, seed, rolls, fresh),
                batch_size=self.batch_size,
                seed=seed,
                workers=source.workers,
                on_error=source.on_error,
                collate=collate,
            )

        return Loaders(
            train=loader("train"),
            valid=loader("valid"),
            test=loader("test"),
            n_train=len(self.splits["train"]),
            n_valid=len(self.splits["valid"]),
            n_test=len(self.splits["test"]),
            source=source.source,
            sha256=digest_files(self.root, sorted({cube.file for split in self.splits.values() for cube in split})),
        )

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Mean squared error in units of the labels' variance."""
        cubes, labels = batch
        return (model(cubes) - labels).square().mean() / LABEL_VARIANCE

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Mean squared error over all cubes and the four labels in [-1, 1]."""
        return self.scores(model, batches)["MSE"]

    @torch.no_grad()
    def scores(self, model: Callable[[Tensor], Tensor], batches: Iterable[Batch]) -> dict[str, float]:
        """MSE and MAE (the measure of MLPerf HPC) of the labels in [-1, 1], and R2 of each."""
        pairs = [(model(cubes).to("cpu", torch.float64), labels.to("cpu", torch.float64)) for cubes, labels in batches]
        guesses, labels = (torch.cat([pair[k] for pair in pairs]).numpy() for k in (0, 1))
        return errors(guesses, labels)

    def baselines(self) -> dict[str, float]:
        """MSE on the test cubes of the middle of all labels, and of a ridge regression on P(k) and counts in cells."""
        train, valid, test = (self._summaries(split) for split in ("train", "valid", "test"))
        return {
            "constant": errors(np.zeros_like(test[1]), test[1])["MSE"],
            "ridge_on_power_and_counts": errors(ridge(train, valid, test[0]), test[1])["MSE"],
        }

    def _summaries(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Of the first cubes of a split (from different universes first): what the ridge regression sees, labels."""
        cubes = sorted(self.splits[split], key=lambda cube: (cube.number, cube.file.stem[-3:], cube.universe))
        pairs = []
        for cube in cubes[:SUMMARISED]:
            try:
                count, label = read_cube(cube, self.cells)
            except DataError:
                if self._source.on_error != "skip":
                    raise
                continue
            pairs.append((power_and_counts(count), label))
        return np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs]).astype(np.float64)

    def example(self) -> tuple[Float[Tensor, "4 4 d h w"]]:
        """Four cubes of random counts."""
        generator = torch.Generator().manual_seed(0)
        shape = (4, self.cells, self.cells, self.cells, len(REDSHIFTS))
        cubes = torch.poisson(torch.ones(shape), generator=generator).log1p()
        return (cubes.permute(0, 4, 1, 2, 3),)

    def features(self) -> Sequence[str]:
        """The redshifts of the four channels."""
        return [f"z={z:g}" for z in REDSHIFTS]

    def tiny(self) -> CosmoFlow:
        """Boxes of 8 cells a side and a network of two narrow blocks."""
        return replace(
            self,
            train_universes=40,
            test_universes=10,
            cells=8,
            parts=1,
            channels=(4, 8),
            hidden=(16,),
            batch_size=8,
            epochs=2,
        )


def errors(guesses: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """MSE and MAE over rows and columns, and R2 of each column, of guesses (rows, 4) for labels (rows, 4)."""
    gap = guesses - labels
    spread = np.maximum(labels.var(0), np.finfo(np.float64).tiny)
    r2 = 1 - np.square(gap).mean(0) / spread
    named = {f"R2 {name}": float(value) for name, value in zip(PARAMETERS, r2, strict=True)}
    return {"MSE": float(np.square(gap).mean()), "MAE": float(np.abs(gap).mean()), **named}


def split_universes(train: Sequence[Cube], test: Sequence[Cube]) -> dict[str, list[Cube]]:
    """The cubes of train, valid and test; no universe is in two of them.

    Valid gets a tenth of the universes of ``train``, at least one. Cubes of ``train`` whose universe is also in
    ``test`` are left out, which the log says. Raises DataError where fewer than two universes are left to train on.
    """
    tested = {cube.universe for cube in test}
    own = [cube for cube in train if cube.universe not in tested]
    if len(own) < len(train):
        log.warning(f"{len(train) - len(own)} cubes of train/ left out: their universes are in validation/ too")
    universes = sorted({cube.universe for cube in own})
    if len(universes) < 2:
        raise DataError(f"{len(universes)} universes in train/ that are not in validation/; expected at least 2")
    held_out = max(1, round(VALID_SHARE * len(universes)))
    valid = {universes[k] for k in np.random.default_rng(0).permutation(len(universes))[:held_out]}
    return {
        "train": [cube for cube in own if cube.universe not in valid],
        "valid": [cube for cube in own if cube.universe in valid],
        "test": list(test),
    }


__all__ = ["PARAMETERS", "REDSHIFTS", "CosmoFlow"]
