"""Cubes on disk in the layouts that CosmoFlow is published in, and the generator that writes one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumos.errors import DataError, reads
from lumos.workloads.common.damaged import readable
from lumos.workloads.common.files import make_file, make_files, missing_files
from lumos.workloads.cosmoflow.tfrecord import read_example, read_records, write_example, write_record
from lumos.workloads.cosmoflow.universe import PARAMETERS, REDSHIFTS, SPREAD, Cosmology, counts

VERSION = "1"
"""Part of the cache's key: changed whenever equal settings would give other cubes."""

LARGEST_LABEL = 1.2
"""What the network's output can reach; labels lie in [-1, 1]."""

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Cube:
    """Where one cube is: a file, the number of the cube in it, and the universe that it was cut from."""

    file: Path
    number: int
    universe: str


@dataclass(frozen=True)
class Survey:
    """What is generated: universes for both folders, each cut into ``parts``^3 cubes of ``cells``^3 cells.

    A cell is ``spacing * H0/70`` Mpc/h a side. Parameters lie within a share ``spread`` of their centres.
    """

    seed: int
    train_universes: int
    test_universes: int
    cells: int
    parts: int
    spacing: float
    spread: float = SPREAD

    def folder_of(self, universe: int) -> str:
        """Name the folder of one of the universes: the first ones train."""
        return "train" if universe < self.train_universes else "validation"

    def files(self, universe: int) -> list[str]:
        """List the paths of a universe's cubes below the root."""
        stem = f"{self.folder_of(universe)}/univ_{universe:06d}"
        return [f"{stem}_{part:03d}.tfrecord" for part in range(self.parts**3)]

    def universe(self, number: int, epoch: int = 0) -> Arrays:
        """Simulate one universe: counts int16 (n, n, n, 4) of the whole box and the label, from the numbers alone.

        Those of epoch 0 are on disk; those of others are seen once.
        """
        rng = np.random.default_rng([self.seed, number, epoch])
        label = rng.uniform(-1, 1, len(PARAMETERS))
        cosmology = Cosmology.at(label, self.spread)
        return counts(cosmology, rng, self.cells * self.parts, self.spacing * cosmology.h0 / 70), label


@dataclass(frozen=True)
class CubeSamples:
    """Cubes that are read when they are asked for, as pairs ``(x, y)``.

    x: float32 (cells, cells, cells, 4), log(1 + count); y: float32 (4,), in [-1, 1]. With a ``seed``, each axis is
    flipped or not and, where ``rolls``, the cube is moved around in its periodic box, as a function of seed, index
    and epoch. With ``fresh``, a survey of whole universes, each epoch after the first has universes of its own, which
    are simulated as they are asked for. Reading raises DataError for a file that is damaged or does not hold what it
    should.
    """

    cubes: Sequence[Cube]
    cells: int
    seed: int | None = None
    rolls: bool = False
    fresh: Survey | None = None

    def __len__(self) -> int:
        return len(self.cubes)

    def read(self, index: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Read one sample."""
        if self.fresh is not None and epoch > 0:
            count, label = self.fresh.universe(index, epoch)
        else:
            count, label = read_cube(self.cubes[index], self.cells)
        if self.seed is not None:
            count = augmented(count, np.random.default_rng([self.seed, 2, index, epoch]), rolls=self.rolls)
        x = np.log1p(count.astype(np.float32))
        return torch.from_numpy(x), torch.from_numpy(label.astype(np.float32))


def collate(samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Float[Tensor, "n 4 d h w"], Float[Tensor, "n 4"]]:
    """Make a batch: cubes (n, 4, d, h, w), channels last in memory as on disk (4x faster on a CPU), and labels."""
    return torch.stack([x for x, _ in samples]).permute(0, 4, 1, 2, 3), torch.stack([y for _, y in samples])


def augmented(count: np.ndarray, rng: np.random.Generator, *, rolls: bool) -> np.ndarray:
    """Mirror a cube (cells, cells, cells, redshifts) in randomly chosen axes and, if ``rolls``, shift it around."""
    axes = (0, 1, 2)
    shifts = rng.integers(0, count.shape[:3])
    mirrored = np.flatnonzero(rng.random(3) < 0.5)
    if rolls:
        count = np.roll(count, shifts, axes)
    return np.ascontiguousarray(np.flip(count, tuple(mirrored.tolist())))


# ---- layouts


def find_cubes(folder: Path, cells: int, on_error: str = "fatal") -> list[Cube]:
    """Find the cubes in a folder, by name: ``*.tfrecord``, ``*_data.npy`` with ``*_label.npy``, or HDF5.

    Raises:
        DataError: there are none, or an HDF5 file cannot be opened; with ``on_error="skip"`` that one is named in the
            log and left out.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected data.root to hold train/ and validation/")
    for pattern in ("*.tfrecord", "*_data.npy"):
        files = sorted(folder.glob(pattern))
        if files:
            return [Cube(file, 0, universe_of(file)) for file in files]
    cubes: list[Cube] = []
    files = sorted([*folder.glob("*.h5"), *folder.glob("*.hdf5")])
    for file, count in readable(files, lambda file: _cubes_in_hdf5(file, cells), on_error):
        cubes += [Cube(file, number, universe_of(file)) for number in range(count)]
    if not cubes:
        raise DataError(f"{folder}: no cubes there; expected *.tfrecord, *_data.npy and *_label.npy, or *.h5 files")
    return cubes


def universe_of(file: Path) -> str:
    """Name the universe: the file's name, less the number _000 to _063 of the sub-cube."""
    return re.sub(r"_\d{3}$", "", file.stem.removesuffix("_data"))


@reads("fetch it again", lambda cube, cells: cube.file)
def read_cube(cube: Cube, cells: int) -> Arrays:
    """Read counts int16 (cells, cells, cells, 4) and the label, four numbers in [-1, 1].

    Raises:
        DataError: the file is damaged or holds something else; the message names file, key and shape.
    """
    read = {".tfrecord": _read_tfrecord, ".npy": _read_npy}.get(cube.file.suffix, _read_hdf5)
    count, label = read(cube, cells)
    file, wanted = cube.file, (cells,) * 3 + (len(REDSHIFTS),)
    if count.shape != wanted:
        raise DataError(f"{file}: a cube of shape {count.shape}; expected {wanted}{_hint(count.shape[0], cells)}")
    if label.shape != (len(PARAMETERS),):
        raise DataError(f"{file}: a label of shape {label.shape}; expected 4 numbers, {', '.join(PARAMETERS)}")
    if not (np.abs(label) <= LARGEST_LABEL).all():
        raise DataError(f"{file}: the label {label.tolist()}; expected four numbers in [-1, 1]")
    if count.min() < 0:
        raise DataError(f"{file}: a count of {count.min()} particles; expected counts of 0 or more")
    return count, label


def _hint(found: int, cells: int) -> str:
    return f" (workload.cells={cells}); set workload.cells={found}" if found != cells else ""


def _read_tfrecord(cube: Cube, cells: int) -> Arrays:
    records = list(read_records(cube.file))
    if len(records) != 1:
        raise DataError(f"{cube.file}: {len(records)} records; expected one, a cube and its label")
    try:
        example = read_example(records[0])
    except ValueError as error:
        raise DataError(f"{cube.file}: record 0 is no tf.Example ({error})") from error
    x, y = (_member(cube.file, example, key) for key in ("x", "y"))
    if not isinstance(x, bytes) or not isinstance(y, np.ndarray):
        raise DataError(f"{cube.file}: x and y of other types; expected the bytes of int16 counts and four floats")
    expected = cells**3 * len(REDSHIFTS) * 2
    if len(x) != expected:
        found = round((len(x) / 2 / len(REDSHIFTS)) ** (1 / 3))
        exact = found**3 * len(REDSHIFTS) * 2 == len(x)
        what = f"{len(x):,} bytes" + (f", {found}^3 cells of 4 int16" if exact else "")
        raise DataError(
            f"{cube.file}: x has {what}; expected {expected:,}, {cells}^3 cells of 4"
            + (_hint(found, cells) if exact else "")
        )
    return np.frombuffer(x, "<i2").reshape(cells, cells, cells, len(REDSHIFTS)), y


def _member(file: Path, members: Mapping[str, object], *keys: str) -> object:
    for key in keys:
        if key in members:
            return members[key]
    raise DataError(f"{file}: no key {' or '.join(keys)}; it has {', '.join(members) or 'none'}")


def _read_npy(cube: Cube, cells: int) -> Arrays:
    labels = cube.file.with_name(cube.file.name.removesuffix("_data.npy") + "_label.npy")
    if not labels.exists():
        raise DataError(f"{labels}: not there; expected it beside {cube.file.name}")
    return _load(cube.file), _load(labels).reshape(-1)


@reads()
def _load(file: Path) -> np.ndarray:
    return np.load(file, allow_pickle=False)


def _datasets(file: Path, opened: h5py.File) -> tuple[h5py.Dataset, h5py.Dataset]:
    members = dict(opened)
    x, y = _member(file, members, "x", "full"), _member(file, members, "y", "unitPar")
    if not isinstance(x, h5py.Dataset) or not isinstance(y, h5py.Dataset):
        raise DataError(f"{file}: x or y is a group; expected datasets")
    if x.ndim not in (4, 5) or x.shape[-1] != len(REDSHIFTS):
        raise DataError(f"{file}: {x.name} has shape {x.shape}; expected (n, n, n, 4) or (cubes, n, n, n, 4)")
    return x, y


@reads()
def _cubes_in_hdf5(file: Path, cells: int) -> int:
    with h5py.File(file, "r") as opened:
        x, _ = _datasets(file, opened)
        side = x.shape[-2]
        if side % cells or x.shape[-4:-1] != (side,) * 3:
            raise DataError(
                f"{file}: {x.name} has shape {x.shape}; expected cubes of {cells}^3 or a multiple of it"
                f"{_hint(side, cells)}"
            )
        return (x.shape[0] if x.ndim == 5 else 1) * (side // cells) ** 3


def _read_hdf5(cube: Cube, cells: int) -> Arrays:
    """Of a cube that is larger than ``cells``, sub-cubes are counted along the last axis first."""
    with h5py.File(cube.file, "r") as opened:
        x, y = _datasets(cube.file, opened)
        parts = x.shape[-2] // cells
        whole, part = divmod(cube.number, parts**3)
        corner = np.unravel_index(part, (parts,) * 3)
        block = tuple(slice(int(c) * cells, (int(c) + 1) * cells) for c in corner)
        count = x[(whole, *block)] if x.ndim == 5 else x[block]
        label = np.asarray(y[()]).reshape(-1, y.shape[-1])
        return count, label[whole if x.ndim == 5 and len(label) > 1 else 0]


# ---- the generator


def generate(cache: Path, survey: Survey) -> Path:
    """Generate ``{train,validation}/*.tfrecord``, each a gzipped record as in version 2; returns their root.

    ``universes/*.json`` beside them say each universe's parameters. What is there already is not made again.
    """
    key = {"version": VERSION, **survey.__dict__}
    numbers = range(survey.train_universes + survey.test_universes)
    names = {f"universes/univ_{number:06d}.json": number for number in numbers}

    def write(name: str, draft: Path) -> None:
        root, number = draft.parents[1], names[name]
        count, label = survey.universe(number)
        files = survey.files(number)
        for file, block in zip(files, blocks(count, survey.cells), strict=True):
            example = write_example({"x": block.astype("<i2").tobytes(), "y": label})
            make_file(root, file, _record_writer(example))
        cosmology = Cosmology.at(label, survey.spread)
        physical = {name: getattr(cosmology, name) for name in PARAMETERS}
        draft.write_text(json.dumps({**physical, "label": label.tolist(), "files": files}) + "\n")

    root = make_files(cache, key, list(names), write, "simulating universes")
    gone = set(missing_files(root, [file for number in numbers for file in survey.files(number)]))
    incomplete = [name for name in names if not gone.isdisjoint(survey.files(names[name]))]
    for name in incomplete:
        (root / name).unlink()
    return make_files(cache, key, list(names), write, "simulating universes") if incomplete else root


def blocks(count: np.ndarray, cells: int) -> list[np.ndarray]:
    """Cut a box into cubes of ``cells`` a side, along the last axis first."""
    parts = range(0, count.shape[0], cells)
    return [count[i : i + cells, j : j + cells, k : k + cells] for i in parts for j in parts for k in parts]


def _record_writer(example: bytes) -> Callable[[Path], None]:
    return lambda draft: write_record(draft, example, compressed=True)
