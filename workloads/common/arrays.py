"""Arrays that are computed once and then kept on disk under a hash of what they depend on."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from lumos.errors import DataError
from lumos.workloads.common import checksums
from lumos.workloads.common.files import cannot_write, keyed_folder

log = logging.getLogger("lumos")

Arrays = Mapping[str, np.ndarray]
"""Arrays by name."""


def digest(*arrays: np.ndarray) -> str:
    """Compute SHA-256 of the arrays' types, shapes and values, in order; returns it in hex."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def cached(folder: Path, key: Mapping[str, object], make: Callable[[], Arrays]) -> dict[str, np.ndarray]:
    """Return the arrays that ``make`` computes, from the disk where an equal ``key`` has been computed before.

    On disk: ``folder/<hash of key>/{key.json, checksums, <array>.npy}``, written under a temporary name and then
    renamed. Arrays that cannot be read, or are not what was written, are computed again.

    Args:
        folder: The cache.
        key: All that the arrays depend on, a version of the generator included; it must be JSON.
        make: Computes the arrays.

    Returns:
        The arrays by name, memory-mapped; writing to them changes only the copy in memory.

    Raises:
        DataError: the folder cannot be written.
    """
    place, text = keyed_folder(folder, key)
    if place.is_dir():
        try:
            if not (wrong := checksums.damaged(place)):
                return open_arrays(place, "samples")
            why = f"the checksum of {', '.join(wrong)} does not match"
        except DataError as error:
            why = str(error.__cause__)
        log.warning(f"{place}: damaged ({why}); made again")
        remove_folder(place)
    _store(place, text, make())
    return open_arrays(place, "samples")


def remove_folder(place: Path) -> None:
    """Delete a folder of the cache, at once for all who look for it. Raises DataError where it cannot be."""
    away = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        os.replace(place, away)
        shutil.rmtree(away)
    except OSError as error:
        raise cannot_write(place, error) from error


def open_arrays(folder: Path, what: str) -> dict[str, np.ndarray]:
    """Map the ``.npy`` files of a folder into memory; returns them by name.

    Raises:
        DataError: a file is damaged; the message calls them ``what``.
    """
    try:
        return {file.stem: np.load(file, mmap_mode="c", allow_pickle=False) for file in sorted(folder.glob("*.npy"))}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{folder}: cannot read the cached {what} ({error}); delete that folder") from error


def _store(place: Path, text: str, arrays: Arrays) -> None:
    draft = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        draft.mkdir(parents=True)
        (draft / "key.json").write_text(text)
        for name, array in arrays.items():
            np.save(draft / f"{name}.npy", array, allow_pickle=False)
            checksums.note(draft, f"{name}.npy", draft / f"{name}.npy")
        os.replace(draft, place)
    except OSError as error:
        # Another process may have been first with the same samples; then its copy serves.
        if not place.is_dir():
            raise cannot_write(place, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
