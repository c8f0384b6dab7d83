"""The figure of a feature report, wide as a slide: gates over time, stability, and other selections beside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from lumos.errors import ConfigError
from lumos.suite.report.feature_table import STATISTICS, Agreement, RunFeatures, agreements, check, judged, one_problem
from lumos.suite.report.style import DENSE, LUMOS, PUBLISHED, drawing, save

KINDS = (".png", ".pdf", ".svg")
"""Endings of a figure's name."""

MOST_NAMES, MOST_RUNS = 40, 5
"""More features than this are drawn without names; more runs than this are in the CSV and the counts alone."""
_NOT_KEPT, _SOME = "#C8C8C8", "#7FB8D9"
_FONTS = {"font.size": 11, "axes.titlesize": 11, "axes.labelsize": 11, "legend.fontsize": 10, "xtick.labelsize": 9,
          "ytick.labelsize": 9}  # fmt: skip


def draw(runs: Sequence[RunFeatures], path: Path) -> None:
    """Draw the report of one run, or of several seeds, as PNG, PDF or SVG, by the path's ending.

    Raises:
        ConfigError: The path ends otherwise.
    """
    check(runs)
    if path.suffix.lower() not in KINDS:
        raise ConfigError(f"{path}: expected a figure's name that ends in {', '.join(KINDS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with drawing(), plt.rc_context(_FONTS):  # type: ignore[arg-type]
        save(figure(runs), path.parent, path.stem, [path.suffix[1:].lower()])


def figure(runs: Sequence[RunFeatures]) -> Figure:
    """Make the figure: a row for each feature where they are few and the same in all runs; else a panel a run."""
    found: Any = plt.figure(figsize=(13.33, 7.5))
    few = len(runs[0].names) <= MOST_NAMES and one_problem(runs)
    (_by_feature if few else _by_run)(found, runs)
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else f"seed {runs[0].seed}"
    found.suptitle(f"{runs[0].workload}: which inputs the gates keep, {seeds}", fontsize=14, weight="bold")
    found.legend(handles=_legend(runs, few), loc="outside lower center", ncols=5)
    return found


def _by_feature(found: Any, runs: Sequence[RunFeatures]) -> None:
    """Draw a row for each feature: open probability (the mean over seeds), seeds that keep it, other strengths."""
    first, several = runs[0], len(runs) > 1
    statistics = [s for s in STATISTICS if all(s in run.strengths for run in runs)]
    order = _shared_order(runs)
    often = np.sum([run.kept for run in runs], 0)
    axes = found.subplots(1, 1 + several + len(statistics), squeeze=False, sharey=True,
                          width_ratios=[3.0] + [0.8] * several + [1.0] * len(statistics))[0]  # fmt: skip
    alike = [run for run in runs if run.steps == first.steps]
    image = _heat(axes[0], first, np.mean([run.open for run in alike], 0), order, _end(runs))
    for run in alike:
        _closings(axes[0], run, order)
    found.colorbar(image, ax=axes[0], location="left", fraction=0.04, pad=0.02, label="open probability")
    axes[0].set_title("open probability" + (f", mean of {len(alike)} seeds" if several else f": {often.sum()} kept"))
    enters = first.enters if first.enters is not None else np.zeros(len(order), dtype=bool)
    axes[0].set_yticks(range(len(order)), [("● " if judged(runs) and enters[i] else "") + first.names[i]
                                           for i in order])  # fmt: skip
    colours = [LUMOS if often[i] == len(runs) else _SOME if often[i] else _NOT_KEPT for i in order]
    for label, i in zip(axes[0].get_yticklabels(), order, strict=True):
        label.set(color=LUMOS if often[i] else DENSE)
    if several:
        _stability(axes[1], runs, often[order], colours)
    by_title = {a.name: a for a in agreements(runs)}
    for axis, name in zip(axes[1 + several :], statistics, strict=True):
        strength = np.mean([_relative(run, name) for run in runs], 0)
        axis.barh(range(len(order)), strength[order], height=0.75, color=colours)
        a = by_title[STATISTICS[name]]
        shared = f"{np.mean(a.hits):.3g} of {np.mean(a.of):.3g} " + ("true" if judged(runs) else "in common")
        axis.set_title(f"{STATISTICS[name]}\n{shared}", fontsize=10)
        axis.set(xlabel="of the largest", xlim=(0, 1.02))
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    for axis in axes:
        axis.tick_params(axis="y", length=0)


def _by_run(found: Any, runs: Sequence[RunFeatures]) -> None:
    """Draw each run's open probabilities, features by order of closing; below what other selections say of them."""
    statistics = [s for s in STATISTICS if all(s in run.strengths for run in runs)]
    above, below = found.subfigures(2, 1, height_ratios=[1.2, 1]) if statistics else (found, None)
    shown, stable = runs[:MOST_RUNS], one_problem(runs) and len(runs) > 1
    order = _shared_order(runs) if stable else None
    axes = above.subplots(1, len(shown) + stable, squeeze=False,
                          width_ratios=[1.0] * len(shown) + [0.45] * stable)[0]  # fmt: skip
    image = None
    for axis, run in zip(axes, shown, strict=False):
        mine = order or run.by_closing()
        image = _heat(axis, run, run.open, mine, _end(shown))
        _closings(axis, run, mine)
        true = "" if run.enters is None else f", {(run.kept & run.enters).sum()} of {run.enters.sum()} true"
        axis.set(title=f"seed {run.seed}: {run.kept.sum()} kept{true}", yticks=[])
    bar = above.colorbar(image, ax=list(axes), location="right", fraction=0.02, pad=0.01, label="open probability")
    bar.outline.set_visible(False)
    axes[0].set_ylabel(f"{len(runs[0].names)} features, last to close on top", labelpad=12)
    if stable:
        often = np.sum([run.kept for run in runs], 0)[order]
        _stability(axes[-1], runs, often, [LUMOS if n == len(runs) else _SOME for n in often])
    if below is not None:
        axes = below.subplots(1, len(statistics) + 1, width_ratios=[1.0] * len(statistics) + [1.1])
        for axis, name in zip(axes, statistics, strict=False):
            _ranked(axis, runs, name)
            axis.tick_params(axis="y", labelleft=axis is axes[0])
        axes[0].set_ylabel("strength, of the largest")
        _hits(axes[-1], runs, agreements(runs))


def _legend(runs: Sequence[RunFeatures], few: bool) -> list[Any]:
    every = "kept by the gates" if len(runs) == 1 or not few else "kept in every seed"
    some = [Patch(color=_SOME, label="in some")] if len(runs) > 1 and few else []
    dots = [Line2D([], [], marker="o", ms=5, ls="", color=PUBLISHED, label="closes for good")]
    if judged(runs):
        dots.append(Line2D([], [], marker="o", ms=5, ls="", color="black", label="the output depends on it"))
    return [Patch(color=LUMOS, label=every), *some, Patch(color=_NOT_KEPT, label="not kept"), *dots]


def _shared_order(runs: Sequence[RunFeatures]) -> list[int]:
    """Order features: kept in most runs first, then from the last to close to the first, on average."""
    often = np.sum([run.kept for run in runs], 0)
    closed = np.mean([np.minimum(run.closed_at, run.steps[-1] + 1) for run in runs], 0)
    likely = np.mean([run.open.mean(1) for run in runs], 0)
    return sorted(range(len(often)), key=lambda i: (-often[i], -closed[i], -likely[i], i))


def _end(runs: Sequence[RunFeatures]) -> float:
    """Return a step some time after the last closing; from there on the kept features alone are open."""
    closed = max(run.closed_at[np.isfinite(run.closed_at)].max(initial=0.0) for run in runs)
    last = runs[0].steps[-1]
    return min(last, 1.6 * closed) if closed else last


def _heat(
    axis: Axes, run: RunFeatures, likely: Float[np.ndarray, "features steps"], order: list[int], end: float
) -> Any:
    edges, rows = np.array([0, *run.steps], dtype=float), np.arange(len(order) + 1) - 0.5
    image = axis.pcolormesh(edges, rows, likely[order], cmap="Blues", vmin=0, vmax=1, rasterized=True)
    axis.set(ylim=(len(order) - 0.5, -0.5), xlim=(0, end), xlabel=f"step (of {run.steps[-1]} with gates)")
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return image


def _closings(axis: Axes, run: RunFeatures, order: list[int]) -> None:
    """Draw a dot where a feature closes for good; without names, a mark on the left for each that enters."""
    many = len(order) > MOST_NAMES
    places = np.arange(len(order))
    axis.plot(run.closed_at[order], places, ".", color=PUBLISHED, ms=2.5 if many else 6)
    if many and run.enters is not None:
        true = places[run.enters[order]]
        axis.plot(np.full(len(true), -0.03), true, "o", color="black", ms=1.8, clip_on=False,
                  transform=axis.get_yaxis_transform())  # fmt: skip


def _stability(
    axis: Axes, runs: Sequence[RunFeatures], often: Int[np.ndarray, " features"], colours: Sequence[str]
) -> None:
    axis.barh(range(len(often)), often, height=0.75 if len(often) <= MOST_NAMES else 1.0, color=colours)
    axis.set(ylim=(len(often) - 0.5, -0.5), xlim=(0, len(runs)), xlabel="kept in seeds")
    axis.set_xticks(range(0, len(runs) + 1, max(1, len(runs) // 5)))
    value = next((a.stability for a in agreements(runs) if a.name == "gates"), None)
    axis.set_title("stability" + ("" if value is None else f"\n{value:.2f}"))


def _relative(run: RunFeatures, name: str) -> Float[np.ndarray, " features"]:
    values = np.clip(run.strengths[name], 0, None)
    return values / (values.max(initial=0.0) or 1.0)


def _ranked(axis: Axes, runs: Sequence[RunFeatures], name: str) -> None:
    """Draw strengths from the largest down; the dotted line is after as many as the gates keep."""
    for run in runs:
        values = _relative(run, name)
        order = np.argsort(-values, kind="stable")
        ranks, values, kept = np.arange(1, len(order) + 1), values[order], run.kept[order]
        axis.plot(ranks, values, color=_NOT_KEPT, lw=0.6, zorder=1)
        axis.plot(ranks[~kept], values[~kept], "o", color=_NOT_KEPT, ms=3, zorder=2)
        axis.plot(ranks[kept], values[kept], "o", color=LUMOS, ms=4, zorder=3, alpha=0.8)
    if len(runs[0].names) > MOST_NAMES:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.axvline(float(np.mean([run.kept.sum() for run in runs])) + 0.5, color="black", lw=0.7, ls=":")
    axis.set(title=STATISTICS[name], xlabel="rank", ylim=(-0.03, 1.05))


def _hits(axis: Axes, runs: Sequence[RunFeatures], found: Sequence[Agreement]) -> None:
    """Draw a bar for each selection, the mean, and a stroke for each run."""
    true = judged(runs)
    found = [a for a in found if true or a.name != "gates"]
    for y, a in enumerate(found):
        axis.barh(y, 100 * float(np.mean(a.shares)), height=0.7, color=LUMOS if a.name == "gates" else "#8F8F8F")
        if len(a.shares) > 1:
            axis.plot([100 * s for s in a.shares], [y + 0.25] * len(a.shares), "|", color="black", ms=6)
    axis.set_yticks(range(len(found)), [a.name.replace(" ", "\n") for a in found])
    axis.tick_params(axis="y", length=0)
    axis.set(ylim=(len(found) - 0.4, -0.6), xlim=(0, 103))
    axis.set_title("true, of as many as kept" if true else "in common with the gates")
    axis.set_xlabel("%, mean" + (" (strokes: seeds)" if len(runs) > 1 else ""))
