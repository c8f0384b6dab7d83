"""Size and speed of a model in inference, measured the same way for the dense and the compact one."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

LATENCY_SECONDS = 1.0
"""How long each pair of models is timed at each batch size."""
THROUGHPUT_BATCH = 1024


def parameters(model: nn.Module) -> int:
    """Number of trainable and frozen parameters; buffers do not count."""
    return sum(p.numel() for p in model.parameters())


def size_bytes(model: nn.Module) -> int:
    """Bytes of the saved state, parameters and buffers."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def macs(model: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Multiply-accumulates of one sample: half the FLOPs that torch counts, over the example's samples."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return round(counter.get_total_flops() / 2 / (batch_of(inputs) or 1))


def batch_of(inputs: tuple[Any, ...]) -> int | None:
    """The number of samples, where all inputs are tensors with a leading batch dimension."""
    sizes = {x.shape[0] if isinstance(x, Tensor) and x.ndim else None for x in inputs}
    return sizes.pop() if len(sizes) == 1 else None


def resized(inputs: tuple[Any, ...], batch: int) -> tuple[Any, ...]:
    """The example repeated or cut to ``batch`` samples; as it is where it has no batch dimension."""
    samples = batch_of(inputs)
    if samples is None:
        return inputs
    return tuple(x[torch.arange(batch, device=x.device) % samples] for x in inputs)


def compare(models: dict[str, nn.Module], inputs: tuple[Any, ...], device: torch.device) -> dict[str, dict[str, Any]]:
    """Every figure of each model; timings alternate between the models, so that their ratio survives a noisy machine.

    Units: ``macs`` a sample; ``bytes`` on disk; ``latency_ms`` percentiles of one call; ``throughput`` samples a
    second; ``peak_mb`` megabytes allocated during one call of the throughput batch, beyond the weights. Energy is null:
    it takes a meter.
    """
    inputs = pytree.tree_map(lambda x: x.to(device) if hasattr(x, "to") else x, inputs)
    models = {name: m.to(device).eval() for name, m in models.items()}
    one, many = resized(inputs, 1), resized(inputs, THROUGHPUT_BATCH)
    samples = batch_of(many)
    single = latencies({n: _caller(m, one) for n, m in models.items()}, device)
    batched = latencies({n: _caller(m, many) for n, m in models.items()}, device)
    out: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        p50, p95 = np.percentile(single[name], [50, 95]) * 1e3
        out[name] = {
            "params": parameters(model),
            "macs": macs(model, inputs),
            "bytes": size_bytes(model),
            "latency_ms": {"p50": float(p50), "p95": float(p95), "batch": batch_of(one)},
            "throughput": (samples or 1) / float(np.median(batched[name])),
            "throughput_batch": samples,
            "peak_mb": peak_bytes(_caller(model, many), device) / 1e6,
            "energy_j": None,
        }
    return out


def _caller(model: nn.Module, inputs: tuple[Any, ...]) -> Callable[[], Any]:
    def call() -> Any:
        with torch.inference_mode():
            return model(*inputs)

    return call


def latencies(calls: dict[str, Callable[[], Any]], device: torch.device) -> dict[str, list[float]]:
    """Seconds of each call, the calls taking turns, after a warm-up."""
    for call in calls.values():
        for _ in range(3):
            call()
    out: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + LATENCY_SECONDS * len(calls)
    while time.perf_counter() < end or len(next(iter(out.values()))) < 5:
        for name, call in calls.items():
            _wait(device)
            start = time.perf_counter()
            call()
            _wait(device)
            out[name].append(time.perf_counter() - start)
    return out


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _silent_profiler() -> Iterator[None]:
    """Send stderr away at the file descriptor: the profiler's C++ part writes to it whatever one asks."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Most bytes that one call holds at a time beyond what was held before, counted at the allocator."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with (
        _silent_profiler(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
    ):
        call()
    held = peak = 0
    results: Any = profile.profiler.kineto_results  # type: ignore[union-attr]
    for event in sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
