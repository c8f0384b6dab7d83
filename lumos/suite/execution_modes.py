"""What a finished run's networks cost beyond its own measurements: as CUDA graphs, compiled, and on the CPU too."""

from __future__ import annotations

from typing import Any

import torch

from lumos.errors import RecordError
from lumos.measure.execution import mode_cost, release
from lumos.measure.inference import moved, timed_on
from lumos.suite import record
from lumos.suite.finished_run import FinishedRun
from lumos.suite.report.quantities import field

CPU = torch.device("cpu")
SIDES = ("dense", "compact")
PARTS = ("cuda_graph", "compiled", "cpu")
"""What can be added to a record of a GPU; to one of a CPU only ``compiled``."""


def parts_of(device: torch.device) -> tuple[str, ...]:
    """Name what can be added to the records of a device."""
    return PARTS if device.type == "cuda" else ("compiled",)


def has_part(entry: dict[str, Any], part: str) -> bool:
    """Tell whether a record has a part already."""
    compact = entry.get("compact") or {}
    return bool(compact.get("cpu")) if part == "cpu" else part in (compact.get("modes") or {})


def batches_of(entry: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Read with which batches a record's networks were called: one sample, their best, and the one at the bound.

    Raises:
        RecordError: It does not say.
    """
    places = {
        "latency": ("latency_ms", "batch"),
        "throughput": ("throughput_batch",),
        "dynamic": ("dynamic", "batch"),
    }
    found = {kind: {side: field(side, *place)(entry) for side in SIDES} for kind, place in places.items()}
    if lacking := [kind for kind, sides in found.items() if not all(sides.values())]:
        raise RecordError(f"{entry['run_id']}: no batch of {', '.join(lacking)}; run it again with force=true")
    return {kind: {side: int(size) for side, size in sides.items() if size} for kind, sides in found.items()}


def add_part(run: FinishedRun, part: str, device: torch.device) -> dict[str, Any]:
    """Measure a part of a finished run's record, and write it there; a reader sees the old record or the new one.

    Args:
        run: The run. Its dense network may be a fresh one, where its weights are not kept: its time is the same.
        part: One of :func:`parts_of`. ``cuda_graph`` and ``compiled`` go under ``modes`` of each side, ``cpu`` has the
            fields that a record of a CPU has.
        device: Where the networks run.

    Returns:
        The new record.

    Raises:
        RecordError: The record cannot have this part.
    """
    if part not in parts_of(device):
        known = ", ".join(parts_of(device))
        raise RecordError(f"{run.run.name}: {part} cannot be measured on {device}; expected {known}")
    entry, inputs = record.read(run.run.folder), run.workload.example()
    models = {"dense": (run.dense or run.workload.model()).eval(), "compact": run.compact.eval()}
    if part == "cpu":
        for side, figures in timed_on(models, inputs, CPU).items():
            entry[side]["cpu"] = figures
    else:
        models = {side: model.to(device) for side, model in models.items()}
        found = mode_cost(part, models, moved(inputs, device), batches_of(entry), device)
        for side, kinds in found.items():
            entry[side]["modes"] = {**(entry[side].get("modes") or {}), part: kinds}
    record.write(run.run.folder, entry)
    del models
    release(device)
    return entry


def compile_ahead(run: FinishedRun, device: torch.device) -> None:
    """Compile a run's networks for one sample and for their best batch, so that torch's caches know them."""
    models = {"dense": run.workload.model().eval().to(device), "compact": run.compact.eval().to(device)}
    batches = {kind: of for kind, of in batches_of(run.entry).items() if kind != "dynamic"}
    mode_cost("compiled", models, moved(run.workload.example(), device), batches, device, seconds=0.0)
    release(device)
