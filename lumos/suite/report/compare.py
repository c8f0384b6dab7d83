"""Two records side by side: what differs in their configuration, and what came of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from rich.markup import escape
from rich.table import Table

from lumos.errors import RecordError
from lumos.suite.report import quantities as q
from lumos.suite.report.quantities import Record
from lumos.suite.report.results import SeedGroup, flat_config, method_of

ROWS: tuple[tuple[str, Callable[[Record], float | None], str], ...] = (
    ("dense: score", q.field("dense", "score"), ".4f"),
    ("compact: score", q.field("compact", "score"), ".4f"),
    ("dense: parameters", q.field("dense", "params"), ",.0f"),
    ("compact: parameters", q.field("compact", "params"), ",.0f"),
    ("parameters cut [%]", q.params_reduction, ".2f"),
    ("compact: MACs a sample", q.field("compact", "macs"), ",.0f"),
    ("MACs cut [%]", q.macs_reduction, ".2f"),
    ("compact: bytes on disk", q.field("compact", "bytes"), ",.0f"),
    ("compact: latency p50 [ms]", q.field("compact", "latency_ms", "p50"), ".3f"),
    ("compact: samples a second", q.field("compact", "throughput"), ",.0f"),
    ("compact: peak memory [MB]", q.memory_mb("compact"), ".2f"),
    ("compact: energy of 1,000 samples [J]", q.field("compact", "energy_j"), ".4g"),
    ("gates open", q.field("gates", "open"), ",.0f"),
    ("dense: training [s]", q.field("dense", "train_seconds"), ".1f"),
    ("LUMOS: training [s]", q.field("compact", "train_seconds"), ".1f"),
    ("a gated step, slower by [%]", q.step_overhead, ".1f"),
)


def table(a: Record, b: Record) -> Table:
    """Make a table of two finished runs and how the second differs. Raises RecordError for one that is not done."""
    for entry in (a, b):
        if entry["status"] != "finished":
            raise RecordError(f"{entry['run_id']}: the run is {entry['status']}; there is nothing to compare")
    out = Table(title="two runs", title_justify="left")
    out.add_column("")
    for entry in (a, b):
        title = f"{entry['workload']} {entry['run_id']}\n{method_of(entry)}, {entry['scale']}, seed {entry['seed']}"
        out.add_column(escape(title), justify="right")
    out.add_column("second less first", justify="right")
    for title, quantity, form in ROWS:
        first, second = quantity(a), quantity(b)
        if first is None and second is None:
            continue
        gap = "-" if first is None or second is None else f"{second - first:+{form}}"
        out.add_row(title, *("-" if v is None else f"{v:{form}}" for v in (first, second)), gap)
    return out


def verdicts(a: Record, b: Record, groups: tuple[SeedGroup, SeedGroup] | None = None) -> list[str]:
    """Say whether test scores differ by more than their standard error, within each of two runs and between them.

    Args:
        a: The first run.
        b: The second one.
        groups: Of each, the runs that differ from it only by their seed. Where both have several, the difference
            between the runs is that of the means, and its standard error is over the seeds; else it is that of the two
            runs, from the samples of the test splits.

    Returns:
        A line for each difference.
    """
    out = []
    for title, entry in (("first", a), ("second", b)):
        known = entry.get("difference")
        if known and known["score"] is not None:
            out.append(
                _judged(
                    f"{title}: compact less dense", known["score"], known.get("standard_error"), "of the test split"
                )
            )
    for side in ("dense", "compact"):
        score = q.field(side, "score")
        ids = [set(group.ids) for group in groups or ()]
        several = groups and all(len(g.values(score)) > 1 for g in groups) and not ids[0] & ids[1]
        found = _over_seeds(*groups, score) if groups and several else _of_two(a, b, side)
        if found is not None:
            out.append(_judged(f"{side}: second less first", *found))
    return out


def _judged(what: str, gap: float, error: float | None, source: str) -> str:
    if error is None:
        return f"{what} {gap:+.4g}: no standard error is known"
    times = f", {abs(gap) / error:.1f} times" if error else ""
    verdict = f"larger than that{times}" if abs(gap) > error else "not larger than that"
    return f"{what} {gap:+.4g}, standard error {error:.2g} ({source}): {verdict}"


def _over_seeds(a: SeedGroup, b: SeedGroup, score: Callable[[Record], float | None]) -> tuple[float, float, str]:
    """Difference of the means and its standard error: of pairs of one seed where there are two or more, or Welch's."""
    first, second = ({r["seed"]: value for r in g.runs if (value := score(r)) is not None} for g in (a, b))
    common = sorted(set(first) & set(second))
    if len(common) > 1:
        gaps = [second[seed] - first[seed] for seed in common]
        return statistics.fmean(gaps), statistics.stdev(gaps) / math.sqrt(len(gaps)), f"{len(gaps)} seeds of both"
    sides = [list(values.values()) for values in (first, second)]
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in sides))
    gap = statistics.fmean(sides[1]) - statistics.fmean(sides[0])
    return gap, error, f"{len(sides[0])} and {len(sides[1])} seeds"


def _of_two(a: Record, b: Record, side: str) -> tuple[float, float | None, str] | None:
    """Difference of two scores, and its standard error as if the test samples were drawn anew for each."""
    scores = [r[side]["score"] for r in (a, b)]
    if None in scores:
        return None
    errors = [r[side].get("standard_error") for r in (a, b)]
    same = _samples(a) == _samples(b)
    source = "an upper bound: both saw the same test samples" if same else "of the two test splits"
    return scores[1] - scores[0], None if None in errors else math.hypot(*errors), source


def _samples(entry: Record) -> str | None:
    return (entry.get("data") or {}).get("sha256")


def lines(a: Record, b: Record) -> list[str]:
    """Say what differs besides numbers: configuration, features, machine and commit."""
    out = []
    first, second = (flat_config(r.get("config") or {}) | {"seed": r["seed"]} for r in (a, b))
    for key in sorted({*first, *second}):
        if first.get(key) != second.get(key):
            out.append(f"{key}: {first.get(key)} | {second.get(key)}")
    out = out or ["the same configuration"]
    kept = [set((r.get("gates") or {}).get("features_kept", [])) for r in (a, b)]
    for word, only in (("first", kept[0] - kept[1]), ("second", kept[1] - kept[0])):
        if only:
            out.append(f"features that only the {word} keeps: {', '.join(sorted(only))}")
    for key in ("device", "host", "git"):
        values = [str(r["provenance"].get(key)) for r in (a, b)]
        if values[0] != values[1]:
            out.append(f"{key}: {values[0]} | {values[1]}")
    if _samples(a) != _samples(b):
        out.append("data: not the same samples")
    return out
