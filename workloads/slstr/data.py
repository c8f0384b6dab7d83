"""The data set on disk: ``S3A*.hdf`` files of whole scenes, written, and read patch by patch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from lumos.errors import DataError, reads
from lumos.workloads.common.files import dataset_folder, make_files
from lumos.workloads.common.hdf5 import writing_hdf5
from lumos.workloads.slstr.scenes import make_scene

log = logging.getLogger("lumos")

VERSION = "2"
"""Part of the cache's key: changed whenever equal settings would give other samples."""

FOLDER = "cloud_slstr_ds1"
ARRAYS = {"refs": 6, "bts": 3, "bayes": 1}
"""Arrays of a file, each (rows, columns, this many channels): reflectances, temperatures in K, > 0 where cloudy."""

MIDDLE_REFLECTANCE = 0.5
MIDDLE_TEMPERATURE = 270.0
"""K; taken from the brightness temperatures."""
SPREAD_TEMPERATURE = 22.0
"""K; what they are divided by then."""

Patch = tuple[Float32[Tensor, "9 p p"], Float32[Tensor, "1 p p"]]


@dataclass(frozen=True)
class Simulation:
    """``scenes`` of ``shape`` pixels, and a tenth as many for inference. Raises DataError where there are too few.

    ``more`` scenes, at the end, validate and test beside those of ``scenes`` that do.
    """

    seed: int
    scenes: int
    shape: tuple[int, int]
    more: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.scenes < 10:
            raise DataError(f"workload.scenes={self.scenes}: expected at least 10, so that every split has one")

    def names(self) -> list[str]:
        """List the files, training first."""
        count = {"training/one-day": self.scenes, "inference/ssts": max(1, self.scenes // 10)}
        names = [f"{FOLDER}/{folder}/S3A_{i:05d}.hdf" for folder, n in count.items() for i in range(n)]
        further = range(self.scenes, self.scenes + sum(self.more))  # last, so that the others stay what they are
        return [*names, *(f"{FOLDER}/training/one-day/S3A_{i:05d}.hdf" for i in further)]


def generate(simulation: Simulation, cache: Path) -> Path:
    """Simulate the scenes that ``cache`` does not have yet, in the published layout; returns their folder.

    Raises:
        DataError: nothing can be written.
    """
    names = simulation.names()

    def write(name: str, draft: Path) -> None:
        scene = make_scene(np.random.default_rng([simulation.seed, names.index(name)]), simulation.shape)
        with writing_hdf5(draft) as file:
            for array in ARRAYS:
                file[array] = getattr(scene, array)

    key = {"version": VERSION, **asdict(simulation)}
    if not any(simulation.more):
        del key["more"]
    return make_files(cache, key, names, write, "simulating scenes") / FOLDER


# ---- reading --------------------------------------------------------------------------------------------------------


class Patches:
    """The samples of one split: square patches of the centre of each scene, read from disk when they are asked for.

    A sample is ``(channels (9, p, p), mask (1, p, p))``, float32: reflectances - 0.5, (temperatures - 270 K) / 22 K,
    and 1 where there is cloud. A value that is missing (nan) or infinite counts as the middle, 0; in the mask as clear.
    """

    def __init__(self, files: Sequence[Path], crop: tuple[int, int], patch: int) -> None:
        self.files, self.crop, self.patch = list(files), crop, patch
        self.across = crop[1] // patch
        self.per_file = crop[0] // patch * self.across

    def __len__(self) -> int:
        return len(self.files) * self.per_file

    def read(self, index: int, epoch: int) -> Patch:
        """Read one patch. Raises DataError naming the file, and the array and shape that is wrong."""
        refs, bts, mask = self.raw(index)
        with np.errstate(invalid="ignore"):  # a signalling nan of a damaged file
            scaled = np.concatenate([refs - MIDDLE_REFLECTANCE, (bts - MIDDLE_TEMPERATURE) / SPREAD_TEMPERATURE], -1)
        x = torch.from_numpy(np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0).transpose(2, 0, 1).copy())
        return x, torch.from_numpy((np.nan_to_num(mask, nan=0.0) > 0).astype(np.float32).transpose(2, 0, 1).copy())

    @reads("fetch it again, or set data.on_error=skip", lambda self, index: self.files[index // self.per_file])
    def raw(self, index: int) -> list[Float32[np.ndarray, "p p channels"]]:
        """Read ``refs``, ``bts`` and ``bayes`` of one patch as they are on disk. Raises DataError as :meth:`read`."""
        number, place = divmod(index, self.per_file)
        path = self.files[number]
        with h5py.File(path, "r") as file:
            parts = [self._part(file, path, name, place) for name in ARRAYS]
            sizes = {name: file[name].shape[:2] for name in ARRAYS}  # type: ignore[union-attr]
            if len(set(sizes.values())) > 1:
                shown = ", ".join(f"{name} {' x '.join(map(str, size))}" for name, size in sizes.items())
                raise DataError(f"{path}: arrays of several sizes ({shown}); expected one grid of pixels for all")
            return parts

    def _part(self, file: h5py.File, path: Path, name: str, place: int) -> Float32[np.ndarray, "p p channels"]:
        found = file.get(name)
        if not isinstance(found, h5py.Dataset):
            raise DataError(
                f"{path}: no array {name!r} (there is {', '.join(file) or 'none'}); expected {', '.join(ARRAYS)}"
            )
        rows, columns = self.crop
        if found.ndim != 3 or found.shape[2] != ARRAYS[name] or found.shape[0] < rows or found.shape[1] < columns:
            raise DataError(
                f"{path}: {name} has shape {found.shape}; expected (rows, columns, {ARRAYS[name]}) with at least "
                f"workload.crop={list(self.crop)} of them"
            )
        row = (found.shape[0] - rows) // 2 + place // self.across * self.patch
        column = (found.shape[1] - columns) // 2 + place % self.across * self.patch
        return found[row : row + self.patch, column : column + self.patch].astype(np.float32)


def held_out(scenes: int) -> tuple[int, int]:
    """Count the scenes that validate and that test: a tenth each, one at least."""
    held = max(2, round(0.2 * scenes))
    return held - held // 2, held // 2


def find_splits(
    root: Path, crop: tuple[int, int], patch: int, seed: int, more: tuple[int, int] = (0, 0)
) -> dict[str, Patches]:
    """Split a data set on disk into ``train``, ``valid``, ``test``: 80, 10 and 10% of the files of ``training``.

    The last files, by name, are ``more`` to validate and to test on; they have no part in the shares.

    ``root``, or its folder ``cloud_slstr_ds1``, has a folder ``training`` with ``S3A*.hdf`` files at any depth. The
    files are drawn by the seed.

    Raises:
        DataError: there are fewer than 10 files.
    """
    root = dataset_folder(root, FOLDER, "training")
    files = sorted((root / "training").rglob("S3A*.hdf"))
    if len(files) < 10:
        raise DataError(
            f"{root / 'training'}: {len(files)} files S3A*.hdf there; expected at least 10: data.root is the folder "
            "with training and inference"
        )
    shared = len(files) - sum(more)
    order, (valid, test) = np.random.default_rng([seed, shared]).permutation(shared), held_out(shared)
    parts = np.split(order, [shared - valid - test, shared - test])
    further = np.split(np.arange(shared, len(files)), [more[0]])
    chosen = {"train": parts[0], "valid": np.append(parts[1], further[0]), "test": np.append(parts[2], further[1])}
    return {split: Patches([files[k] for k in sorted(which)], crop, patch) for split, which in chosen.items()}


def missing_values(patches: Patches, looks: int = 100) -> dict[str, float]:
    """Measure the share of each array's values that are not finite, in at most ``looks`` patches over the files.

    A patch that cannot be read is passed over here; reading it as a sample says what is wrong.
    """
    counts = {name: np.zeros(2) for name in ARRAYS}
    for index in np.unique(np.linspace(0, len(patches) - 1, looks).astype(int)):
        try:
            parts = patches.raw(int(index))
        except DataError:
            continue
        for name, part in zip(ARRAYS, parts, strict=True):
            counts[name] += np.array([np.count_nonzero(~np.isfinite(part)), part.size])
    return {name: float(bad / size) if size else 0.0 for name, (bad, size) in counts.items()}
