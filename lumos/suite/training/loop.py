"""The training loop: dense and gated networks, and those of other methods, go through the same one.

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
from torch import nn

from lumos.errors import TrainingError
from lumos.gating.gated_model import GatedModel
from lumos.pruning.calibration import Calibration
from lumos.pruning.pruner import Pruner
from lumos.pruning.report import gate_columns
from lumos.pruning.settings import Tolerance
from lumos.suite.config import RunConfig
from lumos.suite.console import Bar, log, progress
from lumos.suite.training import distributed
from lumos.suite.training.checkpoint import Store
from lumos.suite.training.evaluation import evaluate, recalibrate
from lumos.suite.training.loading import Reader, pinned
from lumos.suite.training.lumos_method import LumosMethod
from lumos.suite.training.method import PruningMethod
from lumos.suite.training.signals import StopRequest, stop_requests
from lumos.suite.training.state import TrainState
from lumos.suite.training.step import CHECK_EVERY, NonFiniteLossError, train_step
from lumos.suite.training.trackers import Tracker, numbers, tracking
from lumos.suite.training.trained import Trained
from lumos.suite.workload import Loaders, Workload

Setup = Callable[[TrainState, int], PruningMethod | None]
"""Makes another method's training of a fresh state, given its number of steps; it may replace model and optimizer."""


@dataclass
class _Training:
    """What one training works with; all that changes on the way is its ``state``."""

    state: TrainState
    loaders: Loaders
    reader: Reader
    total: int
    label: str
    store: Store | None
    tracker: Tracker = field(default_factory=Tracker)


def train(
    workload: Workload,
    loaders: Loaders,
    config: RunConfig,
    device: torch.device,
    *,
    gated: bool,
    dense: Trained | None = None,
    store: Store | None = None,
    setup: Setup | None = None,
    label: str | None = None,
    keep_end: bool = False,
    schedule: str = "decay",
) -> Trained:
    """Train the workload's network, dense or gated; a gated one comes back compact.

    The best state by validation score is kept; of a gated training, the best one after the cut, and so at or under the
    budget. With ``trainer.ema`` all scores, and what comes back, are those of the averaged copy.

    Args:
        workload: Its model, loss, score and recipe.
        loaders: Its splits.
        config: The run's settings.
        device: Where to train.
        gated: With gates on every feature and unit.
        dense: The trained baseline; a tolerance needs its score.
        store: Where checkpoints are. The training goes on from the last good one, and leaves one at intervals and
            where it is asked to stop.
        setup: What another method does to a fresh training.
        label: The method's name in log and curve; ``gated`` or ``dense`` where None.
        keep_end: Leave a checkpoint of the finished training too.
        schedule: How the learning rate of a training without a cut goes: ``decay`` or ``hold``.

    Returns:
        The network in eval mode, its scores and its curve.

    Raises:
        TrainingError: The loss is no longer finite, or the network collapsed.
        CompactionError: Compact and gated network differ.
        StoppedError: The run was asked to stop.
    """
    label = label or ("gated" if gated else "dense")
    total = steps_of(workload, loaders, config)
    if gated and total < 2:
        raise TrainingError(f"{workload.name}: a gated training needs two steps or more, this one has {total}")

    def fresh(saved: dict[str, Any] | None) -> TrainState:
        state = TrainState(workload, config, device, gated=gated, schedule=schedule)
        state.method = setup(state, total) if setup else None
        state.keep_average()
        if not gated and state.method is None:
            state.keep_mean(total)
        state.method = state.method or _lumos_method(state, loaders, dense, total, (saved or {}).get("phase"))
        return state

    reader = Reader(pinned(loaders.train, device), distributed.world())
    state = _resumed(fresh, reader, label, store)
    training = _Training(state, loaders, reader, total, label, store)
    with (
        tracking(config, workload.name, label) as training.tracker,
        progress(f"{workload.name}: {label}", total, state.step) as bar,
        stop_requests() as stop,
    ):
        while state.step < total or state.losses:
            _train_epoch(training, bar, stop)
            _validate_epoch(training, bar)
    if keep_end and store and distributed.world().main and store.last_step < total:
        store.save(state.state_dict(), total)
    return _finished(training)


def _train_epoch(training: _Training, bar: Bar, stop: StopRequest) -> None:
    """Take the steps of the open epoch, from its next batch on; before one of them the network is pruned."""
    state, reader = training.state, training.reader
    batches = reader.open(state.epoch, state.batch)
    state.restore_noise()
    state.model.train()
    for batch in batches:
        if state.step == training.total:
            break
        if state.method and state.step == state.method.prune_at:
            state.prune(batch)
        try:
            train_step(state, batch, reader, training.total)
        except NonFiniteLossError:
            raise _non_finite_loss(training) from None
        if state.mean:
            state.mean.follow_epoch(state.model, state.batch, reader.batches, state.step)
        bar.advance()
        _save_checkpoint(training, stop)


def _validate_epoch(training: _Training, bar: Bar) -> None:
    """Score the network, keep it if it is the best, add a row to the curve, and go on to the next epoch."""
    state = training.state
    mean_loss = float(torch.stack(state.losses).mean())
    if not math.isfinite(mean_loss):
        raise _non_finite_loss(training)
    course = {}
    if state.mean and state.mean.steps:
        with state.mean.taken_by(state.model):
            course["averaged"] = _valid_score(state, training.loaders, state.model)
    valid = _valid_score(state, training.loaders, state.scored)
    if state.method is None or state.method.pruned:
        state.best.update(valid, state.scored)
    row = {"phase": training.label, "epoch": state.epoch + 1, "step": state.step, "loss": mean_loss, "valid": valid,
           **course, "seconds": round(state.seconds, 3), **gate_columns(state.model)}  # fmt: skip
    state.curve.append(row)
    training.tracker.log(numbers(row), state.step)
    bar.show(loss=mean_loss, valid=valid, open=row.get("open_gates"))
    state.next_epoch()


def _finished(training: _Training) -> Trained:
    """The best network, and what the method has to say of it."""
    state, total = training.state, training.total
    model = state.best.restore(state.model).eval()
    trained = Trained(model, state.best.score, state.seconds, state.step, state.curve, phases={training.label: total})
    if method := state.method:
        trained.phases = dict(zip(method.phase_names, (method.prune_at, total - method.prune_at), strict=True))
        method.finalize(trained)
    return trained


# ---- before the first step ------------------------------------------------------------------------------------------


def steps_of(workload: Workload, loaders: Loaders, config: RunConfig) -> int:
    """Count the steps of a training, the same for every method. Raises TrainingError where there is no batch."""
    batches = len(loaders.train)  # type: ignore[arg-type]
    if not batches:
        raise TrainingError(
            f"{workload.name}: the training split has no batch; ask for more samples or a smaller batch"
        )
    total = workload.recipe.epochs * batches
    return min(total, config.trainer.max_steps or total)


def _lumos_method(
    state: TrainState, loaders: Loaders, dense: Trained | None, total: int, saved: dict[str, Any] | None
) -> LumosMethod | None:
    """Our method on a gated network; None for a dense one. What a checkpoint has measured is not measured again."""
    if not isinstance(state.model, GatedModel):
        return None
    settings, goal = state.config.lumos, state.config.lumos.goal
    score, loss = (dense.valid_score if dense else None), (dense.curve[-1]["loss"] if dense and dense.curve else 0.0)
    if isinstance(goal, Tolerance):
        goal = replace(
            goal, score=lambda model: evaluate(state.workload, model, loaders.valid, state.device), baseline=score,
            curve=[(row["step"] / total, row.get("averaged", row["valid"])) for row in dense.curve] if dense else (),
            higher_is_better=state.workload.metric.higher_is_better,
        )  # fmt: skip
    pruner = Pruner(
        state.model, state.optimizer, total, goal, cut_at=settings.freeze_at, cut="call", rate=settings.learning_rate,
        warmup=settings.warmup, rate_gain=settings.rate_gain, align=settings.align or 1, seed=None,
        averaged=[state.average] if state.average else [], dense_loss=loss,
        recalibrate=lambda model: recalibrate(state.workload, model, state.recent),
        calibration=Calibration.in_state(state.model.structure, saved) if saved and goal.measured else None,
    )  # fmt: skip
    return LumosMethod(pruner)


def _valid_score(state: TrainState, loaders: Loaders, model: nn.Module) -> float:
    """The validation score, with batch statistics taken anew."""
    recalibrate(state.workload, model, state.recent)
    return evaluate(state.workload, model, loaders.valid, state.device)


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def _resumed(
    fresh: Callable[[dict[str, Any] | None], TrainState], reader: Reader, label: str, store: Store | None
) -> TrainState:
    """The state to go on from: that of the newest checkpoint that can be used, or a fresh one."""
    found = distributed.from_main(lambda: list(store.candidates()) if store else [])
    state = None
    for path, saved in found:
        try:
            state = fresh(saved)
            state.load_state_dict(saved, reader)
        except Exception as error:  # a checkpoint of other code can fail in any way; the training then starts anew
            log.warning(f"{path}: does not fit this training ({type(error).__name__}: {error}); passed over")
            state = None
            continue
        log.info(f"{label}: going on from step {state.step}, {path}")
        break
    state = state or fresh(None)
    if store:
        store.last_step = state.step
    state.prepare(reader)
    return state


def _save_checkpoint(training: _Training, stop: StopRequest) -> None:
    """Write a checkpoint where one is due or a signal asks to stop, and then stop."""
    state, store = training.state, training.store
    if distributed.world().size > 1 and state.step % CHECK_EVERY:
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
        stop.stop(f"at step {state.step}, {'which is kept' if kept else 'which could not be kept'}")


def _non_finite_loss(training: _Training) -> TrainingError:
    """An error that names the first bad batch; the last good weights are kept."""
    state, reader, store = training.state, training.reader, training.store
    bad = state.losses_from + next((i for i, x in enumerate(state.losses) if not math.isfinite(float(x))), 0)
    samples = reader.sample_numbers(state.epoch, bad)
    which = f", samples {', '.join(map(str, samples[:8]))}{'…' if len(samples) > 8 else ''}" if samples else ""
    kept = distributed.from_main(lambda: store.save_weights(state.good_weights()) if store else "")
    return TrainingError(
        f"{state.workload.name}: the loss of the {training.label} network is not finite from batch {bad} of epoch "
        f"{state.epoch + 1} on (step {state.epoch * reader.batches + bad}{which}); {kept}"
        "lower workload.learning_rate or set trainer.clip_norm=1"
    )
