"""How every figure looks: Okabe and Ito's colours, which the colour-blind can tell apart, at the width of a column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

from lumos.files import atomic

COLUMN, PAGE = 3.5, 7.16
"""Widths of one and of two columns of a two-column paper, in inches."""

LUMOS, DENSE, PUBLISHED, GPU = "#0072B2", "#888888", "#D55E00", "#E69F00"
METHODS = {
    "lumos": (LUMOS, "o"), "dense": (DENSE, "s"), "scratch": ("#000000", "x"), "l1": ("#56B4E9", "v"),
    "slimming": ("#009E73", "^"), "depgraph": ("#CC79A7", "D"), "oto": ("#E69F00", "P"), "loxia": ("#B8A800", "*"),
}  # fmt: skip
"""Colour and marker of each method, the same in every figure."""

_RC = {
    "font.family": "DejaVu Sans", "font.size": 7.5, "axes.titlesize": 8, "axes.labelsize": 7.5, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "lines.linewidth": 1.2,
    "lines.markersize": 4, "legend.frameon": False, "figure.constrained_layout.use": True, "figure.dpi": 200,
    "savefig.dpi": 200, "pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "lumos", "axes.axisbelow": True,
    "grid.color": "#E4E4E4", "grid.linewidth": 0.5,
}  # fmt: skip

_NO_DATE = {"pdf": {"CreationDate": None}, "png": {"Software": None}, "svg": {"Date": None}}


def method_style(method: str) -> tuple[str, str]:
    """Return colour and marker of a method."""
    return METHODS.get(method, ("#444444", "h"))


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the project's style; all figures are closed at the end."""
    with plt.rc_context(_RC):  # type: ignore[arg-type]
        try:
            yield
        finally:
            plt.close("all")


def panels(count: int, columns: int, width: float, height: float | Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Lay out ``count`` panels in a grid; the places that are left over stay empty.

    ``width`` is the figure's in inches, ``height`` that of a row, or of each row.
    """
    rows = -(-count // columns)
    heights = [height] * rows if isinstance(height, float | int) else list(height)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, sum(heights)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    flat = list(axes.flat)
    for axis in flat[count:]:
        axis.set_visible(False)
    return figure, flat[:count]


def log_ticks(axis: Axes, which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Make an axis logarithmic, around some values, with a few plain ticks: 20k, 50k, 100k."""
    low, high = min(values) / 1.6, max(values) * 1.6
    subs = (1.0,) if high > 100 * low else (1.0, 3.0) if high > 10 * low else (1.0, 2.0, 5.0)
    axis.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    ticks = axis.xaxis if which == "x" else axis.yaxis
    ticks.set_major_locator(LogLocator(subs=subs, numticks=8))
    ticks.set_major_formatter(EngFormatter(sep="") if high > 1000 else FuncFormatter(lambda v, _: f"{v:g}"))
    ticks.set_minor_locator(NullLocator())


def save(figure: Figure, folder: Path, name: str, kinds: Sequence[str]) -> list[Path]:
    """Write a figure as ``pdf``, ``png`` or ``svg``, without a date: the same records give the same files."""
    # The layout is worked out here, and not for each of the files; texts beside an axis move it, so twice.
    layout = figure.get_layout_engine()
    for _ in range(2 if layout else 0):
        layout.execute(figure)  # type: ignore[union-attr]
    figure.set_layout_engine("none")
    paths = []
    for kind in kinds:
        path = folder / f"{name}.{kind}"
        drawn = BytesIO()  # what matplotlib raises where a disk is full says nothing of it
        figure.savefig(drawn, format=kind, metadata=_NO_DATE[kind])
        with atomic(path) as temporary:
            temporary.write_bytes(drawn.getvalue())
        paths.append(path)
    plt.close(figure)
    return paths
