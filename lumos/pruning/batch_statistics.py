"""Takes running batch statistics anew: those of a training with sampled gates are of another network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

STATISTICS_BATCHES = 16
"""Training batches over which batch statistics are taken anew before a score counts."""


def has_statistics(model: nn.Module) -> bool:
    """Tell whether a model has layers with running batch statistics."""
    return bool(_layers(model))


def recalibrate(model: nn.Module, calls: Iterable[Callable[[], Any]]) -> list[Tensor]:
    """Take the running batch statistics anew, as the plain mean over some calls of the model in eval mode.

    Without such layers nothing happens; torch's random state stays, and so does the model's mode.

    Args:
        model: The model.
        calls: Each runs the model on one batch.

    Returns:
        The statistics, for processes to average: each takes its own.
    """
    layers, calls = _layers(model), list(calls)
    if not layers or not calls:
        return []
    modes, momenta = {m: m.training for m in model.modules()}, [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean
        layer.train()
    # Named devices: with several in sight and none named, torch warns.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.no_grad():
        for call in calls:
            call()
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    for module, mode in modes.items():
        module.training = mode
    return [t for layer in layers for t in (layer.running_mean, layer.running_var) if t is not None]


def _layers(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
