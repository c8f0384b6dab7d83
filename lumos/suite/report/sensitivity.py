"""Score against dense width: whether a problem can tell a large network from a small one, from records alone."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from lumos.errors import LumosError, RecordError
from lumos.files import atomic
from lumos.suite import archive
from lumos.suite.report.style import DENSE, LUMOS, PAGE, PUBLISHED, drawing, panels, save

LIST = "sensitivity.json"
"""A results folder's list of the runs of the study."""
COLUMNS = ("workload", "width", "seed", "run_id", "parameters", "metric", "test", "valid")
ERRORS = 2.0
"""So many standard errors apart, two means count as different."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """One workload: its scores by width, and what trivial predictors score there.

    ``test`` and ``valid`` have for each width, narrow first, the scores over the seeds. ``trivial`` has the means over
    the seeds of what the widest network's runs say.
    """

    workload: str
    metric: str
    higher_is_better: bool
    params: dict[Fraction, int]
    test: dict[Fraction, list[float]]
    valid: dict[Fraction, list[float]]
    trivial: dict[str, float]

    @property
    def best_trivial(self) -> tuple[str, float] | None:
        """The best of the trivial predictors, None where there are none."""
        pick = max if self.higher_is_better else min
        return pick(self.trivial.items(), key=lambda item: item[1], default=None)

    def gain(self, narrow: Fraction, wide: Fraction) -> tuple[float, float | None]:
        """How much better the mean of one width is than that of another, and its standard error (None: one seed)."""
        sign = 1 if self.higher_is_better else -1
        one, other = self.test[narrow], self.test[wide]
        gain = sign * (statistics.fmean(other) - statistics.fmean(one))
        if min(len(one), len(other)) < 2:
            return gain, None
        return gain, (statistics.variance(one) / len(one) + statistics.variance(other) / len(other)) ** 0.5

    def verdict(self) -> str:
        """Say whether the width matters: the narrowest and the widest that there is, beside the spread over seeds."""
        narrow, wide = min(self.test), max(self.test)
        if narrow == wide:
            return "one width so far"
        gain, error = self.gain(narrow, wide)
        if error is None:
            return "one seed so far"
        if abs(gain) <= ERRORS * error:
            return "no difference"
        return "wider is better" if gain > 0 else "wider is worse"


def read(place: Path) -> list[Row]:
    """Read a row for each finished run that the study's list at a results folder, or beside an archive, names.

    Raises:
        RecordError: There is no list, or a run that it names.
    """
    path = (place.parent if archive.is_archive(place) else place) / LIST
    if not path.exists():
        raise RecordError(f"{path}: there is no such list; run lumos suite sensitivity")
    runs = {run.record["run_id"]: run.record for run in archive.runs(place)}
    rows = []
    for entry in listed(path):
        if entry["run_id"] not in runs:
            raise RecordError(f"{place}: run {entry['run_id']} is not there; {path.name} names it")
        rows.append({**entry, "record": runs[entry["run_id"]]})
    return rows


def curves(rows: Sequence[Row]) -> list[Curve]:
    """Put the rows of each workload together, in the order of the rows."""
    found = []
    for name in dict.fromkeys(row["workload"] for row in rows):
        mine = [row for row in rows if row["workload"] == name and row["record"]["dense"]["score"] is not None]
        if not mine:
            continue
        shares = sorted({Fraction(row["width"]) for row in mine})
        by = {share: [row["record"] for row in mine if Fraction(row["width"]) == share] for share in shares}
        widest = by[shares[-1]]
        named = dict.fromkeys(key for r in widest for key in r["baselines"])
        scores = {key: [r["baselines"][key] for r in widest if r["baselines"].get(key) is not None] for key in named}
        metric = widest[0]["metric"]
        found.append(Curve(
            name, metric["name"], metric["higher_is_better"],
            params={share: by[share][0]["dense"]["params"] for share in shares},
            test={share: [r["dense"]["score"] for r in by[share]] for share in shares},
            valid={share: [v for r in by[share] if (v := r["dense"].get("valid_score")) is not None]
                   for share in shares},
            trivial={key: statistics.fmean(values) for key, values in scores.items() if values},
        ))  # fmt: skip
    return found


def markdown(found: Sequence[Curve]) -> list[str]:
    """Make a table: a line for each workload, the test score at each width with its spread over the seeds."""
    shares = sorted({share for curve in found for share in curve.test})
    lines = ["| workload | metric | best trivial predictor | " + " | ".join(f"width {s}" for s in shares)
             + " | parameters | narrowest to widest |",
             "|---" * (len(shares) + 5) + "|"]  # fmt: skip
    for curve in found:
        best, sizes = curve.best_trivial, [curve.params[s] for s in sorted(curve.params)]
        lines.append("| " + " | ".join([
            curve.workload, curve.metric + ("" if curve.higher_is_better else ", less is better"),
            f"{digits(best[1])} ({best[0].replace('_', ' ')})" if best else "–",
            *(_cell(curve.test.get(share, [])) for share in shares),
            f"{sizes[0]:,} to {sizes[-1]:,}", curve.verdict(),
        ]) + " |")  # fmt: skip
    return lines


def digits(value: float) -> str:
    """Write a score as the tables of the suite do."""
    return f"{value:.3g}" if 0 < abs(value) < 0.1 else f"{value:.4f}"


def _cell(scores: Sequence[float]) -> str:
    if not scores:
        return "–"
    spread = f" ± {digits(statistics.stdev(scores))}" if len(scores) > 1 else ""
    return digits(statistics.fmean(scores)) + spread


def write(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write ``sensitivity.csv`` and ``sensitivity.png`` into a folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "sensitivity.csv"
    with atomic(table) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            entry = row["record"]
            writer.writerow([
                row["workload"], row["width"], row["seed"], row["run_id"], entry["dense"]["params"],
                entry["metric"]["name"], entry["dense"]["score"], entry["dense"].get("valid_score"),
            ])  # fmt: skip
    return [table, *draw(curves(rows), folder)]


def draw(found: Sequence[Curve], folder: Path) -> list[Path]:
    """Draw a panel for each workload: mean and spread over the seeds, test and validation, trivial predictors."""
    with drawing():
        figure, axes = panels(len(found), 5, 1.35 * PAGE, 1.75)
        for axis, curve in zip(axes, found, strict=True):
            _panel(axis, curve)
        handles = {label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
        return save(figure, folder, "sensitivity", ["png"])


def _panel(axis: Any, curve: Curve) -> None:
    for scores, colour, marker, label, shift in (
        (curve.valid, DENSE, "s", "validation", 0.97),
        (curve.test, LUMOS, "o", "test", 1.03),
    ):
        shares = [share for share in sorted(scores) if scores[share]]
        means = [statistics.fmean(scores[s]) for s in shares]
        spread = [statistics.stdev(scores[s]) if len(scores[s]) > 1 else 0.0 for s in shares]
        axis.errorbar([float(s) * shift for s in shares], means, spread, color=colour, marker=marker, ms=3, lw=1,
                      capsize=2, label=f"{label}, mean and standard deviation over seeds")  # fmt: skip
    if best := curve.best_trivial:
        axis.axhline(best[1], color=PUBLISHED, ls="--", lw=1, label="best trivial predictor")
    ticks = sorted(curve.test)
    axis.set_xscale("log", base=2)
    axis.set_xticks([float(s) for s in ticks], [str(s) for s in ticks])
    axis.minorticks_off()
    arrow = "higher is better" if curve.higher_is_better else "less is better"
    axis.set(title=curve.workload, ylabel=f"{curve.metric}, {arrow}")
    axis.grid(visible=True, axis="y")
    if best:
        axis.annotate(best[0].replace("_", " "), (0.02, best[1]), xycoords=("axes fraction", "data"), va="bottom",
                      fontsize=5.5, color=PUBLISHED)  # fmt: skip


def listed(path: Path) -> list[dict[str, Any]]:
    """Read the study's list of runs. Raises LumosError for a file that is none."""
    try:
        found = json.loads(path.read_text())["runs"]
        for entry in found:
            Fraction(entry["width"])
            _ = int(entry["seed"]), str(entry["workload"]), str(entry["run_id"])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise LumosError(f"{path}: not a list of the study's runs ({error}); run lumos suite sensitivity") from None
    return found
