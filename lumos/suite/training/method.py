"""What a method of pruning does beside the steps that all trainings share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lumos.pruning.averaging import Average
from lumos.suite.training.optimizer import cosine
from lumos.suite.training.trained import Trained
from lumos.suite.workload import Workload


@dataclass(frozen=True)
class CutContext:
    """What a training has at the cut."""

    optimizer: torch.optim.Optimizer
    workload: Workload
    average: Average | None = None


class PruningMethod:
    """A training in two phases: until the step ``prune_at`` the network is prepared, then it is smaller and trains on.

    A training calls, in this order: ``adjust_gradients`` after the backward pass of a step before ``prune_at``,
    ``after_step`` after the optimizer's step; ``prune`` once, before the step ``prune_at``; ``finalize`` at the end.
    """

    prune_at: int
    """The step before which the network is pruned."""
    phase_names: tuple[str, str]
    """What the record calls the steps before and after."""
    pruned = False

    def adjust_gradients(self) -> None:
        """Change the gradients of a step: add a penalty's, say."""

    def after_step(self, step: int, loss: Tensor) -> None:
        """Follow a step; ``step`` counts it already, ``loss`` is its own."""

    def rate(self, step: int, total: int) -> float:
        """Return the weights' learning rate as a share of its peak: at the peak until the cut, then a cosine to zero.

        So what remains after the cut is trained as a fresh start would be.
        """
        return cosine(step, total, self.prune_at)

    def prune(self, context: CutContext) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return the network that trains on, and its optimizer; the averaged copy becomes one of it, in place."""
        raise NotImplementedError

    def finalize(self, trained: Trained) -> None:
        """Add to the finished training what is known of it."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that a checkpoint has to keep beside the model."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state that :meth:`state_dict` returned."""
