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

from lumos.errors import DataError
from lumos.workloads.common.files import dataset_folder, make_files
from lumos.workloads.common.hdf5 import writing_hdf5
from lumos.workloads.slstr.scenes import make_scene

log = logging.getLogger("lumos")

VERSION = "1"
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
    """``scenes`` of ``shape`` pixels, and a tenth as many for inference. Raises DataError where there are too few."""

    seed: int
    scenes: int
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        if self.scenes < 10:
            raise DataError(f"workload.scenes={self.scenes}: expected at least 10, so that every split has one")

    def names(self) -> list[str]:
        """List the files, training first."""
        count = {"training/one-day": self.scenes, "inference/ssts": max(1, self.scenes // 10)}
        return [f"{FOLDER}/{folder}/S3A_{i:05d}.hdf" for folder, n in count.items() for i in range(n)]


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

    def raw(self, index: int) -> list[Float32[np.ndarray, "p p channels"]]:
        """Read ``refs``, ``bts`` and ``bayes`` of one patch as they are on disk. Raises DataError as :meth:`read`."""
        number, place = divmod(index, self.per_file)
        path = self.files[number]
        try:
            with h5py.File(path, "r") as file:
                return [self._part(file, path, name, place) for name in ARRAYS]
        except (OSError, KeyError) as error:
            raise DataError(f"{path}: cannot be read ({error}); fetch it again, or set data.on_error=skip") from error

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


def find_splits(root: Path, crop: tuple[int, int], patch: int, seed: int) -> dict[str, Patches]:
    """Split a data set on disk into ``train``, ``valid``, ``test``: 80, 10 and 10% of the files of ``training``.

    ``root``, or its folder ``cloud_slstr_ds1``, has a folder ``training`` with ``S3A*.hdf`` files at any depth. The
    files are drawn by the seed.

    Raises:
        DataError: there are fewer than 10 files.
    """
    root = dataset_folder(root, FOLDER)
    files = sorted((root / "training").rglob("S3A*.hdf"))
    if len(files) < 10:
        raise DataError(
            f"{root / 'training'}: {len(files)} files S3A*.hdf there; expected at least 10: data.root is the folder "
            "with training and inference"
        )
    order = np.random.default_rng([seed, len(files)]).permutation(len(files))
    held_out = max(2, round(0.2 * len(files)))
    train, valid, test = np.split(order, [len(files) - held_out, len(files) - held_out // 2])
    chosen = {"train": train, "valid": valid, "test": test}
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
