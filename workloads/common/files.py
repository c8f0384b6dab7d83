"""Files that a generator writes: made in parallel, kept under a hash of the settings, resumed where a run stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from lumos.errors import DataError
from lumos.workloads.common import checksums
from lumos.workloads.common.parallel import run_all

log = logging.getLogger("lumos")


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

    Each is made in a thread, under a temporary name: a run that was stopped goes on with the files that are missing. A
    file that is not what was written, by its checksum, is made again.

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
    missing = missing_files(place, names)
    if not missing:
        return place
    try:
        replace_file(place / "key.json", lambda draft: draft.write_text(text))
        run_all([partial(make_file, place, name, partial(write, name)) for name in missing], description)
    except OSError as error:
        raise cannot_write(place, error) from error
    return place


def missing_files(place: Path, names: Sequence[str]) -> list[str]:
    """Find the files ``place/<name>`` that are not there. Those that are damaged are named in the log and deleted.

    Raises:
        DataError: a damaged one cannot be deleted.
    """
    for name in checksums.damaged(place, names):
        log.warning(f"{place / name}: damaged, its checksum does not match; made again")
        try:
            (place / name).unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(place, error) from error
    return [name for name in names if not (place / name).exists()]


def make_file(place: Path, name: str, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary path, which then becomes ``place/<name>``, and write down its checksum."""

    def noted(draft: Path) -> None:
        write(draft)
        checksums.note(place, name, draft)

    replace_file(place / name, noted)


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


def dataset_folder(root: Path, name: str, *inside: str) -> Path:
    """Find the folder that a data set's archive unpacks to.

    Args:
        root: The folder itself, or the one that it was unpacked in.
        name: What the folder is called.
        inside: Paths that it holds: it may have another name where it is the only folder in ``root`` with all of them.

    Returns:
        ``root/name`` where there is one; else such a folder, else ``root``.
    """
    if (root / name).is_dir():
        return root / name
    if not inside or not root.is_dir() or any((root / path).exists() for path in inside):
        return root
    folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
    found = [folder for folder in folders if all((folder / path).exists() for path in inside)]
    return found[0] if len(found) == 1 else root


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
