"""Every number that the tables derive from a record, in one place.

A function takes a record and returns a number, or None where the record does not have it: a quantity. Those with
arguments of their own return a quantity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Record = dict[str, Any]
DASH = "–"


def params_reduction(entry: Record) -> float | None:
    """Return the percent of the parameters that were removed."""
    return _less(entry["dense"]["params"], entry["compact"]["params"])


def macs_reduction(entry: Record) -> float | None:
    """Return the percent of the multiply-accumulates, and so of the FLOPs, that were removed."""
    return _less(entry["dense"]["macs"], entry["compact"]["macs"])


def score_change(entry: Record) -> float | None:
    """Return the percent by which the score is better than the dense one, whichever direction is better."""
    dense, compact = entry["dense"]["score"], entry["compact"]["score"]
    if not dense or compact is None:
        return None
    change = 100 * (compact - dense) / abs(dense)
    return change if entry["metric"]["higher_is_better"] else -change


def speedup(kind: str, device: str) -> Callable[[Record], float | None]:
    """Make the quantity "times as many samples a second as dense".

    ``kind`` is ``latency`` (one sample a call), ``throughput`` (each at its best batch) or ``dynamic`` (each at the
    largest batch within the memory bound); ``device`` is ``cpu`` or ``gpu``.
    """

    def quantity(entry: Record) -> float | None:
        spread = speedup_spread(entry, kind, device)
        if spread is not None:
            return spread["p50"]
        sides = _on(entry, device)
        if sides is None:
            return None
        dense, compact = sides
        if kind == "latency":
            return dense["latency_ms"]["p50"] / compact["latency_ms"]["p50"]
        return compact["throughput"] / dense["throughput"] if kind == "throughput" else None

    return quantity


def speedup_spread(entry: Record, kind: str, device: str) -> dict[str, float] | None:
    """Return median and quartiles of a speed-up over its rounds."""
    sides = _on(entry, device)
    return None if sides is None else (sides[1].get("speedup") or {}).get(kind)


def best_speedup(device: str) -> Callable[[Record], float | None]:
    """Make the paper's speed-up: at the largest batch within the memory bound; of older records, at a fixed batch."""
    dynamic, fixed = speedup("dynamic", device), speedup("throughput", device)

    def quantity(entry: Record) -> float | None:
        value = dynamic(entry)
        return fixed(entry) if value is None else value

    return quantity


def own_speedup(kind: str) -> Callable[[Record], float | None]:
    """Make the quantity :func:`speedup` on the device that a record was made on."""
    return lambda entry: speedup(kind, device_kind(entry))(entry)


def mode_speedup(mode: str, kind: str) -> Callable[[Record], float | None]:
    """Make the quantity "times as many samples a second as dense" of calls made in one way.

    ``mode`` is ``cuda_graph`` or ``compiled``, both networks alike; ``kind`` as for :func:`speedup`.
    """
    return field("compact", "modes", mode, kind, "speedup")


def energy_reduction(entry: Record) -> float | None:
    """Return the percent of the energy of a sample that is saved."""
    dense, compact = entry["dense"].get("energy_j"), entry["compact"].get("energy_j")
    return _less(dense, compact) if dense and compact else None


def memory_mb(side: str) -> Callable[[Record], float | None]:
    """Make the quantity "megabytes of weights and activations" of dense or compact, for calls with one batch."""

    def quantity(entry: Record) -> float | None:
        figures = entry[side]
        return None if figures.get("peak_mb") is None else figures["peak_mb"] + figures["bytes"] / 1e6

    return quantity


def memory_reduction(entry: Record) -> float | None:
    """Return the percent of the peak memory of inference that is saved: weights and activations."""
    return _less(memory_mb("dense")(entry), memory_mb("compact")(entry))


def memory_saved_mb(entry: Record) -> float | None:
    """Return the megabytes of the peak memory of inference that are saved."""
    dense, compact = memory_mb("dense")(entry), memory_mb("compact")(entry)
    return None if dense is None or compact is None else dense - compact


def training_memory_reduction(entry: Record) -> float | None:
    """Return the percent of what a training step allocates that the compact model saves."""
    training = entry.get("training")
    return _less(training["dense"].get("peak_mb"), training["compact"].get("peak_mb")) if training else None


def gate_share(entry: Record) -> float | None:
    """Return the gates as percent of the dense network's parameters."""
    gates, params = entry.get("gates"), entry["dense"]["params"]
    return 100 * gates["total"] / params if gates and params else None


def train_overhead(entry: Record) -> float | None:
    """Return the percent by which the whole gated training took longer than the dense one."""
    less = _less(entry["dense"].get("train_seconds"), entry["compact"].get("train_seconds"))
    return None if less is None else -less


def step_overhead(entry: Record) -> float | None:
    """Return the percent by which a step with gates takes longer than a dense one."""
    training = entry.get("training")
    return 100 * training["overhead"]["p50"] if training else None


def features_reduction(entry: Record) -> float | None:
    """Return the percent of the input features that were removed; None where there are none to select."""
    gates = entry.get("gates")
    if not gates or not gates.get("features_total"):
        return None
    return _less(gates["features_total"], len(gates["features_kept"]))


def field(*path: str) -> Callable[[Record], float | None]:
    """Make the quantity that stands at a path of the record."""

    def quantity(entry: Record) -> float | None:
        value: Any = entry
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    return quantity


def device_kind(entry: Record) -> str:
    """Return what the run was made on, ``cpu`` or ``gpu``."""
    return "cpu" if str(entry["provenance"].get("device", "cpu")).startswith("cpu") else "gpu"


def _on(entry: Record, device: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the dense and the compact figures as taken on a device."""
    dense, compact = entry["dense"], entry["compact"]
    if device_kind(entry) == device:
        return (dense, compact) if compact.get("throughput") else None
    if device == "cpu" and dense.get("cpu") and compact.get("cpu"):
        return dense["cpu"], compact["cpu"]
    return None


def _less(before: float | None, after: float | None) -> float | None:
    return None if not before or after is None else 100 * (1 - after / before)
