"""Scores on a split, the batch statistics behind them, and the best state by score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lumos.errors import TrainingError
from lumos.pruning.resumable import Resumable
from lumos.suite.training import distributed
from lumos.suite.training.loading import iterate
from lumos.suite.workload import Batch, Workload, to_device

STATISTICS_BATCHES = 16
"""Training batches over which batch statistics are taken anew before a score counts."""


def evaluate(workload: Workload, model: nn.Module, batches: Iterable[Batch], device: torch.device) -> float:
    """Score a model on a split, in eval mode; where several processes train, the first one's score counts for all."""
    mode = model.training
    model.eval()
    with torch.no_grad():
        score = distributed.drawn_by_main(lambda: float(workload.score(model, on_device(batches, device))), device)
    model.train(mode)
    return score


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Move the batches to a device, one by one."""
    for batch in iterate(batches):
        yield to_device(batch, device)


def has_statistics(model: nn.Module) -> bool:
    """Tell whether the model has layers with running batch statistics."""
    return bool(_layers(model))


def recalibrate(workload: Workload, model: nn.Module, batches: Sequence[Batch]) -> None:
    """Take the running batch statistics anew, as the plain mean over these batches of the model as eval mode runs it.

    With sampled gates the statistics of training are those of noisy inputs, and not of the network that is scored.
    The batches are on the model's device; where several processes train, each takes its own and the mean counts.
    Without such layers nothing happens; torch's random state stays.
    """
    layers = _layers(model)
    if not layers or not batches:
        return
    mode, momenta = model.training, [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean
        layer.train()
    # Named devices: with several in sight and none named, torch warns.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.no_grad():
        for batch in batches:
            workload.loss(model, batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.train(mode)
    distributed.average([t for layer in layers for t in (layer.running_mean, layer.running_var) if t is not None])


def _layers(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


class Best(Resumable):
    """The best state so far by validation score."""

    memory = ("score", "state")

    def __init__(self, higher_is_better: bool) -> None:
        self.sign = 1 if higher_is_better else -1
        self.score = -self.sign * math.inf
        self.state: dict[str, Tensor] | None = None

    def update(self, score: float, model: nn.Module) -> None:
        """Keep the model's state if its score is the best."""
        if self.sign * score > self.sign * self.score:
            self.score = score
            self.state = {n: t.detach().clone() for n, t in model.state_dict().items()}

    def restore(self, model: nn.Module) -> nn.Module:
        """Give the model the best state. Raises TrainingError where no score was a number."""
        if self.state is None:
            raise TrainingError(
                "no validation score was a number, so no state is worth keeping; lower the learning rate"
            )
        model.load_state_dict(self.state)
        return model
