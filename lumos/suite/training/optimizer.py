"""The optimizer of a training, AdamW with the gates in a group of their own, and its learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from lumos.compaction.model import CompactModel
from lumos.gating.gated_model import GatedModel
from lumos.suite.settings import LumosConfig
from lumos.suite.workload import Workload


def make_optimizer(model: nn.Module, workload: Workload, settings: LumosConfig) -> torch.optim.Optimizer:
    """Make AdamW over the weights and, of a gated model, the gates: at their own rate and without weight decay.

    Args:
        model: A plain, gated or compact network; parameters that need no gradient are left out.
        workload: Its recipe has the weights' rate and decay.
        settings: The gates' rate.

    Returns:
        The optimizer; each group has a ``name`` and its rate at the ``peak``.
    """
    recipe = workload.recipe
    inner = model.model if isinstance(model, GatedModel | CompactModel) else model
    groups: list[dict[str, Any]] = [{"name": "weights", "params": [p for p in inner.parameters() if p.requires_grad],
                                     "peak": recipe.learning_rate, "weight_decay": recipe.weight_decay}]  # fmt: skip
    if isinstance(model, GatedModel):
        groups.append({"name": "gates", "params": [model.gates.log_alpha], "peak": settings.learning_rate,
                       "weight_decay": 0.0})  # fmt: skip
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def cosine(step: int, total: int, start: int = 0) -> float:
    """Return the learning rate as a share of its peak: 1 until ``start``, then a cosine from 1 to 0 at ``total``."""
    return 1.0 if step < start else 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, total - start)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the weights' rate to a share of its peak; the gates keep theirs until they freeze."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * (1.0 if group["name"] == "gates" else factor)
