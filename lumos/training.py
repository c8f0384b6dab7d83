"""The training loop, in full: dense and gated networks go through the same one.

A gated training has two phases. While gates and weights learn together, the loss carries the penalty. Then the gates
are frozen at their test-time state, the closed units are cut out, compact is verified against gated, and the rest of
the very same steps trains the weights of what remains.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lumos.api import gate
from lumos.compaction import Equivalence
from lumos.config import RunConfig
from lumos.console import progress
from lumos.errors import TrainingError
from lumos.evaluation import STATISTICS_BATCHES, Best, evaluate, has_statistics, recalibrate
from lumos.gated import GatedModel
from lumos.phases import GatedPhase, gate_columns, make_optimizer, rate, set_rates
from lumos.steering import steer
from lumos.watch import CollapseWatch
from lumos.workload import Batch, Loaders, Workload, to_device


@dataclass
class Trained:
    """A trained network, its scores and how it got there.

    Of a gated training: ``gates`` is what they decided, ``steering`` what was asked for and reached, and ``features``
    has a row for each input feature.
    """

    model: nn.Module
    valid_score: float
    seconds: float
    steps: int
    curve: list[dict[str, Any]] = field(repr=False)
    gates: dict[str, Any] | None = None
    equivalence: Equivalence | None = None
    steering: dict[str, Any] | None = None
    features: list[dict[str, Any]] = field(default_factory=list, repr=False)


def train(
    workload: Workload,
    loaders: Loaders,
    config: RunConfig,
    device: torch.device,
    *,
    gated: bool,
    dense: Trained | None = None,
) -> Trained:
    """Train the workload's network, dense or gated; a gated one comes back compact.

    The best state by validation score is kept; of a gated training, the best one after the cut, and so at or under the
    budget. ``dense`` is the trained baseline: a tolerance needs its score. Raises TrainingError where the loss is no
    longer finite or the network collapsed, CompactionError where compact and gated differ.
    """
    label = "gated" if gated else "dense"
    epochs, total = _length(workload, loaders, config)
    freeze_at = min(total - 1, max(1, round(config.lumos.freeze_at * total))) if gated else -1
    if gated and total < 2:
        raise TrainingError(f"{workload.name}: a gated training needs two steps or more, this one has {total}")
    torch.manual_seed(config.seed)
    model = workload.model().to(device)
    if gated:
        model = gate(model, workload.example(), features=workload.features(), settings=config.lumos.gates)
    optimizer = make_optimizer(model, workload, config.lumos)
    # The latest batches, for the batch statistics of models that have them.
    recent: deque[Batch] = deque(maxlen=STATISTICS_BATCHES if has_statistics(model) else 0)

    def validate(model: nn.Module) -> float:
        recalibrate(workload, model, recent)
        return evaluate(workload, model, loaders.valid, device)

    phase = _gated_phase(workload, config, model, (total, freeze_at), dense, validate)
    best = Best(workload.metric.higher_is_better)
    curve: list[dict[str, Any]] = []
    step, started = 0, time.perf_counter()
    with progress(f"{workload.name}: {label}", total) as bar:
        for epoch in range(epochs):
            set_epoch(loaders.train, epoch)
            model.train()
            losses: list[Tensor] = []
            for batch in loaders.train:
                if step == total:
                    break
                if phase and step == freeze_at:
                    model, optimizer = phase.cut(optimizer, workload, config.lumos, recent)
                    losses.clear()
                recent.append(batch := to_device(batch, device))
                loss = workload.loss(model, batch)
                objective = loss + phase.penalty(step) if phase and step < freeze_at else loss
                set_rates(optimizer, rate(step, total, freeze_at))
                descend(optimizer, objective, config.trainer.clip_norm)
                losses.append(loss.detach())
                step += 1
                if phase:
                    phase.after(optimizer, step, losses[-1])
                bar.advance()
            if not losses:
                continue
            mean_loss = _mean(losses, label, epoch, step, workload)
            valid = validate(model)
            if not isinstance(model, GatedModel):
                best.offer(valid, model)
            row = {"phase": label, "epoch": epoch + 1, "step": step, "loss": mean_loss, "valid": valid,
                   "seconds": round(time.perf_counter() - started, 3), **gate_columns(model)}  # fmt: skip
            curve.append(row)
            bar.show(loss=mean_loss, valid=valid, open=row.get("open_gates"))
    trained = Trained(best.restore(model).eval(), best.score, time.perf_counter() - started, step, curve)
    if phase:
        phase.watch.verdict(curve[-1]["loss"])
        trained.gates, trained.equivalence = phase.gates, phase.equivalence
        trained.steering, trained.features = phase.steering.report(best.score), phase.feature_rows()
    return trained


def descend(optimizer: torch.optim.Optimizer, objective: Tensor, clip_norm: float | None) -> None:
    """One step of the optimiser; the gradient of the weights is clipped to a norm, that of the gates is not."""
    optimizer.zero_grad(set_to_none=True)
    objective.backward()
    if clip_norm:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip_norm)
    optimizer.step()


# ---- helpers --------------------------------------------------------------------------------------------------------


def _length(workload: Workload, loaders: Loaders, config: RunConfig) -> tuple[int, int]:
    batches = len(loaders.train)  # type: ignore[arg-type]
    if not batches:
        raise TrainingError(
            f"{workload.name}: the training split has no batch; ask for more samples or a smaller batch"
        )
    total = workload.recipe.epochs * batches
    return workload.recipe.epochs, min(total, config.trainer.max_steps or total)


def set_epoch(loader: Any, epoch: int) -> None:
    """Tell a loader's sampler the epoch, as torch's DistributedSampler wants it, wherever it sits."""
    sampler = loader
    while sampler is not None:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
            return
        sampler = getattr(sampler, "sampler", None)


def _gated_phase(
    workload: Workload,
    config: RunConfig,
    model: nn.Module,
    lengths: tuple[int, int],
    dense: Trained | None,
    validate: Callable[[nn.Module], float],
) -> GatedPhase | None:
    """What a gated training does besides, for the steps in all and before the cut; None for a dense one."""
    if not isinstance(model, GatedModel):
        return None
    total, freeze_at = lengths
    score, loss = (dense.valid_score, dense.curve[-1]["loss"]) if dense and dense.curve else (None, 0.0)
    steering = steer(config.lumos, total, freeze_at, model, workload.metric, score, validate)
    return GatedPhase(model, steering, CollapseWatch(total, config.lumos.mode, loss), freeze_at)


def _mean(losses: list[Tensor], label: str, epoch: int, step: int, workload: Workload) -> float:
    mean = float(torch.stack(losses).mean())
    if math.isfinite(mean):
        return mean
    bad = next(i for i, loss in enumerate(losses) if not math.isfinite(float(loss)))
    raise TrainingError(
        f"{workload.name}: the loss of the {label} network is not finite from batch {bad} of epoch {epoch + 1} on "
        f"(step {step - len(losses) + bad}); lower workload.learning_rate or set trainer.clip_norm=1"
    )
