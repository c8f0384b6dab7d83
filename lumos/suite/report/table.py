"""A table: cells that know their number and the runs behind it, written as CSV and LaTeX."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lumos.files import atomic
from lumos.suite.report.published import Number
from lumos.suite.report.quantities import DASH, Record
from lumos.suite.report.results import SeedGroup


@dataclass(frozen=True)
class Cell:
    """What a cell shows, its value for sorting and for CSV (None: nothing is known), and the ids of the runs behind.

    ``spread`` is the standard deviation over the seeds of a value that is a mean over them.
    """

    text: str
    value: float | str | None = None
    runs: tuple[str, ...] = ()
    spread: float | None = None


EMPTY = Cell(DASH)
WIDE = 6
"""Columns of a table that fits one column of a paper."""


@dataclass(frozen=True)
class Table:
    """A table with a file name, a title and a note that says what its numbers are.

    ``left`` is the number of columns with words, at the left; the last ``footer`` rows are sums or averages.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    left: int = 1
    footer: int = 0

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.name}: a row of {len(row)} cells in a table of {len(self.columns)} columns")

    @property
    def body(self) -> tuple[tuple[Cell, ...], ...]:
        """The rows above the footer."""
        return self.rows[: len(self.rows) - self.footer]

    @property
    def foot(self) -> tuple[tuple[Cell, ...], ...]:
        """The rows with sums or averages."""
        return self.rows[len(self.rows) - self.footer :]


def word(text: str | None, runs: Sequence[str] = ()) -> Cell:
    """Make a cell with words; a dash for none."""
    return Cell(text, text, tuple(runs)) if text else EMPTY


def number(
    value: float | None, form: str = ".1f", unit: str = "", runs: Sequence[str] = (), spread: float | None = None
) -> Cell:
    """Make a cell with a number in a format of Python's, and its spread where it has one; a dash for none.

    >>> number(12.34, ".1f", "%").text, number(None).text, number(12.34, spread=0.26).text
    ('12.3%', '–', '12.3 ± 0.3')
    """
    if value is None or not math.isfinite(value):
        return EMPTY
    text = f"{value:{form}}"
    # What rounds to zero has no sign.
    text = text.lstrip("-+") if not any(c in "123456789" for c in text) else text
    if spread is not None:
        text = f"{text} ± {spread:{form.lstrip('+')}}"
    return Cell(text.replace("-", "−") + unit, value, tuple(runs), spread)


def mean(
    group: SeedGroup | None, quantity: Callable[[Record], float | None], form: str = ".1f", unit: str = ""
) -> Cell:
    """Make a cell with the mean of a quantity over the seeds and, of several, its standard deviation."""
    if group is None:
        return EMPTY
    return number(group.mean(quantity), form, unit, group.ids, group.spread(quantity))


def published(value: Number | None, form: str = ".1f", unit: str = "") -> Cell:
    """Make a cell with a published number; a range as the paper's text gives it."""
    if value is None:
        return EMPTY
    if value.point is None:
        text = value.text.replace("..", " to ").replace(">", "> ").replace("-", "−")
        return Cell(f"{text}{unit}", value.text)
    return number(value.point, form, unit)


def difference(ours: float | None, theirs: Number | None, form: str = "+.1f", unit: str = "") -> Cell:
    """Make a cell with ours less the published number; of a range, ``within`` or the distance to it."""
    if ours is None or theirs is None:
        return EMPTY
    gap = theirs.less(ours)
    return Cell("within", 0.0) if theirs.point is None and not gap else number(gap, form, unit)


def write(table: Table, folder: Path) -> list[Path]:
    """Write a table as CSV and as LaTeX.

    In a CSV a missing cell is ``-``, and a column of which a cell has a spread has one beside it, ``± NAME``.
    """
    spread = [any(row[k].spread is not None for row in table.rows) for k in range(len(table.columns))]

    def with_spread(values: Sequence[object], spreads: Sequence[object]) -> list[object]:
        pairs = zip(values, spreads, spread, strict=True)
        return [part for value, beside, there in pairs for part in ((value, beside) if there else (value,))]

    with atomic(folder / f"{table.name}.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*with_spread(table.columns, [f"± {name}" for name in table.columns]), "runs"])
        for row in table.rows:
            runs = dict.fromkeys(run for cell in row for run in cell.runs)
            values, spreads = (
                ["-" if v is None else v for v in vs] for vs in zip(*((c.value, c.spread) for c in row), strict=True)
            )
            writer.writerow([*with_spread(values, spreads), " ".join(runs) or "-"])
    with atomic(folder / f"{table.name}.tex") as temporary:
        temporary.write_text(latex(table))
    return [folder / f"{table.name}.csv", folder / f"{table.name}.tex"]


_TEX = str.maketrans({
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "−": "$-$", "–": "--", "×": r"$\times$", "²": "$^2$",
    ">": "$>$", "<": "$<$", "λ": r"$\lambda$", "τ": r"$\tau$", "±": r"$\pm$", "ρ": r"$\rho$", "|": r"$|$",
})  # fmt: skip


def latex(table: Table) -> str:
    r"""Write a float with a booktabs table, as wide as the page where it has many columns.

    It needs ``\usepackage{booktabs}``. pandas' Styler would do for most of it, but has no rule above the sums.
    """
    align = "l" * table.left + "r" * (len(table.columns) - table.left)
    star = "*" if len(table.columns) > WIDE else ""
    return _environment().get_template("table.tex").render(table=table, align=align, star=star)


@cache
def _environment() -> Environment:
    """LaTeX has braces of its own, so the template marks what is put in by << >>; all of it is escaped."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True,
        keep_trailing_newline=True, variable_start_string="<<", variable_end_string=">>", block_start_string="<%",
        block_end_string="%>", finalize=_escape,
    )  # fmt: skip


def _escape(value: object) -> str:
    return value if isinstance(value, Markup) else str(value).translate(_TEX)
