"""What the gates chose, what correlation says, and what the equations say, of the inputs of CFD, Fluid and PureMD.

    python scripts/feature_study.py [RUN ...]        # runs' folders or ids; the reference runs if none is named
    python scripts/feature_study.py --draw           # the figure again, from the CSV alone

Writes results/reference/feature_study.csv, a row for each input and output, and docs/figures/feature_study.png. The
gates' choice is read from the runs' records; |Pearson| is taken from their training rows, which are made again and must
have the same digest; what the equations say is plain data beside each workload (``dependence.py``).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from lumos.files import atomic
from lumos.suite.exit_codes import exit_on_error
from lumos.suite.finished_run import FinishedRun, read_run
from lumos.suite.paths import PROJECT, RESULTS
from lumos.workloads.common.sheets import save_sheet

NAMES = ("cfd", "fluid", "puremd")
TABLE = PROJECT / "results" / "reference" / "feature_study.csv"
FIGURE = PROJECT / "docs" / "figures" / "feature_study.png"

ROLES = {"unused": "#ffffff", "derived": "#cfe8d5", "enters": "#2a7f4f"}
"""What an input is in an output's equation, and its colour."""
VERDICTS = {"kept": "#0072B2", "follows": "#9ecae1", "unused": "#eeeeee", "lost": "#D55E00"}
"""Of an input: kept; not kept, but it follows from kept ones; not kept nor needed; not kept though it enters."""


def correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|Pearson| of each input column (rows, inputs) with each output column (rows, outputs): (inputs, outputs)."""
    x, y = (table.astype(np.float64) - table.mean(0, dtype=np.float64) for table in (x, y))
    size = np.sqrt((x**2).sum(0))[:, None] * np.sqrt((y**2).sum(0))[None]
    return np.divide(np.abs(x.T @ y), size, out=np.zeros_like(size), where=size > 0)


def study(run: FinishedRun) -> Iterator[dict[str, Any]]:
    """A row for each input and output of a run."""
    run.check_data()
    workload = run.workload
    outputs = sys.modules[type(workload).__module__].OUTPUTS
    outputs = outputs if isinstance(outputs, tuple) else outputs[workload.variant]
    kept = set(run.entry["gates"]["features_kept"])
    truth = workload.true_dependence()
    strength = correlations(*workload.table())
    for i, name in enumerate(workload.features()):
        derived = truth.derived.get(name)
        for o, output in enumerate(outputs):
            yield {
                "workload": workload.name,
                "run_id": run.entry["run_id"],
                "input": name,
                "output": output,
                "kept": int(name in kept),
                "abs_pearson": round(float(strength[i, o]), 4),
                "equation": truth.role(name, output),
                "derived_from": " ".join(derived.parents) if derived else "",
                "verdict": truth.verdict(name, kept),
            }


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The rows as CSV."""
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw(rows: Sequence[dict[str, str]], path: Path) -> None:
    """For each workload: the gates' choice, |Pearson| with each output, and each output's equation, by input."""
    names = list(dict.fromkeys(row["workload"] for row in rows))
    figure = Figure(figsize=(12, 9.6), dpi=100, layout="constrained")
    panels: Any = figure.subfigures(len(names), 1, height_ratios=[1.25, 1.0, 1.0][: len(names)], squeeze=False)
    for panel, name in zip(panels[:, 0], names, strict=True):
        _panel(panel, name, [row for row in rows if row["workload"] == name])
    swatches = figure.legend(
        handles=_swatches(), loc="outside lower center", ncols=3, frameon=False, fontsize=9, handlelength=1.2
    )
    swatches.set_in_layout(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_sheet(figure, path)


def _swatches() -> list[Any]:
    from matplotlib.patches import Patch

    words = {
        "kept": "kept by the gates",
        "follows": "not kept, follows from kept ones",
        "unused": "not kept, not needed",
        "lost": "not kept, though the equations have it",
    }
    colours = {word: VERDICTS[key] for key, word in words.items()}
    colours |= {"enters the equation": ROLES["enters"], "follows from other inputs": ROLES["derived"]}
    return [Patch(facecolor=colour, edgecolor="#888888", label=word) for word, colour in colours.items()]


def _panel(panel: Any, name: str, rows: Sequence[dict[str, str]]) -> None:
    inputs = list(dict.fromkeys(row["input"] for row in rows))
    outputs = list(dict.fromkeys(row["output"] for row in rows))
    by_place = {(row["input"], row["output"]): row for row in rows}

    def grid(key: str) -> list[list[str]]:
        return [[by_place[i, o][key] for i in inputs] for o in outputs]

    axes = panel.subplots(3, 1, height_ratios=[1, len(outputs), len(outputs)], sharex=True)
    kinds = list(VERDICTS)
    choice = [[kinds.index(word) for word in grid("verdict")[0]]]
    axes[0].imshow(choice, cmap=ListedColormap(list(VERDICTS.values())), vmin=-0.5, vmax=3.5, aspect="auto")
    strength = np.array([[float(v) for v in line] for line in grid("abs_pearson")])
    axes[1].imshow(strength, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    for (o, i), value in np.ndenumerate(strength):
        if value >= 0.005:
            axes[1].text(i, o, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if value > 0.5 else "k")
    role = [[list(ROLES).index(word) for word in line] for line in grid("equation")]
    axes[2].imshow(role, cmap=ListedColormap(list(ROLES.values())), vmin=-0.5, vmax=2.5, aspect="auto")
    kept = sum(row["kept"] == "1" for row in rows) // len(outputs)
    panel.suptitle(f"{name}: {kept} of {len(inputs)} inputs kept", fontsize=11, x=0.01, ha="left", weight="bold")
    for axis, title, lines in zip(axes, ("gates", "|Pearson|", "equation"), ([""], outputs, outputs), strict=True):
        axis.set_yticks(range(len(lines)), lines, fontsize=8)
        axis.set_ylabel(title, rotation=0, ha="right", va="center", labelpad=52 if lines[0] else 60, fontsize=9)
        axis.tick_params(length=0)
        axis.set_xticks(np.arange(len(inputs) + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(len(lines) + 1) - 0.5, minor=True)
        axis.grid(which="minor", color="#bbbbbb", lw=0.5)
    axes[2].set_xticks(range(len(inputs)), inputs, fontsize=8, rotation=30, ha="right", rotation_mode="anchor")


def reference(name: str) -> str:
    """The id of a workload's reference run: gated, at scale=small, of the lowest seed, of these the mildest cut."""
    from lumos.suite.report.results import Results

    found = [r for r in Results(RESULTS[1:]).finished if r["workload"] == name]
    found = [r for r in found if r["scale"] == "small" and r["gates"]]
    return min(found, key=lambda r: (r["seed"], -r["compact"]["params"]))["run_id"]


def main() -> int:
    """Study and draw, or draw alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folders or ids of finished runs")
    parser.add_argument("--draw", action="store_true", help="draw from the CSV alone")
    parser.add_argument("--table", type=Path, default=TABLE, help="the CSV")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="the PNG")
    options = parser.parse_args()
    if not options.draw:
        runs = options.runs or [reference(name) for name in NAMES]
        write([row for run in runs for row in study(read_run(run))], options.table)
        print(f"wrote {options.table}")
    with options.table.open(newline="") as file:
        draw(list(csv.DictReader(file)), options.figure)
    print(f"wrote {options.figure}")
    return 0


if __name__ == "__main__":
    with exit_on_error():
        sys.exit(main())
