"""Which rows are held out: by chance, by group, or the last ones in time."""

from __future__ import annotations

from typing import Any

import numpy as np

from lumos.errors import DataError
from lumos.tabular.categories import is_missing

Split = dict[str, np.ndarray]
"""Row numbers, ascending, of ``train``, ``valid`` and ``test``."""


def by_row(rows: int, valid: float, test: float, seed: int) -> Split:
    """Hold out rows by chance."""
    return _cut(np.random.default_rng([seed, 0]).permutation(rows), valid, test)


def by_time(times: np.ndarray, valid: float, test: float) -> Split:
    """Hold out the last rows for the test, and those before them for validation.

    Raises:
        DataError: A time is missing, or is no number.
    """
    try:
        times = times.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"workload.split_time: {error}; expected a column of numbers or dates") from None
    if np.isnan(times).any():
        raise DataError(f"workload.split_time: row {int(np.isnan(times).argmax()) + 1} has no time")
    return _cut(np.argsort(times, kind="stable"), valid, test)


def by_group(groups: np.ndarray, valid: float, test: float, seed: int) -> Split:
    """Hold out whole groups: no value stands in two splits. A missing value is a group of its own.

    Raises:
        DataError: There are fewer than three groups.
    """
    numbers: dict[Any, int] = {}
    group = np.array([numbers.setdefault(None if is_missing(v) else v, len(numbers)) for v in groups.tolist()])
    if len(numbers) < 3:
        raise DataError(f"workload.split_by: {len(numbers)} groups; expected three or more, one for each split")
    order = np.random.default_rng([seed, 0]).permutation(len(numbers))
    sizes = np.bincount(group)[order]
    ends = np.cumsum(sizes) / len(group)
    # Each split has a group at least, and the rest goes by the shares.
    test_until = min(max(1, int(np.searchsorted(ends, test, side="right"))), len(numbers) - 2)
    valid_until = int(np.searchsorted(ends, test + valid, side="right"))
    valid_until = min(max(test_until + 1, valid_until), len(numbers) - 1)
    place = np.empty(len(numbers), np.int64)
    place[order] = np.arange(len(numbers))
    where = place[group]
    return {
        "train": np.flatnonzero(where >= valid_until),
        "valid": np.flatnonzero((where >= test_until) & (where < valid_until)),
        "test": np.flatnonzero(where < test_until),
    }


def _cut(order: np.ndarray, valid: float, test: float) -> Split:
    """The last of an order for the test, those before for validation."""
    rows = len(order)
    held, checked = max(1, round(test * rows)), max(1, round(valid * rows))
    if rows < held + checked + 2:
        raise DataError(f"{rows} rows do not fill three splits; expected 10 or more")
    parts = np.split(order, [rows - held - checked, rows - held])
    return {name: np.sort(part) for name, part in zip(("train", "valid", "test"), parts, strict=True)}
