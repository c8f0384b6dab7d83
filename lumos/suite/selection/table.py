"""The records of a study and the published figures as one table, a CSV and a figure."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lumos.files import atomic
from lumos.suite.report.style import drawing, log_ticks, panels, save
from lumos.suite.selection.problems import FOLDS, TRUE, sizes

PUBLISHED = Path(__file__).with_name("published.csv")
NAMES = {
    "lumos": "LUMOS: screening, then gates", "screening": "screening alone", "gates": "gates alone",
    "random_forest": "random forest", "mutual_information": "mutual information", "lasso": "LASSO path",
    "pearson": "Pearson",
}  # fmt: skip
COLUMNS: tuple[str, ...] = ("method", "by", "problem", "features", "percent", "folds", "seconds")

Row = dict[str, Any]


def published() -> list[Row]:
    """Read the published percentages; ``features`` is a number, or ``mean`` for that over all of them."""
    with PUBLISHED.open(newline="") as file:
        return [
            {
                "method": r["method"],
                "by": "published",
                "problem": r["problem"],
                "features": r["features"],
                "percent": float(r["percent"]),
                "folds": FOLDS,
                "seconds": "",
            }
            for r in csv.DictReader(file)
        ]


def summarise(records: Sequence[Row]) -> list[Row]:
    """Average the records over folds, and then over the numbers of features.

    Args:
        records: Those of a study.

    Returns:
        For each method and problem a row for each number of features, and one with ``mean`` where all of them are
        there: the percentage of the true features among the k best, the folds, and the processor's seconds of a fold.
    """
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for record in records:
        groups.setdefault((record["method"], record["problem"], record["features"]), []).append(record)
    rows: list[Row] = []
    for method in NAMES:
        for name, true in TRUE.items():
            found = []
            for features in sizes(name):
                some = groups.get((method, name, features))
                if some:
                    percent = 100 * float(np.mean([r["found"] for r in some])) / true
                    seconds = float(np.mean([r["seconds"] for r in some]))
                    found.append(_row(method, name, features, percent, len(some), seconds))
            rows += found
            if len(found) == len(sizes(name)):
                percent, seconds = (float(np.mean([r[key] for r in found])) for key in ("percent", "seconds"))
                rows.append(_row(method, name, "mean", percent, min(r["folds"] for r in found), seconds))
    return rows


def _row(method: str, name: str, features: Any, percent: float, folds: int, seconds: float) -> Row:
    values = (NAMES[method], "measured", name, features, round(percent, 1), folds, round(seconds, 2))
    return dict(zip(COLUMNS, values, strict=True))


def markdown(rows: Sequence[Row]) -> list[str]:
    """Make a table of the means over all numbers of features, measured ones first, then those published."""
    lines = ["| method | " + " | ".join(name.upper() for name in TRUE) + " | folds | seconds at 2048 |",
             "|---|" + "---|" * (len(TRUE) + 2)]  # fmt: skip
    for by in ("measured", "published"):
        mine = [r for r in rows if r["by"] == by]
        for method in dict.fromkeys(r["method"] for r in mine):
            of_method = [r for r in mine if r["method"] == method]
            means = {r["problem"]: r for r in of_method if r["features"] == "mean"}
            if not means:
                continue
            cells = [f"{means[name]['percent']:.1f}" if name in means else "" for name in TRUE]
            times = [r["seconds"] for r in of_method if str(r["features"]) == "2048" and r["seconds"] != ""]
            folds = str(min(r["folds"] for r in means.values()))
            title = method if by == "measured" else f"{method} (published)"
            lines.append(f"| {' | '.join([title, *cells, folds, f'{np.mean(times):.1f}' if times else ''])} |")
    return lines


def write(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write ``feature_selection.csv`` and ``feature_selection.png`` into a folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "feature_selection.csv"
    with atomic(table) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with drawing():
        figure, axes = panels(len(TRUE), 4, 10.0, 2.6)
        for axis, name in zip(axes, TRUE, strict=True):
            for k, method in enumerate(NAMES.values()):
                mine = [r for r in rows if (r["method"], r["by"], r["problem"]) == (method, "measured", name)]
                mine = [r for r in mine if r["features"] != "mean"]
                if mine:
                    style: dict[str, Any] = {"lw": 2.2, "zorder": 3} if k == 0 else {"lw": 1.0, "ls": "--"}
                    axis.plot([r["features"] for r in mine], [r["percent"] for r in mine], marker="o", ms=3,
                              label=method, color=f"C{k}", **style)  # fmt: skip
            known = [r for r in rows if r["by"] == "published" and r["problem"] == name and r["features"] != "mean"]
            for marker, method in zip("s^vD", dict.fromkeys(r["method"] for r in known), strict=False):
                mine = [r for r in known if r["method"] == method]
                axis.plot([int(r["features"]) for r in mine], [r["percent"] for r in mine], marker, color="0.4", ms=5,
                          label=f"{method} (published)", mfc="none")  # fmt: skip
            log_ticks(axis, "x", sizes(name))
            axis.set(title=name.upper(), xlabel="features", ylim=(-4, 104))
        axes[0].set_ylabel("true ones among the k best [%]")
        handles = {
            label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
        paths = save(figure, folder, "feature_selection", ["png"])
    return [table, *paths]
