"""Tables on the terminal: of one run, of all runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lumos.suite.report import quantities as q
from lumos.suite.report.results import method_of

COUNTS_DIFFER = 0.01
"""Share by which torch's and the trace's count of multiply-accumulates may differ before a run's table says so."""


def print_run(entry: dict[str, Any], folder: Path, *, finished_before: bool = False) -> None:
    """Print a run's table on stdout."""
    console = Console(soft_wrap=False)
    if finished_before:
        when = entry["provenance"]["started_utc"]
        line = f"This run is finished (started {when}); force=true runs it again."
        console.print(line, highlight=False, soft_wrap=True)
    if entry["status"] == "unsupported":
        line = f"{method_of(entry)} on {entry['workload']}: unsupported: {entry['error']['line']}"
        for text in (line, f"record: {folder}"):
            console.print(Text(text), soft_wrap=True)
        return
    console.print(run_table(entry))
    for line in run_lines(entry, folder):
        console.print(Text(line), soft_wrap=True)


def run_table(entry: dict[str, Any]) -> Table:
    """Make a run's table: dense beside compact, a row for each figure."""
    table = Table(title=f"{entry['workload']} · scale {entry['scale']} · seed {entry['seed']}", title_justify="left")
    for name, justify in (("", "left"), ("dense", "right"), ("compact", "right"), ("change", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in run_rows(entry):
        table.add_row(*(escape(cell) for cell in row))
    return table


def runs_table(entries: list[dict[str, Any]]) -> Table:
    """Make a table of runs, a row for each."""
    table = Table(title=f"{len(entries)} run{'s' * (len(entries) != 1)}", title_justify="left")
    columns = ("workload", "run", "scale", "seed", "status", "metric", "dense", "compact", "parameters", "MACs",
               "speed-up", "features", "method")  # fmt: skip
    words = ("workload", "run", "method", "scale", "status", "metric")
    for name in columns:
        table.add_column(name, justify="left" if name in words else "right")
    for entry in entries:
        row = [entry["workload"], entry["run_id"], entry["scale"], str(entry["seed"]), entry["status"]]
        if entry["status"] == "finished":
            dense, compact, gates = entry["dense"], entry["compact"], entry.get("gates")
            row += [entry["metric"]["name"], _score(dense), _score(compact)]
            row += [_less(dense[key], compact[key]) for key in ("params", "macs")]
            faster = q.best_speedup(q.device_kind(entry))(entry)
            row.append(f"{faster:.2f}x" if faster else "-")
            row.append(f"{len(gates['features_kept'])}/{gates['features_total']}" if gates else "-")
            row.append(method_of(entry))
        table.add_row(*(escape(cell) for cell in row))
    return table


def run_rows(entry: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the rows of a run's table as text."""
    dense, compact, metric = entry["dense"], entry["compact"], entry["metric"]
    arrow = "higher is better" if metric["higher_is_better"] else "lower is better"
    unit = f" [{metric['unit']}]" if metric["unit"] else ""
    faster = {kind: q.speedup(kind, q.device_kind(entry))(entry) for kind in ("latency", "throughput", "dynamic")}
    rows = [
        (f"test {metric['name']}{unit} ({arrow})",
         _with_error(_score(dense), dense), _with_error(_score(compact), compact),
         "-" if None in (dense["score"], compact["score"])
         else _with_error(f"{compact['score'] - dense['score']:+.4f}", entry.get("difference") or {})),
        *((title, f"{dense[key]:,}", f"{compact[key]:,}", _less(dense[key], compact[key]))
          for key, title in (("params", "parameters"), ("macs", "MACs a sample"), ("bytes", "bytes on disk"))),
        (f"latency p50{_batches(entry, 'latency_ms', 'batch')} [ms]", f"{dense['latency_ms']['p50']:.3f}",
         f"{compact['latency_ms']['p50']:.3f}", _times(faster["latency"])),
        (f"samples a second{_batches(entry, 'throughput_batch')}", f"{dense['throughput']:,.0f}",
         f"{compact['throughput']:,.0f}", _times(faster["throughput"])),
    ]  # fmt: skip
    if dense.get("dynamic"):
        title = f"samples a second{_largest(entry)}{_batches(entry, 'dynamic', 'batch')}"
        rates = [f"{side['dynamic']['samples_per_second']:,.0f}" for side in (dense, compact)]
        rows.append((title, rates[0], rates[1], _times(faster["dynamic"])))
    many = _batches(entry, "peak_batch" if dense.get("peak_batch") else "throughput_batch")
    rows.append((f"peak memory{many} [MB]", f"{dense['peak_mb']:.2f}", f"{compact['peak_mb']:.2f}",
                 _less(dense["peak_mb"], compact["peak_mb"])))  # fmt: skip
    if dense.get("energy_j") and compact.get("energy_j"):
        rows.append(("energy of 1,000 samples [J]", f"{dense['energy_j']:.4g}", f"{compact['energy_j']:.4g}",
                     _less(dense["energy_j"], compact["energy_j"])))  # fmt: skip
    if entry.get("gates"):
        kept, of = len(entry["gates"]["features_kept"]), entry["gates"]["features_total"]
        rows.append(("input features", f"{of}", f"{kept}", _less(of, kept)))
    seconds = dense["train_seconds"], compact["train_seconds"]
    if None not in seconds and entry["dense"].get("schedule") != "given":  # a loop of one's own does not say
        rows.append(("training time [s]", f"{seconds[0]:.1f}", f"{seconds[1]:.1f}",
                     _times(seconds[0] / seconds[1] if seconds[1] else None)))  # fmt: skip
    return rows


ENDS = {"memory": "in {bound:.0f} MB", "time": "in 0.2 s a call", "size": "unbounded"}
"""What ended the search for the largest batch."""


def _largest(entry: dict[str, Any]) -> str:
    """Write what ended the search for the largest batch, of dense and compact."""
    ends = [ENDS.get(entry[side]["dynamic"].get("limit", "memory"), "") for side in ("dense", "compact")]
    words = list(dict.fromkeys(end.format(bound=entry["dense"]["dynamic"]["bound_mb"]) for end in ends))
    return f" {' / '.join(words)}" if all(words) else ""


def _batches(entry: dict[str, Any], *path: str) -> str:
    """Write ``, batch 512``, or ``, batch 512 / 4096`` where dense and compact have different ones."""
    dense, compact = (q.field(side, *path)(entry) for side in ("dense", "compact"))
    if not dense:
        return ""
    return f", batch {dense:.0f}" if dense == compact or not compact else f", batch {dense:.0f} / {compact:.0f}"


def run_lines(entry: dict[str, Any], folder: Path) -> list[str]:
    """Return the lines that stand below a run's table."""
    gates, equal, lines = entry.get("gates"), entry.get("equivalence"), []
    if gates:
        features = gates["features_kept"]
        lines.append(f"features kept ({len(features)} of {gates['features_total']}): {', '.join(features) or 'none'}")
        lines += _choice_lines(entry.get("choice"))
        widths = [f"{name} {g['open']}/{g['total']}" for name, g in gates["groups"].items()]
        lines.append(f"units kept: {', '.join(widths)}")
    lines += _steering_lines(entry)
    if entry["dense"].get("standard_error") is not None:
        lines.append("±: standard error over the test samples; that of the change is over the pairs of both networks")
    trivial = [f"{name} {score:.4f}" for name, score in entry["baselines"].items() if score is not None]
    if trivial:
        lines.append(f"trivial predictors, test {entry['metric']['name']}: {', '.join(trivial)}")
        lines += _worse_than_trivial(entry)
    lines += _training_lines(entry)
    if equal:
        lines.append(
            f"compact == gated at the cut: largest relative difference {equal['max_rel_diff']:.1e} in {equal['dtype']}"
        )
    if entry["dense"].get("schedule") == "given":
        lines.append(
            f"dense: the given network, not trained; compact trained for {entry['compact']['train_seconds']:.1f} s"
        )
    schedules = entry["dense"].get("schedules") or {}
    if len(schedules) > 1:
        said = ", ".join(f"{name} {score:.4f}" for name, score in schedules.items() if score is not None)
        lines.append(
            f"dense by schedule, validation {entry['metric']['name']}: {said}; {entry['dense']['schedule']} kept"
        )
    if entry.get("note"):
        lines.append(f"data: {entry['note']}")
    lines.append(f"record: {folder}")
    return lines


def _choice_lines(choice: dict[str, Any] | None) -> list[str]:
    """Say what the choice of features is worth, where the truth is known and is not that all are needed."""
    if not choice or not (choice["repeats"] or choice["idle"]):
        return []
    needed, lost = len(choice["needed"]), choice["lost"]
    parts = [f"of {needed} that matter {needed - len(lost)} are kept or follow from kept ones"]
    parts += [f"lost: {', '.join(lost)}"] if lost else []
    idle, repeated = choice["idle_kept"], choice["repeated"]
    if choice["idle"]:
        parts.append(f"of {len(choice['idle'])} idle ones {len(idle)} are kept{': ' * bool(idle)}{', '.join(idle)}")
    if choice["repeats"]:
        parts.append(f"kept though other kept ones say the same: {', '.join(repeated) or 'none'}")
    return [f"features, by the known truth: {'; '.join(parts)}"]


def _worse_than_trivial(entry: dict[str, Any]) -> list[str]:
    """Say so where a network is no better than what needs none: what it selected then means little."""
    sign = 1 if entry["metric"]["higher_is_better"] else -1
    known = {name: score for name, score in entry["baselines"].items() if score is not None}
    name = max(known, key=lambda n: sign * known[n])
    networks = [side for side in ("dense", "compact") if entry.get(side) and entry[side]["score"] is not None]
    worse = [side for side in networks if sign * entry[side]["score"] <= sign * known[name]]
    if not worse:
        return []
    who = " and ".join(worse)
    return [f"NO BETTER THAN A TRIVIAL PREDICTOR: {who} (test {entry['metric']['name']} of {name}: {known[name]:.4f})"]


def _training_lines(entry: dict[str, Any]) -> list[str]:
    """Say what gates cost in a step; and where the two counts of multiply-accumulates differ."""
    lines, training = [], entry.get("training")
    if training:
        step, spread = training["overhead"], training["gated"]["step_ms"]["p50"]
        lines.append(
            f"a step with gates: {spread:.3g} ms, {100 * step['p50']:+.0f}% of a dense one "
            f"(quartiles {100 * step['p25']:+.0f}% and {100 * step['p75']:+.0f}%); after the cut "
            f"{training['compact']['step_ms']['p50']:.3g} ms; gates: {100 * training['share']:.2g}% of the parameters"
        )
    for name in ("dense", "compact"):
        torch_says, trace_says = entry[name]["macs"], entry[name].get("macs_traced")
        if trace_says and abs(torch_says / trace_says - 1) > COUNTS_DIFFER:
            lines.append(f"MACs of {name}: torch counts {torch_says:,}, products with weights alone are {trace_says:,}")
    return lines


def _steering_lines(entry: dict[str, Any]) -> list[str]:
    """Say what became of a target or a tolerance; nothing where lambda was given."""
    steering = entry.get("steering") or {}
    if "measured" in steering:
        return [*_measured_lines(steering), *_tolerance_lines(entry, steering)]
    if "reached" in steering:
        share = steering["reached"] / steering["asked"]
        reached = f"{steering['reached']:.4g} at the cut ({100 * share:.1f}% of the budget)"
        return [f"{steering['key']}={steering['asked']:g}: {reached}"]
    return _tolerance_lines(entry, steering)


def _measured_lines(steering: dict[str, Any]) -> list[str]:
    """Say what was asked of a call, predicted and measured, in shares of the dense network's."""
    call = ", ".join(f"{key} {value}" for key, value in steering["call"].items() if value is not None)
    what, finished, error = steering["measures"], steering.get("finished"), steering["calibration_error"]
    shares = {"predicted": steering["predicted"], "measured at the cut": steering["measured"], "finished": finished}
    said = ", ".join(f"{name} {value:.3f}" for name, value in shares.items() if value is not None)
    lines = [f"{what} of a call ({call}), as a share of dense: {said}"]
    if "reached" in steering:
        kept = max(steering["reached"], finished or 0.0) <= steering["asked"]
        lines[0] = f"{steering['key']}={steering['asked']:g}: {'kept' if kept else 'MISSED'}; {lines[0]}"
    lines.append(
        f"{what} was fitted to measured networks; for those held out it is off by {100 * error['median']:.1f}% "
        f"(at most {100 * error['largest']:.1f}%); the smallest network has {steering['least']:.3f}"
    )
    return lines


def _tolerance_lines(entry: dict[str, Any], steering: dict[str, Any]) -> list[str]:
    """Say whether a tolerance was kept; nothing where none was asked for."""
    if "line" in steering:
        met = "kept" if steering["met"] else "MISSED; ask for a larger tolerance, or train longer"
        against = f"validation {entry['compact']['valid_score']:.4f} against a line of {steering['line']:.4f}"
        return [f"{steering['key']}={steering['asked']:g}: {against}: {met}"]
    return []


def _score(side: dict[str, Any]) -> str:
    return "-" if side["score"] is None else f"{side['score']:.4f}"  # JSON has no NaN


def _with_error(score: str, figures: dict[str, Any]) -> str:
    error = figures.get("standard_error")
    return score if error is None else f"{score} ± {error:.2g}"


def _less(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f}%" if before else "-"


def _times(ratio: float | None) -> str:
    if not ratio:
        return "-"
    return f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x slower"
