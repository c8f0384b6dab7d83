"""The user's files that a run was trained on: have they changed since?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lumos.suite.console import log
from lumos.suite.workload import Workload


def files_of(workload: Workload) -> list[Path]:
    """Return the files and folders of the user that a workload reads; none where it generates its samples."""
    return getattr(workload, "files", list)()


def fingerprint(paths: Iterable[Path]) -> str | None:
    """Digest names, sizes and times of files, and of all that folders hold; no content is read.

    Args:
        paths: Files and folders. One that is not there counts as such.

    Returns:
        Hexadecimal digits; None where there are no paths.

    Example:
        >>> fingerprint([])
    """
    paths = list(paths)
    if not paths:
        return None
    state = hashlib.sha256()
    for root in paths:
        below = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
        for path in below:
            try:
                found = path.stat()
            except OSError:
                state.update(f"{path.name}: none;".encode())
                continue
            state.update(f"{os.path.relpath(path, root)}:{found.st_size}:{found.st_mtime_ns};".encode())
    return state.hexdigest()


def unchanged(entry: dict[str, Any], workload: Workload) -> bool:
    """Tell whether a finished run's samples are those that its files have now.

    Files of the same sizes and times are taken as the same. Where those differ, the samples are read and their digests
    compared.

    Args:
        entry: The run's record.
        workload: The workload as it is configured now.

    Raises:
        DataError: The files are gone, or cannot be read.
    """
    now = fingerprint(files_of(workload))
    data = entry.get("data") or {}
    if now is None or now == data.get("files"):
        return True
    here, there = workload.loaders().sha256, data.get("sha256")
    if here == there:
        return True
    where = ", ".join(map(str, files_of(workload)))
    started = entry["provenance"]["started_utc"][:16].replace("T", " ")
    log.warning(f"{where}: other samples than in the finished run of {started}; training anew")
    return False
