"""What became of the input features of a run, or of one workload's runs with several seeds: a CSV and a summary."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lumos.errors import RecordError, reads
from lumos.files import atomic
from lumos.suite.rows import read_rows

STATISTICS = {
    "abs_pearson": "|Pearson|", "mutual_information": "mutual information", "lasso": "LASSO", "stg": "STG",
    "lassonet": "LassoNet",
}  # fmt: skip
"""Columns of other selections' strengths, and how they are called; each is read where it is there."""
_FIRST = ("workload", "run_id", "seed", "feature", "enters", "kept", "closed_at", "order", "kept_in", "runs")


@dataclass(frozen=True)
class RunFeatures:
    """One run's features: when each closed, and what other selections say of it.

    ``kept``, ``closed_at`` (a step; infinite for those kept), ``open`` (open probability, features x steps) and each of
    ``strengths`` (larger is more relevant; any unit) are in the order of ``names``. ``enters`` marks the features that
    the outputs are known to depend on; None where that is not known.
    """

    workload: str
    run_id: str
    seed: int
    names: tuple[str, ...]
    kept: Bool[np.ndarray, " features"]
    closed_at: Float[np.ndarray, " features"]
    steps: tuple[int, ...]
    open: Float[np.ndarray, "features steps"]
    enters: Bool[np.ndarray, " features"] | None = None
    strengths: dict[str, Float[np.ndarray, " features"]] = field(default_factory=dict)

    def strongest(self, statistic: str) -> Bool[np.ndarray, " features"]:
        """Choose as many features as the gates kept, by a statistic; of equal ones those that come first."""
        chosen = np.zeros(len(self.names), dtype=bool)
        chosen[np.argsort(-self.strengths[statistic], kind="stable")[: self.kept.sum()]] = True
        return chosen

    def by_closing(self) -> list[int]:
        """Order the features: kept ones first, then from the last to close to the first."""
        likely = self.open.mean(1)
        return sorted(range(len(self.names)), key=lambda i: (-self.closed_at[i], -likely[i], i))


@dataclass(frozen=True)
class Agreement:
    """How a selection of as many features as the gates kept compares, in each run, and over the runs.

    ``hits``: how many of it are among the features that enter (among those the gates kept, where the truth is unknown
    or all enter); ``of``: how many could be. ``stability``: of the function; None where each run has its own problem.
    """

    name: str
    hits: tuple[int, ...]
    of: tuple[int, ...]
    stability: float | None

    @property
    def shares(self) -> tuple[float, ...]:
        """Hits of what could be, a run each."""
        return tuple(h / o if o else 1.0 for h, o in zip(self.hits, self.of, strict=True))


def run_features(
    entry: dict[str, Any], rows: Sequence[dict[str, Any]], enters: Sequence[str] | None = None
) -> RunFeatures:
    """Read what became of a run's features.

    Args:
        entry: the run's record.
        rows: those of its ``features.csv``.
        enters: the names of the features that the outputs depend on, where these are known.

    Raises:
        RecordError: if the rows have no history of the gates.
    """
    steps = tuple(sorted(int(key[2:]) for key in (rows[0] if rows else {}) if re.fullmatch(r"p@\d{1,15}", key)))
    if not steps:
        raise RecordError(
            f"run {entry['run_id']}: features.csv has no open probabilities; the model has no gates on its inputs, or "
            "the run is of a method without gates"
        )
    names = tuple(str(row["feature"]) for row in rows)
    return RunFeatures(
        workload=entry["workload"],
        run_id=entry["run_id"],
        seed=int(entry["seed"]),
        names=names,
        kept=np.array([bool(_number(row["kept"])) for row in rows]),
        closed_at=np.array([_number(row["closed_at"], np.inf) for row in rows]),
        steps=steps,
        open=np.array([[_number(row.get(f"p@{step}"), np.nan) for step in steps] for row in rows]),
        enters=None if enters is None else np.isin(names, list(enters)),
        strengths={
            name: np.array([_number(row[name], 0.0) for row in rows])
            for name in STATISTICS
            if any(row.get(name) not in (None, "") for row in rows)
        },
    )


def check(runs: Sequence[RunFeatures]) -> None:
    """Raise RecordError where the runs are of several workloads or have different features."""
    if not runs:
        raise RecordError("no runs; give the folder of a finished run, or of several")
    for other in runs[1:]:
        if (other.workload, other.names) != (runs[0].workload, runs[0].names):
            raise RecordError(
                f"run {other.run_id} ({other.workload}, {len(other.names)} features) and run {runs[0].run_id} "
                f"({runs[0].workload}, {len(runs[0].names)} features) do not select from the same features"
            )


def one_problem(runs: Sequence[RunFeatures]) -> bool:
    """Return whether the same features enter in every run, as far as that is known."""
    return all(
        (run.enters is None) == (runs[0].enters is None) and np.array_equal(run.enters, runs[0].enters)  # pyright: ignore[reportArgumentType]
        for run in runs
    )


def judged(runs: Sequence[RunFeatures]) -> bool:
    """Return whether the truth tells selections apart: it is known in every run, and is not that all features enter."""
    return all(run.enters is not None and not run.enters.all() for run in runs)


def stability(selected: Bool[np.ndarray, "runs features"]) -> float | None:
    """Measure how alike selections are: 1 for equal ones, about 0 for random ones; at least -1 / (runs - 1).

    Nogueira, Sechidis and Brown, On the stability of feature selection algorithms, JMLR 18 (2018), equation 4. None for
    one run, and where all features or none are selected in every run.

    >>> stability(np.array([[True, True, False, False], [True, False, True, False]]))
    0.0
    """
    runs = len(selected)
    share = selected.mean()
    if runs < 2 or share in (0.0, 1.0):
        return None
    often = selected.mean(0)
    return float(1 - (runs / (runs - 1) * often * (1 - often)).mean() / (share * (1 - share)))


def agreements(runs: Sequence[RunFeatures]) -> list[Agreement]:
    """Compare selections: the gates first, where the truth is known, then the statistics that every run has."""
    known = judged(runs)
    chosen = {"gates": [run.kept for run in runs]} if known or len(runs) > 1 else {}
    for name, title in STATISTICS.items():
        if all(name in run.strengths for run in runs):
            chosen[title] = [run.strongest(name) for run in runs]
    right = [run.enters if known and run.enters is not None else run.kept for run in runs]
    return [
        Agreement(
            name,
            tuple(int((s & r).sum()) for s, r in zip(selected, right, strict=True)),
            tuple(min(int(s.sum()), int(r.sum())) for s, r in zip(selected, right, strict=True)),
            stability(np.array(selected)) if one_problem(runs) else None,
        )
        for name, selected in chosen.items()
    ]


def lines(runs: Sequence[RunFeatures]) -> list[str]:
    """Summarise runs in lines for a terminal."""
    what = "that enter" if judged(runs) else "that the gates kept"
    out = []
    for run in runs:
        kept = f"{run.workload} {run.run_id} seed {run.seed}: {run.kept.sum()} of {len(run.names)} kept"
        if run.enters is not None and judged(runs):
            kept += f", {(run.kept & run.enters).sum()} of the {run.enters.sum()} that enter"
        out.append(kept)
    if len(runs) > 1:
        often = np.sum([run.kept for run in runs], 0)
        if one_problem(runs):
            out.append(f"kept in all {len(runs)} runs: {_listed(runs[0], often == len(runs))}")
            out.append(f"kept in some: {_listed(runs[0], (often > 0) & (often < len(runs)))}")
        else:
            out.append("each seed draws a problem of its own, so names are not compared over the seeds")
    out.append(f"as many features as the gates kept, by each statistic: those of them {what}")
    for a in agreements(runs):
        found = " ".join(f"{h}/{o}" for h, o in zip(a.hits, a.of, strict=True))
        out.append(f"  {a.name:20} {found}" + ("" if a.stability is None else f"   stability {a.stability:.2f}"))
    return out


def write(runs: Sequence[RunFeatures], path: Path) -> None:
    """Write a row for each run and feature: what the run says, the statistics, and the open probabilities (``p@step``).

    ``enters``: 1, 0, or empty where it is not known; ``order``: 1 closed first; ``kept_in``: of how many ``runs``.
    """
    check(runs)
    often = np.sum([run.kept for run in runs], 0)
    statistics = [name for name in STATISTICS if any(name in run.strengths for run in runs)]
    steps = sorted({step for run in runs for step in run.steps})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_FIRST, *statistics, *(f"p@{step}" for step in steps)])
        for run in runs:
            closings = sorted(set(run.closed_at[np.isfinite(run.closed_at)]))
            for i, name in enumerate(run.names):
                closed = np.isfinite(run.closed_at[i])
                place = closings.index(run.closed_at[i]) + 1 if closed else ""
                likely = dict(zip(run.steps, run.open[i], strict=True))
                writer.writerow([
                    run.workload, run.run_id, run.seed, name, "" if run.enters is None else int(run.enters[i]),
                    int(run.kept[i]), int(run.closed_at[i]) if closed else "", place, often[i], len(runs),
                    *(f"{run.strengths[s][i]:.4g}" if s in run.strengths else "" for s in statistics),
                    *(f"{likely[s]:.4g}" if s in likely else "" for s in steps),
                ])  # fmt: skip


@reads("expected a feature report; make it anew from the runs", error=RecordError)
def read(path: Path) -> list[RunFeatures]:
    """Read what ``write`` wrote. Raises RecordError where the file is none of that kind."""
    rows = read_rows(path.read_bytes(), str(path))
    found: list[RunFeatures] = []
    for run in dict.fromkeys(row["run_id"] for row in rows):
        mine = [row for row in rows if row["run_id"] == run]
        mine = [{k: v for k, v in row.items() if not (k.startswith("p@") and v is None)} for row in mine]
        known = mine[0]["enters"] is not None
        enters = [str(row["feature"]) for row in mine if row["enters"] == 1] if known else None
        found.append(run_features(mine[0], mine, enters))
    check(found)
    return found


def _listed(first: RunFeatures, chosen: Bool[np.ndarray, " features"], most: int = 40) -> str:
    names = [n for n, yes in zip(first.names, chosen, strict=True) if yes]
    return (", ".join(names[:most]) or "none") + (f", and {len(names) - most} more" if len(names) > most else "")


def _number(value: Any, empty: float = 0.0) -> float:
    return empty if value in (None, "") else float(value)
