"""What a training step of a workload costs: dense, with gates, and after the cut."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from lumos import measure
from lumos.api import gate
from lumos.gating.gated_model import GatedModel
from lumos.pruning.pruner import Pruner
from lumos.pruning.settings import DEFAULT_LAMBDA, Lambda, measured
from lumos.suite.settings import LumosConfig
from lumos.suite.training.objective import compiled_loss
from lumos.suite.training.optimizer import make_optimizer
from lumos.suite.workload import Batch, Workload, to_device

NEVER = 10**9
"""Steps of a training of which only a few are taken, so that it does not come to its cut."""


Pair = tuple[nn.Module, GatedModel]
"""A fresh dense network, and the same with gates."""


def fresh_pair(workload: Workload, settings: LumosConfig) -> Pair:
    """Make the networks of :func:`step_cost`; torch's random state stays. A trace of a large network takes a while."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        dense = workload.model()
        inner = copy.deepcopy(dense)
        gated = gate(
            inner, workload.example(), features=workload.features(), settings=settings.gates,
            options=settings.structure, **asdict(settings.constraints),
        )  # fmt: skip
        return dense, gated


def step_cost(
    workload: Workload,
    compact: nn.Module,
    batch: Batch,
    settings: LumosConfig,
    device: torch.device,
    *,
    compiled: bool = False,
    pair: Pair | None = None,
) -> dict[str, Any]:
    """Measure a training step of a fresh dense, a fresh gated and the compact network with this batch.

    With ``compiled`` the steps are those of trainings with ``trainer.compile``; ``pair`` has the fresh networks, where
    they are made already. The workload's models, their batch statistics and torch's random state stay. Returns what
    :func:`lumos.measure.training_step` does.
    """
    batch = to_device(batch, device)

    def make_step(model: nn.Module) -> Callable[[], Tensor]:
        loss_of = compiled_loss(workload, dynamic=False) if compiled else workload.loss
        optimizer = make_optimizer(model, workload)
        if isinstance(model, GatedModel):
            value = DEFAULT_LAMBDA if settings.lambda_ is None else settings.lambda_
            # What is measured costs a step as much as what is counted, and needs no measuring for that.
            penalty = "macs" if measured(settings.penalty) else settings.penalty
            Pruner(model, optimizer, NEVER, Lambda(value, penalty), cut="call", seed=None)

        def step() -> Tensor:
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.detach()

        return step

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        dense, gated = pair or fresh_pair(workload, settings)
        torch.manual_seed(0)
        return measure.training_step(dense, gated, compact, make_step, device)
