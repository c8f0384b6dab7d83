"""Draw the figures of docs/how-it-works: a gate's values, indices of units through a residual block, a cut.

``python scripts/draw_how_it_works.py`` writes ``docs/figures/{gate,trace,cut}_{light,dark}.svg``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from draw_before_after import THEMES, Theme
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from readme import PROJECT

from lumos.files import atomic
from lumos.gating.hard_concrete import expected_open, median, sample
from lumos.gating.settings import GateSettings

UNITS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
CELL = 0.19


def gate(theme: Theme) -> Figure:
    """The test-time value, samples and the open probability of a gate, against its log_alpha."""
    figure, axes = plt.subplots(figsize=(6.4, 2.7), layout="constrained")
    default, plain = GateSettings(), GateSettings(t_l=0.0, t_u=1.0)
    x = torch.linspace(-6, 6, 601)
    torch.manual_seed(0)
    for settings, color, name in (
        (plain, theme.muted, "samples, t_l = 0, t_u = 1"),
        (default, UNITS[1], "samples, t_l = .4, t_u = .6"),
    ):
        at = torch.rand(1200) * 12 - 6
        noise = settings.t_l + (settings.t_u - settings.t_l) * torch.rand(1200)
        axes.scatter(
            at, sample(at, noise.clamp(1e-6, 1 - 1e-6), settings), s=3, alpha=0.6, color=color, lw=0, label=name
        )
    axes.plot(x, median(x, default), color=theme.there, lw=2.2, label="test-time value")
    axes.plot(
        x, expected_open(x, default), color=theme.text, lw=1.2, ls="--", label="what the penalty counts (equation 5)"
    )
    axes.axvline(default.shift, color=theme.muted, lw=0.8)
    axes.text(default.shift - 0.1, 0.62, "closed at\ntest time", ha="right", color=theme.muted)
    axes.set(xlabel="log_alpha", ylabel="gate", xlim=(-6, 6), yticks=(0, 0.5, 1))
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, markerscale=2.5)
    for text in legend.get_texts():
        text.set_color(theme.text)
    return figure


def trace(theme: Theme) -> Figure:
    """Unit indices through ``h = first(x); h = h + second(relu(h)); last(h)``."""
    axes = _canvas(7.2, 2.35)
    _strip(axes, 0.25, 0.95, "abc", [theme.muted] * 3, theme, "x")
    _box(axes, 0.95, 0.95, "first", theme)
    _strip(axes, 1.85, 0.95, "1234", UNITS, theme, "h")
    _box(axes, 2.75, 1.75, "relu", theme)
    _box(axes, 3.55, 1.75, "second", theme)
    _strip(axes, 4.35, 1.75, "5678", UNITS, theme)
    axes.text(4.95, 0.95, "+", ha="center", va="center", fontsize=15, color=theme.text)
    axes.text(
        4.95,
        0.28,
        "1 = 5, 2 = 6, 3 = 7, 4 = 8\none group of four units",
        ha="center",
        va="center",
        fontsize=7.5,
        color=theme.muted,
    )
    _strip(axes, 5.45, 0.95, "1234", UNITS, theme)
    _box(axes, 6.1, 0.95, "last", theme)
    _strip(axes, 6.75, 0.95, "–", [theme.gone], theme, "output: fixed")
    for start, end in ((0.4, 0.66), (1.24, 1.7), (2.0, 4.8), (5.08, 5.3), (5.6, 5.82), (6.38, 6.6)):
        _arrow(axes, (start, 0.95), (end, 0.95), theme)
    for a, b in (((2.0, 1.1), (2.46, 1.7)), ((3.0, 1.75), (3.26, 1.75)), ((3.86, 1.75), (4.2, 1.75))):
        _arrow(axes, a, b, theme)
    _arrow(axes, (4.5, 1.65), (4.86, 1.1), theme)
    return axes.figure  # type: ignore[return-value]


def cut(theme: Theme) -> Figure:
    """Two weights with closed units, and what is left of them."""
    axes = _canvas(7.2, 2.25)
    features, gates = (1.0, 0.0, 1.0, 1.0), (1.0, 0.0, 0.6, 0.0, 1.0, 0.0)
    _matrix(axes, 0.55, 1.1, gates, features, theme, "first.weight", "features")
    _matrix(axes, 2.25, 1.1, (1.0, 1.0), gates, theme, "second.weight", "units", multiply=True)
    _arrow(axes, (3.3, 1.1), (3.85, 1.1), theme)
    axes.text(3.57, 1.2, "cut", ha="center", va="bottom", fontsize=8, color=theme.muted)
    _matrix(axes, 4.6, 1.1, [g for g in gates if g], [f for f in features if f], theme, "first.weight", "")
    _matrix(axes, 6.0, 1.1, (1.0, 1.0), [g for g in gates if g], theme, "second.weight", "", multiply=True)
    axes.text(6.0, 0.55, "× .6 is part of the weight", ha="center", fontsize=7.5, color=theme.muted)
    axes.text(0.02, 1.1, "units", rotation=90, va="center", fontsize=7.5, color=theme.muted)
    return axes.figure  # type: ignore[return-value]


def _matrix(
    axes: Axes, x: float, y: float, rows: Sequence[float], columns: Sequence[float], theme: Theme, name: str,
    below: str, multiply: bool = False,
) -> None:  # fmt: skip
    """A weight as cells; pale where a row or a column is closed, lighter where a gate multiplies a column."""
    left, top = x - len(columns) * CELL / 2, y + len(rows) * CELL / 2
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            there = row > 0 and column > 0
            alpha = (0.35 + 0.65 * column) if multiply and there else 1.0
            place = (left + c * CELL, top - (r + 1) * CELL)
            axes.add_patch(
                Rectangle(place, 0.9 * CELL, 0.9 * CELL, fc=theme.there if there else theme.gone, alpha=alpha, lw=0)
            )
    axes.text(
        x,
        top + 0.3 * CELL + 0.2 * bool(multiply and below),
        name,
        ha="center",
        va="bottom",
        fontsize=8,
        color=theme.text,
    )
    if multiply and below:
        for c, column in enumerate(columns):
            axes.text(
                left + (c + 0.45) * CELL,
                top + 0.05,
                f"{column:g}".lstrip("0") or "0",
                ha="center",
                va="bottom",
                fontsize=6.5,
                color=theme.muted,
            )
        axes.text(left - 0.04, top + 0.05, "gates", ha="right", va="bottom", fontsize=6.5, color=theme.muted)
    axes.text(x, top - len(rows) * CELL - 0.06, below, ha="center", va="top", fontsize=7.5, color=theme.muted)


def _canvas(width: float, height: float) -> Axes:
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return axes


def _box(axes: Axes, x: float, y: float, text: str, theme: Theme) -> None:
    axes.add_patch(Rectangle((x - 0.27, y - 0.17), 0.54, 0.34, fc="none", ec=theme.muted, lw=1))
    axes.text(x, y, text, ha="center", va="center", fontsize=8.5, color=theme.text)


def _strip(axes: Axes, x: float, y: float, units: str, colors: Sequence[str], theme: Theme, name: str = "") -> None:
    """The unit indices of a tensor, one cell for each."""
    top = y + len(units) * CELL / 2
    for number, (unit, color) in enumerate(zip(units, colors, strict=True)):
        axes.add_patch(Rectangle((x - CELL / 2, top - (number + 1) * CELL), CELL, 0.9 * CELL, fc=color, lw=0))
        axes.text(x, top - (number + 0.55) * CELL, unit, ha="center", va="center", fontsize=7.5, color="white")
    axes.text(x, top + 0.05, name, ha="center", va="bottom", fontsize=7.5, color=theme.muted)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], theme: Theme) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, color=theme.muted, lw=0.9, shrinkA=0, shrinkB=0)
    )


def main() -> int:
    """Draw all three for both backgrounds."""
    folder = PROJECT / "docs" / "figures"
    for name, theme in THEMES.items():
        style = {
            "font.family": "DejaVu Sans", "font.size": 8, "svg.fonttype": "path", "svg.hashsalt": "lumos",
            "text.color": theme.text, "axes.labelcolor": theme.text, "axes.edgecolor": theme.muted,
            "xtick.color": theme.muted, "ytick.color": theme.muted, "axes.facecolor": "none",
        }  # fmt: skip
        with plt.rc_context(style):  # type: ignore[arg-type]
            for drawn in (gate, trace, cut):
                with atomic(folder / f"{drawn.__name__}_{name}.svg") as temporary:
                    figure = drawn(theme)
                    figure.savefig(temporary, format="svg", facecolor="none", metadata={"Date": None})
                plt.close("all")
    print(f"wrote {folder}/{{gate,trace,cut}}_{{light,dark}}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
