"""Tables beside a record: CSV of which a row has numbers where numbers are meant, whatever the file's bytes are."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence

Row = dict[str, float | str | None]

TEXT = ("phase", "feature", "workload", "run_id")
"""Columns of text; all others are numbers."""

log = logging.getLogger("lumos")


def read_rows(content: bytes, where: str, columns: Sequence[str] = ()) -> list[Row]:
    """Read a table.

    What is no number where one is meant, and cells beyond the header, are left out; one warning says so.

    Args:
        content: The file.
        where: Its name, for the warning.
        columns: Columns that every row has, as None where the file has no such column.

    Returns:
        Its rows: a number, or text in a column of :data:`TEXT`; None for an empty cell.

    Example:
        >>> read_rows(b"feature,kept\\nx0,1\\n", "features.csv", ["order"])
        [{'order': None, 'feature': 'x0', 'kept': 1.0}]
    """
    wrong: list[str] = []
    rows: list[Row] = []
    try:
        for number, cells in enumerate(csv.DictReader(io.StringIO(content.decode(errors="replace"), newline="")), 2):
            row: Row = dict.fromkeys(columns)
            for key, cell in cells.items():
                if key is None:
                    wrong.append(f"line {number} has more cells than the header")
                elif key in TEXT:
                    row[key] = cell or None
                else:
                    row[key] = _number(cell, f"line {number}, {key}", wrong)
            rows.append(row)
    except csv.Error as error:
        wrong.append(f"damaged after {len(rows)} rows ({error})")
    if wrong:
        log.warning(f"{where}: {wrong[0]}{f', and {len(wrong) - 1} more' * (len(wrong) > 1)}; left out")
    return rows


def _number(cell: str | None, where: str, wrong: list[str]) -> float | None:
    if not cell:
        return None
    try:
        return float(cell)
    except ValueError:
        wrong.append(f"{where}: {cell[:40]!r}, expected a number")
        return None
