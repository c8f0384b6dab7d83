"""Pairs of micrographs on disk in the published layout, and the generator that writes it.

``em_graphene_sim/{train,test}/graphene_img_{noise,clean}.h5`` hold key ``images``, float32 (n, h, w, 1);
``em_graphene_sim/inference/{raw,truth}/`` hold single images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
import torch
from jaxtyping import Float
from torch import Tensor

from lumos.errors import DataError, reads
from lumos.workloads.common.files import dataset_folder, make_files, missing_files
from lumos.workloads.common.hdf5 import writing_hdf5
from lumos.workloads.em_denoise.graphene import draw_pair

VERSION = "1"
"""Part of the cache's key: changed whenever equal settings would give other images."""

FOLDER = "em_graphene_sim"
KEY = "images"
NOISE, CLEAN = "graphene_img_noise.h5", "graphene_img_clean.h5"
INFERENCE = 8
"""Generated pairs in ``inference/``."""

SHARD = 32
"""Pairs that one job of the generator makes."""

HALVINGS = 3


class ImagePairs:
    """The pairs of a noisy and a clean image of one folder, read when they are asked for.

    Raises DataError, naming file, key and shape, where the two files do not hold as many images of equal size.
    """

    def __init__(self, folder: Path) -> None:
        self.files = (folder / NOISE, folder / CLEAN)
        self._open: tuple[int, tuple[h5py.Dataset, ...]] | None = None
        noise, clean = self._datasets()
        if noise.shape != clean.shape:
            raise DataError(
                f"{folder}: {NOISE} has shape {noise.shape} and {CLEAN} {clean.shape}; expected equal shapes"
            )
        self.shape: tuple[int, ...] = noise.shape

    def __len__(self) -> int:
        return self.shape[0]

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a noisy and a clean image, float32 (h, w). Raises DataError where the file is damaged."""
        images = []
        for file, dataset in zip(self.files, self._datasets(), strict=True):
            image = _image(file, dataset, index)
            if not np.isfinite(image).all():
                raise DataError(f"{file}: {KEY}[{index}] holds values that are not finite")
            images.append(image)
        return images[0], images[1]

    def _datasets(self) -> tuple[h5py.Dataset, ...]:
        # A worker process must not read through a file that its parent has opened.
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), tuple(_dataset(file) for file in self.files))
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}


@reads("fetch it again", lambda file, dataset, index: f"{file}: {KEY}[{index}]")
def _image(file: Path, dataset: h5py.Dataset, index: int) -> np.ndarray:
    return np.asarray(dataset[index], np.float32)[..., 0]


@reads("is it cut short? Fetch it again")
def _dataset(file: Path) -> h5py.Dataset:
    if not file.exists():
        raise DataError(f"{file}: there is no such file; expected data.root to hold {FOLDER}/train and {FOLDER}/test")
    opened = h5py.File(file, "r")
    dataset = opened.get(KEY)
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(f"{file}: no key {KEY}; it has {', '.join(opened) or 'none'}")
    shape, step = dataset.shape, 2**HALVINGS
    if len(shape) != 4 or shape[-1] != 1 or shape[1] % step or shape[2] % step or 0 in shape:
        raise DataError(f"{file}: {KEY} has shape {shape}; expected (images, h, w, 1) with h and w multiples of {step}")
    return dataset


class PairSamples:
    """Some of the pairs of a folder as tensors (1, h, w), noisy and clean.

    With a ``seed``, a pair is turned by quarters and mirrored, as a function of seed, index and epoch.
    """

    def __init__(self, pairs: ImagePairs, rows: range, seed: int | None = None) -> None:
        self.pairs, self.rows, self.seed = pairs, rows, seed

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int, epoch: int) -> tuple[Float[Tensor, "1 h w"], Float[Tensor, "1 h w"]]:
        """Read one sample. Raises DataError where the file is damaged."""
        images = self.pairs.pair(self.rows[index])
        if self.seed is not None:
            # Quarter turns change the shape of images that are not square.
            square = images[0].shape[0] == images[0].shape[1]
            rng = np.random.default_rng([self.seed, 2, index, epoch])
            turns, mirror = int(rng.integers(4)) if square else 2 * int(rng.integers(2)), rng.random() < 0.5
            images = tuple(np.rot90(image[::-1] if mirror else image, turns) for image in images)
        noisy, clean = (torch.from_numpy(np.ascontiguousarray(image))[None] for image in images)
        return noisy, clean


def inference_pairs(root: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Read each TIFF of ``inference/raw`` with a namesake in ``inference/truth``: name, noisy, clean image (h, w)."""
    for raw in sorted((root / "inference" / "raw").glob("*.tif*")):
        truth = root / "inference" / "truth" / raw.name
        if truth.exists():
            yield raw.stem, _tiff(raw), _tiff(truth)


@reads()
def _tiff(file: Path) -> np.ndarray:
    image = np.asarray(tifffile.imread(file), np.float32)
    if image.ndim != 2:
        raise DataError(f"{file}: an image of shape {image.shape}; expected (h, w)")
    return image


def find_root(root: Path) -> Path:
    """Find the folder of train/ and test/: ``root``, or what the archive unpacked to in it. Raises DataError."""
    place = dataset_folder(root, FOLDER, "train", "test")
    if (place / "train").is_dir() and (place / "test").is_dir():
        return place
    raise DataError(f"{root}: neither it nor {FOLDER}/ in it holds the folders train/ and test/")


def generate(cache: Path, *, seed: int, train: int, test: int, size: int) -> Path:
    """Draw ``train`` and ``test`` pairs of ``size`` x ``size``, each of its own flake; returns the data set's root.

    Made in shards beside it, which stay where a run is stopped, then joined. What is there already is not made again.
    """
    key = {"version": VERSION, "seed": seed, "train": train, "test": test, "size": size}
    counts = {"train": train, "test": test}
    shards = {
        f"shards/{split}_{start:06d}.h5": (split, range(start, min(start + SHARD, count)))
        for split, count in counts.items()
        for start in range(0, count, SHARD)
    }
    whole = [f"{FOLDER}/{split}/{name}" for split in counts for name in (NOISE, CLEAN)]
    single = [f"{FOLDER}/inference/{kind}/image_{k:03d}.tif" for kind in ("raw", "truth") for k in range(INFERENCE)]
    root = make_files(cache, key, [], _nothing, "")
    if missing_files(root, whole):
        make_files(cache, key, list(shards), _shard_writer(seed, size, shards), "drawing micrographs")
    make_files(cache, key, [*whole, *single], _joiner(seed, size, shards), "joining them")
    for name in shards:
        (root / name).unlink(missing_ok=True)
    return root / FOLDER


SPLIT_NUMBERS = {"train": 0, "test": 1, "inference": 2}

Shards = Mapping[str, tuple[str, range]]
"""Of each shard the split and the rows of it."""


def _pair(seed: int, split: str, number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    return draw_pair(np.random.default_rng([seed, SPLIT_NUMBERS[split], number]), size)


def _nothing(name: str, draft: Path) -> None: ...


def _shard_writer(seed: int, size: int, shards: Shards) -> Callable[[str, Path], None]:
    def write(name: str, draft: Path) -> None:
        split, numbers = shards[name]
        pairs = [_pair(seed, split, number, size) for number in numbers]
        with writing_hdf5(draft) as file:
            file["noise"], file["clean"] = (np.stack([pair[k] for pair in pairs])[..., None] for k in (0, 1))

    return write


def _joiner(seed: int, size: int, shards: Shards) -> Callable[[str, Path], None]:
    def write(name: str, draft: Path) -> None:
        root, place = _root_of(draft, name), Path(name)
        if place.suffix == ".tif":
            pair = _pair(seed, "inference", int(place.stem.split("_")[1]), size)
            tifffile.imwrite(draft, pair[place.parent.name == "truth"])
            return
        split, kind = place.parent.name, "noise" if place.name == NOISE else "clean"
        parts = {shard: rows for shard, (of, rows) in shards.items() if of == split}
        one = (size, size, 1)
        with writing_hdf5(draft) as file:
            images = file.create_dataset(KEY, (sum(map(len, parts.values())), *one), "f4", chunks=(1, *one))
            for shard, rows in parts.items():
                with h5py.File(root / shard, "r") as opened:
                    images[rows.start : rows.stop] = opened[kind][()]  # type: ignore[index]

    return write


def _root_of(draft: Path, name: str) -> Path:
    return draft.parents[len(Path(name).parts) - 1]
