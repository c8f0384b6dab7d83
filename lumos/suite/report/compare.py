"""Two records side by side: what differs in their configuration, and what came of it."""

from __future__ import annotations

from collections.abc import Callable

from rich.markup import escape
from rich.table import Table

from lumos.errors import RecordError
from lumos.suite.report import quantities as q
from lumos.suite.report.quantities import Record
from lumos.suite.report.results import flat_config, method_of

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
    if a["data"].get("sha256") != b["data"].get("sha256"):
        out.append("data: not the same samples")
    return out
