"""One step of a training, from the batch to the new weights; all that happens in it stands here, in order."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lumos.pruning import processes
from lumos.suite.training.loading import Reader
from lumos.suite.training.optimizer import plain_rate, set_rates
from lumos.suite.training.precision import autocast
from lumos.suite.training.state import TrainState
from lumos.suite.workload import Batch, to_device
from lumos.tracing.devices import read_at_once

CHECK_EVERY = 20
"""Steps between two checks of what costs a round between processes, or a wait for the GPU."""


class NonFiniteLossError(Exception):
    """The loss of a step is not finite; the weights are those before the step."""


def train_step(state: TrainState, batch: Batch, reader: Reader, total: int) -> None:
    """Take one step: forward, backward, optimizer, and what follows it.

    Args:
        state: The training; its weights, counters and losses move on by a step.
        batch: The batch, on any device.
        reader: Where the batch comes from; it knows this process's share of it.
        total: Steps of the whole training.

    Raises:
        NonFiniteLossError: The loss is not finite. On a GPU this is checked every few steps.
        TrainingError: The network collapsed.
    """
    method, step = state.method, state.step
    preparing = method if method and not method.pruned else None
    state.recent.append(batch)
    batch = to_device(batch, state.device)

    # forward
    with state.noise.private(step), autocast(state.config.trainer.precision, state.device):
        loss = state.loss(state.replica, batch)
    loss = reader.weighted(loss.float() if loss.dtype is torch.bfloat16 else loss, state.batch)
    state.losses.append(processes.mean(loss.detach()))
    if (read_at_once(loss) or step % CHECK_EVERY == 0) and not math.isfinite(float(state.losses[-1])):
        raise NonFiniteLossError

    # backward, and the step of the optimizer
    set_rates(state.optimizer, method.rate(step, total) if method else plain_rate(state.schedule, step, total))
    adjust = preparing.adjust_gradients if preparing else None
    descend(state.optimizer, loss, state.config.trainer.clip_norm, adjust)

    # what follows it
    state.step, state.batch = state.step + 1, state.batch + 1
    if method:
        method.after_step(state.step, state.losses[-1])


def descend(
    optimizer: torch.optim.Optimizer,
    objective: Tensor,
    clip_norm: float | None,
    adjust_gradients: Callable[[], None] | None = None,
) -> None:
    """Take a step of the optimizer down the gradient of a scalar.

    Args:
        optimizer: Its first parameter group holds the weights.
        objective: The scalar.
        clip_norm: The norm to which the gradient of the weights is clipped; None for none.
        adjust_gradients: Changes the gradients before that.
    """
    optimizer.zero_grad(set_to_none=True)
    objective.backward()
    if adjust_gradients is not None:
        adjust_gradients()
    if clip_norm:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip_norm)
    optimizer.step()
