"""Images with labels: the phantoms' folders, the published folders or parquet files, and images that repeat."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from lumos.errors import DataError, reads
from lumos.workloads.braintumor.phantom import CLASSES, phantom
from lumos.workloads.common.arrays import cached
from lumos.workloads.common.damaged import readable
from lumos.workloads.common.files import file_sha256, make_files
from lumos.workloads.common.progress import track

VERSION = "1"
"""Part of the caches' keys: changed whenever equal settings would give other images."""

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

SPLIT_NAMES: Mapping[str, Split] = {
    **dict.fromkeys(("training", "train"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "valid"),
    **dict.fromkeys(("testing", "test"), "test"),
}
"""Folders of a split, and the first word of a parquet file's name, in lower case."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
"""Pillow's names of what those files may be; its other readers are not tried on a file from outside."""

VALID_SHARE = 0.1
"""Of the training images, where the published set has no split of its own for validation."""

WIDER = (1.0, 1.25, 1.5)
"""Sides of a phantom, in units of what the network reads."""
COLOUR_SHARE = 0.2
"""Of the phantoms that are RGB."""
DRAWN_BYTES = sum(side**2 for side in WIDER) / len(WIDER) * (1 + 2 * COLOUR_SHARE)
"""Of an average phantom, for each pixel that the network reads."""

LabelledFile = tuple[int, str, bytes]
"""A label, where the image is (for messages), and its file's content."""


@dataclass(frozen=True)
class Part:
    """Some images of one split that are read together; ``sha256`` is that of the file that holds them."""

    split: Split
    sha256: str
    read: Callable[[], list[LabelledFile]]


# ---- the default: phantoms in the published layout ---------------------------------------------------------------


def generate_phantoms(cache: Path, seed: int, pixels: int, counts: Mapping[Split, int]) -> Path:
    """Draw phantoms into ``{Training,Testing}/{class}/*.png``, at the first call; returns their folder.

    As in the published set, images are 1 to 1.5 times as wide as the network reads them, and every fifth is RGB.
    """
    splits: tuple[tuple[Split, str, str], ...] = (("train", "Training", "Tr"), ("test", "Testing", "Te"))
    names = {
        f"{folder}/{CLASSES[k % 4]}/{short}-{CLASSES[k % 4][:2]}_{k // 4:05d}.png": [seed, number, k]
        for number, (split, folder, short) in enumerate(splits)
        for k in range(counts[split])
    }

    def write(name: str, draft: Path) -> None:
        rng = np.random.default_rng(names[name])
        size = round(pixels * rng.choice(WIDER))
        image = Image.fromarray(phantom(name.split("/")[1], size, rng))
        (image.convert("RGB") if rng.random() < COLOUR_SHARE else image).save(draft, format="PNG")

    key = {"version": VERSION, "seed": seed, "pixels": pixels, **counts}
    return make_files(cache, key, list(names), write, "drawing phantoms")


# ---- the published layouts ---------------------------------------------------------------------------------------


def find_parts(root: Path) -> list[Part]:
    """Find the images below ``root``: parquet files where there are some, else folders ``{Training|train}/{class}``.

    Hidden files and folders are passed over.

    Raises:
        DataError: the layout is neither; the message names what is there.
    """
    tables = sorted(file for file in root.rglob("*.parquet") if _visible(file, root)) if root.is_dir() else [root]
    parts = [part for table in tables for part in _table_parts(table)] if tables else _folder_parts(root)
    for split in ("train", "test"):
        if not any(part.split == split for part in parts):
            raise DataError(
                f"data.root={root}: no images to {split} with; expected folders Training/<class> and Testing/<class> "
                f"or files train-*.parquet and test-*.parquet; there is {_listed(root)}"
            )
    return parts


def _visible(path: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def _listed(root: Path) -> str:
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else [root.name]
    return ", ".join(names[:8]) + (", .." if len(names) > 8 else "") if names else "nothing"


def class_label(name: str, where: str) -> int:
    """Label a class by any of its published names (``no_tumor``, ``glioma_tumor``, ``Pituitary`` ..).

    Raises:
        DataError: the name is none of them.
    """
    word = re.sub(r"[^a-z]|tumou?rs?", "", re.sub(r"[^a-z]", "", name.lower()))
    word = {"no": "notumor", "normal": "notumor", "healthy": "notumor"}.get(word, word)
    if word not in CLASSES:
        raise DataError(f"{where}: {name!r} is no class of this data set; expected {', '.join(CLASSES)}")
    return CLASSES.index(word)


def _folder_parts(root: Path) -> list[Part]:
    parts: list[Part] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and _visible(path, root)):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None:
            continue
        seen = set()
        for kind in sorted(path for path in folder.iterdir() if path.is_dir() and _visible(path, root)):
            label = class_label(kind.name, str(kind))
            seen.add(label)
            files = sorted(f for f in kind.rglob("*") if f.suffix.lower() in SUFFIXES and _visible(f, root))
            parts += [Part(split, file_sha256(file), partial(_read_file, file, label)) for file in files]
        absent = [name for label, name in enumerate(CLASSES) if label not in seen]
        if absent:
            raise DataError(f"{folder}: there is no folder for {', '.join(absent)}")
    return parts


@reads()
def _read_file(file: Path, label: int) -> list[LabelledFile]:
    return [(label, str(file), file.read_bytes())]


@reads("expected a parquet file of images and labels")
def _table_parts(file: Path) -> list[Part]:
    """One part for each row group, so that no more than that is in memory at a time."""
    split = SPLIT_NAMES.get(re.split(r"[-_.]", file.name.lower())[0])
    if split is None:
        raise DataError(f"{file}: its name does not say a split; expected train-*.parquet or test-*.parquet")
    with pq.ParquetFile(file) as table:
        schema, groups = table.schema_arrow, table.metadata.num_row_groups
    image = schema.field("image").type if "image" in schema.names else None
    if image is None or not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise DataError(f"{file}: columns {', '.join(schema.names)}; expected image (a struct with bytes) and label")
    if "label" not in schema.names:
        raise DataError(f"{file}: columns {', '.join(schema.names)}; expected one that is called label")
    labels = _label_names(schema.metadata or {}, str(file))
    sha256 = file_sha256(file)
    return [Part(split, f"{sha256}/{group}", partial(_read_group, file, group, labels)) for group in range(groups)]


def _label_names(metadata: Mapping[bytes, bytes], where: str) -> list[int]:
    """Our label of each of the file's: by the names that Hugging Face writes beside the schema, else in our order."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, ValueError, TypeError):
        return list(range(len(CLASSES)))
    return [class_label(str(name), where) for name in names]


@reads("fetch it again", lambda file, group, labels: f"{file}: row group {group}")
def _read_group(file: Path, group: int, labels: Sequence[int]) -> list[LabelledFile]:
    with pq.ParquetFile(file) as table:
        rows = table.read_row_group(group, columns=["image", "label"]).to_pylist()
    out: list[LabelledFile] = []
    for k, row in enumerate(rows):
        where, label = f"{file}: row {k} of row group {group}", row["label"]
        if isinstance(label, str):
            label = class_label(label, where)
        elif isinstance(label, int) and 0 <= label < len(labels):
            label = labels[label]
        else:
            raise DataError(f"{where}: label {label!r}; expected 0 to {len(labels) - 1}, or a class's name")
        out.append((label, where, (row["image"] or {}).get("bytes") or b""))
    return out


# ---- decoding ----------------------------------------------------------------------------------------------------


@reads("expected an image", lambda content, where, pixels: where)
def decode(content: bytes, where: str, pixels: int) -> tuple[UInt8[np.ndarray, "y x"], UInt8[np.ndarray, " 32"]]:
    """Decode an image of any mode and size to grey levels, ``pixels`` wide and high, and digest its own pixels.

    The digest is taken of the grey levels before the resizing: it is the same for a grey image and an RGB one that
    shows it. Sixteen-bit images are scaled to their own brightest pixel.

    Raises:
        DataError: it is no image.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if image.mode.startswith(("I", "F")):
            levels = np.asarray(image, np.float64).clip(0)
            image = Image.fromarray((255 * levels / max(levels.max(), 1e-300)).astype(np.uint8))
        elif image.mode in ("P", "PA", "RGBA", "LA") or "transparency" in image.info:
            # Through RGB, without what is transparent taking part.
            image = image.convert("RGBA").convert("RGB")
        grey = image.convert("L")
    own = hashlib.sha256(f"{grey.size}".encode() + grey.tobytes()).digest()
    small = grey.resize((pixels, pixels), Image.Resampling.BICUBIC)
    return np.asarray(small), np.frombuffer(own, np.uint8)


def read_images(cache: Path, parts: Sequence[Part], pixels: int, on_error: str) -> dict[str, np.ndarray]:
    """Decode all images, once; they are kept in ``cache`` under a hash of their content.

    Arrays ``images`` (n, pixels, pixels) and ``digests`` (n, 32), uint8, ``labels`` and ``splits`` (n), int64, the
    first memory-mapped. With ``on_error="skip"`` a damaged image is named in the log and left out.
    """

    def work(part: Part) -> list[tuple[np.ndarray, np.ndarray, int]]:
        return [
            (*image, label)
            for _, content in readable([part], lambda part: part.read(), on_error)
            for (label, _, _), image in readable(content, lambda named: decode(named[2], named[1], pixels), on_error)
        ]

    def make() -> dict[str, np.ndarray]:
        found, splits = [], []
        # A bounded number of files is read ahead; Pillow decodes outside Python's lock.
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for batch in track(list(_batches(parts, 64)), "decoding images"):
                for part, images in zip(batch, pool.map(work, batch), strict=True):
                    found += images
                    splits += [SPLITS.index(part.split)] * len(images)
        if not found:
            raise DataError("no image could be read; look at the files named above")
        images, digests, labels = zip(*found, strict=True)
        return {
            "images": np.stack(images),
            "digests": np.stack(digests),
            "labels": np.array(labels, np.int64),
            "splits": np.array(splits, np.int64),
        }

    content = hashlib.sha256("\n".join(f"{part.split} {part.sha256}" for part in parts).encode()).hexdigest()
    return cached(cache, {"version": VERSION, "pixels": pixels, "images": content, "on_error": on_error}, make)


def _batches(parts: Sequence[Part], size: int) -> Iterator[Sequence[Part]]:
    return (parts[k : k + size] for k in range(0, len(parts), size))


# ---- splits ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Duplicates:
    """Images that the published set holds more than once, by their own pixels.

    ``dropped`` training images (and validation images) were also test images, ``distinct`` of them different ones:
    the share ``of_test`` of the test images. ``contradictory`` images stand under two labels.
    """

    dropped: int
    distinct: int
    contradictory: int
    of_test: float = 0.0

    def __str__(self) -> str:
        if not self.dropped:
            return "no training image is also a test image"
        return (
            f"{self.dropped} training images ({self.distinct} distinct) are also test images, {self.of_test:.1%} of "
            "the test split, and were dropped from the training"
        )


def separate(
    arrays: Mapping[str, np.ndarray], seed: int, valid_images: int | None = None
) -> tuple[dict[Split, Int[np.ndarray, " rows"]], Duplicates]:
    """Find the rows of each split, and what is there twice. Images that equal a test image leave the other splits.

    Without a split for validation in the files, ``valid_images`` of the training images become one (a tenth where
    None); copies of an image stay together.
    """
    keys = np.ascontiguousarray(arrays["digests"]).view("V32")[:, 0]
    _, which = np.unique(keys, return_inverse=True)
    labels, splits = arrays["labels"], arrays["splits"]
    tested = np.isin(which, which[splits == 2])
    leaked = tested & (splits != 2)
    pairs = np.unique(np.stack([which, labels]), axis=1)
    contradictory = int((np.bincount(pairs[0]) > 1).sum())
    again = np.isin(which[splits == 2], which[leaked])
    of_test = float(again.mean()) if len(again) else 0.0
    duplicates = Duplicates(int(leaked.sum()), len(np.unique(which[leaked])), contradictory, of_test)
    train = np.flatnonzero((splits == 0) & ~leaked)
    valid = np.flatnonzero((splits == 1) & ~tested & ~np.isin(which, which[train]))
    if not (splits == 1).any():
        unique = np.unique(which[train])
        count = round(VALID_SHARE * len(unique)) if valid_images is None else valid_images
        drawn = np.random.default_rng([seed, 7]).permutation(unique)[:count]
        held = np.isin(which[train], drawn)
        train, valid = train[~held], train[held]
    return {"train": train, "valid": valid, "test": np.flatnonzero(splits == 2)}, duplicates


# ---- samples -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slices:
    """Images of one split, as the network takes them: (channels, pixels, pixels), float32 in [-1, 1], and a label.

    With ``augment``, an image is mirrored in half of the epochs and shifted by up to a thirty-second of its width, as a
    function of seed, epoch and number alone.
    """

    images: UInt8[np.ndarray, "all y x"]
    labels: Int[np.ndarray, " all"]
    rows: Int[np.ndarray, " rows"]
    channels: int
    seed: int
    augment: bool

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int, epoch: int) -> tuple[Float[Tensor, "channels y x"], Int[Tensor, ""]]:
        """Read one image and its label."""
        row = self.rows[index]
        image = self.images[row]
        if self.augment:
            image = self._moved(image, np.random.default_rng([self.seed, epoch, index]))
        scaled = torch.from_numpy(image.astype(np.float32)) / 127.5 - 1
        return scaled.expand(self.channels, -1, -1), torch.tensor(self.labels[row])

    def _moved(self, image: UInt8[np.ndarray, "y x"], rng: np.random.Generator) -> UInt8[np.ndarray, "y x"]:
        if rng.random() < 0.5:
            image = image[:, ::-1]
        reach = len(image) // 32
        dy, dx = rng.integers(-reach, reach + 1, 2)
        # What is shifted in repeats the border: heads are surrounded by air.
        padded = np.pad(image, reach, mode="edge")
        return padded[reach + dy :, reach + dx :][: len(image), : len(image)]
