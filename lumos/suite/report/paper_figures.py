"""The paper's figures: one row for each workload, ours beside what was published, a dash where there is no record."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lumos.suite.report import quantities as q
from lumos.suite.report import run_figures
from lumos.suite.report.paper_tables import Evaluation
from lumos.suite.report.published import Number
from lumos.suite.report.quantities import DASH, Record
from lumos.suite.report.results import SeedGroup
from lumos.suite.report.style import COLUMN, DENSE, GPU, LUMOS, PUBLISHED, drawing, log_ticks, panels, save
from lumos.suite.report.table import number

OURS_AT, PUBLISHED_AT = 18.0, 50.0
"""How many points from its axis the two columns at the right of a figure stand."""


def draw_all(evaluation: Evaluation, folder: Path, kinds: Sequence[str] = ("pdf", "png")) -> dict[str, str]:
    """Draw what the records allow. Returns the title of each figure by name."""
    titles: dict[str, str] = {}
    with drawing():
        for name, (title, draw) in FIGURES.items():
            figure = draw(evaluation)
            if figure is not None:
                save(figure, folder, name, kinds)
                titles[name] = title
        for name, (label, figure) in run_figures.sweep_figures(evaluation).items():
            save(figure, folder, name, kinds)
            titles[name] = f"Sweep over {label}"
    return titles


def speedups(evaluation: Evaluation) -> Figure:
    """Draw figure 9a; a device that no record was made on has no bars."""
    figure, axis, names = _rows(evaluation)
    sources = {"cpu": evaluation, "gpu": evaluation.gpu_first}
    known = {device: source.values(q.best_speedup(device)) for device, source in sources.items()}
    devices = [d for d, values in known.items() if values] or ["cpu"]
    height = 0.68 / len(devices)
    for place, device in enumerate(devices):
        offset, colour = (place - (len(devices) - 1) / 2) * (height + 0.04), {"cpu": LUMOS, "gpu": GPU}[device]
        of_mean = list(sources[device].known(q.best_speedup(device)).values())
        for y, name in enumerate([*names, ""]):  # the last one is the mean
            value = known[device].get(name) if name else statistics.fmean(of_mean) if of_mean else None
            theirs = evaluation.paper.number("9a", f"speedup_{device}", name)
            if theirs and theirs.point:
                axis.plot(theirs.point, y + offset, "D", ms=3.5, color=PUBLISHED, zorder=3)
            if value is not None:
                axis.barh(y + offset, value - 1, left=1, height=height, color=colour)
            spread = _quartiles(sources[device].headlines[name], device) if value is not None and name else None
            if spread:
                axis.plot(spread, [y + offset] * 2, color="black", lw=0.8)
            _at_right(axis, y + offset, number(value, ".2f", "×").text, DASH if theirs is None else f"{theirs.text}×")
        _count_of(evaluation, axis, len(names) + offset, len(of_mean))
    axis.set(xscale="log", xlim=(0.7, 120), xlabel="samples a second, times those of the dense network")
    axis.set_xticks([1, 3, 10, 30, 100], ["1×", "3×", "10×", "30×", "100×"])
    axis.minorticks_off()
    axis.axvline(1, color="black", lw=0.6)
    _heads(axis, "speed-up")
    bars = [(device.upper(), {"cpu": LUMOS, "gpu": GPU}[device], "s") for device in devices]
    _legend(axis, (*bars, ("published", PUBLISHED, "D")))
    return figure


def scores(evaluation: Evaluation) -> Figure:
    """Draw figure 9b."""
    figure, axis, names = _rows(evaluation, mean=False)
    for y, name in enumerate(names):
        theirs = evaluation.paper.number("9b", "score_change", name)
        if theirs and theirs.point is not None:
            axis.plot(theirs.point, y, "D", ms=3.5, color=PUBLISHED, zorder=3)
        elif theirs:
            axis.plot([theirs.low, min(theirs.high, 0.45)], [y, y], color=PUBLISHED, lw=2.5, solid_capstyle="butt")
            if theirs.high > 0.45:
                axis.plot(0.45, y, ">", ms=3.5, color=PUBLISHED)
        group = evaluation.headlines.get(name)
        change = group.mean(q.score_change) if group else None
        if group is None or change is None:
            _beside(axis, y, 4, DASH, "#999999", "left")
            continue
        axis.plot(change, y, "o", ms=4.5, color=LUMOS, zorder=4)
        dense, ours = (group.mean(q.field(side, "score")) or 0.0 for side in ("dense", "compact"))
        form = ".4f" if abs(dense) >= 0.1 else ".2e" if abs(dense) < 1e-3 else ".3g"
        text = f"{group.first['metric']['name']} {dense:{form}} → {ours:{form}}"
        _beside(axis, y, 4, text, "black", "left")
    axis.axvline(0, color="black", lw=0.6)
    axis.set_xscale("symlog", linthresh=1)
    axis.set(xlabel="change of the score [%], right is better")
    low, high = axis.get_xlim()
    axis.set_xlim(min(1.5 * low, -4), max(1.5 * high, 4))
    _decades(axis)
    _legend(axis, (("ours", LUMOS, "o"), ("published", PUBLISHED, "D"), ("published, a range", PUBLISHED, "_")))
    return figure


def parameters(evaluation: Evaluation) -> Figure | None:
    """Draw figure 9c."""
    return _before_after(evaluation, "params", ("9c", "params_reduction"), q.params_reduction, "parameters")


def macs(evaluation: Evaluation) -> Figure | None:
    """Draw figure 9d."""
    return _before_after(
        evaluation, "macs", ("9d", "macs_reduction"), q.macs_reduction, "multiply-accumulates a sample"
    )


def energy(evaluation: Evaluation) -> Figure | None:
    """Draw figure 11a."""
    return _before_after(
        evaluation.gpu_first, "energy_j", ("11a", "energy_reduction"), q.energy_reduction, "joules per 1,000 samples"
    )


def memory(evaluation: Evaluation) -> Figure | None:
    """Draw figure 11b."""
    return _before_after(
        evaluation.gpu_first, "memory", ("11b", "memory_reduction"), q.memory_reduction, "peak memory of inference [MB]"
    )


def averages(evaluation: Evaluation) -> Figure:
    """Draw the average rows, published and ours. Each row has its own unit, so bars are drawn to the larger of two."""
    rows = [row for row in evaluation.averages().rows if isinstance(row[1].value, float | str)]
    figure, (axis,) = panels(1, 1, COLUMN, 0.34 * len(rows) + 0.5)
    for y, row in enumerate(rows):
        theirs, ours = (float(cell.value) if isinstance(cell.value, float) else None for cell in (row[1], row[2]))
        longest = max((abs(v) for v in (theirs, ours) if v is not None), default=0.0) or 1.0
        for offset, value, cell, colour in ((-0.18, theirs, row[1], PUBLISHED), (0.18, ours, row[2], LUMOS)):
            length = (value or 0) / longest
            axis.barh(y + offset, length, height=0.32, color=colour)
            count = f"  ({row[-1].text})" if colour == LUMOS else ""
            axis.text(max(0.0, length) + 0.02, y + offset, f"{cell.text}{count}", va="center", fontsize=6)
    axis.set_yticks(range(len(rows)), [row[0].text for row in rows])
    axis.tick_params(axis="y", length=0)
    axis.set(xlim=(0, 1.55), xticks=[])
    axis.spines["bottom"].set_visible(False)
    axis.invert_yaxis()
    count = len(evaluation.paper.workloads)
    _legend(axis, ((f"published ({count} workloads)", PUBLISHED, "s"), ("ours", LUMOS, "s")))
    return figure


FIGURES: dict[str, tuple[str, Callable[[Evaluation], Figure | None]]] = {
    "averages": ("Averages, published and ours; each row is drawn to its own scale", averages),
    "fig9a_speedup": ("Fig. 9a: speed-up of inference at the memory bound; black lines: quartiles", speedups),
    "fig9b_score": ("Fig. 9b: change of the score", scores),
    "fig9c_parameters": ("Fig. 9c: parameters before and after", parameters),
    "fig9d_macs": ("Fig. 9d: multiply-accumulates before and after", macs),
    "fig10_features": ("Fig. 10: input features kept, and their correlation with the outputs", run_figures.features),
    "fig11a_energy": ("Fig. 11a: energy before and after", energy),
    "fig11b_memory": ("Fig. 11b: peak memory before and after", memory),
    "fig12_scaling": ("Fig. 12: training throughput over processes", run_figures.scaling),
    "fig13_convergence": ("Fig. 13: training loss; thin: as it was, thick: smoothed", run_figures.convergence),
    "pareto": ("Score against size, every run, where there are several; hollow: beyond the edge", run_figures.pareto),
    "widths": ("Units kept in each layer", run_figures.widths),
}  # fmt: skip


# ---- parts ----------------------------------------------------------------------------------------------------------


def _rows(evaluation: Evaluation, mean: bool = True) -> tuple[Figure, Axes, list[str]]:
    """Make an axis with a row for each workload, those without a record in grey, and one for the mean."""
    names = evaluation.workloads
    count = len(names) + mean
    figure, (axis,) = panels(1, 1, COLUMN, 0.19 * count + 0.7)
    titles = [evaluation.paper.title(name) for name in names] + ["Mean"] * mean
    axis.set_yticks(range(count), titles)
    for label, name in zip(axis.get_yticklabels(), names, strict=False):
        label.set_color("black" if name in evaluation.headlines else "#999999")
    axis.set_ylim(count - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")
    if mean:
        axis.axhline(len(names) - 0.5, color="black", lw=0.6)
    return figure, axis, names


def _before_after(
    evaluation: Evaluation, key: str, published: tuple[str, str], quantity: Callable[[Record], float | None], label: str
) -> Figure | None:
    """Draw dense and LUMOS on a logarithmic axis, joined; at the right the reduction, ours and published.

    None where no record has the quantity.
    """
    known = {name: sides for name, group in evaluation.headlines.items() if (sides := _sides(group, key))}
    if not known:
        return None
    figure, axis, names = _rows(evaluation)
    reductions, of_mean = evaluation.values(quantity), list(evaluation.known(quantity).values())
    for y, name in enumerate([*names, ""]):  # the last one is the mean
        ours = reductions.get(name) if name else statistics.fmean(of_mean) if of_mean else None
        theirs = evaluation.paper.number(*published, name)
        _at_right(axis, y, number(ours, ".1f", "%").text, DASH if theirs is None else _percent(theirs))
        if name in known:
            axis.plot(known[name], [y, y], color="#BBBBBB", lw=1.5, zorder=2)
            axis.plot(known[name][0], y, "s", color=DENSE, zorder=3)
            axis.plot(known[name][1], y, "o", color=LUMOS, zorder=4)
    _count_of(evaluation, axis, len(names), len(of_mean))
    axis.set(xlabel=label)
    log_ticks(axis, "x", [value for sides in known.values() for value in sides])
    _heads(axis, "reduction")
    _legend(axis, (("dense", DENSE, "s"), ("LUMOS", LUMOS, "o")))
    return figure


def _percent(value: Number) -> str:
    return f"{value.text.replace('..', '–')}%"


def _count_of(evaluation: Evaluation, axis: Axes, y: float, count: int) -> None:
    """Write over how many workloads a mean is taken."""
    text = f"over {count} of {len(evaluation.paper.workloads)}"
    axis.text(0.98, y, text, transform=axis.get_yaxis_transform(), va="center", ha="right", fontsize=6)


def _heads(axis: Axes, title: str) -> None:
    """Write what the two columns at the right are."""
    _beside(axis, -1.7, (OURS_AT + PUBLISHED_AT) / 2, title, "black")
    _at_right(axis, -0.9, "ours", "published")


def _at_right(axis: Axes, y: float, ours: str, theirs: str) -> None:
    _beside(axis, y, OURS_AT, ours, LUMOS)
    _beside(axis, y, PUBLISHED_AT, theirs, PUBLISHED)


def _beside(axis: Axes, y: float, points: float, text: str, colour: str, side: str = "center") -> None:
    """Write at the right of an axis, so many points from it."""
    axis.annotate(text, (1, y), (points, 0), axis.get_yaxis_transform(), "offset points", va="center", ha=side,
                  fontsize=6, color=colour, annotation_clip=False)  # fmt: skip


def _sides(group: SeedGroup, key: str) -> list[float] | None:
    pick = q.memory_mb if key == "memory" else lambda side: q.field(side, key)
    found = [group.mean(pick(side)) for side in ("dense", "compact")]
    return [v for v in found if v] if all(found) else None


def _quartiles(group: SeedGroup, device: str) -> list[float] | None:
    found = [q.speedup_spread(r, "dynamic", device) for r in group.runs]
    known = [f for f in found if f]
    return [statistics.fmean(f[k] for f in known) for k in ("p25", "p75")] if known else None


def _decades(axis: Axes) -> None:
    ticks = [t for t in (-100, -10, -3, -1, 0, 1, 3, 10, 100) if axis.get_xlim()[0] <= t <= axis.get_xlim()[1]]
    axis.set_xticks(ticks, [f"{t:+d}".replace("-", "−") if t else "0" for t in ticks])
    axis.minorticks_off()


def _legend(axis: Axes, entries: Sequence[tuple[str, str, str]]) -> None:
    handles = [
        Line2D([], [], ls="" if m != "_" else "-", lw=2.5, marker=m if m != "_" else "", color=c, label=label)
        for label, c, m in entries
    ]
    axis.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.01), ncols=len(handles), handletextpad=0.5,
                columnspacing=1.0, handlelength=1.2, borderpad=0.2)  # fmt: skip
