"""The table at the end of `scripts/gpu_suite.py`: a row for each record, then averages beside the paper's."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lumos.suite.report import quantities as q
from lumos.suite.report.build import evaluation

Record = dict[str, Any]


def table_of(results: Path, entries: Sequence[Record]) -> str:
    """Return the table as text: what this folder's records say, and the averages of the evaluation's own table."""
    stream = io.StringIO()
    console = Console(file=stream, width=170)
    if not entries:
        return "no workload is measured yet\n"
    devices = sorted({entry["provenance"]["device"] for entry in entries})
    table = Table(title=f"dense / compact on {', '.join(devices)}, scale {entries[0]['scale']}", title_justify="left")
    for name in ("workload", "steps", "parameters", "MACs", "score", *COLUMNS):
        table.add_column(name, justify="left" if name == "workload" else "right")
    for entry in entries:
        score = f"{entry['dense']['score']:.3g} > {entry['compact']['score']:.3g}"
        cells = [text(quantity(entry), form) for quantity, form in COLUMNS.values()]
        table.add_row(entry["workload"], str(entry["dense"]["steps"]), text(q.params_reduction(entry), "-%"),
                      text(q.macs_reduction(entry), "-%"), score, *cells)  # fmt: skip
    console.print(table)
    averages = evaluation([results]).averages()
    lines = Table(title="averages over these workloads, beside the paper's", title_justify="left")
    for name in averages.columns:
        lines.add_column(name, justify="left" if name == averages.columns[0] else "right")
    for row in averages.rows:
        lines.add_row(*(cell.text for cell in row))
    console.print(lines)
    if any(entry["dense"].get("energy_j") is None for entry in entries):
        console.print("No energy: this machine has no meter that can be read (NVML with nvidia-ml-py, or RAPL).")
    return stream.getvalue()


def text(value: float | None, form: str) -> str:
    """Write a number; a dash where nothing is known."""
    if value is None:
        return q.DASH
    return f"{value:.2f}x" if form == "x" else f"{-value if form == '-%' else value:+.0f}%"


COLUMNS: dict[str, tuple[Callable[[Record], float | None], str]] = {
    "one sample": (q.own_speedup("latency"), "x"),
    "best batch": (q.own_speedup("throughput"), "x"),
    "bound": (q.own_speedup("dynamic"), "x"),
    "graph, one": (q.mode_speedup("cuda_graph", "latency"), "x"),
    "graph, best": (q.mode_speedup("cuda_graph", "throughput"), "x"),
    "compiled, one": (q.mode_speedup("compiled", "latency"), "x"),
    "compiled, best": (q.mode_speedup("compiled", "throughput"), "x"),
    "energy": (q.energy_reduction, "-%"),
    "memory": (q.memory_reduction, "-%"),
    "gated step": (q.step_overhead, "%"),
}
