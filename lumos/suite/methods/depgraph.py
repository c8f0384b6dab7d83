"""DepGraph: groups of coupled layers, a regulariser of their norms, then pruning (Fang et al., CVPR 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lumos.suite.methods.base import Task
from lumos.suite.methods.pruner import Pruning, library, make, quiet
from lumos.suite.training.state import TrainState

STRENGTH = 16.0
"""How many times as strongly the least important unit of a group is pulled to zero as the most important one."""


class DepGraph(Pruning):
    """Sparse training of the groups' norms, then pruning by them.

    The regulariser is torch-pruning's GroupNormPruner's, of which version 1.6.1 fails on transposed convolutions with
    other inputs than outputs and returns NaN for groups of equal norms.
    """

    phase_names = ("sparse", "fine-tuning")

    def __init__(self, state: TrainState, task: Task, importance: Any) -> None:
        super().__init__(state, task, importance)
        self.ranking = importance()
        pruner = make(self.model, self.inputs, self.ranking, self.excluded, task.settings.max_pruning_ratio)
        with quiet():
            found = pruner.DG.get_all_groups(
                ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types
            )
            self.groups = [(group, _places(group)) for group in found]

    @torch.no_grad()
    def adjust_gradients(self) -> None:
        """Add to each weight itself, times the regularisation and what its unit's unimportance makes of it."""
        for group, places in self.groups:
            size = self.ranking(group)
            if size is None or not bool(torch.isfinite(size).all()) or len(size) < 2:
                continue
            size = size.sqrt()
            pull = STRENGTH ** ((size.max() - size) / (size.max() - size.min()).clamp(min=1e-12))
            for weight, dim, units, roots in places:
                if weight.grad is None:
                    continue
                shape = [-1 if d == dim else 1 for d in range(weight.ndim)]
                more = weight.index_select(dim, units) * pull[roots].view(shape)
                weight.grad.index_add_(dim, units, more, alpha=self.settings.regularization)


def _places(group: Any) -> list[tuple[nn.Parameter, int, Tensor, Tensor]]:
    """Where the group's units lie: (weight, dimension, positions, number of each one's unit)."""
    function = library().pruner.function
    out_of = (function.prune_conv_out_channels, function.prune_linear_out_channels)
    into = (function.prune_conv_in_channels, function.prune_linear_in_channels)
    found = []
    for item in group:
        layer, handler = item.dep.target.module, item.dep.handler
        turned = bool(getattr(layer, "transposed", False))
        if handler in out_of:
            dim = 1 if turned else 0
        elif handler in into and getattr(layer, "groups", 1) == 1:
            dim = 0 if turned else 1
        elif handler == function.prune_batchnorm_out_channels and layer.affine:
            dim = 0
        else:
            continue
        units, roots = (torch.tensor(i, device=layer.weight.device) for i in (item.idxs, item.root_idxs))
        found.append((layer.weight, dim, units, roots))
    return found


def setup(state: TrainState, task: Task) -> DepGraph:
    """Train with the regulariser, prune, fine-tune. Raises UnsupportedError."""
    tp = library()
    return DepGraph(state, task, lambda: tp.importance.GroupMagnitudeImportance(p=2))
