"""From records to what people read. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text


def print_run(entry: dict[str, Any], folder: Path, *, finished_before: bool = False) -> None:
    """Print a run's table on stdout."""
    console = Console(soft_wrap=False)
    if finished_before:
        when = entry["provenance"]["started_utc"]
        line = f"This run is finished (started {when}); force=true runs it again."
        console.print(line, highlight=False, soft_wrap=True)
    console.print(run_table(entry))
    for line in run_lines(entry, folder):
        console.print(Text(line), soft_wrap=True)


def run_table(entry: dict[str, Any]) -> Table:
    """Dense beside compact, a row for each figure."""
    table = Table(title=f"{entry['workload']} · scale {entry['scale']} · seed {entry['seed']}", title_justify="left")
    for name, justify in (("", "left"), ("dense", "right"), ("compact", "right"), ("change", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in run_rows(entry):
        table.add_row(*(escape(cell) for cell in row))
    return table


def runs_table(entries: list[dict[str, Any]]) -> Table:
    """All runs, a row for each."""
    table = Table(title=f"{len(entries)} runs", title_justify="left")
    columns = ("workload", "run", "scale", "seed", "status", "metric", "dense", "compact", "parameters", "features")
    for name in columns:
        table.add_column(name, justify="left" if name in ("workload", "run", "scale", "status", "metric") else "right")
    for entry in entries:
        row = [entry["workload"], entry["run_id"], entry["scale"], str(entry["seed"]), entry["status"]]
        if entry["status"] == "finished":
            dense, compact, gates = entry["dense"], entry["compact"], entry["gates"]
            row += [entry["metric"]["name"], f"{dense['score']:.4f}", f"{compact['score']:.4f}"]
            row += [
                _less(dense["params"], compact["params"]),
                f"{len(gates['features_kept'])}/{gates['features_total']}",
            ]
        table.add_row(*(escape(cell) for cell in row))
    return table


def run_rows(entry: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The rows of a run's table as text."""
    dense, compact, metric = entry["dense"], entry["compact"], entry["metric"]
    arrow = "higher is better" if metric["higher_is_better"] else "lower is better"
    unit = f" [{metric['unit']}]" if metric["unit"] else ""
    kept, of = len(entry["gates"]["features_kept"]), entry["gates"]["features_total"]
    batch = dense["latency_ms"]["batch"]
    at = f", batch {batch}" if batch else ""
    many = f", batch {dense['throughput_batch']}" if dense["throughput_batch"] else ""
    return [
        (f"test {metric['name']}{unit} ({arrow})", f"{dense['score']:.4f}", f"{compact['score']:.4f}",
         f"{compact['score'] - dense['score']:+.4f}"),
        ("parameters", f"{dense['params']:,}", f"{compact['params']:,}", _less(dense["params"], compact["params"])),
        ("MACs a sample", f"{dense['macs']:,}", f"{compact['macs']:,}", _less(dense["macs"], compact["macs"])),
        ("bytes on disk", f"{dense['bytes']:,}", f"{compact['bytes']:,}", _less(dense["bytes"], compact["bytes"])),
        (f"latency p50{at} [ms]", f"{dense['latency_ms']['p50']:.3f}", f"{compact['latency_ms']['p50']:.3f}",
         _times(dense["latency_ms"]["p50"] / compact["latency_ms"]["p50"])),
        (f"samples a second{many}", f"{dense['throughput']:,.0f}", f"{compact['throughput']:,.0f}",
         _times(compact["throughput"] / dense["throughput"])),
        (f"peak memory{many} [MB]", f"{dense['peak_mb']:.2f}", f"{compact['peak_mb']:.2f}",
         _less(dense["peak_mb"], compact["peak_mb"])),
        ("input features", f"{of}", f"{kept}", _less(of, kept)),
        ("training time [s]", f"{dense['train_seconds']:.1f}", f"{compact['train_seconds']:.1f}",
         _times(dense["train_seconds"] / compact["train_seconds"])),
    ]  # fmt: skip


def run_lines(entry: dict[str, Any], folder: Path) -> list[str]:
    """What stands below a run's table."""
    gates, equal = entry["gates"], entry["equivalence"]
    features = gates["features_kept"]
    lines = [f"features kept ({len(features)} of {gates['features_total']}): {', '.join(features) or 'none'}"]
    widths = [f"{name} {g['open']}/{g['total']}" for name, g in gates["groups"].items()]
    lines.append(f"units kept: {', '.join(widths)}")
    lines += _steering_lines(entry)
    trivial = [f"{name} {score:.4f}" for name, score in entry["baselines"].items()]
    if trivial:
        lines.append(f"trivial predictors, test {entry['metric']['name']}: {', '.join(trivial)}")
    lines.append(
        f"compact == gated at the cut: largest relative difference {equal['max_rel_diff']:.1e} in {equal['dtype']}"
    )
    if entry.get("note"):
        lines.append(f"data: {entry['note']}")
    lines.append(f"record: {folder}")
    return lines


def _steering_lines(entry: dict[str, Any]) -> list[str]:
    """What became of a budget or a tolerance; nothing where lambda was given."""
    steering = entry.get("steering") or {}
    if "reached" in steering:
        share = steering["reached"] / steering["asked"]
        reached = f"{steering['reached']:.4g} at the cut ({100 * share:.1f}% of the budget)"
        return [f"{steering['key']}={steering['asked']:g}: {reached}"]
    if "line" in steering:
        met = "kept" if steering["met"] else "MISSED; ask for a larger tolerance, or train longer"
        against = f"validation {entry['compact']['valid_score']:.4f} against a line of {steering['line']:.4f}"
        return [f"{steering['key']}={steering['asked']:g}: {against}: {met}"]
    return []


def _less(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f}%" if before else "-"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x slower"
