"""Scores on a split, the batch statistics behind them, and the best state by score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from lumos.errors import TrainingError
from lumos.pruning import batch_statistics
from lumos.pruning.resumable import Resumable
from lumos.suite.training import distributed
from lumos.suite.training.loading import iterate, pinned
from lumos.suite.workload import Batch, Workload, to_device


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
    for batch in iterate(pinned(batches, device)):
        yield to_device(batch, device)


def recalibrate(workload: Workload, model: nn.Module, batches: Iterable[Batch]) -> None:
    """Take the running batch statistics anew over the losses of these batches, one of them on the device at a time."""

    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def loss(batch: Batch) -> Tensor:
        return workload.loss(model, to_device(batch, device))

    batch_statistics.recalibrate(model, [partial(loss, batch) for batch in batches])


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
