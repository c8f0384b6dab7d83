"""How a model is called: by Python (eager), as a recorded CUDA graph, or compiled; the three timed side by side.

A small network on a GPU is often bound by the launches of its kernels and not by what they compute. A CUDA graph has
all launches in one, so it shows what a smaller network saves beyond them; ``torch.compile`` fuses kernels besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from lumos.errors import LumosError, one_line
from lumos.measure.sizes import batch_of, resized
from lumos.measure.timing import Call, inference, latencies, summary

WARM_UP = 3
"""Calls before a graph is recorded, so that libraries have chosen their algorithms and workspaces."""

Kind = str
"""``latency``, ``throughput`` or ``dynamic``: a call with one sample, the best batch, or the one at the bound."""


class ModeError(LumosError):
    """A model cannot be called in this way here."""


def eager(model: nn.Module, inputs: tuple[Any, ...]) -> Call:
    """Make a call as Python makes it."""
    return inference(model, inputs)


def cuda_graph(model: nn.Module, inputs: tuple[Any, ...]) -> Call:
    """Record one call of a model as a CUDA graph; the call that comes back replays it on the very same inputs.

    Args:
        model: The model, in eval mode, on a GPU.
        inputs: Inputs on the same GPU; their memory is what every replay reads.

    Returns:
        A call that returns the output, which the next replay overwrites.

    Raises:
        ModeError: There is no GPU, or the model waits for the GPU inside a call, which no graph can hold.
    """
    if not torch.cuda.is_available():
        raise ModeError("cuda_graph: torch sees no GPU here")
    plain, graph, side = inference(model, inputs), torch.cuda.CUDAGraph(), torch.cuda.Stream()
    try:
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                plain()
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            out = plain()
    except RuntimeError as error:
        raise ModeError(f"cuda_graph: the call cannot be recorded ({one_line(error)})") from error

    def replay() -> Any:
        graph.replay()
        return out

    return replay


def compiled(model: nn.Module, inputs: tuple[Any, ...]) -> Call:
    """Compile a model for inputs of these shapes with ``torch.compile``; the first call is made here.

    Raises:
        ModeError: torch cannot compile it: no compiler (on a GPU no Triton), or code that it does not follow.
    """
    call = inference(torch.compile(model, dynamic=False), inputs)  # pyright: ignore[reportArgumentType]
    try:
        call()
    except Exception as error:  # a compiler, a driver or a model's code can fail in any way
        raise ModeError(f"compiled: torch cannot compile it ({one_line(error)})") from error
    return call


MODES: dict[str, Callable[[nn.Module, tuple[Any, ...]], Call]] = {
    "eager": eager, "cuda_graph": cuda_graph, "compiled": compiled,
}  # fmt: skip
"""The ways of calling a model; each makes a call of a model and its inputs."""


def calls_of(
    mode: str, models: Mapping[str, nn.Module], inputs: tuple[Any, ...], batches: Mapping[Kind, Mapping[str, int]]
) -> dict[Kind, dict[str, Call]]:
    """Make the calls of several models at several batches, what they hold included.

    Args:
        mode: One of ``MODES``.
        models: The models by name, in eval mode, on the device of the inputs.
        inputs: Example inputs, whose samples are repeated.
        batches: For each kind the batch of each model; ``inputs`` as they are where their samples cannot be repeated.

    Raises:
        ModeError: A model cannot be called in this way here.
    """
    made: dict[tuple[str, int], Call] = {}  # the best batch is often the largest one, too
    out: dict[Kind, dict[str, Call]] = {}
    for kind, of in batches.items():
        for name, model in models.items():
            batch = of[name] if batch_of(inputs) is not None else 0
            if (name, batch) not in made:
                made[name, batch] = MODES[mode](model, resized(inputs, batch) if batch else inputs)
            out.setdefault(kind, {})[name] = made[name, batch]
    return out


def timed(
    calls: Mapping[Kind, Mapping[str, Call]], batches: Mapping[Kind, Mapping[str, int]], device: torch.device,
    seconds: float | None = None,
) -> dict[str, dict[Kind, dict[str, Any]]]:  # fmt: skip
    """Time calls that :func:`calls_of` made, those of one kind in turns.

    Returns:
        For each model and kind: ``batch``, ``p50`` and ``p95`` milliseconds, ``calls``, ``samples_per_second``, and of
        all but the first model ``speedup``: times as many samples a second as the first, a median over the rounds.
    """
    out: dict[str, dict[Kind, dict[str, Any]]] = {}
    for kind, of in calls.items():
        measured, base = latencies(dict(of), device, seconds), next(iter(of))
        for name, times in measured.items():
            batch = batches[kind][name]
            figures = {**summary(times), "batch": batch, "samples_per_second": batch / float(np.median(times))}
            if name != base:
                rounds = np.asarray(measured[base]) / batches[kind][base] / (np.asarray(times) / batch)
                figures["speedup"] = float(np.median(rounds))
            out.setdefault(name, {})[kind] = figures
    return out


def mode_cost(
    mode: str,
    models: Mapping[str, nn.Module],
    inputs: tuple[Any, ...],
    batches: Mapping[Kind, Mapping[str, int]],
    device: torch.device,
    seconds: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure several models that are called in one way; one kind after the other, so that each has all the memory.

    Args:
        mode: ``eager``, ``cuda_graph`` or ``compiled``.
        models: The models by name, in eval mode, on the device; speed-ups refer to the first.
        inputs: Example inputs on the device.
        batches: For each kind (``latency``, ``throughput``, ``dynamic``) the batch of each model.
        device: Where they run.
        seconds: How long each call is timed in all; None as for other timings.

    Returns:
        For each model what :func:`timed` returns, a kind each; ``{"error": line}`` for a kind that cannot be called so.

    Example:
        >>> import torch
        >>> model, cpu = torch.nn.Linear(3, 1).eval(), torch.device("cpu")
        >>> found = mode_cost("eager", {"dense": model}, (torch.rand(4, 3),), {"latency": {"dense": 1}}, cpu)
        >>> found["dense"]["latency"]["batch"]
        1
    """
    out: dict[str, dict[str, Any]] = {name: {} for name in models}
    for kind, of in batches.items():
        try:
            # At the memory bound two recorded graphs would not fit side by side, so each has its turn alone.
            together = [models] if kind != "dynamic" else [{name: model} for name, model in models.items()]
            found: dict[str, dict[str, Any]] = {}
            for some in together:
                calls = calls_of(mode, some, inputs, {kind: of})
                found |= {name: kinds[kind] for name, kinds in timed(calls, {kind: of}, device, seconds).items()}
                del calls
                release(device)
            base = found[next(iter(models))]
            for name, figures in found.items():
                if figures is not base and "speedup" not in figures:
                    figures["speedup"] = figures["samples_per_second"] / base["samples_per_second"]
                out[name][kind] = figures
        except (ModeError, torch.OutOfMemoryError) as error:
            for name in models:
                out[name][kind] = {"error": one_line(error)}
            release(device)
    return out


def release(device: torch.device) -> None:
    """Give memory of a GPU that nothing holds back to it, so that others can have it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
