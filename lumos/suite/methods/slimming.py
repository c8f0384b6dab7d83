"""Network slimming: L1 on the scales of batch norms, then channels of the smallest go (Liu et al., ICCV 2017)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lumos.errors import UnsupportedError
from lumos.suite.methods.base import Task
from lumos.suite.methods.pruner import Pruning, library
from lumos.suite.training.state import TrainState


class Slimming(Pruning):
    """Sparse training of the scales, then pruning by them."""

    phase_names = ("sparse", "fine-tuning")

    @torch.no_grad()
    def adjust_gradients(self) -> None:
        """Add the subgradient of the scales' L1 norm."""
        for scale in _scales(self.model):
            if scale.grad is not None:
                scale.grad.add_(scale.sign(), alpha=self.settings.regularization)


def _scales(model: nn.Module) -> list[nn.Parameter]:
    return [m.weight for m in model.modules() if isinstance(m, _BatchNorm) and m.affine]


def setup(state: TrainState, task: Task) -> Slimming:
    """Train with the regulariser, prune, fine-tune. Raises UnsupportedError where there is no batch norm."""
    tp = library()
    if not _scales(state.model):
        raise UnsupportedError(f"network slimming ranks by batch norms' scales, and {type(state.model).__name__} "
                               "has none")  # fmt: skip
    return Slimming(state, task, tp.importance.BNScaleImportance)
