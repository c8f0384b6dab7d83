"""What one step of training costs: dense, with gates, and after the cut."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lumos.api import gate
from lumos.gating.gated_model import GatedModel
from lumos.measure.memory import peak_bytes
from lumos.measure.timing import latencies, ratio, summary
from lumos.pruning.settings import DEFAULT_LAMBDA
from lumos.suite.config import LumosConfig
from lumos.suite.training.objective import Objective, compiled_objective, objective_of
from lumos.suite.training.phases import make_optimizer
from lumos.suite.workload import Batch, Workload, to_device

SECONDS = 0.4
"""How long each kind of step is timed in all."""


def training_step(
    workload: Workload,
    compact: nn.Module,
    batch: Batch,
    settings: LumosConfig,
    device: torch.device,
    *,
    compiled: bool = False,
) -> dict[str, Any]:
    """Time and memory of one training step with this batch, of the dense, the gated and the compact model.

    A step is loss, backward and optimiser; of the gated model also penalty and projection. Units: ``step_ms``;
    ``peak_mb`` megabytes that the step allocates beyond weights and optimiser state. ``overhead`` is the
    time of a gated step over that of a dense one, less one, in rounds that take turns: median and quartiles. ``share``
    is the number of gates over that of the dense parameters. Weights, batch statistics and random state of the
    workload's models stay: the steps are taken by copies, ``compiled`` as trainings with ``trainer.compile`` are.
    """
    batch = to_device(batch, device)
    fresh = partial(compiled_objective, workload, dynamic=False) if compiled else partial(objective_of, workload)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        dense = workload.model()
        gated = gate(copy.deepcopy(dense), workload.example(), features=workload.features(), settings=settings.gates)
        models = {"dense": dense, "gated": gated, "compact": copy.deepcopy(compact)}
        models = {name: model.to(device).train() for name, model in models.items()}
        steps = {name: _step(workload, fresh(), model, batch, settings) for name, model in models.items()}
        seconds = latencies(steps, device, SECONDS)
        out: dict[str, Any] = {
            name: {"step_ms": summary(seconds[name]), "peak_mb": peak_bytes(step, device) / 1e6}
            for name, step in steps.items()
        }
    slower = ratio(seconds["gated"], seconds["dense"])
    out["overhead"] = {key: value - 1 for key, value in slower.items()}
    out["share"] = gated.structure.units / sum(p.numel() for p in dense.parameters())
    return out


def _step(
    workload: Workload, objective: Objective, model: nn.Module, batch: Batch, settings: LumosConfig
) -> Callable[[], Tensor]:
    optimizer = make_optimizer(model, workload, settings)
    price = DEFAULT_LAMBDA if settings.lambda_ is None else settings.lambda_
    gated = model if isinstance(model, GatedModel) else None
    sizes, prices = ((lambda: (gated.penalty(settings.penalty),)), (price,)) if gated else (None, ())

    def step() -> Tensor:
        loss, cost = objective(model, batch, sizes, prices)
        (loss if cost is None else loss + cost).backward()
        optimizer.step()
        if gated:
            gated.project()
        # At the end, so that a step starts and ends with the same memory.
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step
