"""Averaged copies of the weights, which go through the cut as the weights do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lumos.compaction.compact import compact
from lumos.errors import ConfigError
from lumos.gating.gated_model import GatedModel
from lumos.pruning.resumable import Resumable


@runtime_checkable
class AveragedGated(Protocol):
    """An averaged copy of a gated network, behind the gates that train."""

    @property
    def model(self) -> nn.Module:
        """The copy: called as the network is."""
        ...

    def cut(self) -> None:
        """Cut out of the copy what is cut out of the network."""

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights, as ``model``, and the number of updates."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what :meth:`state_dict` returned."""


def decay_at(decay: float, updates: int) -> float:
    """Compute the decay after ``n`` updates: ``(1 + n) / (10 + n)``, at most ``decay``.

    A short training would otherwise keep a share ``decay ** steps`` of its first weights: 20% of them after 1,600 steps
    at .999.  Source: TensorFlow's ``ExponentialMovingAverage(num_updates)``.
    """
    return min(decay, (1 + updates) / (10 + updates))


class Average:
    """An averaged copy of a network while it trains: ``model`` is called as the network is.

    Of a gated network the weights are averaged and the gates are not: the copy has the very gates that train, so that
    what is scored are averaged weights behind today's gates, and :meth:`cut` takes out of them what is taken out of the
    weights. Buffers are those of the network; batch statistics have to be taken anew for every score.

    Args:
        model: The network, gated or not.
        decay: The average's decay per update, in (0, 1); the first updates have a smaller one (:func:`decay_at`).
    """

    model: nn.Module

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.restart(model)

    def restart(self, model: nn.Module) -> None:
        """Begin anew with a network: from the first update on, its weights are the average."""
        inner = _weights_of(model)
        self._mean = AveragedModel(inner, multi_avg_fn=self._toward)
        self.model = self._mean.module
        if isinstance(model, GatedModel):
            # One module in both: whatever puts one of them into eval mode does so to the gates, and has to put it back.
            self.model = GatedModel(self.model, model.structure, model.gates.settings, model.gates)

    def update(self, model: nn.Module) -> None:
        """Follow a step of the network."""
        self._mean.update_parameters(_weights_of(model))

    def cut(self) -> None:
        """Cut the closed units out of a gated copy and fold its gates, as those of the network; the average goes on."""
        assert isinstance(self.model, GatedModel)
        updates = int(self._mean.n_averaged)
        self.restart(compact(self.model.train()))
        self._mean.n_averaged.fill_(updates)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and the number of updates."""
        return {"model": self._mean.module.state_dict(), "updates": int(self._mean.n_averaged)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what :meth:`state_dict` returned."""
        self._mean.module.load_state_dict(state["model"])
        self._mean.n_averaged.fill_(state["updates"])

    def _toward(self, means: Any, weights: Any, updates: Tensor | int) -> None:
        get_ema_multi_avg_fn(decay_at(self.decay, int(self._mean.n_averaged)))(means, weights, updates)


def average_of(model: nn.Module, decay: float | None) -> Average | None:
    """Make an averaged copy with this decay; None where there is to be none."""
    return None if decay is None else Average(model, decay)


class OfTorch:
    """A ``torch.optim.swa_utils.AveragedModel`` of a gated network; its gates are those that train, not their mean."""

    def __init__(self, averaged: AveragedModel, gated: GatedModel) -> None:
        self.averaged, self.gates = averaged, gated.gates

    @property
    def model(self) -> GatedModel:
        """The copy, with the gates as they are now."""
        copy = self.averaged.module
        assert isinstance(copy, GatedModel)
        with torch.no_grad():
            copy.gates.log_alpha.copy_(self.gates.log_alpha)
        return copy

    def cut(self) -> None:
        """Cut the closed units out of the copy; the average goes on."""
        copy = self.model
        small = compact(copy)
        copy.become(small.model, small.selected)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and the number of updates."""
        return {"model": self.averaged.module.state_dict(), "updates": int(self.averaged.n_averaged)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what :meth:`state_dict` returned."""
        self.averaged.module.load_state_dict(state["model"])
        self.averaged.n_averaged.fill_(state["updates"])


def average_of_gated(given: Any, gated: GatedModel) -> AveragedGated:
    """Return the averaged copy of a gated network: an :class:`Average`, or torch's. Raises ConfigError."""
    if isinstance(given, AveragedModel) and isinstance(given.module, GatedModel):
        return OfTorch(given, gated)
    if isinstance(given, Average) and isinstance(given.model, GatedModel):
        return given
    found = getattr(given, "module", given)
    raise ConfigError(f"averaged={type(found).__name__}: expected an AveragedModel of the gated model")


def _weights_of(model: nn.Module) -> nn.Module:
    return model.model if isinstance(model, GatedModel) else model


class RunningMean(Resumable):
    """The mean of a network's weights over the steps since it was last asked for.

    A learning rate at its peak shakes the weights; their mean over some steps is a better guess of where they settle.

    Example:
        >>> from torch import nn
        >>> model, mean = nn.Linear(1, 1, bias=False), RunningMean()
        >>> for value in (1.0, 3.0):
        ...     _ = nn.init.constant_(model.weight, value)
        ...     mean.follow(model)
        >>> with mean.taken_by(model):
        ...     model.weight.item()
        2.0
        >>> model.weight.item()
        3.0
    """

    memory = ("weights", "steps")

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.steps = 0

    def follow(self, model: nn.Module) -> None:
        """Take the weights after a step into the mean."""
        weights = [p.detach() for p in model.parameters()]
        if not self.steps:
            self.weights = [w.clone() for w in weights]
        self.steps += 1
        for mean, weight in zip(self.weights, weights, strict=True):
            mean.lerp_(weight, 1.0 / self.steps)

    @contextmanager
    def taken_by(self, model: nn.Module) -> Iterator[None]:
        """Give a network the mean inside a ``with`` block; it begins anew after that."""
        with swapped(list(model.parameters()), self.weights):
            yield
        self.weights, self.steps = [], 0

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what ``state_dict`` returned."""
        super().load_state_dict(state)
        self.weights = list(self.weights)


class EpochMean(RunningMean):
    """The mean over the last steps of each epoch of a dense training: a point of the course that a tolerance needs.

    Args:
        over: As many steps, or those of the epoch where it has fewer: those between two checks of the gated training.
        until: The steps before a cut. From one epoch after them on there is no mean, since nothing needs it.
    """

    def __init__(self, over: int, until: int) -> None:
        super().__init__()
        self.over, self.until = over, until

    def follow_epoch(self, model: nn.Module, batch: int, batches: int, step: int) -> None:
        """Take the weights after a step, which was this batch (from 1 on) of its epoch, into the mean if need be."""
        if batch > batches - self.over and step <= self.until + batches:
            self.follow(model)


@contextmanager
def swapped(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Give parameters other values inside a ``with`` block."""
    kept = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p, value in zip(parameters, values, strict=True):
            p.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, value in zip(parameters, kept, strict=True):
                p.copy_(value)
