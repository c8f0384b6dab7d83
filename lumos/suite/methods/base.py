"""What the other methods share: their task, and the phase of a training that ends in a pruned network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from lumos.errors import UnsupportedError
from lumos.measure.sizes import parameters
from lumos.pruning.settings import cut_step
from lumos.suite.console import log
from lumos.suite.settings import MethodConfig
from lumos.suite.training.method import CutContext, PruningMethod
from lumos.suite.training.optimizer import cosine, make_optimizer
from lumos.suite.training.state import TrainState
from lumos.suite.training.trained import Trained
from lumos.suite.workload import Workload, to_device


@dataclass(frozen=True)
class Task:
    """What a method has to do: its settings, the steps of the training, the training samples, and a shape to take."""

    settings: MethodConfig
    total: int
    samples: int
    reference_run: Path | None = None


@dataclass
class Report:
    """What is noted on the way: ``share`` of the dense parameters that is left, and what else a method has to say."""

    share: float | None = None
    more: dict[str, Any] = field(default_factory=dict)


class TwoPhaseMethod(PruningMethod):
    """Train, prune to the target at step ``prune_at``, fine-tune. A method says how in :meth:`shrink`."""

    phase_names = ("dense", "fine-tuning")

    def __init__(self, state: TrainState, task: Task) -> None:
        self.model, self.settings = state.model, task.settings
        self.prune_at = cut_step(task.settings.prune_at, task.total)
        self.dense = parameters(state.model)
        self.report = Report()

    def shrink(self, workload: Workload) -> nn.Module:
        """Return the pruned network. Raises UnsupportedError."""
        raise NotImplementedError

    def rate(self, step: int, total: int) -> float:
        """Return a cosine before the pruning and one after it, where the rate restarts; else as in a gated training."""
        if self.settings.restart and step < self.prune_at:
            return cosine(step, self.prune_at)
        return super().rate(step, total)

    def prune(self, context: CutContext) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return the pruned network in training mode, and a new optimizer."""
        small = self.shrink(context.workload).train()
        expect_same_outputs(self.model, small, context.workload, next(small.parameters()).device)
        self.pruned = True
        if context.average:  # the libraries do not say which places they kept
            context.average.restart(small)
        self.report.share = parameters(small) / self.dense
        log.info(f"{self.settings.name}: pruned at step {self.prune_at} to {self.report.share:.2%} of the parameters")
        return small, make_optimizer(small, context.workload)

    def finalize(self, trained: Trained) -> None:
        """Add what was asked for and reached."""
        trained.steering = {"key": "method.target", "asked": self.settings.target, "reached": self.report.share,
                            **self.report.more}  # fmt: skip


def example(workload: Workload, device: torch.device) -> tuple[Any, ...]:
    """Return the workload's example on a device."""
    return to_device(workload.example(), device)


def shapes(model: nn.Module, inputs: tuple[Any, ...]) -> list[tuple[int, ...]]:
    """List the shapes of the outputs, in eval mode; the mode stays."""
    mode = model.training
    with torch.no_grad():
        out = model.eval()(*inputs)
    model.train(mode)
    return [tuple(t.shape) for t in pytree.tree_leaves(out) if isinstance(t, torch.Tensor)]


def expect_same_outputs(dense: nn.Module, small: nn.Module, workload: Workload, device: torch.device) -> None:
    """Raise UnsupportedError unless the pruned network runs and returns what the dense one does, by shape."""
    inputs = example(workload, device)
    try:
        same = shapes(small, inputs) == shapes(dense, inputs)
    except Exception as error:  # whatever a broken network raises
        raise UnsupportedError(f"the pruned network does not run: {type(error).__name__}: {_line(error)}") from error
    if not same:
        raise UnsupportedError("the pruned network returns outputs of another shape")


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
