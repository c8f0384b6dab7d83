"""What became of every input feature of a run, or of a workload's runs over several seeds: one CSV and one figure.

    python scripts/feature_report.py results/runs/cfd/RUN_ID             # one run
    python scripts/feature_report.py results/runs/cfd/RUN_ID --seeds     # and the runs that differ only in their seed
    python scripts/feature_report.py results/runs/cfd/A results/runs/cfd/B
    python scripts/feature_report.py workload=cfd lumos.lambda=1e-3      # the run that run.py makes of these
    python scripts/feature_report.py --draw TABLE.csv                    # the figure again, from the CSV alone

The CSV has a row for each run and feature: whether it is kept and in how many of the runs, the step at which it closed
for good and its place in the order of closing, whether the outputs are known to depend on it, |Pearson| and mutual
information (both as in the run's features.csv), LASSO, STG and LassoNet where scikit-learn, torch and lassonet are
installed, and the open probability at each noted step (``p@step``). The samples are made again and must have the run's
digest; LASSO, STG and LassoNet see at most 5,000 training rows, standardised (LassoNet 1,000).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from feature_peers import METHODS, training_table
from finished_run import FinishedRun, find, finished_run

from lumos.errors import RecordError
from lumos.suite.cli import exit_on_error
from lumos.suite.paths import RESULTS
from lumos.suite.report import features
from lumos.suite.report.feature_figure import draw
from lumos.suite.report.results import Results, configuration

BESIDE = ("lasso", "stg", "lassonet")


def runs_of(words: Sequence[str], seeds: bool) -> list[FinishedRun]:
    """The runs that folders, ids or run.py's arguments name, by seed; with ``seeds`` also those beside the first one.

    Raises RecordError where they do not differ in their seed alone.
    """
    keys, names = [w for w in words if "=" in w], [w for w in words if "=" not in w]
    if bool(keys) == bool(names):
        raise RecordError("expected folders or ids of finished runs, or run.py's arguments (workload=NAME …), not both")
    runs = [find(keys)] if keys else [find([], name) for name in names]
    wanted = configuration(runs[0].entry)
    if seeds:
        known = {run.entry["run_id"] for run in runs}
        results = Results((runs[0].run.results,))
        alike = [r["run_id"] for r in results.finished if configuration(r) == wanted]
        runs += [finished_run(results.runs[i]) for i in alike if i not in known]
    for run in runs:
        if configuration(run.entry) != wanted:
            raise RecordError(
                f"{run.run.name} and {runs[0].run.name} differ in more than their seed; compare them with "
                f"python -m lumos compare {runs[0].entry['run_id']} {run.entry['run_id']}"
            )
    return sorted(runs, key=lambda run: run.entry["seed"])


def entering(workload: Any) -> list[str] | None:
    """The features that the outputs are known to depend on, those that follow from others included; None: not known."""
    if hasattr(workload, "true_dependence"):
        known = workload.true_dependence()
        useful = {*known.enters, *known.derived}
        return [name for name in workload.features() if name in useful]
    return list(workload.true_features()) if hasattr(workload, "true_features") else None


def course_of(run: FinishedRun, methods: Sequence[str]) -> features.Course:
    """A run's history, with the strengths that others give its features on the same training rows."""
    rows = run.run.table("features.csv")
    if not rows:
        raise RecordError(f"{run.run.name}: it has no features.csv, which a run with gates on its input features "
                          f"leaves: {run.command}")  # fmt: skip
    found = features.course(run.entry, rows, entering(run.workload))
    if methods and hasattr(run.workload, "table"):
        run.check_data()
        x, y = training_table(run.workload, run.config.seed)
        for name in methods:
            try:
                strength = METHODS[name](x, y, int(found.kept.sum()), run.config.seed)
            except ImportError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
                continue
            finite = np.isfinite(strength)
            # LassoNet gives infinity to a feature that is still there at the end of its path.
            found.strengths[name] = np.where(finite, strength, 1.1 * strength[finite].max(initial=1.0))
    return found


def place_of(run: FinishedRun) -> Path:
    """Where a run's report goes: into its folder; of a run in an archive, into ``results/features``."""
    if run.run.packed is None:
        return run.run.place / "feature_report.csv"
    return RESULTS[0] / "features" / f"{run.workload.name}-{run.entry['run_id']}.csv"


def main(arguments: Sequence[str]) -> None:
    """Read the runs, or the CSV, write the CSV and the figure, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="FOLDER|ID|KEY=VALUE", help="finished runs")
    parser.add_argument("--seeds", action="store_true", help="also the runs beside it that differ only in their seed")
    parser.add_argument("--methods", default=",".join(BESIDE), help="of lasso, stg and lassonet; empty: none")
    parser.add_argument("--table", type=Path, help="the CSV (default: feature_report.csv in the first run's folder)")
    parser.add_argument("--figure", type=Path, help="the figure: .png, .pdf or .svg (default: beside the CSV)")
    parser.add_argument("--draw", type=Path, metavar="CSV", help="draw a report's figure again")
    options = parser.parse_intermixed_args(arguments)
    methods = [m for m in options.methods.split(",") if m]
    if set(methods) - set(BESIDE):
        parser.error(f"--methods {options.methods}: expected some of {', '.join(BESIDE)}")
    if options.draw:
        table, courses = options.draw, features.read(options.draw)
    else:
        runs = runs_of(options.runs, options.seeds)
        table = options.table or place_of(runs[0])
        courses = [course_of(run, methods) for run in runs]
        features.write(courses, table)
        print(f"wrote {table}")
    figure = options.figure or table.with_suffix(".png")
    draw(courses, figure)
    print(f"wrote {figure}", *features.lines(courses), sep="\n")


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
