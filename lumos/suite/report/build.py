"""Everything that is made from records: tables, figures, the page."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from lumos.suite.report import page, run_tables, sweeps
from lumos.suite.report.paper_tables import Evaluation
from lumos.suite.report.published import PUBLISHED, Published
from lumos.suite.report.results import Results
from lumos.suite.report.table import Table, write


def evaluation(places: Sequence[Path], paper: Path = PUBLISHED, scale: str | None = None) -> Evaluation:
    """Read the records at some places (results folders, archives). Raises RecordError."""
    return Evaluation(Results(tuple(places), scale), Published.read(paper))


def all_tables(data: Evaluation) -> list[Table]:
    """Make every table: the paper's, and those behind the figures."""
    return [
        *data.tables(), run_tables.features(data), *run_tables.choices(data), run_tables.scaling(data),
        run_tables.pareto(data), *sweeps.sweep_tables(data), run_tables.widths(data), run_tables.convergence(data),
        run_tables.runs(data),
    ]  # fmt: skip


def write_tables(data: Evaluation, folder: Path) -> None:
    """Write every table as CSV and LaTeX."""
    for table in all_tables(data):
        write(table, folder)


def write_figures(data: Evaluation, folder: Path) -> list[str]:
    """Write every figure as PDF and PNG. Returns their names."""
    from lumos.suite.report.paper_figures import draw_all

    return list(draw_all(data, folder))


def figure_names() -> list[str]:
    """Name the figures that there are where the records have what they show; sweeps have one each besides."""
    from lumos.suite.report.paper_figures import FIGURES

    return list(FIGURES)


def write_page(data: Evaluation, path: Path) -> None:
    """Write one page with all of it."""
    from lumos.suite.report.paper_figures import draw_all

    # The course of each loss has thousands of rows; the page shows it as a figure only.
    shown = [t for t in all_tables(data) if not t.name.startswith("fig13")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        titles = draw_all(data, folder, kinds=("svg",))
        page.write(path, data, shown, {name: (title, folder / f"{name}.svg") for name, title in titles.items()})
