"""Draw what a run left of its network: every unit and every input feature, before and after.

``python scripts/draw_before_after.py`` draws the run of ``make run`` to ``docs/figures/before_after_*``;
``python scripts/draw_before_after.py RUN FILE`` draws any run of a fully connected network, by its folder or the
beginning of its id, to ``FILE_light.svg`` and so on. Units of a layer are interchangeable, so those that stayed are
drawn together, in the middle.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, PathPatch
from matplotlib.path import Path as Outline
from readme import PROJECT, main_job

from lumos.files import atomic
from lumos.suite import archive
from lumos.suite.paths import RESULTS

ROWS, STEP, GAP = 40, 0.062, 0.42
"""Units in a column of a layer, the distance between two of them and that between two layers, in inches."""
NAMES = 24
"""Most features whose names are written."""


@dataclass(frozen=True)
class Theme:
    """Colours of a background: of text, of what is less important, of what is gone, and of what is there."""

    text: str
    muted: str
    gone: str
    there: str
    background: str


THEMES = {
    "light": Theme("#1f2328", "#6e7781", "#dfe3e8", "#0072b2", "#ffffff"),
    "dark": Theme("#e6edf3", "#8b949e", "#30363d", "#58b2ee", "#0d1117"),
}


@dataclass(frozen=True)
class Layer:
    """A layer of the dense network and how many of its units stayed."""

    total: int
    kept: int

    @property
    def places(self) -> np.ndarray:
        """Where its units are (total, 2), in inches around the layer's middle; those that stayed come first."""
        columns = math.ceil(self.total / ROWS)
        rows = math.ceil(self.total / columns)
        step = STEP if columns > 1 else min(4 * STEP, ROWS * STEP / rows)
        heights = [rows] * (columns - 1) + [self.total - rows * (columns - 1)]
        grid = np.array([(c - (columns - 1) / 2, (h - 1) / 2 - r) for c, h in enumerate(heights) for r in range(h)])
        grid *= [STEP, step]
        return grid[np.argsort(np.hypot(*grid.T).round(6), kind="stable")]

    def half(self, after: bool) -> tuple[float, float]:
        """Half of the width and of the height of what is there."""
        places = self.places[: self.kept] if after else self.places
        return tuple(np.abs(places).max(0) + STEP / 2) if len(places) else (0.0, 0.0)


def layers_of(entry: dict[str, Any]) -> list[Layer]:
    """The hidden layers and the outputs of a run's network, in order."""
    groups = [g for name, g in entry["gates"]["groups"].items() if name != "input"]
    outputs = sum(fixed["size"] for fixed in entry["gates"]["fixed"])
    return [*(Layer(g["total"], g["open"]) for g in groups), Layer(outputs, outputs)]


def draw(entry: dict[str, Any], theme: Theme) -> Figure:
    """Both networks side by side, with what they are and do below."""
    layers = layers_of(entry)
    names, kept = entry["features"], set(entry["gates"]["features_kept"])
    label = 0.72 if len(names) <= NAMES else 0.1
    width = label + 2 * sum(layer.half(False)[0] for layer in layers) + GAP * len(layers) + 0.25
    height, between, margin = ROWS * STEP, 0.66, 0.08
    size = (2 * (width + margin) + between, height + 1.5)
    figure = plt.figure(figsize=size)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(-height / 2 - 0.86, height / 2 + 0.64))
    axes.axis("off")
    for after in (False, True):
        left = margin + (width + between) * after
        y = np.linspace(height / 2 - STEP / 2, -height / 2 + STEP / 2, len(names))
        place, edge = (
            left + label,
            [(left + label + 0.04, v) for v, n in zip(y, names, strict=True) if not after or n in kept],
        )
        for name, v in zip(names, y, strict=True):
            there = not after or name in kept
            axes.plot(place, v, "o", ms=3.4, color=theme.there if there else theme.gone, mew=0)
            if len(names) <= NAMES:
                _name(axes, name, (place - 0.09, v), there, theme)
        counted = f"{len(edge)} of {len(names)}" if len(edge) < len(names) else f"{len(names)}"
        head(axes, place - 0.2, height, "features", counted, theme)
        x, before = place, None
        for number, layer in enumerate(layers, start=1):
            half = layer.half(after)
            x += GAP + layer.half(False)[0]
            _band(axes, edge if before is None else before, (x, *half), theme)
            places = layer.places + np.array([x, 0])
            if after:
                axes.scatter(*places[layer.kept :].T, s=4.6, color=theme.gone, lw=0)
            axes.scatter(*places[: layer.kept if after else None].T, s=4.6, color=theme.there, lw=0, zorder=3)
            shown = f"{layer.kept} of {layer.total}" if after and layer.kept < layer.total else f"{layer.total}"
            head(axes, x, height, "outputs" if number == len(layers) else f"layer {number}", shown, theme)
            before = (x, *half)
            x += layer.half(False)[0]
        below(axes, left, -height / 2, entry, after, theme)
    middle = margin + width + between / 2 - 0.1
    axes.text(middle, 0.13, "one\ntraining", ha="center", va="bottom", fontsize=7.2, color=theme.muted, linespacing=1.3)
    axes.add_patch(
        FancyArrowPatch(
            (middle - 0.2, 0), (middle + 0.22, 0), arrowstyle="-|>", mutation_scale=13, color=theme.muted, lw=1.4
        )
    )
    return figure


def _name(axes: Axes, name: str, place: tuple[float, float], there: bool, theme: Theme) -> None:
    text = axes.text(*place, name, ha="right", va="center", fontsize=7.2, color=theme.text if there else theme.muted)
    if there:
        return
    text.set_alpha(0.75)
    box = text.get_window_extent(axes.figure.canvas.get_renderer()).transformed(axes.transData.inverted())  # type: ignore[attr-defined]
    axes.plot([box.x0, box.x1], [place[1]] * 2, color=theme.muted, lw=0.8, alpha=0.75)


def head(axes: Axes, x: float, height: float, title: str, count: str, theme: Theme) -> None:
    """What a column is, and the number of its units."""
    for up, text, color in ((0.28, title, theme.muted), (0.12, count, theme.text)):
        axes.text(x, height / 2 + up, text, ha="center", va="bottom", fontsize=7.2, color=color)


def _band(axes: Axes, start: Any, end: tuple[float, float, float], theme: Theme) -> None:
    """What connects a layer with the one before it: a band; from single features a line each."""
    x, half, tall = end
    if isinstance(start, list):
        for (a, b), target in zip(start, np.linspace(0.86 * tall, -0.86 * tall, len(start)), strict=True):
            c = (a + x - half) / 2
            line = Outline([(a, b), (c, b), (c, target), (x - half, target)], [1, 4, 4, 4])
            axes.add_patch(PathPatch(line, fc="none", ec=theme.there, lw=0.6, alpha=0.45, zorder=2))
        return
    a, c = start[0] + start[1], (start[0] + start[1] + x - half) / 2
    top, bottom = start[2], -start[2]
    shape = [
        (a, top),
        (c, top),
        (c, tall),
        (x - half, tall),
        (x - half, -tall),
        (c, -tall),
        (c, bottom),
        (a, bottom),
        (a, top),
    ]
    axes.add_patch(
        PathPatch(Outline(shape, [1, 4, 4, 4, 2, 4, 4, 4, 79]), fc=theme.there, lw=0, alpha=0.16, zorder=0.5)
    )


def below(axes: Axes, left: float, bottom: float, entry: dict[str, Any], after: bool, theme: Theme) -> None:
    """What the network is called, how large it is and what it does."""
    side = entry["compact" if after else "dense"]
    less = f"  (−{100 * (1 - side['params'] / entry['dense']['params']):.0f}%)" if after else ""
    faster = f", {entry['compact']['speedup']['throughput']['p50']:.0f}× as many samples a second" if after else ""
    metric = entry["metric"]["name"].replace("R2", "R²")
    axes.text(
        left, bottom - 0.24, "compact" if after else "dense", fontsize=11, weight="bold", color=theme.text, va="top"
    )
    axes.text(
        left + 0.92, bottom - 0.26, f"{side['params']:,} parameters{less}", fontsize=9.5, color=theme.text, va="top"
    )
    axes.text(
        left + 0.92,
        bottom - 0.5,
        f"test {metric} {side['score']:.4f}{faster}",
        fontsize=9.5,
        color=theme.muted,
        va="top",
    )


def main(arguments: list[str]) -> int:
    """Draw the picture for both backgrounds."""
    entry = archive.find(arguments[0], RESULTS).record if arguments else main_job()
    file = Path(arguments[1]) if len(arguments) > 1 else PROJECT / "docs" / "figures" / "before_after"
    with plt.rc_context({"font.family": "DejaVu Sans", "svg.fonttype": "path", "svg.hashsalt": "lumos"}):
        for name, theme in THEMES.items():
            figure = draw(entry, theme)
            for kind, background in (("svg", "none"), ("png", theme.background)):
                with atomic(file.with_name(f"{file.name}_{name}.{kind}")) as temporary:
                    meta = {"Date": None} if kind == "svg" else {"Software": None}
                    figure.savefig(temporary, format=kind, dpi=250, facecolor=background, metadata=meta)
            plt.close(figure)
    print(f"wrote {file}_{{light,dark}}.{{svg,png}}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
