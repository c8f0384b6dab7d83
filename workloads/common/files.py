"""Files that a generator writes: made in parallel, kept under a hash of the settings, resumed where a run stopped."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from lumos.errors import DataError
from lumos.workloads.common.parallel import run_all


def keyed_folder(folder: Path, key: Mapping[str, object]) -> tuple[Path, str]:
    """Name the folder for what depends on ``key`` alone: ``folder/<hash of key>``.

    Returns:
        The path, and the text of its ``key.json``.
    """
    text = json.dumps(key, sort_keys=True, default=str)
    return folder / hashlib.sha256(text.encode()).hexdigest()[:16], f"{text}\n"


def make_files(
    folder: Path,
    key: Mapping[str, object],
    names: Sequence[str],
    write: Callable[[str, Path], object],
    description: str,
) -> Path:
    """Make those of the files ``folder/<hash of key>/<name>`` that are not there yet, as many at once as cores.

    Each is made in a thread, under a temporary name: a run that was stopped goes on with the files that are missing.

    Args:
        folder: The cache.
        key: All that the files depend on, as JSON; ``key.json`` beside them repeats it.
        names: Paths of the files below their folder.
        write: Called as ``write(name, draft)``; writes one file at ``draft``, which then takes its place.
        description: What a progress bar says.

    Returns:
        ``folder/<hash of key>``.

    Raises:
        DataError: the folder cannot be written.
    """
    place, text = keyed_folder(folder, key)
    missing = [name for name in names if not (place / name).exists()]
    if not missing:
        return place
    try:
        replace_file(place / "key.json", lambda draft: draft.write_text(text))
        run_all([partial(replace_file, place / name, partial(write, name)) for name in missing], description)
    except OSError as error:
        raise cannot_write(place, error) from error
    return place


def cannot_write(place: Path, error: OSError) -> DataError:
    """Say that a place in the cache cannot be written, and what to do."""
    return DataError(f"{place}: cannot write the cache ({error}); set data.cache to another folder")


def replace_file(file: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary path beside ``file``, which then takes its place; on an error it goes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        write(draft)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def dataset_folder(root: Path, name: str) -> Path:
    """Find a data set that is known by the name of its folder: ``root/name`` where there is one, else ``root``."""
    return root / name if (root / name).is_dir() else root


def file_sha256(file: Path) -> str:
    """Compute SHA-256 of a file's content; returns it in hex.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def digest_files(root: Path, files: Sequence[Path], whole: int = 1024**3) -> str:
    """Compute SHA-256 of the files' names below ``root``, sizes and contents; returns it in hex.

    Where the files have more than ``whole`` bytes together, contents do not count.

    Raises:
        DataError: a file is not there.
    """
    state = hashlib.sha256()
    try:
        sizes = [file.stat().st_size for file in files]
        for file, size in zip(files, sizes, strict=True):
            state.update(f"{file.relative_to(root).as_posix()} {size}\n".encode())
            if sum(sizes) <= whole:
                state.update(file.read_bytes())
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return state.hexdigest()
