"""Magnitude pruning: groups of the smallest L1 norm go (Li et al., ICLR 2017; global ranking)."""

from __future__ import annotations

from lumos.suite.methods.base import Task
from lumos.suite.methods.pruner import Pruning, library
from lumos.suite.training.state import TrainState


def setup(state: TrainState, task: Task) -> Pruning:
    """Train dense, prune, fine-tune. Raises UnsupportedError."""
    tp = library()
    return Pruning(state, task, lambda: tp.importance.MagnitudeImportance(p=1))
