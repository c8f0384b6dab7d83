"""The loss of a step, plain or through ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lumos.errors import TrainingError
from lumos.suite.workload import Batch, Workload

Loss = Callable[[nn.Module, Batch], Tensor]
"""From model and batch, what a step minimises."""


def compiled_loss(workload: Workload, *, dynamic: bool) -> Loss:
    """Return the workload's loss, compiled at its first call with each model; ``dynamic`` says for all sizes.

    Whether sizes are dynamic is said beforehand and not found out on the way, so that a training that goes on from a
    checkpoint runs the same code. Raises TrainingError where torch cannot compile it.
    """
    from torch._dynamo.exc import TorchDynamoException  # only here: it takes a second to import

    def plain(model: nn.Module, batch: Batch) -> Tensor:
        return workload.loss(model, batch)

    # Torch keeps what it compiled by code object; a copy of its own need not be told apart from other networks'.
    plain.__code__ = plain.__code__.replace()
    # With torch's own random numbers it is the same training as without, but for the order of sums.
    compiled: Any = torch.compile(plain, dynamic=dynamic, options={"fallback_random": True})

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        try:
            return compiled(model, batch)
        except (TorchDynamoException, AssertionError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise TrainingError(
                f"trainer.compile=true: torch cannot compile the loss of {workload.name} ({reason}); "
                "it needs a C++ compiler, on a GPU Triton; trainer.compile=null trains without"
            ) from error

    return loss


def of_one_shape(first: Batch, second: Batch) -> bool:
    """Tell whether two batches are tensors of the same shapes; batches of graphs are not."""
    shapes: list[list[Any]] = [[getattr(t, "shape", None) for t in pytree.tree_leaves(b)] for b in (first, second)]
    return None not in shapes[0] and shapes[0] == shapes[1]
