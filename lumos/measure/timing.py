"""Times of calls that take turns, on a CPU by the clock and on a GPU by its events.

``torch.utils.benchmark.Timer`` times blocks of one call: a machine that slows down meanwhile meets one call and not the
other, and their ratio is wrong. Here entries of one round are paired, and a GPU's own clock leaves Python's time out.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from lumos.tracing.derivatives import asks_for_gradients

SECONDS = 0.4
"""How long each call is timed in all."""
MOST_CALLS, FEWEST_CALLS = 400, 5
WARM_UP = 3

Call = Callable[[], Any]


def latencies(
    calls: dict[str, Call], device: torch.device, seconds: float | None = None, most_calls: int = MOST_CALLS
) -> dict[str, list[float]]:
    """Time calls that take turns in rotating order, after a warm-up, without garbage collection.

    Args:
        calls: What is timed, by name.
        device: Where the calls run.
        seconds: How long each call is timed in all; None: ``SECONDS``.
        most_calls: How often each is called at most.

    Returns:
        Seconds of every call, by name. Entry ``i`` of all lists was measured within one round: a disturbance of the
        machine meets all of them alike.
    """
    for _ in range(WARM_UP):
        for call in calls.values():
            call()
    out: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    with _no_garbage_collection():
        end = time.perf_counter() + (SECONDS if seconds is None else seconds) * len(calls)
        for turn in range(most_calls):
            if turn >= FEWEST_CALLS and time.perf_counter() > end:
                break
            for name in order:
                out[name].append(once(calls[name], device))
            # Not reversed: the middle one of three would never follow itself, as the others do, with caches still warm.
            order = order[1:] + order[:1]
    return out


def once(call: Call, device: torch.device) -> float:
    """Time one call, in seconds; on a GPU between two events of its stream."""
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1e3


def summary(seconds: list[float]) -> dict[str, Any]:
    """Compute median and 95th percentile in milliseconds, and the number of calls behind them."""
    p50, p95 = np.percentile(seconds, [50, 95]) * 1e3
    return {"p50": float(p50), "p95": float(p95), "calls": len(seconds)}


def ratio(base: list[float], other: list[float]) -> dict[str, Any]:
    """Compute how many times ``base`` is ``other``, round by round: median and quartiles."""
    p25, p50, p75 = np.percentile(np.asarray(base) / np.asarray(other), [25, 50, 75])
    return {"p50": float(p50), "p25": float(p25), "p75": float(p75)}


def inference(model: torch.nn.Module, inputs: tuple[Any, ...], precision: str | None = None) -> Call:
    """Make a call of the model on these inputs, without gradients unless its own forward differentiates (forces).

    Args:
        model: The model, on the device of the inputs.
        inputs: Positional inputs.
        precision: ``bfloat16`` or ``float16``: under ``torch.autocast`` of that type.
    """
    dtype = None if precision in (None, "float32") else getattr(torch, str(precision))
    kind = "cpu" if dtype is None else next((p.device.type for p in model.parameters()), "cpu")
    gradients = False

    def call() -> Any:
        nonlocal gradients
        if not gradients:
            try:
                with torch.inference_mode(), nullcontext() if dtype is None else torch.autocast(kind, dtype):
                    return model(*inputs)
            except RuntimeError as error:
                if not asks_for_gradients(error):
                    raise
                gradients = True  # from now on; the first call is no timed one
        with torch.enable_grad(), nullcontext() if dtype is None else torch.autocast(kind, dtype):
            return model(*inputs)

    return call


def differentiates(model: torch.nn.Module, inputs: tuple[Any, ...]) -> bool:
    """Tell whether a model runs with gradients alone, since its own forward takes derivatives."""
    try:
        with torch.inference_mode():
            model(*inputs)
    except RuntimeError as error:
        if asks_for_gradients(error):
            return True
        raise
    return False


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
