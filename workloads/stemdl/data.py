"""The data set on disk: ``sample-<i>.npz`` files and raw ``batch_*.h5`` files, read, and the former written."""

from __future__ import annotations

import csv
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from lumos.errors import DataError, reads
from lumos.workloads.common.damaged import readable
from lumos.workloads.common.files import dataset_folder, make_files
from lumos.workloads.common.streaming import Samples
from lumos.workloads.stemdl.crystals import GROUPS, Crystal, random_crystal
from lumos.workloads.stemdl.multislice import ZONES, Grid, Stage, cbed

VERSION = "2"
"""Part of the cache's key: changed whenever equal settings would give other samples."""

log = logging.getLogger("lumos")

FOLDER = "stemdl_ds1"
TABLE = f"{FOLDER}/samples.csv"
"""What each generated sample shows; the published data set has no such file."""
FOLDERS = {"train": "training", "valid": "validation", "test": "testing"}
"""Split -> its folder in the published data set; a fourth, ``inference``, is not used for training or scoring."""

SHARES = {"training": 0.70, "validation": 0.12, "testing": 0.16, "inference": 0.02}
"""Of the materials."""

UNPARTED = 0.1
"""Share of the training files that validate where the data set has no folder for them."""

ENERGIES = tuple(range(100, 200, 10))
"""Beam energies in keV, as in the published simulations."""

PLACE = 3.0
"""The probe stands up to this far from a corner of the cell, in A along x and y."""

FAINT = 0.01
"""Added before the logarithm, in units of a pattern's mean intensity."""


@dataclass(frozen=True)
class Simulation:
    """What is simulated: ``materials`` crystals, each at ``energies`` energies, as patterns of ``pattern``² pixels.

    A pixel is 1/``width`` 1/A wide. ``dose`` electrons make up a pattern, 0: as many as one likes, without noise.
    Every pattern is turned about the beam by up to ``rotation`` degrees either way, its zone axis is off the beam by
    ``tilt`` mrad (standard deviation, along x and y), and the probe stands anywhere on the specimen.
    Raises DataError for settings that cannot be.
    """

    seed: int
    materials: int
    energies: int
    pattern: int
    width: float
    dose: float
    rotation: float
    tilt: float
    valid_materials: int | None = None
    test_materials: int | None = None
    semi_angle: float = 4.5
    slice_thickness: float = 2.0
    thickness: tuple[float, float] = (100.0, 220.0)

    def __post_init__(self) -> None:
        if self.materials < 10 * len(GROUPS):
            raise DataError(f"workload.materials={self.materials}: expected at least {10 * len(GROUPS)}")
        if not 1 <= self.energies <= len(ENERGIES):
            raise DataError(f"workload.energies={self.energies}: expected 1 to {len(ENERGIES)}")
        if self.pattern < 16 or self.pattern % 2:
            raise DataError(f"workload.pattern={self.pattern}: expected an even number of at least 16")
        if not 10 <= self.width <= 200:
            raise DataError(f"workload.width={self.width}: expected 10 to 200")
        if self.dose < 0:
            raise DataError(f"workload.dose={self.dose}: expected electrons a pattern, or 0 for no noise")
        if not 0 <= self.rotation <= 180:
            raise DataError(f"workload.rotation={self.rotation}: expected 0 to 180 degrees")
        if not 0 <= self.tilt <= 10:
            raise DataError(f"workload.tilt={self.tilt}: expected 0 to 10 mrad")

    @property
    def grid(self) -> Grid:
        """The grid of the multislice: half as many points again as the pattern has, for those beyond its limit."""
        return Grid(self.pattern * 3 // 2, self.width)

    def folders(self) -> dict[str, range]:
        """Number the materials of each folder. Every folder has as many of each space group, to within one."""
        shares = np.diff(np.round(np.cumsum([0.0, *SHARES.values()]) * self.materials).astype(int)).tolist()
        counts = dict(zip(SHARES, shares, strict=True))
        for folder, given in (("validation", self.valid_materials), ("testing", self.test_materials)):
            counts[folder] = counts[folder] if given is None else given
        edges = np.cumsum([0, *counts.values()]).tolist()
        return {name: range(a, b) for name, a, b in zip(counts, edges[:-1], edges[1:], strict=True)}

    def crystal(self, material: int) -> Crystal:
        """Draw one of the materials."""
        return random_crystal(np.random.default_rng([self.seed, material]), GROUPS[material % len(GROUPS)])

    def shown(self, material: int, number: int) -> dict[str, int | float | str]:
        """Say what a sample shows: space group, structure type and species, energy in keV, thickness in A."""
        crystal = self.crystal(material)
        rng = np.random.default_rng([self.seed, material, 0])
        energy = int(rng.permutation(ENERGIES)[number])
        thickness = float(np.round(rng.uniform(*self.thickness, len(ENERGIES)), 1)[number])
        return {"space_group": crystal.space_group, "crystal": crystal.name, "energy": energy, "thickness": thickness}

    def patterns(self, material: int, number: int) -> Float32[np.ndarray, "3 p p"]:
        """Simulate a material's patterns at one energy, down each zone axis: the share of electrons in a pixel."""
        crystal, shown = self.crystal(material), self.shown(material, number)
        beam = float(shown["energy"]), self.semi_angle
        slab = float(shown["thickness"]), self.slice_thickness
        rng = np.random.default_rng([self.seed, material, 1 + number])
        low = (self.grid.points - self.pattern) // 2
        crop = np.s_[low : low + self.pattern, low : low + self.pattern]
        out = np.stack([cbed(crystal, zone, self.grid, *beam, *slab, self._stage(rng))[crop] for zone in ZONES])
        if self.dose:
            out = rng.poisson(out * self.dose) / self.dose
        return out.astype(np.float32)

    def _stage(self, rng: np.random.Generator) -> Stage:
        turn, place = np.radians(self.rotation) * rng.uniform(-1, 1), rng.uniform(-PLACE, PLACE, 2)
        tilt = self.tilt * rng.standard_normal(2)
        return Stage(float(turn), (float(place[0]), float(place[1])), (float(tilt[0]), float(tilt[1])))


def generate(simulation: Simulation, cache: Path) -> Path:
    """Simulate the samples that ``cache`` does not have yet, in the published layout; returns the data set's folder.

    Besides the published files, ``samples.csv`` says what each shows.

    Raises:
        DataError: nothing can be written.
    """
    places = {
        f"{FOLDER}/{folder}/sample-{i}.npz": (material, number)
        for folder, materials in simulation.folders().items()
        for i, (material, number) in enumerate((m, n) for m in materials for n in range(simulation.energies))
    }

    def write(name: str, draft: Path) -> None:
        if name == TABLE:
            return _write_table(simulation, places, draft)
        material, number = places[name]
        data, group = simulation.patterns(material, number), GROUPS[material % len(GROUPS)]
        with draft.open("wb") as file:
            np.savez(file, data=data, label=np.array([group]))
        return None

    key = {"version": VERSION, **{name: value for name, value in asdict(simulation).items() if value is not None}}
    return make_files(cache, key, [TABLE, *places], write, "simulating diffraction patterns") / FOLDER


def _write_table(simulation: Simulation, places: Mapping[str, tuple[int, int]], draft: Path) -> None:
    with draft.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "material", *simulation.shown(0, 0)])
        for name, (material, number) in places.items():
            table.writerow([name.removeprefix(f"{FOLDER}/"), material, *simulation.shown(material, number).values()])


# ---- reading --------------------------------------------------------------------------------------------------------


def log_pattern(data: Float[np.ndarray, "3 n n"], pattern: int) -> Float32[Tensor, "3 p p"]:
    """Scale for the network: 1 + log10(I/mean + 0.01) of each pattern, averaged down to ``pattern``² pixels before."""
    x = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))
    if x.shape[-1] != pattern:
        x = adaptive_avg_pool2d(x, pattern)
    mean = x.mean((1, 2), keepdim=True).clamp(min=1e-30)
    return 1 + torch.log10(x / mean + FAINT)


def as_it_is(data: Float[np.ndarray, "3 n n"], pattern: int) -> Float32[Tensor, "3 p p"]:
    """Average each pattern down to ``pattern``² pixels and leave its values, as the published benchmark does."""
    x = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))
    return x if x.shape[-1] == pattern else adaptive_avg_pool2d(x, pattern)


@reads("fetch it again, or set data.on_error=skip")
def read_npz(path: Path) -> tuple[np.ndarray, int]:
    """Read ``data`` and the label of a ``sample-<i>.npz``. Raises DataError naming file and key."""
    # Opened here, since numpy leaves a damaged archive open.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        missing = [key for key in ("data", "label") if key not in file]
        if missing:
            raise DataError(
                f"{path}: no array {missing[0]!r} (there is {', '.join(file) or 'none'}); expected data and label"
            )
        data, label = file["data"], file["label"]
    if label.size != 1:
        raise DataError(f"{path}: label has shape {label.shape}; expected (1,)")
    return data, int(label.ravel()[0])


@reads("fetch it again, or set data.on_error=skip")
def read_raw(path: Path, sample: str) -> tuple[np.ndarray, int]:
    """Read ``cbed_stack`` and the space group of a sample of a ``batch_*.h5``. Raises DataError naming file and key."""
    with h5py.File(path, "r") as file:
        group = file[sample]
        if "cbed_stack" not in group:  # type: ignore[operator]
            raise DataError(f"{path}: {sample} has no cbed_stack (there is {', '.join(group) or 'none'})")  # type: ignore[arg-type]
        if "space_group" not in group.attrs:
            raise DataError(f"{path}: {sample} has no attribute space_group")
        return group["cbed_stack"][()], int(group.attrs["space_group"])  # type: ignore[index, arg-type]


class Patterns:
    """The samples of one split: (patterns (3, p, p), space group), read from disk when they are asked for.

    A place is a file and, of a raw file, the name of the sample in it. Without ``log_scale`` the network sees what the
    files hold.
    """

    def __init__(self, places: Sequence[tuple[Path, str | None]], pattern: int, log_scale: bool = True) -> None:
        self.places, self.pattern, self.log_scale = list(places), pattern, log_scale

    def __len__(self) -> int:
        return len(self.places)

    @reads("fetch it again, or set data.on_error=skip", lambda self, index, epoch: self.places[index][0])
    def read(self, index: int, epoch: int) -> tuple[Float32[Tensor, "3 p p"], int]:
        """Read one sample. Raises DataError naming the file, and the array, shape or value that is wrong."""
        path, sample = self.places[index]
        data, label = read_npz(path) if sample is None else read_raw(path, sample)
        what = f"{path}: {'data' if sample is None else sample + '/cbed_stack'}"
        square = data.ndim == 3 and data.shape[0] == len(ZONES) and data.shape[1] == data.shape[2]
        if not square or data.shape[1] < self.pattern:
            raise DataError(
                f"{what} has shape {data.shape}; expected (3, n, n) with n of workload.pattern={self.pattern} or more"
            )
        if not np.isfinite(data).all():
            raise DataError(f"{what} has values that are not finite; expected intensities")
        if self.log_scale and data.min() < 0:
            raise DataError(
                f"{what} has negative values, the least {data.min():.4g}, of which there is no logarithm; expected "
                "intensities; if the files hold patterns that are scaled already, set workload.log_scale=false"
            )
        if not 1 <= label <= 230:
            raise DataError(f"{path}: the label is {label}; expected a space group, 1 to 230")
        return (log_pattern if self.log_scale else as_it_is)(data, self.pattern), label


class RandomQuarterTurns:
    """Samples whose patterns are each turned by a multiple of 90 degrees, drawn anew for every epoch.

    No mirror images: those of some crystals have another space group.
    """

    def __init__(self, samples: Samples, seed: int) -> None:
        self.samples, self.seed = samples, seed

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int, epoch: int) -> tuple[Float32[Tensor, "3 p p"], int]:
        """Read one sample, turned about the pixel of the straight-on beam. Raises DataError where it is damaged."""
        x, group = self.samples.read(index, epoch)
        x = x.clone()
        quarters = np.random.default_rng([self.seed, index, epoch]).integers(0, 4, len(x)).tolist()
        for pattern, times in zip(x, quarters, strict=True):
            # Row and column 0 have no counterpart on the other side of the middle, pixel p/2.
            pattern[1:, 1:] = pattern[1:, 1:].rot90(times)
        return x, group


def find_splits(root: Path, pattern: int, on_error: str = "fatal", *, log_scale: bool = True) -> dict[str, Patterns]:
    """Split a data set on disk into ``train``, ``valid`` and ``test``.

    ``root``, or the folder in it that the archive unpacks to, has the folders training, validation and testing with
    ``sample-<i>.npz`` (without validation the end of training validates), or
    raw ``batch_*.h5`` files at any depth: these are split by material, and with ``on_error="skip"`` one that cannot be
    opened is named and left out.

    Raises:
        DataError: the folder has neither.
    """
    root = dataset_folder(root, FOLDER, FOLDERS["train"])
    raw = sorted(root.rglob("batch_*.h5")) if root.is_dir() else []
    if raw and not (root / FOLDERS["train"]).is_dir():
        return {split: Patterns(places, pattern, log_scale) for split, places in _raw_places(raw, on_error).items()}
    folders = {
        split: sorted((root / folder).glob("sample-*.npz"), key=lambda file: (len(file.name), file.name))
        for split, folder in FOLDERS.items()
    }
    train = folders["train"]
    if len(train) > 1 and not (root / FOLDERS["valid"]).is_dir():
        # Neighbours may show one material at several energies: a stretch is held out, not files here and there.
        held = max(1, round(UNPARTED * len(train)))
        folders |= {"train": train[:-held], "valid": train[-held:]}
        log.info(f"{root}: there is no folder {FOLDERS['valid']}; the last {held} files of training/ validate")
    found = {}
    for split, folder in FOLDERS.items():
        files = folders[split]
        if not files:
            raise DataError(
                f"{root / folder}: no sample-*.npz there; data.root is the folder with training, validation and "
                "testing, or one with raw batch_*.h5 files"
            )
        found[split] = Patterns([(file, None) for file in files], pattern, log_scale)
    return found


def _raw_places(files: Sequence[Path], on_error: str) -> Mapping[str, list[tuple[Path, str | None]]]:
    """Samples of raw files by split: a material, whose energies are its several samples, is in one split only."""
    places: dict[str, list[tuple[Path, str | None]]] = {split: [] for split in FOLDERS}
    for path, materials in readable(files, _materials, on_error):
        for sample, material in materials.items():
            places[_split_of(material)].append((path, sample))
    empty = [split for split, found in places.items() if not found]
    if empty:
        raise DataError(f"{files[0].parent}: too few sample_i_j in the batch_*.h5 files: the {empty[0]} split is empty")
    return places


@reads("fetch it again, or set data.on_error=skip")
def _materials(path: Path) -> dict[str, str]:
    """The material of each sample of a raw file."""
    found = {}
    with h5py.File(path, "r") as file:
        for sample, group in file.items():
            numbered = re.fullmatch(r"sample_(\d+)_(\d+)", sample)
            if numbered:
                found[sample] = str(group.attrs.get("material", f"{path.name} {numbered[1]}"))
    return found


@cache
def _split_of(material: str) -> str:
    """8 materials in 10 train, one is valid, one is test, by a hash of the name."""
    place = hashlib.sha256(material.encode()).digest()[0] % 10
    return "train" if place < 8 else ("valid" if place == 8 else "test")
