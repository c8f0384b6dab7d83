"""Patterns in one HDF5 file of training and test images, and single files to infer: written and read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import tifffile
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from lumos.errors import DataError, reads
from lumos.workloads.common.files import cannot_write, dataset_folder, make_file, make_files, missing_files
from lumos.workloads.common.hdf5 import writing_hdf5
from lumos.workloads.dms.crystal import PHASES
from lumos.workloads.dms.pattern import VERSION, Scene

FOLDER = "dms_sim"
BINARY = "training/data-binary.h5"
CHANNELS = 3
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
FORMATS = ("PNG", "JPEG", "BMP")
"""Pillow's names of what single files that are no TIFF may be; its other readers are not tried."""
PART = 50
"""Patterns of an intermediate file."""

Shape = tuple[int, int]


@reads("expected HDF5 with {train,test}/{images,labels}")
def read_labels(file: Path, split: str, shape: Shape) -> Int[np.ndarray, " images"]:
    """Read the labels of the group ``train`` or ``test``, 0 or 1, and check that the group is as expected.

    Raises:
        DataError: a key or a shape is missing or wrong; the message names it and the file.
    """
    with h5py.File(file, "r") as open_file:
        images, labels = (_dataset(open_file, f"{split}/{name}", file) for name in ("images", "labels"))
        expected = (*shape, CHANNELS)
        if images.ndim != 4 or images.shape[1:] != expected or images.dtype.kind != "f":
            raise DataError(
                f"{file}: {split}/images is {images.shape} {images.dtype}; expected (N, {shape[0]}, {shape[1]}, "
                f"{CHANNELS}) floats; for another size set workload.shape"
            )
        if labels.size != len(images) or labels.shape[0] != len(images):
            raise DataError(
                f"{file}: {split}/labels is {labels.shape} for {len(images)} images; expected one label an image"
            )
        values = np.asarray(labels[()]).reshape(-1)
    if not np.isin(values, (0, 1)).all():
        raise DataError(f"{file}: {split}/labels has other values than 0 (monoclinic) and 1 (tetragonal)")
    return values.astype(np.int64)


def _dataset(open_file: h5py.File, key: str, file: Path) -> h5py.Dataset:
    found = open_file.get(key)
    if not isinstance(found, h5py.Dataset):
        keys: list[str] = []
        open_file.visit(keys.append)
        raise DataError(f"{file}: there is no dataset {key}; it has {', '.join(sorted(keys)) or 'nothing'}")
    return found


class Patterns:
    """Samples: (image (3, rows, columns) float32, label), of some of the images of one group of the file."""

    def __init__(self, file: Path, split: str, indices: Sequence[int], labels: Int[np.ndarray, " images"]) -> None:
        self.file, self.split = file, split
        self.indices, self.labels = list(indices), labels
        self._open: tuple[int, h5py.File] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @reads("fetch it again", lambda self, index, epoch: f"{self.file}: {self.split}/images[{self.indices[index]}]")
    def read(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Read one image and its label. Raises DataError, naming the file and the image, where it is damaged."""
        place = self.indices[index]
        image = np.asarray(self._images()[place], np.float32)
        if not np.isfinite(image).all():
            raise DataError(f"{self.file}: {self.split}/images[{place}] has values that are not finite")
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), int(self.labels[place])

    def _images(self) -> h5py.Dataset:
        # An open file does not survive the fork of a worker process: each opens its own.
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), h5py.File(self.file, "r"))
        return _dataset(self._open[1], f"{self.split}/images", self.file)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": None}


class SingleImages:
    """Samples from single image files: monoclinic (0) where the path below ``root`` says so, else tetragonal (1)."""

    def __init__(self, root: Path, files: Sequence[Path], shape: Shape) -> None:
        self.root, self.files, self.shape = root, list(files), shape

    def __len__(self) -> int:
        return len(self.files)

    @reads("expected an image of three channels", lambda self, index, epoch: self.files[index])
    def read(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Read one image and its label. Raises DataError, naming the file, where it is damaged or of another shape."""
        path = self.files[index]
        expected = f"expected an image of {self.shape[0]} x {self.shape[1]} x {CHANNELS}"
        if path.suffix.lower() in (".tif", ".tiff"):
            image = tifffile.imread(path)
        else:
            with Image.open(path, formats=FORMATS) as opened:
                image = np.asarray(opened)
        if image.shape != (*self.shape, CHANNELS):
            raise DataError(f"{path}: {' x '.join(map(str, image.shape))}; {expected}")
        values = np.ascontiguousarray(image.astype(np.float32).transpose(2, 0, 1))
        if not np.isfinite(values).all():
            raise DataError(f"{path}: it has values that are not finite")
        return torch.from_numpy(values), 0 if PHASES[0] in str(path.relative_to(self.root)).lower() else 1


def find_data(root: Path) -> tuple[Path, list[Path]]:
    """Find the HDF5 file and the single images to infer (there may be none) in the data set, or in what holds it.

    Raises:
        DataError: there is no HDF5 file.
    """
    base = dataset_folder(root, FOLDER, BINARY)
    file = base / BINARY
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; expected data.root to have {BINARY}")
    inference = (base / "inference").rglob("*")
    singles = sorted(p for p in inference if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return file, singles


def hold_out(labels: Int[np.ndarray, " images"], share: float) -> tuple[list[int], list[int]]:
    """Hold out validation images: of each class, the last ``share`` in the file; returns the places of both kinds.

    Neighbours in a file may come from one crystal, so that a stretch is held out, not single images here and there.

    Raises:
        DataError: a class has fewer than two images.
    """
    train, valid = [], []
    for value in (0, 1):
        places = np.flatnonzero(labels == value).tolist()
        if len(places) < 2:
            raise DataError(f"train/labels has {len(places)} images of label {value}; expected at least two")
        count = min(max(round(share * len(places)), 1), len(places) - 1)
        train += places[:-count]
        valid += places[-count:]
    return sorted(train), sorted(valid)


def generate(cache: Path, scene: Scene, counts: dict[str, int], seed: int) -> Path:
    """Generate a data set in the published layout, where ``cache`` does not have it yet; returns its folder.

    ``counts`` says how many patterns are in ``train``, ``test`` and ``inference``; half of each are monoclinic, in
    random order, and each is of another crystal. A pattern follows from the seed, its group and its number alone.

    Raises:
        DataError: the cache cannot be written.
    """
    scene.detector.directions  # noqa: B018 - made once, before the threads start
    groups = ("train", "test", "inference")
    orders = {
        group: np.random.default_rng([seed, g, 0]).permutation(counts[group]) % 2 for g, group in enumerate(groups)
    }

    def pattern(group: str, number: int) -> Float[np.ndarray, "rows columns"]:
        rng = np.random.default_rng([seed, groups.index(group), 1, number])
        return scene.pattern(PHASES[orders[group][number]], rng)

    def write_single(name: str, draft: Path) -> None:
        image = pattern("inference", int(Path(name).stem.rpartition("-")[2]))
        tifffile.imwrite(draft, _three(image), photometric="rgb", metadata=None)

    def write_part(name: str, draft: Path) -> None:
        group, _, part = Path(name).stem.partition("-")
        first = int(part) * PART
        numbers = range(first, min(first + PART, counts[group]))
        with draft.open("wb") as file:
            np.save(file, np.stack([pattern(group, number) for number in numbers]), allow_pickle=False)

    key = {"version": VERSION, "shape": list(scene.shape), "jitter": scene.jitter, "counts": counts, "seed": seed}
    singles = [f"{FOLDER}/inference/{PHASES[c]}/pattern-{k:05d}.tif" for k, c in enumerate(orders["inference"])]
    place = make_files(cache, key, singles, write_single, "scattering, single patterns")
    binary = f"{FOLDER}/{BINARY}"
    if missing_files(place, [binary]):
        parts = [f"{group}-{p:05d}.npy" for group in groups[:2] for p in range(-(-counts[group] // PART))]
        drafts = make_files(place / "parts", key, parts, write_part, "scattering")
        try:
            make_file(place, binary, lambda draft: _assemble(draft, drafts, parts, orders))
            shutil.rmtree(place / "parts")
        except OSError as error:
            raise cannot_write(place, error) from error
    return place


def _three(image: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns 3"]:
    return np.repeat(image[:, :, None], CHANNELS, axis=2)


def _assemble(draft: Path, folder: Path, parts: Sequence[str], labels: dict[str, np.ndarray]) -> None:
    with writing_hdf5(draft) as file:
        for group in ("train", "test"):
            file[f"{group}/labels"] = labels[group].astype(np.int64)
            done = 0
            for name in parts:
                if not name.startswith(group):
                    continue
                images = np.load(folder / name, mmap_mode="r", allow_pickle=False)
                whole = (len(labels[group]), *images.shape[1:], CHANNELS)
                # The three channels are equal and the values few: the fast compression takes most of it away.
                target = file.require_dataset(
                    f"{group}/images", whole, np.float32, chunks=(1, *whole[1:]), compression="lzf", shuffle=True
                )
                for image in images:
                    target[done] = _three(image)
                    done += 1
