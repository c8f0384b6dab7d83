"""From the values of a categorical column to whole numbers, and from a table's columns to those of a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

UNKNOWN = -1.0
"""The code of a value that was not seen, or too seldom, in training."""
MISSING = None
"""Stands for missing values among the categories, where training had some."""


def is_missing(value: Any) -> bool:
    """Tell whether a value stands for a missing one: None, NaN, or what pandas has in their place."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # pandas.NA is neither equal nor unequal to itself
        return True


def find_categories(values: Iterable[Any], most: int = 64) -> list[Any]:
    """List the categories of a column: its distinct values, sorted, and None last where some are missing.

    Args:
        values: The column; anything that can be hashed.
        most: The largest number of categories; the rarer ones count as unknown.

    Example:
        >>> from lumos.tabular.categories import find_categories
        >>> find_categories(["Cu", "Al", None, "Cu"])
        ['Al', 'Cu', None]
    """
    counts: Counter[Any] = Counter(MISSING if is_missing(v) else _plain(v) for v in values)
    some_missing = [MISSING] * bool(counts.pop(MISSING, 0))
    return sorted(sorted(counts, key=lambda v: (-counts[v], str(v)))[:most], key=_order) + some_missing


def codes(values: Iterable[Any], categories: Sequence[Any]) -> np.ndarray:
    """Return the place of each value among the categories, and -1 where it is none of them.

    Example:
        >>> from lumos.tabular.categories import codes
        >>> codes(["Cu", "Fe", None], ["Al", "Cu", None]).tolist()
        [1.0, -1.0, 2.0]
    """
    place = {value: float(number) for number, value in enumerate(categories)}
    missing = place.get(MISSING, UNKNOWN)
    return np.array([missing if is_missing(v) else place.get(_plain(v), UNKNOWN) for v in values], np.float64)


def _plain(value: Any) -> Any:
    """The Python value of a NumPy scalar, so that both are one category."""
    return value.item() if isinstance(value, np.generic) else value


def _order(value: Any) -> tuple[bool, Any, str]:
    number = isinstance(value, int | float)
    return not number, value if number else 0, str(value)
