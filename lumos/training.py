"""The training loop, in full: dense and gated networks go through the same one.

A gated training has two phases. While gates and weights learn together, the loss carries the penalty. Then the gates
are frozen at their test-time state, the closed units are cut out, compact is verified against gated, and the rest of
the very same steps trains the weights of what remains.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lumos.api import gate
from lumos.compaction import CompactModel, Equivalence, Plan, compact, verify
from lumos.config import LumosConfig, RunConfig
from lumos.console import log, progress
from lumos.errors import TrainingError
from lumos.gated import GatedModel
from lumos.workload import Batch, Loaders, Workload, to_device


@dataclass
class Trained:
    """A trained network, its scores and how it got there."""

    model: nn.Module
    valid_score: float
    seconds: float
    steps: int
    curve: list[dict[str, Any]] = field(repr=False)
    gates: dict[str, Any] | None = None
    equivalence: Equivalence | None = None


def train(workload: Workload, loaders: Loaders, config: RunConfig, device: torch.device, *, gated: bool) -> Trained:
    """Train the workload's network, dense or gated; a gated one comes back compact.

    The best state by validation score is kept; of a gated training, the best one after the cut. Raises TrainingError
    where the loss is no longer finite, CompactionError where compact and gated differ.
    """
    label = "gated" if gated else "dense"
    torch.manual_seed(config.seed)
    model = workload.model().to(device)
    if gated:
        model = gate(model, workload.example(), features=workload.features(), settings=config.lumos.gates)
    optimizer = _optimizer(model, workload, config.lumos)
    epochs, total = _length(workload, loaders, config)
    freeze_at = max(1, round(config.lumos.freeze_at * total)) if gated else -1
    best = _Best(workload.metric.higher_is_better)
    curve: list[dict[str, Any]] = []
    equivalence, report = None, None
    step, started = 0, time.perf_counter()
    with progress(f"{workload.name}: {label}", total) as bar:
        for epoch in range(epochs):
            set_epoch(loaders.train, epoch)
            model.train()
            losses: list[Tensor] = []
            for batch in loaders.train:
                if step == total:
                    break
                if step == freeze_at:
                    assert isinstance(model, GatedModel)
                    equivalence = verify(model, workload.example())
                    report = gate_report(model)
                    model, optimizer = cut(model, optimizer, workload, config.lumos)
                    log.info(f"{label}: cut at step {step}: {summary(report)}; {equivalence}")
                    losses.clear()
                weight = config.lumos.lambda_ * warm_up(step, total, config.lumos.warmup)
                loss = workload.loss(model, to_device(batch, device))
                objective = loss
                if isinstance(model, GatedModel):
                    objective = loss + weight * model.penalty(config.lumos.penalty)
                set_rates(optimizer, rate(step, total, freeze_at))
                optimizer.zero_grad(set_to_none=True)
                objective.backward()
                if config.trainer.clip_norm:
                    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], config.trainer.clip_norm)
                optimizer.step()
                if isinstance(model, GatedModel):
                    model.gates.project()
                losses.append(loss.detach())
                step += 1
                bar.advance()
            if not losses:
                continue
            mean_loss = float(torch.stack(losses).mean())
            if not math.isfinite(mean_loss):
                raise TrainingError(_not_finite(losses, label, epoch, step, workload))
            valid = evaluate(workload, model, loaders.valid, device)
            if not isinstance(model, GatedModel):
                best.offer(valid, model)
            row = {"phase": label, "epoch": epoch + 1, "step": step, "loss": mean_loss, "valid": valid,
                   "seconds": round(time.perf_counter() - started, 3), **_gate_columns(model)}  # fmt: skip
            curve.append(row)
            bar.show(loss=mean_loss, valid=valid, open=row.get("open_gates"))
    model = best.restore(model)
    return Trained(model.eval(), best.score, time.perf_counter() - started, step, curve, report, equivalence)


# ---- phases ---------------------------------------------------------------------------------------------------------


def cut(
    gated: GatedModel, optimizer: torch.optim.Optimizer, workload: Workload, settings: LumosConfig
) -> tuple[CompactModel, torch.optim.Optimizer]:
    """The compact model in training mode, and an optimiser that goes on where the gated one's was."""
    small = compact(gated.train())
    fresh = _optimizer(small, workload, settings)
    plan = Plan.of(gated.structure, gated.gates.is_open().cpu())
    multiplier = gated.multipliers()
    new = dict(small.model.named_parameters())
    for name, old in gated.model.named_parameters():
        state = optimizer.state.get(old)
        if not state:
            continue
        # A folded weight is m times the old one, so its gradient is the old one's divided by m.
        m = plan.cut(name, multiplier[name].expand(old.shape)) if name in multiplier else torch.ones(())
        m = m.to(old.device).clamp(min=1e-3)
        fresh.state[new[name]] = {
            "step": state["step"].clone(),
            "exp_avg": plan.cut(name, state["exp_avg"]) / m,
            "exp_avg_sq": plan.cut(name, state["exp_avg_sq"]) / m**2,
        }
    return small, fresh


def warm_up(step: int, total: int, share: float) -> float:
    """The factor by which lambda has grown: linearly from 0 to 1 over a share of the steps."""
    return min(1.0, step / (share * total)) if share > 0 else 1.0


def rate(step: int, total: int, freeze_at: int) -> float:
    """The weights' learning rate as a share of its peak: a cosine from 1 to 0, which in a gated training starts at the cut.

    Until then the rate stays at its peak, so that what remains after the cut is trained as a fresh start would be.
    """
    start = max(0, freeze_at)
    return 1.0 if step < start else 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, total - start)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Apply the schedule to the weights; the gates keep their rate until they freeze."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * (1.0 if group["name"] == "gates" else factor)


def _optimizer(model: nn.Module, workload: Workload, settings: LumosConfig) -> torch.optim.Optimizer:
    recipe = workload.recipe
    inner = model.model if isinstance(model, GatedModel | CompactModel) else model
    groups: list[dict[str, Any]] = [{"name": "weights", "params": [p for p in inner.parameters() if p.requires_grad],
                                     "peak": recipe.learning_rate, "weight_decay": recipe.weight_decay}]  # fmt: skip
    if isinstance(model, GatedModel):
        groups.append({"name": "gates", "params": [model.gates.log_alpha], "peak": settings.learning_rate,
                       "weight_decay": 0.0})  # fmt: skip
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


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


def evaluate(workload: Workload, model: nn.Module, batches: Iterable[Batch], device: torch.device) -> float:
    """The workload's score on a split, in eval mode."""
    mode = model.training
    model.eval()
    with torch.no_grad():
        score = float(workload.score(model, _on(batches, device)))
    model.train(mode)
    return score


def _on(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    for batch in batches:
        yield to_device(batch, device)


class _Best:
    """The best state so far by validation score."""

    def __init__(self, higher_is_better: bool) -> None:
        self.sign = 1 if higher_is_better else -1
        self.score = -self.sign * math.inf
        self.state: dict[str, Tensor] | None = None

    def offer(self, score: float, model: nn.Module) -> None:
        if self.sign * score > self.sign * self.score:
            self.score = score
            self.state = {n: t.detach().clone() for n, t in model.state_dict().items()}

    def restore(self, model: nn.Module) -> nn.Module:
        if self.state is None:
            raise TrainingError(
                "no validation score was a number, so no state is worth keeping; lower the learning rate"
            )
        model.load_state_dict(self.state)
        return model


def gate_report(gated: GatedModel) -> dict[str, Any]:
    """What the gates decided: counts, kept features and the units left in each group."""
    structure, is_open = gated.structure, gated.gates.is_open().cpu()
    return {
        "open": int(is_open.sum()),
        "total": structure.units,
        "features_kept": structure.kept_features(is_open),
        "features_total": len(structure.feature_names),
        "groups": {g.name: {"open": int(is_open[g.gates].sum()), "total": g.size} for g in structure.groups},
        "fixed": [{"name": f.name, "size": f.size, "reason": f.reason} for f in structure.fixed],
    }


def summary(report: dict[str, Any]) -> str:
    """The gates' decision on one line."""
    widths = ", ".join(f"{name} {g['open']}/{g['total']}" for name, g in report["groups"].items())
    return f"{report['open']} of {report['total']} gates open ({widths})"


def _gate_columns(model: nn.Module) -> dict[str, Any]:
    if not isinstance(model, GatedModel):
        return {}
    probability = model.gates.open_probability().detach()
    parameters, macs = model.structure.expected_sizes(probability)
    dense = model.structure.dense_sizes
    return {
        "open_gates": int(model.gates.is_open().sum()),
        "expected_open": round(float(probability.sum()), 2),
        "expected_params_share": round(float(parameters) / dense[0], 6),
        "expected_macs_share": round(float(macs) / max(1.0, dense[1]), 6),
    }


def _not_finite(losses: list[Tensor], label: str, epoch: int, step: int, workload: Workload) -> str:
    bad = next(i for i, loss in enumerate(losses) if not math.isfinite(float(loss)))
    return (
        f"{workload.name}: the loss of the {label} network is not finite from batch {bad} of epoch {epoch + 1} on "
        f"(step {step - len(losses) + bad}); lower workload.learning_rate or set trainer.clip_norm=1"
    )
