"""The training loop, in full: dense and gated networks go through the same one.

A gated training has two phases. While gates and weights learn together, the loss carries the penalty. Then the gates
are frozen at their test-time state, the closed units are cut out, compact is verified against gated, and the rest of
the very same steps trains the weights of what remains. A training that was killed goes on from its last checkpoint and
ends in the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lumos.compaction.verify import Equivalence
from lumos.errors import TrainingError
from lumos.gating.gated_model import GatedModel
from lumos.pruning.averaging import average_of
from lumos.pruning.collapse_detection import CollapseDetector
from lumos.pruning.controllers import make_controller
from lumos.pruning.report import gate_columns
from lumos.pruning.settings import Schedule, Tolerance
from lumos.suite.config import RunConfig
from lumos.suite.console import log, progress
from lumos.suite.training import distributed
from lumos.suite.training.checkpoint import Store
from lumos.suite.training.evaluation import evaluate, recalibrate
from lumos.suite.training.loading import Reader, set_epoch
from lumos.suite.training.phases import GatedPhase, Phase, rate, set_rates
from lumos.suite.training.signals import StopRequest, requests
from lumos.suite.training.state import TrainState
from lumos.suite.workload import Loaders, Workload, to_device

__all__ = ["Begin", "Trained", "cut_step", "descend", "evaluate", "set_epoch", "steps_of", "train"]

LOOK = 20
"""Steps between two looks at what costs a round between processes, or a wait for the GPU."""


@dataclass
class Trained:
    """A trained network, its scores and how it got there.

    ``phases`` counts the steps by what they trained. Of a gated training: ``gates`` is what they decided, ``steering``
    what was asked for and reached, and ``features`` has a row for each input feature.
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
    phases: dict[str, int] = field(default_factory=dict)


Begin = Callable[[TrainState, int], Phase | None]
"""Makes another method's training of a fresh state, given its number of steps; it may replace model and optimiser."""


def train(
    workload: Workload,
    loaders: Loaders,
    config: RunConfig,
    device: torch.device,
    *,
    gated: bool,
    dense: Trained | None = None,
    store: Store | None = None,
    begin: Begin | None = None,
    label: str | None = None,
) -> Trained:
    """Train the workload's network, dense or gated; a gated one comes back compact.

    The best state by validation score is kept; of a gated training, the best one after the cut, and so at or under the
    budget. With ``trainer.ema`` all scores, and what comes back, are those of the averaged copy. ``dense`` is the
    trained baseline: a tolerance needs its score. With a ``store`` the training goes on from its last good checkpoint,
    and leaves one at intervals and where it is asked to stop (StoppedError). Other methods ``begin`` in their own way,
    under their own ``label``. Raises TrainingError where the loss is no longer finite or the network collapsed,
    CompactionError where compact and gated differ.
    """
    label = label or ("gated" if gated else "dense")
    total = steps_of(workload, loaders, config)
    if gated and total < 2:
        raise TrainingError(f"{workload.name}: a gated training needs two steps or more, this one has {total}")
    reader = Reader(loaders.train, distributed.world())

    def fresh() -> TrainState:
        state = TrainState(workload, config, device, gated=gated)
        state.phase = begin(state, total) if begin else None
        state.average = average_of(state.model, config.trainer.ema)
        state.phase = state.phase or _gated_phase(state, loaders, dense, total)
        return state

    state = _begun(fresh, reader, label, store)
    phase, best, curve = state.phase, state.best, state.curve
    freeze_at = phase.freeze_at if phase else -1
    with progress(f"{workload.name}: {label}", total, state.step) as bar, requests() as stop:
        while state.step < total or state.losses:
            batches = reader.open(state.epoch, state.batch)
            state.restore_noise()
            state.model.train()
            for batch in batches:
                if state.step == total:
                    break
                if phase and state.step == freeze_at:
                    state.cut(batch)
                state.recent.append(batch := to_device(batch, device))
                before = phase if phase and state.step < freeze_at else None
                sizes, prices = (before.sizes, before.prices(state.step)) if before else (None, ())
                with state.noise.private(state.step):
                    loss, cost = state.objective(state.replica, batch, sizes, prices)
                loss = reader.weighted(loss, state.batch)
                state.losses.append(distributed.mean(loss.detach()))
                if device.type == "cpu" or state.step % LOOK == 0:
                    _expect_finite(state.losses[-1:], state, reader, label, store)
                factor = phase.rate(state.step, total) if phase else rate(state.step, total, -1)
                set_rates(state.optimizer, factor)
                objective = loss if cost is None else loss + cost
                regularize = before.gradients if before else None
                descend(state.optimizer, objective, config.trainer.clip_norm, regularize)
                if state.average:
                    state.average.update(state.model)
                state.step, state.batch = state.step + 1, state.batch + 1
                if phase:
                    phase.after(state.optimizer, state.step, state.losses[-1])
                bar.advance()
                _keep(state, store, stop)
            _expect_finite(state.losses, state, reader, label, store)
            mean_loss = float(torch.stack(state.losses).mean())
            valid = _validate(state, loaders, state.scored)
            if phase is None or phase.done:
                best.offer(valid, state.scored)
            row = {"phase": label, "epoch": state.epoch + 1, "step": state.step, "loss": mean_loss, "valid": valid,
                   "seconds": round(state.seconds, 3), **gate_columns(state.model)}  # fmt: skip
            curve.append(row)
            bar.show(loss=mean_loss, valid=valid, open=row.get("open_gates"))
            state.next_epoch()
    trained = Trained(best.restore(state.model).eval(), best.score, state.seconds, state.step, curve)
    trained.phases = {label: total}
    if phase:
        trained.phases = dict(zip(phase.names, (freeze_at, total - freeze_at), strict=True))
        phase.conclude(trained)
    return trained


def descend(
    optimizer: torch.optim.Optimizer,
    objective: Tensor,
    clip_norm: float | None,
    regularize: Callable[[], None] | None = None,
) -> None:
    """One step of the optimiser; the gradient of the weights is clipped to a norm, that of the gates is not.

    ``regularize`` changes the gradients before that.
    """
    optimizer.zero_grad(set_to_none=True)
    objective.backward()
    if regularize is not None:
        regularize()
    if clip_norm:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip_norm)
    optimizer.step()


# ---- helpers --------------------------------------------------------------------------------------------------------


def steps_of(workload: Workload, loaders: Loaders, config: RunConfig) -> int:
    """Steps of a training, the same for every method. Raises TrainingError where there is no batch."""
    batches = len(loaders.train)  # type: ignore[arg-type]
    if not batches:
        raise TrainingError(
            f"{workload.name}: the training split has no batch; ask for more samples or a smaller batch"
        )
    total = workload.recipe.epochs * batches
    return min(total, config.trainer.max_steps or total)


def cut_step(share: float, total: int) -> int:
    """The step before which the network changes: after this share of the steps, with one or more on either side."""
    return min(total - 1, max(1, round(share * total)))


def _validate(state: TrainState, loaders: Loaders, model: nn.Module) -> float:
    """The validation score, with batch statistics taken anew."""
    recalibrate(state.workload, model, state.recent)
    return evaluate(state.workload, model, loaders.valid, state.device)


def _gated_phase(state: TrainState, loaders: Loaders, dense: Trained | None, total: int) -> GatedPhase | None:
    """What a gated training of so many steps does besides; None for a dense one."""
    if not isinstance(state.model, GatedModel):
        return None
    settings, metric = state.config.lumos, state.workload.metric
    freeze_at = cut_step(settings.freeze_at, total)
    score, loss = (dense.valid_score, dense.curve[-1]["loss"]) if dense and dense.curve else (None, 0.0)
    goal = settings.goal
    if isinstance(goal, Tolerance):
        goal = replace(
            goal, score=lambda model: _validate(state, loaders, model), baseline=score,
            higher_is_better=metric.higher_is_better,
        )  # fmt: skip
    schedule = Schedule(total, freeze_at, settings.warmup)
    controller = make_controller(goal, schedule, state.model, align=settings.align or 1, average=state.average)
    return GatedPhase(state.model, controller, CollapseDetector(total, goal, loss), freeze_at)


def _begun(fresh: Callable[[], TrainState], reader: Reader, label: str, store: Store | None) -> TrainState:
    """The state to go on from: that of the newest checkpoint that can be used, or a fresh one."""
    found = distributed.from_main(lambda: list(store.candidates()) if store else [])
    state = fresh()
    for path, saved in found:
        try:
            state.load_state_dict(saved, reader)
        except Exception as error:  # a checkpoint of other code can fail in any way; the training then starts anew
            log.warning(f"{path}: does not fit this training ({type(error).__name__}: {error}); passed over")
            state = fresh()
            continue
        log.info(f"{label}: going on from step {state.step}, {path}")
        break
    if store:
        store.last_step = state.step
    state.prepare(reader)
    return state


def _keep(state: TrainState, store: Store | None, stop: StopRequest) -> None:
    """Write a checkpoint where one is due or a signal asks to stop, and then stop."""
    together = distributed.world().size > 1
    if together and state.step % LOOK:
        return
    stopping = distributed.any_of(bool(stop))
    due = distributed.any_of(store is not None and store.due(state.step))
    if not (stopping or due):
        return
    # A state that is no longer finite must not take the place of a good one; the next loss will say so.
    kept = state.is_finite() and distributed.from_main(
        lambda: bool(store and store.save(state.state_dict(), state.step))
    )
    if stopping:
        stop.obey(f"at step {state.step}, {'which is kept' if kept else 'which could not be kept'}")


def _expect_finite(losses: list[Tensor], state: TrainState, reader: Reader, label: str, store: Store | None) -> None:
    """Raise TrainingError, naming the first bad batch, where a loss is not finite; the last good weights are kept."""
    if all(math.isfinite(float(loss)) for loss in (losses if len(losses) < 2 else [torch.stack(losses).mean()])):
        return
    bad = state.losses_from + next((i for i, x in enumerate(state.losses) if not math.isfinite(float(x))), 0)
    samples = reader.samples(state.epoch, bad)
    which = f", samples {', '.join(map(str, samples[:8]))}{'…' if len(samples) > 8 else ''}" if samples else ""
    kept = distributed.from_main(lambda: store.save_weights(state.good_weights()) if store else "")
    raise TrainingError(
        f"{state.workload.name}: the loss of the {label} network is not finite from batch {bad} of epoch "
        f"{state.epoch + 1} on (step {state.epoch * reader.batches + bad}{which}); {kept}"
        "lower workload.learning_rate or set trainer.clip_norm=1"
    )
