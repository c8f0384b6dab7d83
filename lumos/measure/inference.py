"""Every figure of inference, of several models side by side."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from lumos.gating.gated_model import GatedModel
from lumos.measure import energy
from lumos.measure.batches import held_bytes, memory_bound, search
from lumos.measure.memory import peak_bytes
from lumos.measure.sizes import batch_of, macs, parameters, resized, samples_of, size_bytes, traced_macs
from lumos.measure.timing import inference, latencies, ratio, summary

CPU = torch.device("cpu")


def inference_cost(
    models: dict[str, nn.Module], inputs: tuple[Any, ...], device: torch.device, *, cpu_too: bool = True
) -> dict[str, dict[str, Any]]:
    """Measure every figure of inference of several models side by side.

    Args:
        models: The models by name; the others' speed-ups refer to the first.
        inputs: Positional example inputs that each of them takes.
        device: Where they run.
        cpu_too: Whether time, memory and energy are taken on the CPU as well where ``device`` is a GPU.

    Returns:
        For each model: ``params``; ``macs`` a sample (``macs_traced``: the trace's count); ``bytes`` on disk;
        ``latency_ms`` of one call with one sample; ``throughput`` in samples a second at its best batch,
        ``throughput_batch``; ``dynamic``: the same at the largest batch within ``bound_mb``, a bound that all share;
        ``peak_mb`` megabytes allocated during one call with ``peak_batch`` samples, as many for all, beyond the
        weights; ``energy_j`` joules per 1,000 samples at the best batch, None without a meter; ``speedup`` the ratio of
        samples a second, median and quartiles over the rounds. With a GPU, what is taken on the CPU too is under
        ``cpu``.
    """
    out = {name: sizes_of(model, inputs) for name, model in models.items()}
    for name, figures in timed_on(models, inputs, device).items():
        out[name] |= figures
    if device.type == "cuda" and cpu_too:
        on_cpu = {name: copy.deepcopy(model) for name, model in models.items()}
        for name, figures in timed_on(on_cpu, inputs, CPU).items():
            out[name]["cpu"] = figures
    return out


def sizes_of(model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """Count a model's parameters, multiply-accumulates of a sample, and bytes on disk."""
    # A copy on the CPU: the trace runs the model's own code, and leaves what is measured untouched.
    still, inputs = copy.deepcopy(model).to(CPU).eval(), moved(inputs, CPU)
    own = still.model if isinstance(still, GatedModel) else still  # gates are no part of what is compared
    return {
        "params": parameters(own),
        "macs": macs(still, inputs),
        "macs_traced": traced_macs(still, inputs),
        "bytes": size_bytes(own),
    }


def timed_on(models: dict[str, nn.Module], inputs: tuple[Any, ...], device: torch.device) -> dict[str, dict[str, Any]]:
    """Measure latency, throughput, memory and energy of each model on one device, to which the models go."""
    inputs = moved(inputs, device)
    models = {name: model.to(device).eval() for name, model in models.items()}
    base, bound, meter = next(iter(models)), memory_bound(device), energy.meter(device)
    given = samples_of(inputs, inference(models[base], inputs)()) or 1
    found = {name: search(model, inputs, device, bound) for name, model in models.items()}
    batches = {
        "latency": dict.fromkeys(models, given if batch_of(inputs) is None else 1),
        "throughput": {name: f.optimal or given for name, f in found.items()},
        "dynamic": {name: f.dynamic or given for name, f in found.items()},
    }
    seconds = {
        kind: latencies({n: inference(m, resized(inputs, batch[n])) for n, m in models.items()}, device)
        for kind, batch in batches.items()
    }

    def rate(kind: str, name: str) -> float:
        return batches[kind][name] / float(np.median(seconds[kind][name]))

    common = batches["throughput"][base]
    out: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        best, largest = (resized(inputs, batches[kind][name]) for kind in ("throughput", "dynamic"))
        out[name] = {
            "latency_ms": {**summary(seconds["latency"][name]), "batch": batches["latency"][name]},
            "throughput": rate("throughput", name),
            "throughput_batch": batches["throughput"][name],
            "throughput_ms": summary(seconds["throughput"][name]),
            "dynamic": {
                "batch": batches["dynamic"][name],
                "samples_per_second": rate("dynamic", name),
                **summary(seconds["dynamic"][name]),
                "memory_mb": held_bytes(model, largest, device) / 1e6,
                "bound_mb": bound / 1e6,
                "limit": found[name].limit,
            },
            "peak_mb": peak_bytes(inference(model, resized(inputs, common)), device) / 1e6,
            "peak_batch": common,
            "threads": torch.get_num_threads() if device.type == "cpu" else None,
            "energy_j": energy.joules_per_1000(inference(model, best), batches["throughput"][name], device, meter),
            "energy_meter": meter.name if meter else None,
        }
        if name != base:
            out[name]["speedup"] = {
                kind: ratio(
                    [s / batches[kind][base] for s in seconds[kind][base]],
                    [s / batches[kind][name] for s in seconds[kind][name]],
                )
                for kind in batches
            }
    return out


def moved(inputs: tuple[Any, ...], device: torch.device) -> tuple[Any, ...]:
    """Move the tensors of example inputs to a device."""
    return pytree.tree_map(lambda x: x.to(device) if hasattr(x, "to") else x, inputs)
