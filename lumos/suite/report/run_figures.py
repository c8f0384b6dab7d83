"""Figures of runs: features, convergence, scaling, score against size, sweeps, kept widths."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from lumos.suite.report import quantities as q
from lumos.suite.report import run_tables
from lumos.suite.report.paper_tables import Evaluation
from lumos.suite.report.quantities import DASH
from lumos.suite.report.results import SeedGroup
from lumos.suite.report.style import COLUMN, DENSE, LUMOS, PAGE, PUBLISHED, log_ticks, method_style, panels
from lumos.suite.report.sweeps import Sweep, find_sweeps

MOST_NAMES = 40
"""More features than this are drawn without their names."""
LEAST_BARS, MOST_BARS = 6, 24
"""For how many layers a panel of widths has room; more are drawn thinner and without their names."""


def features(evaluation: Evaluation) -> Figure | None:
    """Draw figure 10: |Pearson| of every feature, and which are kept."""
    found = {w: run_tables.feature_rows(evaluation, g) for w, g in evaluation.headlines.items()}
    found = {w: rows for w, rows in found.items() if any(isinstance(r["abs_pearson"], float) for r in rows)}
    if not found:
        return None
    longest = max((len(rows) for rows in found.values() if len(rows) <= MOST_NAMES), default=12)
    figure, axes = panels(len(found), min(3, len(found)), PAGE, 0.115 * max(12, longest) + 0.7)
    for axis, (name, rows) in zip(axes, found.items(), strict=True):
        named = len(rows) <= MOST_NAMES
        if not named:
            rows = sorted(rows, key=lambda r: r["abs_pearson"] or 0.0, reverse=True)
        for y, row in enumerate(rows):
            colour = LUMOS if row["kept"] else "#CCCCCC"
            axis.barh(y, row["abs_pearson"] or 0.0, height=0.75 if named else 1.0, color=colour)
        count = sum(bool(r["kept"]) for r in rows)
        title = f"{evaluation.paper.title(name)}: {count} of {len(rows)} kept"
        axis.set(xlim=(0, None), xlabel="|Pearson|", title=title)
        information = [r["mutual_information"] for r in rows]
        if named and all(isinstance(v, float) for v in information):
            above = axis.twiny()
            above.plot(information, range(len(rows)), "o", ms=2.5, color="black")
            above.set(xlim=(0, None), xlabel="mutual information [nat]")
            above.spines["top"].set_visible(True)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        if named:
            axis.set_yticks(range(len(rows)), [r["feature"] for r in rows], fontsize=5.5)
            axis.tick_params(axis="y", length=0)
            for label, row in zip(axis.get_yticklabels(), rows, strict=True):
                label.set(color=LUMOS if row["kept"] else "#888888", fontweight="bold" if row["kept"] else "normal")
        else:
            axis.set(ylabel=f"{len(rows)} features, by |Pearson|", yticks=[])
    marks = (("kept", LUMOS, "s"), ("not kept", "#CCCCCC", "s"), ("mutual information", "black", "o"))
    handles = [Line2D([], [], marker=m, ls="", color=c, label=t) for t, c, m in marks]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def convergence(evaluation: Evaluation) -> Figure | None:
    """Draw figure 13: the loss, dense and gated."""
    shown = {w: g for w, g in evaluation.headlines.items() if run_tables.loss_curve(evaluation, g.first, "gated")[0]}
    if not shown:
        return None
    figure, axes = panels(len(shown), min(4, len(shown)), PAGE if len(shown) > 1 else COLUMN, 1.55)
    for axis, (name, group) in zip(axes, shown.items(), strict=True):
        seen: list[float] = []
        for phase, colour in (("dense", DENSE), ("gated", LUMOS)):
            steps, losses = run_tables.loss_curve(evaluation, group.first, phase)
            axis.plot(steps, losses, color=colour, lw=0.6, alpha=0.5)
            axis.plot(steps, run_tables.smoothed(losses), color=colour, lw=1.4)
            seen += losses
        cut = _cut(evaluation, group)
        if cut:
            axis.axvline(cut, color=PUBLISHED, lw=0.8, ls="--")
        axis.set(title=evaluation.paper.title(name))
        if min(seen) > 0:
            log_ticks(axis, "y", seen)
        axis.xaxis.set_major_locator(MaxNLocator(3))
        axis.set_xlim(0, None)
    figure.supxlabel("training step", fontsize=7.5)
    figure.supylabel("training loss", fontsize=7.5)
    lines = (("dense, smoothed", DENSE, "-"), ("LUMOS, smoothed (thin: as it was)", LUMOS, "-"),
             ("closed units are removed", PUBLISHED, "--"))  # fmt: skip
    handles = [Line2D([], [], color=c, ls=s, label=t) for t, c, s in lines]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def _cut(evaluation: Evaluation, group: SeedGroup) -> float | None:
    """Return the step of the last row of the curve that still has gates."""
    steps = [
        r["step"]
        for r in evaluation.results.table(group.first)
        if r["phase"] == "gated" and r.get("open_gates") is not None and r["step"] is not None
    ]
    return float(steps[-1]) if steps else None  # type: ignore[arg-type]


def scaling(evaluation: Evaluation) -> Figure | None:
    """Draw figure 12: samples a second over processes; a dash for a workload without a measurement."""
    rows = run_tables.scaling_rows(evaluation)
    if not rows:
        return None
    names = list(dict.fromkeys([*evaluation.paper.shown("12"), *(r["workload"] for r in rows)]))
    figure, axes = panels(len(names), 4, PAGE, 1.6)
    for axis, name in zip(axes, names, strict=True):
        axis.set(title=evaluation.paper.title(name))
        mine = [r for r in rows if r["workload"] == name]
        if not mine:
            axis.text(0.5, 0.5, DASH, transform=axis.transAxes, ha="center")
            axis.set(xticks=[], yticks=[])
            continue
        for method in dict.fromkeys(r["method"] for r in mine):
            found = sorted((int(r["processes"]), float(r["samples_per_second"])) for r in mine if r["method"] == method)
            colour, marker = method_style(method)
            xs, ys = zip(*found, strict=True)
            axis.plot(xs, ys, color=colour, marker=marker, label=evaluation.paper.method_title(method))
            axis.plot(xs, [ys[0] / xs[0] * x for x in xs], color=colour, lw=0.6, ls=":")
        axis.set_xscale("log")
        log_ticks(axis, "y", [float(r["samples_per_second"]) for r in mine])
        ticks = sorted({int(r["processes"]) for r in mine})
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.legend()
    figure.supxlabel("processes (dotted: perfect scaling)", fontsize=7.5)
    figure.supylabel("samples a second", fontsize=7.5)
    return figure


def pareto(evaluation: Evaluation) -> Figure | None:
    """Draw score against size of every run, all methods, where there is more than one run; the front is joined."""
    found = {w: run_tables.points(evaluation, w) for w in evaluation.workloads}
    found = {w: points for w, points in found.items() if len(points) > 2}
    if not found:
        return None
    figure, axes = panels(len(found), min(3, len(found)), PAGE if len(found) > 1 else COLUMN, 1.9)
    for axis, (name, points) in zip(axes, found.items(), strict=True):
        metric = evaluation.results.of(name)[0].first["metric"]
        worst = _worst_shown(points, metric["higher_is_better"])
        limit = max if metric["higher_is_better"] else min
        for method in sorted({p.method for p in points}):
            colour, marker = method_style(method)
            mine = [p for p in points if p.method == method]
            # What is worse than the edge is drawn on it, hollow.
            for fill, there in ((colour, [p for p in mine if limit(p.score, worst) == p.score]),
                                ("none", [p for p in mine if limit(p.score, worst) != p.score])):  # fmt: skip
                xs, ys = [p.params for p in there], [limit(p.score, worst) for p in there]
                axis.plot(xs, ys, marker, color=colour, mfc=fill, alpha=0.85)
        front = [p for p in points if not p.dominated(points, metric["higher_is_better"])]
        axis.plot([p.params for p in front], [p.score for p in front], color="#999999", lw=0.7, zorder=1)
        axis.set(title=evaluation.paper.title(name), ylabel=_metric(metric))
        log_ticks(axis, "x", [p.params for p in points])
        axis.grid()
    figure.supxlabel("parameters", fontsize=7.5)
    methods = sorted({p.method for points in found.values() for p in points})
    handles = [
        Line2D(
            [], [], ls="", marker=method_style(m)[1], color=method_style(m)[0], label=evaluation.paper.method_title(m)
        )
        for m in methods
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, max(1, len(handles))))
    return figure


def _worst_shown(points: list[run_tables.Point], higher_is_better: bool) -> float:
    """Return the score at the edge of a panel: four times as far from the best as the dense networks and ours reach.

    A method that fails altogether does not press all others into one line.
    """
    best = (max if higher_is_better else min)(p.score for p in points)
    reach = max((abs(best - p.score) for p in points if p.method in ("dense", "lumos")), default=0.0)
    farthest = max(abs(best - p.score) for p in points)
    far = min(farthest, 4 * reach) if reach else farthest
    return best - far if higher_is_better else best + far


def _metric(metric: dict[str, Any]) -> str:
    return metric["name"] + ("" if metric["higher_is_better"] else " (lower is better)")


def sweep_figures(evaluation: Evaluation) -> dict[str, tuple[str, Figure]]:
    """Draw score and parameters left against each key that is swept, a panel for each workload.

    Returns what is swept and the figure, by the figure's name.
    """
    found = find_sweeps(evaluation)
    out = {}
    for key in dict.fromkeys(s.name for s in found):
        mine = [s for s in found if s.name == key]
        workloads = list(dict.fromkeys(s.workload for s in mine))
        figure, axes = panels(len(workloads), min(3, len(workloads)), PAGE if len(workloads) > 1 else COLUMN, 2.1)
        for axis, name in zip(axes, workloads, strict=True):
            _sweep(axis, [s for s in mine if s.workload == name], evaluation.paper.title(name))
        lines = (
            ("score", LUMOS, "-", "o"),
            ("parameters left", PUBLISHED, "--", "s"),
            ("score of dense", DENSE, "-", ""),
        )
        handles = [Line2D([], [], color=c, ls=s, marker=m, ms=3, label=t) for t, c, s, m in lines]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
        out[key] = mine[0].label, figure
    return out


def _sweep(axis: Axes, found: list[Sweep], title: str) -> None:
    right = axis.twinx()
    right.spines["right"].set_visible(True)
    values = [v[0] for s in found for v, _ in s.groups]
    for sweep in found:
        lines = sweep.lines()
        for number, (second, line) in enumerate(lines.items()):
            xs, strength = [v[0] for v, _ in line], (number + 1) / len(lines)
            scores = [g.mean(q.field("compact", "score")) or 0.0 for _, g in line]
            axis.plot(xs, scores, "-o", ms=3, color=LUMOS, alpha=strength, label=second)
            left = [100 - (g.mean(q.params_reduction) or 0.0) for _, g in line]
            right.plot(xs, left, "--s", color=PUBLISHED, ms=2.5, alpha=strength)
        if len(lines) > 1:
            axis.legend(fontsize=5.5)
    dense = found[0].groups[0][1].mean(q.field("dense", "score"))
    if dense is not None:
        axis.axhline(dense, color=DENSE, lw=0.8)
    axis.set(title=title, xlabel=found[0].label if "" in found[0].lines() else found[0].label.split(", ")[0])
    axis.set_ylabel(_metric(found[0].groups[0][1].first["metric"]), color=LUMOS)
    right.set_ylabel("parameters left [%]", color=PUBLISHED)
    right.set_ylim(0, None)
    if min(values) > 0 and max(values) / min(values) > 20:
        axis.set_xscale("log")


def widths(evaluation: Evaluation) -> Figure | None:
    """Draw the units kept in each group, of the runs that stand for each workload. Every bar is equally thick."""
    shown = {w: g for w, g in evaluation.headlines.items() if (g.first.get("gates") or {}).get("groups")}
    if not shown:
        return None
    columns = min(3, len(shown))
    counts = [len(g.first["gates"]["groups"]) for g in shown.values()]
    most = [min(MOST_BARS, max(LEAST_BARS, *counts[i : i + columns])) for i in range(0, len(counts), columns)]
    figure, axes = panels(len(shown), columns, PAGE if columns > 1 else COLUMN, [0.45 + 0.12 * m for m in most])
    for place, (axis, (name, group)) in enumerate(zip(axes, shown.items(), strict=True)):
        _widths(axis, group, most[place // columns])
        axis.set(title=evaluation.paper.title(name))
    figure.supxlabel("units kept [%]", fontsize=7.5)
    return figure


def _widths(axis: Axes, group: SeedGroup, bars: int) -> None:
    """Draw a bar for each group of units on an axis with room for so many."""
    layers = list(group.first["gates"]["groups"])
    named = len(layers) <= bars
    for y, layer in enumerate(layers):
        kept, total = (group.mean(run_tables.width(layer, side)) or 0.0 for side in ("open", "total"))
        axis.barh(y, 100, height=0.8, color="#E2E2E2")
        axis.barh(y, 100 * kept / max(1.0, total), height=0.8, color=LUMOS)
        if named:
            axis.text(102, y, f"{kept:.3g} of {total:.0f}", va="center", fontsize=5.5)
    if named:
        axis.set_yticks(range(len(layers)), [_short(layer) for layer in layers], fontsize=5.5)
    else:
        axis.set(yticks=[], ylabel=f"{len(layers)} groups, from input to output")
    axis.tick_params(axis="y", length=0)
    axis.set(xlim=(0, 100), ylim=(max(bars, len(layers)) - 0.4, -0.6))


def _short(layer: str, most: int = 24) -> str:
    """Shorten a layer's name to its end."""
    return layer if len(layer) <= most else f"…{layer[1 - most :]}"
