"""A table: cells that know their number and the runs behind it, written as CSV, LaTeX and HTML."""

from __future__ import annotations

import csv
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lumos.files import atomic
from lumos.suite.report.published import Number
from lumos.suite.report.quantities import DASH


@dataclass(frozen=True)
class Cell:
    """What a cell shows, its value for sorting and for CSV (None: nothing is known), and the ids of the runs behind."""

    text: str
    value: float | str | None = None
    runs: tuple[str, ...] = ()


EMPTY = Cell(DASH)


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


def word(text: str | None, runs: Sequence[str] = ()) -> Cell:
    """A cell with words; a dash for none."""
    return Cell(text, text, tuple(runs)) if text else EMPTY


def number(value: float | None, form: str = ".1f", unit: str = "", runs: Sequence[str] = ()) -> Cell:
    """A cell with a number in a format of Python's; a dash for none."""
    if value is None or not math.isfinite(value):
        return EMPTY
    text = f"{value:{form}}"
    # What rounds to zero has no sign.
    text = text.lstrip("-+") if not any(c in "123456789" for c in text) else text
    return Cell(text.replace("-", "−") + unit, value, tuple(runs))


def published(value: Number | None, form: str = ".1f", unit: str = "") -> Cell:
    """A published number; a range as the paper's text gives it."""
    if value is None:
        return EMPTY
    if value.point is None:
        text = value.text.replace("..", " to ").replace(">", "> ").replace("-", "−")
        return Cell(f"{text}{unit}", value.text)
    return number(value.point, form, unit)


def difference(ours: float | None, theirs: Number | None, form: str = "+.1f", unit: str = "") -> Cell:
    """Ours less the published number; of a range, ``within`` or the distance to it."""
    if ours is None or theirs is None:
        return EMPTY
    gap = theirs.less(ours)
    return Cell("within", 0.0) if theirs.point is None and not gap else number(gap, form, unit)


def write(table: Table, folder: Path) -> list[Path]:
    """Write a table as CSV and as LaTeX; in a CSV a missing cell is ``-``."""
    with atomic(folder / f"{table.name}.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*table.columns, "runs"])
        for row in table.rows:
            runs = dict.fromkeys(run for cell in row for run in cell.runs)
            writer.writerow([*("-" if c.value is None else c.value for c in row), " ".join(runs) or "-"])
    with atomic(folder / f"{table.name}.tex") as temporary:
        temporary.write_text(latex(table))
    return [folder / f"{table.name}.csv", folder / f"{table.name}.tex"]


# ---- LaTeX ----------------------------------------------------------------------------------------------------------

_LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
          "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "−": "$-$", "–": "--", "×": r"$\times$", "²": "$^2$",
          ">": "$>$", "<": "$<$", "λ": r"$\lambda$", "τ": r"$\tau$", "±": r"$\pm$", "ρ": r"$\rho$",
          "|": r"$|$"}  # fmt: skip


def latex(table: Table) -> str:
    """A float with a booktabs table; it needs ``\\usepackage{booktabs}``, and fits two columns where it is narrow."""
    star = "*" if len(table.columns) > 6 else ""
    align = "l" * table.left + "r" * (len(table.columns) - table.left)
    body = [" & ".join(_tex(cell.text) for cell in row) + r" \\" for row in table.rows]
    if table.footer:
        body.insert(len(body) - table.footer, r"\midrule")
    return "\n".join([
        rf"\begin{{table{star}}}[t]", r"\centering\footnotesize",
        rf"\caption{{{_tex(table.title)}. {_tex(table.note)}}}",
        rf"\label{{tab:{table.name}}}", rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}", r"\toprule",
        " & ".join(_tex(c) for c in table.columns) + r" \\", r"\midrule", *body, r"\bottomrule", r"\end{tabular}",
        rf"\end{{table{star}}}", "",
    ])  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


# ---- HTML -----------------------------------------------------------------------------------------------------------


def to_html(table: Table, known: set[str]) -> str:
    """The table for the page; a cell links to its runs where the page has them (``known``)."""
    head = "".join(f'<th scope="col" class="{_side(table, i)}">{_escape(c)}</th>' for i, c in enumerate(table.columns))
    split = len(table.rows) - table.footer
    body, foot = (
        "\n".join(_html_row(table, row, known) for row in rows) for rows in (table.rows[:split], table.rows[split:])
    )
    note = f'<p class="note">{_escape(table.note)}</p>' if table.note else ""
    return (
        f'<section id="{table.name}"><h2>{_escape(table.title)}</h2>{note}\n'
        f'<div class="scroll"><table data-name="{table.name}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody><tfoot>{foot}</tfoot></table></div></section>"
    )


def _html_row(table: Table, row: tuple[Cell, ...], known: set[str]) -> str:
    return "<tr>" + "".join(_html_cell(cell, _side(table, i), known) for i, cell in enumerate(row)) + "</tr>"


def _html_cell(cell: Cell, side: str, known: set[str]) -> str:
    runs = [run for run in cell.runs if run in known]
    text = _escape(cell.text)
    if runs:
        title = _escape("run " + ", ".join(runs))
        text = f'<a href="#run-{runs[0]}" title="{title}">{text}</a>'
        text += "".join(f'<a class="more" href="#run-{run}" title="run {run}">·</a>' for run in runs[1:])
    value = "" if cell.value is None else _escape(str(cell.value))
    return f'<td class="{side}" data-value="{value}">{text}</td>'


def _side(table: Table, column: int) -> str:
    return "word" if column < table.left else "number"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
