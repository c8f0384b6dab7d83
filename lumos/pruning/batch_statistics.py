"""Takes running batch statistics anew: those of a training with sampled gates are of another network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from lumos.gating.gated_model import GatedModel
from lumos.pruning import processes

STATISTICS_BATCHES = 16
"""Training batches over which batch statistics are taken anew before a score counts."""
STATE_BYTES = 1 << 30
"""Bytes of such batches that a state holds, at most."""


def has_statistics(model: nn.Module) -> bool:
    """Tell whether a model has layers with running batch statistics."""
    return bool(_layers(model))


def recalibrate(model: nn.Module, calls: Iterable[Callable[[], Any]]) -> None:
    """Take the running batch statistics anew, as the plain mean over some calls of the model in eval mode.

    With sampled gates the statistics of training are those of noisy inputs, and not of the network that is scored.
    Where several processes train, each takes its own and the mean counts. Without such layers nothing happens; torch's
    random state stays, and so does the model's mode.

    Args:
        model: The model.
        calls: Each runs the model on one batch.
    """
    layers, calls = _layers(model), list(calls)
    if not layers or not calls:
        return
    momenta = [layer.momentum for layer in layers]
    with kept_modes(model):
        model.eval()
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative mean
            layer.train()
        # Named devices: with several in sight and none named, torch warns.
        gradients = isinstance(model, GatedModel) and model.structure.gradients
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.set_grad_enabled(gradients):
            for call in calls:
                call()
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    processes.average([t for layer in layers for t in (layer.running_mean, layer.running_var) if t is not None])


@contextmanager
def kept_modes(model: nn.Module) -> Iterator[None]:
    """Bring every module of a model back into its mode, training or eval, at the end of a ``with`` block."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class Calls:
    """A forward pre-hook that keeps the last arguments with which a model was called in training mode.

    A copy of the model has a hook of its own, with nothing in it.
    """

    def __init__(self) -> None:
        self.last: deque[tuple[tuple[Any, ...], dict[str, Any]]] = deque(maxlen=STATISTICS_BATCHES)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the arguments of a call of a training."""
        if module.training and torch.is_grad_enabled():
            self.last.append((args, kwargs))

    def __reduce__(self) -> Any:
        return Calls, ()

    def recalibrate(self, model: nn.Module) -> None:
        """Take a model's batch statistics anew over these arguments."""
        recalibrate(model, [partial(model, *args, **kwargs) for args, kwargs in self.last])

    def state_dict(self) -> dict[str, Any]:
        """Return copies of this process's arguments, the newest first; of larger ones fewer.

        Those that a file without pickled classes cannot hold (graphs, say) are left out.
        """
        calls, room = [], STATE_BYTES
        for call in reversed(self.last):
            room -= sum(t.nbytes for t in pytree.tree_leaves(call) if isinstance(t, torch.Tensor))
            if room < 0 or not _is_plain(call):
                break
            calls.append(pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone(), call))
        return {"rank": processes.rank(), "calls": calls}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take the arguments that :meth:`state_dict` returned in this process; those of another are not its own."""
        self.last.clear()
        if state["rank"] == processes.rank():
            calls = pytree.tree_map_only(torch.Tensor, lambda t: t.to(device), state["calls"])
            self.last.extend(reversed(calls))


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(_is_plain, value))
    if isinstance(value, dict):
        return type(value) is dict and all(isinstance(key, str) and _is_plain(v) for key, v in value.items())
    return value is None or isinstance(value, bool | int | float | str) or type(value) is torch.Tensor


def _layers(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
