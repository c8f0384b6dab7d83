"""Images of laser optics as TIFF files in folders by split and by damage: written by the generator, read for all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from jaxtyping import Float, UInt16
from torch import Tensor

from lumos.errors import DataError, reads
from lumos.workloads.common.files import dataset_folder, make_files
from lumos.workloads.optical.beamline import VERSION, BeamLine, Session

FOLDER = "optical_damage_ds1"
SPLITS = ("training", "validation", "inference")
KINDS = ("undamaged", "damaged")
SHOTS = 5
"""Shots of a session: no two splits share one."""


@dataclass(frozen=True)
class View:
    """Which part of an image is looked at: of ``plane`` (rows, columns), ``crop`` (first row, end, first column, end).

    Raises DataError where the crop is not inside the plane, or its sides are not multiples of 4.
    """

    plane: tuple[int, int]
    crop: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        top, bottom, left, right = self.crop
        if not (0 <= top < bottom <= self.plane[0] and 0 <= left < right <= self.plane[1]):
            raise DataError(
                f"workload.crop={list(self.crop)}: expected first row, end row, first column, end column within "
                f"workload.plane={list(self.plane)}"
            )
        if (bottom - top) % 4 or (right - left) % 4:
            raise DataError(
                f"workload.crop={list(self.crop)} has {bottom - top} x {right - left} pixels; expected multiples of 4, "
                "which the network halves twice"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the crop."""
        top, bottom, left, right = self.crop
        return bottom - top, right - left

    def of(self, counts: UInt16[np.ndarray, "rows columns"]) -> Float[np.ndarray, "1 height width"]:
        """Crop an image, float32, in units in which the plane goes from 0 (its least count) to 1 (its greatest)."""
        top, bottom, left, right = self.crop
        low, high = int(counts.min()), int(counts.max())
        part = counts[None, top:bottom, left:right].astype(np.float32)
        return (part - low) / max(high - low, 1)


@reads("expected a TIFF of one plane, 16 bit unsigned")
def read_image(path: Path, plane: tuple[int, int]) -> UInt16[np.ndarray, "rows columns"]:
    """Read a TIFF file of one plane, 16 bit, of that size. Raises DataError, naming the file, for others."""
    expected = f"expected a TIFF of one plane, {plane[0]} x {plane[1]}, 16 bit unsigned"
    with tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise DataError(f"{path}: {len(file.pages)} planes; {expected}")
        counts = file.pages[0].asarray()
    if counts.shape != plane or counts.dtype != np.uint16:
        raise DataError(
            f"{path}: {' x '.join(map(str, counts.shape))}, {counts.dtype}; {expected}; "
            "for another size set workload.plane and workload.crop"
        )
    return counts


class Images:
    """Samples: (image (1, height, width) as :meth:`View.of` gives it, whether it is damaged: 0 or 1)."""

    def __init__(self, files: Sequence[tuple[Path, int]], view: View) -> None:
        self.files, self.view = files, view

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Read one image and its label. Raises DataError, naming the file, where it is damaged."""
        path, label = self.files[index]
        return torch.from_numpy(self.view.of(read_image(path, self.view.plane))), label


def find_files(root: Path, split: str, kinds: Sequence[str] = KINDS) -> list[tuple[Path, int]]:
    """Find the TIFF files of a split, with 0 for undamaged and 1 for damaged, in the data set or what holds it.

    Raises:
        DataError: a folder is not there or has no TIFF files; the message names it.
    """
    base = dataset_folder(root, FOLDER, "training/undamaged")
    files = []
    for kind in kinds:
        folder = base / split / kind
        found = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".tiff", ".tif") and p.name[0] != ".")
        if not found:
            what = "has no .TIFF files" if folder.is_dir() else "is not there"
            raise DataError(
                f"{folder}: {what}; expected data.root to have {{{','.join(SPLITS)}}}/{{{','.join(KINDS)}}}/*.TIFF"
            )
        files += [(path, KINDS.index(kind)) for path in found]
    return files


def digest_files(files: Sequence[tuple[Path, int]]) -> str:
    """Compute SHA-256 of the files' names, sizes, labels and three times 4 KiB: all of 17 GB takes minutes.

    Raises:
        DataError: a file cannot be read; the message names it.
    """
    state = hashlib.sha256()
    for path, label in files:
        try:
            size = path.stat().st_size
            state.update(f"{path.parent.parent.name}/{path.name} {size} {label}\n".encode())
            with path.open("rb") as file:
                for start in (0, size // 2, max(size - 4096, 0)):
                    file.seek(start)
                    state.update(file.read(4096))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return state.hexdigest()


def generate(cache: Path, plane: tuple[int, int], counts: Mapping[str, int], seed: int) -> Path:
    """Generate the images that ``cache`` does not have yet, in the published layout; returns their folder.

    ``counts`` says how many images of each kind, ``training/undamaged`` say. Shots come in sessions of :data:`SHOTS`,
    each of one kind and split. Every image follows from the seed, its kind and its number alone.

    Raises:
        DataError: the cache cannot be written.
    """
    line = BeamLine(plane, seed)
    line.camera  # noqa: B018 - made once, before the threads start
    kinds = [f"{split}/{kind}" for split in SPLITS for kind in KINDS]

    def write(name: str, draft: Path) -> None:
        kind, _, file = name.removeprefix(f"{FOLDER}/").rpartition("/")
        number = int(Path(file).stem.rpartition("-")[2])
        condition = [seed, 1 + kinds.index(kind), number // SHOTS]
        session = Session.draw(np.random.default_rng(condition))
        rng = np.random.default_rng([*condition, 1 + number % SHOTS])
        image = line.shot(session, rng, damaged=kind.endswith("/damaged"))
        tifffile.imwrite(draft, image, photometric="minisblack")

    names = [f"{FOLDER}/{kind}/shot-{k:05d}.TIFF" for kind in kinds for k in range(counts.get(kind, 0))]
    key = {"version": VERSION, "plane": list(plane), "counts": dict(counts), "seed": seed}
    return make_files(cache, key, names, write, "firing the laser")
