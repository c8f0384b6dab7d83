"""``lumos feature-report``: what became of every input feature of a run, or of its runs over several seeds.

The CSV has a row for each run and feature: whether it is kept and in how many of the runs, the step at which it closed
for good and its place in the order of closing, whether the outputs are known to depend on it, |Pearson| and mutual
information (both as in the run's features.csv), LASSO, STG and LassoNet where scikit-learn, torch and lassonet are
installed, and the open probability at each noted step (``p@step``). The samples are made again and must have the run's
digest; LASSO, STG and LassoNet see at most 5,000 training rows, standardised (LassoNet 1,000).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lumos.errors import ConfigError, RecordError
from lumos.suite.console import log
from lumos.suite.dependence import truth_of
from lumos.suite.feature_selectors import SELECTORS, training_table
from lumos.suite.finished_run import FinishedRun, find_run, finished_run, read_run
from lumos.suite.paths import RESULTS
from lumos.suite.report import feature_table
from lumos.suite.report.feature_figure import draw
from lumos.suite.report.results import Results, configuration

BESIDE = ("lasso", "stg", "lassonet")


def runs_of(words: Sequence[str], seeds: bool) -> list[FinishedRun]:
    """Find the runs that folders, ids or the words of ``lumos run`` name, by seed.

    Args:
        words: Folders or ids of finished runs, or what ``lumos run`` made one of.
        seeds: Find those beside the first one too that differ only in their seed.

    Raises:
        RecordError: They differ in more than their seed.
    """
    keys, names = [w for w in words if "=" in w], [w for w in words if "=" not in w]
    if bool(keys) == bool(names):
        raise RecordError("expected folders or ids of finished runs, or what `lumos run` made one of (workload=NAME …)")
    runs = [find_run(keys)] if keys else [read_run(name) for name in names]
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
                f"lumos compare {runs[0].entry['run_id']} {run.entry['run_id']}"
            )
    return sorted(runs, key=lambda run: run.entry["seed"])


def entering(workload: Any) -> list[str] | None:
    """List the features that the outputs are known to depend on, also by way of others; None where it is not known."""
    truth = truth_of(workload)
    return None if truth is None else [n for n in workload.features() if n in truth.enters or n in truth.derived]


def features_of(run: FinishedRun, methods: Sequence[str]) -> feature_table.RunFeatures:
    """Read a run's history, with the strengths that others give its features on the same training rows."""
    rows = run.run.table("features.csv")
    if not rows:
        raise RecordError(f"{run.run.name}: it has no features.csv, which a run with gates on its input features "
                          f"leaves: {run.command}")  # fmt: skip
    found = feature_table.run_features(run.entry, rows, entering(run.workload))
    if methods and hasattr(run.workload, "table"):
        run.check_data()
        x, y = training_table(run.workload, run.config.seed)
        for name in methods:
            try:
                strength = SELECTORS[name](x, y, int(found.kept.sum()), run.config.seed)
            except ImportError as error:
                log.warning(f"{name} is left out: {error}")
                continue
            finite = np.isfinite(strength)
            # LassoNet gives infinity to a feature that is still there at the end of its path.
            found.strengths[name] = np.where(finite, strength, 1.1 * strength[finite].max(initial=1.0))
    return found


def place_of(run: FinishedRun) -> Path:
    """Return where a run's report goes: into its folder; of a run in an archive, into ``results/features``."""
    if run.run.packed is None:
        return run.run.place / "feature_report.csv"
    return RESULTS[0] / "features" / f"{run.workload.name}-{run.entry['run_id']}.csv"


def report_features(
    words: Sequence[str], seeds: bool, methods: Sequence[str], table: Path | None = None, figure: Path | None = None
) -> list[str]:
    """Write the CSV and the figure of a run, or of several that differ in their seed.

    Args:
        words: Folders or ids of finished runs, or what ``lumos run`` made one of.
        seeds: Take the runs beside the first one too that differ only in their seed.
        methods: Other selections to show, of :data:`BESIDE`.
        table: The CSV; where None, :func:`place_of` the first run.
        figure: The figure; beside the CSV where None.

    Returns:
        What to print: the files, and the summary.

    Raises:
        ConfigError: There is no such method.
        RecordError: A run is not there, has no features, or differs in more than its seed.
    """
    if unknown := set(methods) - set(BESIDE):
        raise ConfigError(f"--methods {','.join(sorted(unknown))}: expected some of {', '.join(BESIDE)}")
    runs = runs_of(words, seeds)
    table = table or place_of(runs[0])
    found = [features_of(run, methods) for run in runs]
    feature_table.write(found, table)
    return [f"wrote {table}", *_drawn(found, figure or table.with_suffix(".png"))]


def redraw(table: Path, figure: Path | None = None) -> list[str]:
    """Draw the figure of a report's CSV again; returns what to print. Raises RecordError where it is none."""
    return _drawn(feature_table.read(table), figure or table.with_suffix(".png"))


def _drawn(found: Sequence[feature_table.RunFeatures], figure: Path) -> list[str]:
    draw(found, figure)
    return [f"wrote {figure}", *feature_table.lines(found)]
