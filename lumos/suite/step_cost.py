"""What a training step of a workload costs: dense, with gates, and after the cut."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lumos import measure
from lumos.api import gate
from lumos.gating.gated_model import GatedModel
from lumos.pruning.settings import DEFAULT_LAMBDA
from lumos.suite.settings import LumosConfig
from lumos.suite.training.objective import compiled_objective, objective_of
from lumos.suite.training.optimizer import make_optimizer
from lumos.suite.workload import Batch, Workload, to_device


def step_cost(
    workload: Workload,
    compact: nn.Module,
    batch: Batch,
    settings: LumosConfig,
    device: torch.device,
    *,
    compiled: bool = False,
) -> dict[str, Any]:
    """Measure a training step of a fresh dense, a fresh gated and the compact network with this batch.

    With ``compiled`` the steps are those of trainings with ``trainer.compile``. The workload's models, their batch
    statistics and torch's random state stay. Returns what :func:`lumos.measure.training_step` does.
    """
    batch = to_device(batch, device)

    def make_step(model: nn.Module) -> Callable[[], Tensor]:
        objective = compiled_objective(workload, dynamic=False) if compiled else objective_of(workload)
        optimizer = make_optimizer(model, workload, settings)
        coefficient = DEFAULT_LAMBDA if settings.lambda_ is None else settings.lambda_
        gated = model if isinstance(model, GatedModel) else None
        terms, coefficients = (lambda: (gated.penalty(settings.penalty),), (coefficient,)) if gated else (None, ())

        def step() -> Tensor:
            loss, cost = objective(model, batch, terms, coefficients)
            (loss if cost is None else loss + cost).backward()
            optimizer.step()
            if gated:
                gated.project()
            optimizer.zero_grad(set_to_none=True)
            return loss.detach()

        return step

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        dense = workload.model()
        gated = gate(copy.deepcopy(dense), workload.example(), features=workload.features(), settings=settings.gates)
        return measure.training_step(dense, gated, compact, make_step, device)
