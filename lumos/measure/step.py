"""What one step of training costs: dense, with gates, and after the cut."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lumos.gating.gated_model import GatedModel
from lumos.measure.memory import peak_bytes
from lumos.measure.sizes import parameters
from lumos.measure.timing import latencies, ratio, summary

SECONDS = 0.4
"""How long each kind of step is timed in all."""

MakeStep = Callable[[nn.Module], Callable[[], Any]]
"""From a model in training mode: a function that does one step of its training."""


def training_step(
    dense: nn.Module, gated: GatedModel, compact: nn.Module, make_step: MakeStep, device: torch.device
) -> dict[str, Any]:
    """Measure time and memory of one training step of the dense, the gated and the compact model.

    Copies of the models take the steps; the models themselves and torch's random state stay as they are.

    Args:
        dense: The network without gates.
        gated: The same with gates.
        compact: What is left of it after the cut.
        make_step: Makes the step of a model: forward, loss, backward, optimizer; of a gated one also penalty and
            projection. It should end with no gradients, so that a step starts and ends with the same memory.
        device: Where the steps run.

    Returns:
        For ``dense``, ``gated`` and ``compact``: ``step_ms``, milliseconds, and ``peak_mb``, megabytes that a step
        allocates beyond weights and optimizer state. ``overhead``: the time of a gated step over that of a dense one,
        less one, in rounds that take turns, median and quartiles. ``share``: gates over the dense model's parameters.
    """
    share = gated.structure.units / parameters(dense)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        models = {"dense": dense, "gated": gated, "compact": compact}
        steps = {name: make_step(copy.deepcopy(m).to(device).train()) for name, m in models.items()}
        seconds = latencies(steps, device, SECONDS)
        out: dict[str, Any] = {
            name: {"step_ms": summary(seconds[name]), "peak_mb": peak_bytes(step, device) / 1e6}
            for name, step in steps.items()
        }
    slower = ratio(seconds["gated"], seconds["dense"])
    out["overhead"] = {key: value - 1 for key, value in slower.items()}
    out["share"] = share
    return out
