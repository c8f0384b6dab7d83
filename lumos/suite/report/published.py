"""The published numbers, from ``published.csv``: which workloads there are, what they are called, what was reported."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lumos.errors import RecordError, reads

PUBLISHED = Path(__file__).with_name("published.csv")
COLUMNS = ("table", "workload", "method", "quantity", "value", "unit", "source")


@dataclass(frozen=True)
class Number:
    """A published value: a point (``low == high``), or a range where the text only gives one (``>90``, ``30..60``)."""

    text: str
    low: float
    high: float
    unit: str = ""
    source: str = ""

    @classmethod
    def parse(cls, text: str, unit: str = "", source: str = "") -> Number | None:
        """Read the number that a cell holds; None where it holds a word or nothing.

        >>> Number.parse("30..60").less(70.0)
        10.0
        """
        try:
            if text.startswith(">"):
                return cls(text, float(text[1:]), math.inf, unit, source)
            low, _, high = text.partition("..")
            return cls(text, float(low), float(high or low), unit, source)
        except ValueError:
            return None

    @property
    def point(self) -> float | None:
        """The value, where it is one value."""
        return self.low if self.low == self.high else None

    def less(self, ours: float) -> float:
        """Return ``ours`` less the published value; of a range, less its nearest end, and 0 within."""
        return ours - min(max(ours, self.low), self.high)


@reads("expected the published numbers as CSV", error=RecordError)
def _rows(path: Path) -> tuple[dict[str, str], ...]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [{key: row.get(key) or "" for key in COLUMNS} for row in reader]
    if missing := [c for c in COLUMNS if c not in (reader.fieldnames or ())]:
        raise RecordError(f"{path}: no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    return tuple(rows)


@dataclass(frozen=True)
class Published:
    """All published values. ``workloads`` are in the order of the paper's Table II."""

    rows: tuple[dict[str, str], ...]

    @classmethod
    def read(cls, path: Path = PUBLISHED) -> Published:
        """Read the file. Raises RecordError where it is missing or lacks a column."""
        return cls(_rows(path))

    @property
    def workloads(self) -> list[str]:
        """Every workload of the paper."""
        return list(dict.fromkeys(r["workload"] for r in self.rows if r["table"] == "II"))

    @property
    def methods(self) -> list[str]:
        """Every method of the paper's comparison."""
        return list(dict.fromkeys(r["method"] for r in self.rows if r["table"] == "III"))

    def text(self, table: str, quantity: str, workload: str = "", method: str = "") -> str | None:
        """Return a cell's text, or None where nothing was published."""
        for row in self._found(table, quantity, workload, method):
            return row["value"]
        return None

    def number(self, table: str, quantity: str, workload: str = "", method: str = "lumos") -> Number | None:
        """Return a cell's number, or None."""
        for row in self._found(table, quantity, workload, method):
            return Number.parse(row["value"], row["unit"], row["source"])
        return None

    def shown(self, table: str) -> list[str]:
        """List the workloads that a table or figure of the paper has, in its order."""
        return list(dict.fromkeys(r["workload"] for r in self.rows if r["table"] == table and r["workload"]))

    def title(self, workload: str) -> str:
        """Return what the paper calls a workload; its own name where the paper does not have it."""
        return self.text("II", "title", workload) or workload

    def method_title(self, method: str) -> str:
        """Return what the paper calls a method."""
        return self.text("III", "title", method=method) or method

    def _found(self, table: str, quantity: str, workload: str, method: str) -> Iterator[dict[str, str]]:
        wanted = {"table": table, "quantity": quantity, "workload": workload, "method": method}
        return (row for row in self.rows if all(row[key] == value for key, value in wanted.items()))
