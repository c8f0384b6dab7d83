"""What a step minimises: the workload's loss and the penalty; plain, or through ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lumos.errors import TrainingError
from lumos.suite.workload import Batch, Workload

Terms = Callable[[], Sequence[Tensor]]
"""The penalty's terms: scalars, differentiable in the gates."""

Objective = Callable[..., tuple[Tensor, Tensor | None]]
"""From model, batch, terms and their coefficients: the loss, and the penalty, None where it has no terms."""


def objective_of(workload: Workload) -> Objective:
    """Return what a step minimises: the workload's loss, and the penalty ``sum(coefficient * term)``."""

    def objective(
        model: nn.Module, batch: Batch, terms: Terms | None = None, coefficients: Sequence[Any] = ()
    ) -> tuple[Tensor, Tensor | None]:
        loss = workload.loss(model, batch)
        penalty: Tensor | None = None
        for coefficient, term in zip(coefficients, terms() if terms else (), strict=True):
            penalty = coefficient * term if penalty is None else penalty + coefficient * term
        return loss, penalty

    return objective


def compiled_objective(workload: Workload, *, dynamic: bool) -> Objective:
    """Return the objective, compiled at its first call with each model; with ``dynamic`` once for batches of all sizes.

    Whether sizes are dynamic is said beforehand and not found out on the way, so that a training that goes on from a
    checkpoint runs the same code. Raises TrainingError where torch cannot compile it.
    """
    from torch._dynamo.exc import TorchDynamoException  # only here: it takes a second to import

    plain: Any = objective_of(workload)
    # Torch keeps what it compiled by code object; a copy of its own need not be told apart from other networks'.
    plain.__code__ = plain.__code__.replace()
    # With torch's own random numbers it is the same training as without, but for the order of sums.
    compiled: Any = torch.compile(plain, dynamic=dynamic, options={"fallback_random": True})

    def objective(
        model: nn.Module, batch: Batch, terms: Terms | None = None, coefficients: Sequence[float] = ()
    ) -> tuple[Tensor, Tensor | None]:
        try:
            # As tensors, since a number is a constant to the compiler and these are others at every step.
            return compiled(model, batch, terms, [torch.tensor(value) for value in coefficients])
        except (TorchDynamoException, AssertionError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise TrainingError(
                f"trainer.compile=true: torch cannot compile the loss of {workload.name} ({reason}); "
                "it needs a C++ compiler, on a GPU Triton; trainer.compile=null trains without"
            ) from error

    return objective


def of_one_shape(first: Batch, second: Batch) -> bool:
    """Tell whether two batches are tensors of the same shapes; batches of graphs are not."""
    shapes: list[list[Any]] = [[getattr(t, "shape", None) for t in pytree.tree_leaves(b)] for b in (first, second)]
    return None not in shapes[0] and shapes[0] == shapes[1]
