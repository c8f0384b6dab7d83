"""What became of the input features of a run, or of one workload's runs with several seeds: a CSV and a summary."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from lumos.errors import RecordError
from lumos.files import atomic

STATISTICS = {
    "abs_pearson": "|Pearson|", "mutual_information": "mutual information", "lasso": "LASSO", "stg": "STG",
    "lassonet": "LassoNet",
}  # fmt: skip
"""Columns of other selections' strengths, and how they are called; each is read where it is there."""
_FIRST = ("workload", "run_id", "seed", "feature", "enters", "kept", "closed_at", "order", "kept_in", "runs")


@dataclass(frozen=True)
class Course:
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
        """As many features as the gates kept, by a statistic; of equal ones those that come first."""
        chosen = np.zeros(len(self.names), dtype=bool)
        chosen[np.argsort(-self.strengths[statistic], kind="stable")[: self.kept.sum()]] = True
        return chosen

    def by_closing(self) -> list[int]:
        """The features' places: kept ones first, then from the last to close to the first."""
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


def course(entry: dict[str, Any], rows: Sequence[dict[str, Any]], enters: Sequence[str] | None = None) -> Course:
    """From a run's record and the rows of its ``features.csv``; ``enters`` are the names known to matter.

    Raises RecordError for rows without the gates' history.
    """
    steps = tuple(sorted(int(key[2:]) for key in (rows[0] if rows else {}) if key.startswith("p@")))
    if not steps:
        raise RecordError(
            f"run {entry['run_id']}: features.csv has no open probabilities; the model has no gates on its inputs, or "
            "the run is of a method without gates"
        )
    names = tuple(str(row["feature"]) for row in rows)
    return Course(
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


def check(courses: Sequence[Course]) -> None:
    """Raises RecordError where the runs are of several workloads or have different features."""
    if not courses:
        raise RecordError("no runs; give the folder of a finished run, or of several")
    for other in courses[1:]:
        if (other.workload, other.names) != (courses[0].workload, courses[0].names):
            raise RecordError(
                f"run {other.run_id} ({other.workload}, {len(other.names)} features) and run {courses[0].run_id} "
                f"({courses[0].workload}, {len(courses[0].names)} features) do not select from the same features"
            )


def one_problem(courses: Sequence[Course]) -> bool:
    """Whether the same features enter in every run, as far as that is known."""
    return all(
        (c.enters is None) == (courses[0].enters is None) and np.array_equal(c.enters, courses[0].enters)  # pyright: ignore[reportArgumentType]
        for c in courses
    )


def judged(courses: Sequence[Course]) -> bool:
    """Whether the truth tells selections apart: it is known in every run, and is not that all features enter."""
    return all(c.enters is not None and not c.enters.all() for c in courses)


def stability(selected: Bool[np.ndarray, "runs features"]) -> float | None:
    """How alike selections are: 1 for equal ones, about 0 for random ones; at least -1 / (runs - 1).

    Nogueira, Sechidis and Brown, On the stability of feature selection algorithms, JMLR 18 (2018), equation 4. None for
    one run, and where all features or none are selected in every run.
    """
    runs = len(selected)
    share = selected.mean()
    if runs < 2 or share in (0.0, 1.0):
        return None
    often = selected.mean(0)
    return float(1 - (runs / (runs - 1) * often * (1 - often)).mean() / (share * (1 - share)))


def agreements(courses: Sequence[Course]) -> list[Agreement]:
    """The gates first, where the truth is known, then the statistics that every run has."""
    known = judged(courses)
    chosen = {"gates": [c.kept for c in courses]} if known or len(courses) > 1 else {}
    for name, title in STATISTICS.items():
        if all(name in c.strengths for c in courses):
            chosen[title] = [c.strongest(name) for c in courses]
    right = [c.enters if known and c.enters is not None else c.kept for c in courses]
    return [
        Agreement(
            name,
            tuple(int((s & r).sum()) for s, r in zip(selected, right, strict=True)),
            tuple(min(int(s.sum()), int(r.sum())) for s, r in zip(selected, right, strict=True)),
            stability(np.array(selected)) if one_problem(courses) else None,
        )
        for name, selected in chosen.items()
    ]


def lines(courses: Sequence[Course]) -> list[str]:
    """The summary, for a terminal."""
    what = "that enter" if judged(courses) else "that the gates kept"
    out = []
    for c in courses:
        kept = f"{c.workload} {c.run_id} seed {c.seed}: {c.kept.sum()} of {len(c.names)} kept"
        if c.enters is not None and judged(courses):
            kept += f", {(c.kept & c.enters).sum()} of the {c.enters.sum()} that enter"
        out.append(kept)
    if len(courses) > 1:
        often = np.sum([c.kept for c in courses], 0)
        if one_problem(courses):
            out.append(f"kept in all {len(courses)} runs: {_listed(courses[0], often == len(courses))}")
            out.append(f"kept in some: {_listed(courses[0], (often > 0) & (often < len(courses)))}")
        else:
            out.append("each seed draws a problem of its own, so names are not compared over the seeds")
    out.append(f"as many features as the gates kept, by each statistic: those of them {what}")
    for a in agreements(courses):
        found = " ".join(f"{h}/{o}" for h, o in zip(a.hits, a.of, strict=True))
        out.append(f"  {a.name:20} {found}" + ("" if a.stability is None else f"   stability {a.stability:.2f}"))
    return out


def write(courses: Sequence[Course], path: Path) -> None:
    """A row for each run and feature: what the run says, the statistics, and the open probabilities (``p@step``).

    ``enters``: 1, 0, or empty where it is not known; ``order``: 1 closed first; ``kept_in``: of how many ``runs``.
    """
    check(courses)
    often = np.sum([c.kept for c in courses], 0)
    statistics = [name for name in STATISTICS if any(name in c.strengths for c in courses)]
    steps = sorted({step for c in courses for step in c.steps})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_FIRST, *statistics, *(f"p@{step}" for step in steps)])
        for c in courses:
            closings = sorted(set(c.closed_at[np.isfinite(c.closed_at)]))
            for i, name in enumerate(c.names):
                closed = np.isfinite(c.closed_at[i])
                likely = dict(zip(c.steps, c.open[i], strict=True))
                writer.writerow([
                    c.workload, c.run_id, c.seed, name, "" if c.enters is None else int(c.enters[i]), int(c.kept[i]),
                    int(c.closed_at[i]) if closed else "", closings.index(c.closed_at[i]) + 1 if closed else "",
                    often[i], len(courses),
                    *(f"{c.strengths[s][i]:.4g}" if s in c.strengths else "" for s in statistics),
                    *(f"{likely[s]:.4g}" if s in likely else "" for s in steps),
                ])  # fmt: skip


def read(path: Path) -> list[Course]:
    """What ``write`` wrote. Raises RecordError where the file is none of that kind."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        found: list[Course] = []
        for run in dict.fromkeys(row["run_id"] for row in rows):
            mine = [row for row in rows if row["run_id"] == run]
            mine = [{k: v for k, v in row.items() if not (k.startswith("p@") and v == "")} for row in mine]
            known = mine[0]["enters"] != ""
            enters = [row["feature"] for row in mine if row["enters"] == "1"] if known else None
            found.append(course(mine[0], mine, enters))
    except (OSError, KeyError, ValueError) as error:
        raise RecordError(f"{path}: not a feature report ({error}); make it anew from the runs") from None
    check(found)
    return found


def _listed(first: Course, chosen: Bool[np.ndarray, " features"], most: int = 40) -> str:
    names = [n for n, yes in zip(first.names, chosen, strict=True) if yes]
    return (", ".join(names[:most]) or "none") + (f", and {len(names) - most} more" if len(names) > most else "")


def _number(value: Any, empty: float = 0.0) -> float:
    return empty if value in (None, "") else float(value)
