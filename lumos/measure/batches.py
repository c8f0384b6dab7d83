"""Which batch a model is best called with: the one of the highest throughput, and the largest within a memory bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lumos.measure.memory import peak_bytes
from lumos.measure.sizes import batch_of, input_bytes, resized
from lumos.measure.timing import inference, once

CPU_BOUND_BYTES = 128_000_000
"""What inputs and activations of one call may hold on a CPU."""
GPU_BOUND_SHARE = 0.8
"""The same on a GPU, as a share of its memory."""
LARGEST = 2**16
CALL_SECONDS = 0.2
"""No call is made longer than this by a larger batch, so that measuring stays short."""


@dataclass(frozen=True)
class Batches:
    """The batches that suit a model.

    Attributes:
        optimal: The one of the highest throughput; None where samples cannot be repeated.
        dynamic: The largest one within the bounds; None where samples cannot be repeated.
        limit: What kept it from being larger: ``memory``, ``time`` (a call would take longer than ``CALL_SECONDS``),
            ``size`` (``LARGEST``) or ``example`` (its samples cannot be repeated).
    """

    optimal: int | None
    dynamic: int | None
    limit: str


def memory_bound(device: torch.device) -> int:
    """Compute how many bytes inputs and activations of one call may hold: the same for all models that are compared."""
    if device.type != "cuda":
        return CPU_BOUND_BYTES
    return int(GPU_BOUND_SHARE * torch.cuda.get_device_properties(device).total_memory)


def search(model: nn.Module, inputs: tuple[Any, ...], device: torch.device, bound: int) -> Batches:
    """Find the best and the largest batch of a model: double it until memory, time or ``LARGEST`` says stop.

    Args:
        model: The model, on the device.
        inputs: Example inputs, whose samples are repeated.
        device: Where it runs.
        bound: Bytes that inputs and activations of a call may hold.
    """
    if batch_of(inputs) is None:
        return Batches(None, None, "example")
    per_sample, fixed = _memory_line(model, inputs, device)
    best, batch, limit, rates = 1, 1, "size", {}
    while True:
        try:
            call = inference(model, resized(inputs, batch))
            call()
            seconds = min(once(call, device) for _ in range(3))
        except torch.OutOfMemoryError:  # kernels may take more than the line from small calls says
            batch, limit = max(1, batch // 2), "memory"
            if not rates:
                raise
            break
        rates[batch] = batch / seconds
        best = max(rates, key=lambda b: rates[b])
        if fixed + 2 * batch * per_sample > bound:
            limit = "memory"
        elif 2 * seconds > CALL_SECONDS:
            limit = "time"
        elif batch < LARGEST:
            batch *= 2
            continue
        break
    # The line from small calls is a guess: kernels may take memory in steps.
    while batch > 1 and held_bytes(model, resized(inputs, batch), device) > bound:
        batch, limit = batch // 2, "memory"
    return Batches(min(best, batch), batch, limit)


def _memory_line(model: nn.Module, inputs: tuple[Any, ...], device: torch.device) -> tuple[float, float]:
    """Bytes per sample and bytes besides, of inputs and activations, from calls with one and with three samples."""
    one, three = (held_bytes(model, resized(inputs, n), device) for n in (1, 3))
    per_sample = max(1.0, (three - one) / 2)
    return per_sample, max(0.0, one - per_sample)


def held_bytes(model: nn.Module, inputs: tuple[Any, ...], device: torch.device, precision: str | None = None) -> int:
    """Measure the bytes of inputs and activations of one call."""
    return input_bytes(inputs) + peak_bytes(inference(model, inputs, precision), device)
