"""Our method in a training: a :class:`lumos.Pruner` on the training's optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lumos.compaction.model import CompactModel
from lumos.pruning.pruner import Pruner
from lumos.suite.training.method import CutContext, PruningMethod
from lumos.suite.training.trained import Trained


class LumosMethod(PruningMethod):
    """L0 gates that close on the way, until the closed units are cut out: all of it is the pruner's."""

    phase_names = ("gated", "compact")

    def __init__(self, pruner: Pruner) -> None:
        self.pruner, self.prune_at = pruner, pruner.schedule.gated_steps

    @property
    def pruned(self) -> bool:  # type: ignore[override]
        """Whether the closed units are cut out."""
        return self.pruner.is_cut

    def state_dict(self) -> dict[str, Any]:
        """Return what the pruner keeps beside the model."""
        return self.pruner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state that :meth:`state_dict` returned; after a cut, make it."""
        self.pruner.load_state_dict(state)

    def after_step(self, step: int, loss: Tensor) -> None:
        """Tell the pruner the loss. Raises TrainingError after a collapse."""
        self.pruner.observe(loss)

    def prune(self, context: CutContext) -> tuple[CompactModel, torch.optim.Optimizer]:
        """Cut, and return the compact model with the optimizer, which goes on. Raises CompactionError."""
        return self.pruner.cut(), context.optimizer

    def finalize(self, trained: Trained) -> None:
        """Add what the gates decided. Raises TrainingError where the network collapsed."""
        self.pruner.detach()
        self.pruner.detector.check_finished(trained.curve[-1]["loss"])
        trained.gates, trained.equivalence = self.pruner.decided, self.pruner.equivalence
        trained.steering = self.pruner.controller.report(trained.valid_score)
        trained.features = self.pruner.feature_rows()
