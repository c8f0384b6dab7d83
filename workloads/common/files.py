"""Files that a generator writes: made in parallel, kept under a hash of the settings, resumed where a run stopped."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from lumos.suite.workload import DataError
from lumos.workloads.common.progress import track


def make_files(
    folder: Path,
    key: Mapping[str, object],
    names: Sequence[str],
    write: Callable[[str, Path], object],
    description: str,
) -> Path:
    """The folder ``folder/<hash of key>`` with all the files ``names``, each a path below it; missing ones are made.

    ``write(name, draft)`` writes one file at ``draft``, which then takes its place: a run that was stopped goes on
    with the files that are missing. As many are made at once as there are cores, each in a thread. ``key`` holds all
    that the files depend on, as JSON; ``key.json`` in the folder repeats it. Raises DataError where the folder cannot
    be written.
    """
    text = json.dumps(key, sort_keys=True, default=str)
    place = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    missing = [name for name in names if not (place / name).exists()]
    if not missing:
        return place
    try:
        replace_file(place / "key.json", lambda draft: draft.write_text(text + "\n"))
        with ThreadPoolExecutor(min(len(missing), os.cpu_count() or 1)) as pool:
            jobs = [pool.submit(replace_file, place / name, _bind(write, name)) for name in missing]
            try:
                for job in track(as_completed(jobs), description, total=len(jobs)):
                    job.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except OSError as error:
        raise DataError(f"{place}: cannot write the cache ({error}); set data.cache to another folder") from error
    return place


def replace_file(file: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary path beside ``file``, which then takes its place; on an error it goes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        write(draft)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def digest_files(root: Path, files: Sequence[Path], whole: int = 1024**3) -> str:
    """SHA-256 in hex of the files' names below ``root`` and contents; of names and sizes beyond ``whole`` bytes in all.

    Raises DataError naming a file that is not there.
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


def _bind(write: Callable[[str, Path], object], name: str) -> Callable[[Path], object]:
    return lambda draft: write(name, draft)
