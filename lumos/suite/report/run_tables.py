"""Tables of runs, not of workloads: score against size, kept widths, features, convergence, scaling, all runs."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from lumos.errors import RecordError, one_line
from lumos.suite.report import quantities as q
from lumos.suite.report.paper_tables import Evaluation
from lumos.suite.report.quantities import Record
from lumos.suite.report.results import SeedGroup, dominates, method_of, problem
from lumos.suite.report.table import EMPTY, Cell, Table, mean, number, word

SCALING = "scaling.csv"
SCALING_COLUMNS = ("workload", "method", "processes", "samples_per_second")


@dataclass(frozen=True)
class Point:
    """One run, or one dense network, in a plane of size and score."""

    method: str
    params: int
    score: float
    run: str

    def dominated(self, others: Sequence[Point], higher_is_better: bool) -> bool:
        """Return whether another point is no larger and no worse, and better in one of the two."""
        mine = self.params, self.score
        return any(dominates((p.params, p.score), mine, higher_is_better) for p in others)


def points(evaluation: Evaluation, workload: str) -> list[Point]:
    """Find every finished run of one problem of a workload, and their dense networks.

    It is the problem that the most methods were tried on, and of equals the one that stands for the workload.
    """
    problems: dict[str, list[Record]] = {}
    for group in evaluation.results.of(workload):
        problems.setdefault(problem(group.first), []).extend(group.runs)
    head = evaluation.results.headline(workload)
    stands = problem(head.first) if head else ""
    chosen = max(problems, key=lambda key: (len({method_of(r) for r in problems[key]}), key == stands, key), default="")
    found: dict[tuple[str, int, float], Point] = {}
    for run in problems.get(chosen, []):
        for name, side in (("dense", run["dense"]), (method_of(run), run["compact"])):
            if side.get("score") is not None:
                key = (name, side["params"], side["score"])
                found.setdefault(key, Point(*key, run["run_id"]))
    return sorted(found.values(), key=lambda p: p.params)


def pareto(evaluation: Evaluation) -> Table:
    """Tabulate score against size: every run, and whether another one is both smaller and better."""
    rows = []
    for name in evaluation.workloads:
        found = points(evaluation, name)
        higher = all(r["metric"]["higher_is_better"] for r in evaluation.results.finished if r["workload"] == name)
        for point in found:
            rows.append((
                word(evaluation.paper.title(name)), word(evaluation.paper.method_title(point.method)),
                number(point.params, ",.0f", runs=(point.run,)), number(point.score, ".4f", runs=(point.run,)),
                word("no" if point.dominated(found, higher) else "yes"),
            ))  # fmt: skip
    columns = ("Workload", "Method", "Parameters", "Score", "On the front")
    note = (
        "Every finished run, all seeds, of the problem (scale, data, training) that the most methods were tried on; on "
        "the front: no other of these runs is smaller and no worse."
    )
    return Table("pareto", "Score against size", columns, tuple(rows), note, left=2)


# ---- what is kept ---------------------------------------------------------------------------------------------------


def widths(evaluation: Evaluation) -> Table:
    """Tabulate the units kept in each group of the runs that stand for a workload."""
    rows = []
    for name, group in evaluation.headlines.items():
        for layer in (group.first.get("gates") or {}).get("groups", {}):
            kept, total = (group.mean(width(layer, side)) for side in ("open", "total"))
            share = 100 * kept / total if kept is not None and total else None
            rows.append((
                word(evaluation.paper.title(name)), word(layer), number(total, ",.0f"),
                mean(group, width(layer, "open"), ",.4g"), number(share, ".1f"),
            ))  # fmt: skip
    columns = ("Workload", "Group", "Units", "Kept", "Kept [%]")
    return Table("widths", "Kept widths", columns, tuple(rows), "Means over seeds.", left=2)


def width(layer: str, side: str) -> Callable[[Record], float | None]:
    """Return the quantity "units of a group", ``open`` or in ``total``."""

    def quantity(entry: Record) -> float | None:
        return entry["gates"]["groups"].get(layer, {}).get(side)

    return quantity


def choices(evaluation: Evaluation) -> list[Table]:
    """Tabulate how the choice of features compares with what is known of them; no table where no record says it."""
    rows = []
    for name, group in evaluation.headlines.items():
        for run in group.runs:
            choice = run.get("choice")
            if not choice or not (choice["repeats"] or choice["idle"]):
                continue
            needed, lost = len(choice["needed"]), choice["lost"]
            rows.append((
                word(evaluation.paper.title(name)), number(run["seed"], ".0f", runs=(run["run_id"],)),
                number(len(run["gates"]["features_kept"]), ".0f"), number(run["gates"]["features_total"], ".0f"),
                number(needed, ".0f"), number(needed - len(lost), ".0f"), word(", ".join(lost) or "none"),
                number(len(choice["idle"]), ".0f"), word(", ".join(choice["idle_kept"]) or "none"),
                word(", ".join(choice["repeated"]) or "none"),
            ))  # fmt: skip
    columns = ("Workload", "Seed", "Kept", "Features", "Needed", "Of these kept or following", "Lost", "Idle",
               "Idle ones kept", "Kept twice")  # fmt: skip
    note = (
        "Needed: what matters and follows from no other feature. Idle: what does not matter. Kept twice: what could go "
        "with nothing lost, since other kept features say the same."
    )
    return [Table("choices", "Features against the known truth", columns, tuple(rows), note, left=1)] if rows else []


def features(evaluation: Evaluation) -> Table:
    """Tabulate figure 10: which input features are kept, beside what simple statistics say of them."""
    rows = []
    for name, group in evaluation.headlines.items():
        found = feature_rows(evaluation, group)
        for row in found:
            rows.append((
                word(evaluation.paper.title(name)), word(row["feature"]),
                word("yes" if row["kept"] else "no", group.ids), number(row["seeds"], ".0f"),
                number(row["closed_at"], ".0f"),
                number(row["abs_pearson"], ".3f"), number(row["mutual_information"], ".3f"),
            ))  # fmt: skip
    columns = (
        "Workload",
        "Feature",
        "Kept",
        "Seeds that keep it",
        "Closed at step",
        "|Pearson|",
        "Mutual information [nat]",
    )
    note = (
        "Of the run with the lowest seed. |Pearson| and mutual information: the largest over the outputs, on "
        "the training rows. Published: CFD keeps x12, x13 and x14 of its own numbering."
    )
    return Table("fig10_features", "Fig. 10: input features", columns, tuple(rows), note, left=3)


def feature_rows(evaluation: Evaluation, group: SeedGroup) -> list[dict[str, Any]]:
    """Find what the first run says of each feature, and in how many of the runs it is kept (``seeds``)."""
    tables = [evaluation.results.table(run, "features.csv") for run in group.runs]
    kept = [row["feature"] for table in tables for row in table if row.get("kept")]
    return [{"kept": 0.0, "closed_at": None, "abs_pearson": None, "mutual_information": None, **row,
             "seeds": kept.count(row["feature"])} for row in tables[0]]  # fmt: skip


# ---- training -------------------------------------------------------------------------------------------------------


def smoothed(values: Sequence[float], width: float = 1.0) -> list[float]:
    """Smooth a curve: a centred geometric mean with Gaussian weights, ``width`` points wide; arithmetic if not all > 0.

    Centred, so that a falling curve is not pulled upwards by what came before; beyond the ends nothing has a weight.

    >>> [round(value, 3) for value in smoothed([1.0, 0.1, 0.01])]
    [0.314, 0.1, 0.032]
    """
    points = np.asarray(values, dtype=float)
    logs = bool((points > 0).all())

    def weighted(v: np.ndarray) -> np.ndarray:
        return gaussian_filter1d(v, width, mode="constant", truncate=8)

    means = weighted(np.log(points) if logs else points) / weighted(np.ones_like(points))
    return (np.exp(means) if logs else means).tolist()


def loss_curve(evaluation: Evaluation, run: Record, phase: str) -> tuple[list[float], list[float]]:
    """Read steps and losses of one phase of a run, ``dense`` or ``gated``."""
    rows = [r for r in evaluation.results.table(run) if r["phase"] == phase and isinstance(r.get("loss"), float)]
    return [float(r["step"] or 0) for r in rows], [float(r["loss"] or 0) for r in rows]  # type: ignore[arg-type]


def convergence(evaluation: Evaluation) -> Table:
    """Tabulate figure 13: the loss over the steps, dense and gated, as it was and smoothed."""
    rows = []
    for name, group in evaluation.headlines.items():
        for phase in ("dense", "gated"):
            steps, losses = loss_curve(evaluation, group.first, phase)
            for step, loss, smooth in zip(steps, losses, smoothed(losses), strict=True):
                rows.append((
                    word(evaluation.paper.title(name)), word(phase), number(step, ".0f", runs=group.ids[:1]),
                    number(loss, ".5g"), number(smooth, ".5g"),
                ))  # fmt: skip
    columns = ("Workload", "Training", "Step", "Loss", "Loss, smoothed")
    note = "Mean training loss of each epoch, without the gates' penalty; one seed."
    return Table("fig13_convergence", "Fig. 13: convergence", columns, tuple(rows), note, left=2)


def scaling_rows(evaluation: Evaluation) -> list[dict[str, str]]:
    """Read the rows of every ``scaling.csv`` of the results folders. Raises RecordError for one without the columns."""
    rows: list[dict[str, str]] = []
    for place in evaluation.results.places:
        path = place / SCALING
        if not path.exists():
            continue
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            missing = [c for c in SCALING_COLUMNS if c not in (reader.fieldnames or ())]
            if missing:
                raise RecordError(f"{path}: no column {', '.join(missing)}; expected {', '.join(SCALING_COLUMNS)}")
            for number, row in enumerate(reader, 2):
                try:
                    if not (int(row["processes"]) > 0 and 0 < float(row["samples_per_second"]) < math.inf):
                        raise ValueError("expected numbers > 0")
                except (ValueError, TypeError) as error:
                    raise RecordError(f"{path}: line {number}: {one_line(error)}; run the benchmark again") from None
                rows.append(row)
    return rows


def scaling(evaluation: Evaluation) -> Table:
    """Tabulate figure 12: training throughput over the number of processes."""
    rows = []
    found = scaling_rows(evaluation)
    for name in dict.fromkeys([*evaluation.paper.shown("12"), *(r["workload"] for r in found)]):
        mine = [r for r in found if r["workload"] == name]
        single = {r["method"]: float(r["samples_per_second"]) for r in mine if int(r["processes"]) == 1}
        for r in mine:
            rate, base = float(r["samples_per_second"]), single.get(r["method"])
            efficiency = 100 * rate / base / int(r["processes"]) if base else None
            rows.append((word(evaluation.paper.title(name)), word(evaluation.paper.method_title(r["method"])),
                         number(int(r["processes"]), ".0f"), number(rate, ",.0f"), number(efficiency, ".1f"),
                         word(r.get("device"))))  # fmt: skip
        if not mine:
            rows.append((word(evaluation.paper.title(name)), *[EMPTY] * 5))
    columns = ("Workload", "Training", "Processes", "Samples a second", "Efficiency [%]", "Device")
    note = "Weak scaling: the batch of each process is the same. Published: figures only, up to 8 V100 GPUs."
    return Table("fig12_scaling", "Fig. 12: scaling", columns, tuple(rows), note, left=2)


# ---- all runs -------------------------------------------------------------------------------------------------------


def runs(evaluation: Evaluation) -> Table:
    """Tabulate every record, finished or not."""
    rows = []
    for r in reversed(evaluation.results.records):
        ids, ok = (r["run_id"],), r["status"] == "finished"
        made = r["provenance"]
        rows.append((
            Cell(r["run_id"], r["run_id"], ids), word(evaluation.paper.title(r["workload"])),
            word(evaluation.paper.method_title(method_of(r))), word(r["scale"]), number(r["seed"], ".0f"),
            word(r["status"]), word(_steering(r)), word(r["metric"]["name"]),
            *(number(r[side]["score"], ".4f") if ok else EMPTY for side in ("dense", "compact")),
            *(number(quantity(r), ".1f") if ok else EMPTY for quantity in (q.params_reduction, q.macs_reduction)),
            number(q.best_speedup(q.device_kind(r))(r) if ok else None, ".2f", "×"),
            word(made.get("device")), word(str(made["started_utc"])[:10]), word((made.get("git") or "")[:7]),
        ))  # fmt: skip
    columns = ("Run", "Workload", "Method", "Scale", "Seed", "Status", "Asked for", "Metric", "Dense", "Compact",
               "Parameters cut [%]", "MACs cut [%]", "Speed-up", "Device", "Date", "Commit")  # fmt: skip
    return Table("runs", "All runs", columns, tuple(rows), left=8)


def _steering(entry: Record) -> str | None:
    steering = entry.get("steering") or {}
    return (
        f"{steering['key'].removeprefix('lumos.')}={steering['asked']:g}" if steering.get("asked") is not None else None
    )
