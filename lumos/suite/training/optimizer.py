"""The optimizer of a training, AdamW, and its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from lumos.compaction.model import CompactModel
from lumos.gating.gated_model import GatedModel
from lumos.pruning.settings import cut_step
from lumos.suite.workload import Workload


def make_optimizer(model: nn.Module, workload: Workload) -> torch.optim.Optimizer:
    """Make AdamW over the weights; gates have an optimizer of their own, the pruner's.

    Args:
        model: A plain, gated or compact network; parameters that need no gradient are left out.
        workload: Its recipe has the weights' rate and decay.

    Returns:
        The optimizer; each group has its rate at the peak as ``initial_lr``, as torch's schedulers have it.
    """
    recipe = workload.recipe
    inner = model.model if isinstance(model, GatedModel | CompactModel) else model
    weights = [p for p in inner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    optimizer.param_groups[0]["initial_lr"] = recipe.learning_rate
    return optimizer


def cosine(step: int, total: int, start: int = 0) -> float:
    """Return the learning rate as a share of its peak: 1 until ``start``, then a cosine from 1 to 0 at ``total``."""
    return 1.0 if step < start else 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, total - start)))


HOLD = 0.5
"""Share of the steps for which ``hold`` stays at the peak rate: where gates are cut by default (lumos.freeze_at)."""


def plain_rate(schedule: str, step: int, total: int) -> float:
    """Return the learning rate of a training without a cut as a share of its peak.

    Args:
        schedule: ``decay``, a cosine from the first step, or ``hold``, at the peak for half of the steps as a gated
            training is, and then a cosine.
        step: Steps so far.
        total: All steps.

    Example:
        >>> [round(plain_rate("hold", step, 8), 2) for step in range(0, 8, 2)]
        [1.0, 1.0, 1.0, 0.5]
        >>> [round(plain_rate("decay", step, 8), 2) for step in range(0, 8, 2)]
        [1.0, 0.85, 0.5, 0.15]
    """
    return cosine(step, total, cut_step(HOLD, total) if schedule == "hold" and total > 1 else 0)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the weights' rate to a share of its peak; a group of another method's ``gates`` keeps its own."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * (1.0 if group.get("name") == "gates" else factor)
