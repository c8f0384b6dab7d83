"""Table III: the methods side by side, ours from runs of one problem at one target."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from lumos.suite.report import quantities as q
from lumos.suite.report.published import Published
from lumos.suite.report.quantities import Record
from lumos.suite.report.results import SCALES, Results, SeedGroup, method_of, problem
from lumos.suite.report.table import EMPTY, Cell, difference, mean, number, published, word

COLUMNS = ("Workload", "Method", "Metric", "Reduction, published", "Reduction, ours", "Difference",
           "Score, published", "Score, ours", "Difference", "± over seeds", "Seeds", "Time [s]")  # fmt: skip
NOTE = (
    "Reduction of parameters in percent, difference in points; ours are runs of one scale, all with the same data "
    "and number of steps, at one target. Score: the mean over the seeds, and its standard deviation. Time: seconds "
    "of the method's whole training, as a mean; of scratch without the run whose shape it takes. Our scores are on our "
    "own data (see Table II), the published ones on the published data, so their difference says little."
)


def matched(results: Results, workload: str, methods: Sequence[str]) -> dict[str, SeedGroup]:
    """Find the runs of each method, all of the problem (scale, data, training) that the most methods share.

    Of equal counts the largest scale, then the most seeds. Of one method at several targets those of the target that
    the most methods have; a workload that only ours has runs of is there with its headline.
    """
    others = [g for m in methods if m != "lumos" for g in results.of(workload, m)]
    if not others:
        alone = results.headline(workload)
        return {"lumos": alone} if alone else {}
    groups = [g for m in methods for g in results.of(workload, m)]
    problems: dict[str, list[SeedGroup]] = {}
    for group in groups:
        problems.setdefault(problem(group.first), []).append(group)

    def rank(found: list[SeedGroup]) -> tuple[int, int, int]:
        scale = found[0].first["scale"]
        names = {method_of(g.first) for g in found}
        return len(names), SCALES.index(scale) if scale in SCALES else -1, sum(len(g.runs) for g in found)

    found = max(problems.values(), key=rank)
    targets: dict[float | None, set[str]] = {}
    for group in found:
        targets.setdefault(target(group.first), set()).add(method_of(group.first))
    asked = max((t for t in targets if t is not None), key=lambda t: (len(targets[t]), t), default=None)
    out: dict[str, SeedGroup] = {}
    for group in sorted(found, key=lambda g: (len(g.runs), g.ids)):
        # Of several settings at the target, the one with the most seeds; dense has no target.
        if target(group.first) == asked or method_of(group.first) == "dense" or asked is None:
            out[method_of(group.first)] = group
    return out


def unsupported(results: Results, workload: str, ours: dict[str, SeedGroup]) -> dict[str, str]:
    """Find the methods that could not treat the workload of these groups, and why."""
    problems = {problem(g.first) for g in ours.values()}
    return {
        method_of(r): r["error"]["line"]
        for r in results.records
        if r["status"] == "unsupported" and r["workload"] == workload and problem(r) in problems
    }


def target(entry: Record) -> float | None:
    """Return the share of the dense parameters that a run was asked for."""
    config = entry.get("config") or {}
    method = config.get("method") or {}
    return method.get("target") or ((config.get("lumos") or {}).get("target") or {}).get("params")


def row(paper: Published, workload: str, method: str, group: SeedGroup | None, reason: str | None) -> tuple[Cell, ...]:
    """Make a method's row; where it is unsupported, that word instead of numbers."""
    ids = group.ids if group else ()
    reduction, score = (paper.number("III", key, workload, method) for key in ("params_reduction", "score"))
    # Accuracy is published in percent, and ours a share; methods that were not published stand in the same column.
    column = paper.number("III", "score", workload, "lumos")
    factor = 100 if column and column.unit == "%" and group and group.first["metric"]["unit"] != "%" else 1
    scores = [factor * r["compact"]["score"] for r in group.runs if r["compact"]["score"] is not None] if group else []
    cut, average = group.mean(q.params_reduction) if group else None, statistics.fmean(scores) if scores else None
    spread = statistics.stdev(scores) if len(scores) > 1 else None
    metric = group.first["metric"]["name"] if group else paper.text("II", "metric", workload)
    shown = Cell("unsupported", "unsupported") if group is None and reason else number(average, ".4g", runs=ids)
    return (
        word(paper.title(workload)), word(paper.method_title(method)), word(metric),
        published(reduction, ".2f"), mean(group, q.params_reduction, ".2f"), difference(cut, reduction, "+.2f"),
        published(score, ".4g"), shown, difference(average, score, "+.4g"), number(spread, ".2g", runs=ids),
        number(len(group.runs), ".0f") if group else EMPTY, mean(group, q.field("compact", "train_seconds"), ".1f"),
    )  # fmt: skip
