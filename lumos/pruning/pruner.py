"""Gates in anyone's training loop: two lines before the loop, none in it.

Everything that turns gates into a smaller model hangs on the steps of the user's optimizer: the penalty's gradient, the
step of the gates, the projection, the controller, the history of the features, the cut. So accumulated gradients,
gradient scaling, mixed precision, schedulers and trainers of other libraries need nothing of ours.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lumos.compaction.compact import compact
from lumos.compaction.model import CompactModel
from lumos.compaction.verify import Equivalence, verify
from lumos.errors import ConfigError, TrainingError
from lumos.gating.gated_model import GatedModel
from lumos.pruning import processes
from lumos.pruning.averaging import AveragedGated, average_of_gated
from lumos.pruning.batch_statistics import Calls, has_statistics, kept_modes
from lumos.pruning.bench import Bench, Clock
from lumos.pruning.calibration import Calibration
from lumos.pruning.collapse_detection import CollapseDetector, open_widths
from lumos.pruning.controllers import make_controller
from lumos.pruning.feature_history import FeatureHistory
from lumos.pruning.measuring import Measuring
from lumos.pruning.optimizers import carry_over, matrix_sizes, rate_gain
from lumos.pruning.report import gate_columns, gate_report, summary
from lumos.pruning.restoring import compact_of
from lumos.pruning.settings import CUT_AT, Goal, Lambda, Schedule, Tolerance, cut_step
from lumos.pruning.sharded import expect_whole_gates, has_shards, put_together
from lumos.tracing.devices import read_at_once

if TYPE_CHECKING:
    from pandas import DataFrame

log = logging.getLogger("lumos")


LOOK_EVERY = 20
"""Steps between two looks on a GPU for groups that have closed together; on a CPU every step has one."""
STILL = 1e-3
"""A gate whose penalty (equation 5) moved by less did not move."""


class Pruner:
    """Prune a model while a loop of one's own trains it.

    Before the cut, each step of the optimizer is followed by a step of the gates, by an Adam of the pruner's own:
    schedulers, weight decay, clipping and the optimizer's kind concern the weights alone. At the cut the closed units
    go: parameters become smaller at their places in ``gated.model`` and in ``optimizer.param_groups``, with their
    state; ``gated`` goes on as what the loop calls.

    Args:
        gated: What :func:`lumos.gate` returned; the loop calls it in place of the model.
        optimizer: Any optimizer of its parameters; several of them, where each has a part of the parameters, in the
            order in which the loop calls them.
        steps: Steps of the optimizer in the whole training.
        target: What is asked for: :class:`lumos.Lambda`, :class:`lumos.Target` or :class:`lumos.Tolerance`.
        cut_at: Share of the steps after which the closed units go, between 0 and 1.
        cut: ``"training"`` to cut there; ``"end"`` to let the gates stand still from there on and to cut in
            :meth:`finish`, where nothing may change its shape on the way; ``"call"`` where the loop calls :meth:`cut`
            itself, before the next step. By default ``"end"``
            where torch.distributed is at work, else ``"training"``.
        rate: The gates' learning rate.
        warmup: Share of the steps over which the penalty grows from zero.
        rate_gain: The most by which the weights' learning rate may rise at the cut, since narrow layers take a higher
            one; 1 leaves it as it is.
        align: The multiple to which the kept units of each hidden group are rounded up.
        schedulers: Schedulers of the optimizer, whose base rates rise with the rate.
        scaler: The ``torch.amp.GradScaler`` of the loop, where it has one.
        averaged: Averaged copies of ``gated`` (``torch.optim.swa_utils.AveragedModel``), which are cut along. A
            tolerance scores the first of them.
        penalty: ``"hook"`` adds the penalty's gradient by itself; with ``"loss"`` the loop adds :meth:`penalty` to its
            loss.
        seed: Of the gates' noise; with None it is drawn from torch's global generator, at the first call of a step.
        recalibrate: Takes the batch statistics of a model anew, before the cut and of what is scored there; by default
            over the last inputs that ``gated`` was called with.
        dense_loss: The mean training loss of the dense network, where it is known; it tells :meth:`observe` what a
            good loss is.
        clock: Times the calls that a latency is asked for: takes models by name, inputs, and for how many seconds each
            may be called; returns the seconds of each round by name. By default torch's eager mode is timed here;
            another runtime, or another machine, can stand in its place.
        calibration: What an earlier pruner measured of the same calls (:attr:`calibration`), so that it is not measured
            again.

    Raises:
        ConfigError: This model cannot meet the target, or an argument is out of its range. For a latency that is
            measured here, before the training.
        TrainingError: A tolerance comes without a score or a baseline.

    Example:
        >>> import torch, lumos
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
        >>> x = torch.rand(512, 8)
        >>> y = x[:, :1] - x[:, 1:2]
        >>> gated = lumos.gate(model, x[:8])
        >>> optimizer = torch.optim.SGD(gated.parameters(), lr=0.05, momentum=0.9)
        >>> pruner = lumos.Pruner(gated, optimizer, steps=400, target=lumos.Target(params=0.1))
        >>> for _ in range(400):
        ...     loss = (gated(x) - y).square().mean()
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        >>> small = pruner.finish()
        >>> sum(p.numel() for p in small.parameters()) <= 0.1 * 321
        True
    """

    def __init__(
        self,
        gated: nn.Module,
        optimizer: Any,
        steps: int,
        target: Goal | None = None,
        *,
        cut_at: float = CUT_AT,
        cut: str | None = None,
        rate: float = 0.1,
        warmup: float = 0.1,
        rate_gain: float = 5.0,
        align: int = 1,
        schedulers: Any = (),
        scaler: Any = None,
        averaged: Iterable[Any] = (),
        penalty: str = "hook",
        seed: int | None = 0,
        recalibrate: Callable[[nn.Module], Any] | None = None,
        dense_loss: float = 0.0,
        clock: Clock | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        if not isinstance(gated, GatedModel):
            raise ConfigError(f"gated={type(gated).__name__}: expected what lumos.gate returned")
        _expect(steps >= 2, "steps", steps, "two steps or more")
        _expect(0 < cut_at < 1, "cut_at", cut_at, "a share between 0 and 1")
        _expect(rate > 0, "rate", rate, "a number > 0")
        _expect(rate_gain >= 1, "rate_gain", rate_gain, "a number >= 1")
        _expect(cut in (None, "training", "end", "call"), "cut", cut, "training, end or call")
        _expect(penalty in ("hook", "loss"), "penalty", penalty, "hook or loss")
        self.gated, self.optimizers, self.goal = gated, _optimizers(optimizer), target or Lambda()
        self.schedule = Schedule(steps, cut_step(cut_at, steps), warmup)
        self.sharded = has_shards(gated)
        if self.sharded:
            expect_whole_gates(gated)
        if self.sharded and cut not in (None, "end"):
            raise ConfigError(f"cut={cut}: weights in shards cannot change their shapes; expected end")
        self.cut_when = cut or ("end" if self.sharded or processes.started() else "training")
        self.align, self.most_gain, self.scaler, self.penalty_by = align, rate_gain, scaler, penalty
        self.schedulers = list(schedulers) if isinstance(schedulers, Iterable) else [schedulers]
        self.copies: list[AveragedGated] = [average_of_gated(model, gated) for model in averaged]
        self.history = FeatureHistory(gated, self.schedule.gated_steps)
        self.detector = CollapseDetector(steps, self.goal, dense_loss)
        self.step = 0
        self.settings = {
            self.goal.key.removeprefix("lumos."): self.goal.value, "cut_at": cut_at, "cut": self.cut_when, "rate": rate,
            "warmup": warmup, "rate_gain": rate_gain, "align": align, "steps": steps,
        }  # fmt: skip
        """What it was asked to do, as plain values."""
        self._earlier, self._started = 0.0, time.perf_counter()
        self.decided: dict[str, Any] | None = None
        """What the gates decided, from the cut on."""
        self.equivalence: Equivalence | None = None
        self.small: CompactModel | None = None
        self._log_alpha = gated.gates.log_alpha
        self._adam = torch.optim.Adam([self._log_alpha], lr=rate)
        self._grad: Tensor | None = None
        self._own = self._begun = False
        self._noise = None if seed is None else torch.Generator().manual_seed(processes.shared(seed))
        self._handles: list[Any] = [
            self._log_alpha.register_hook(self._collect),
            *(o.register_step_pre_hook(self._before) for o in self.optimizers),
            self.optimizers[-1].register_step_post_hook(self._after),
        ]
        if self.sharded:  # a plain gradient among those in shards is in the way of those who clip
            self._handles.append(self._log_alpha.register_post_accumulate_grad_hook(self._clear))
        self._not_finite = 0
        self._zeroed = not self.sharded and any(p is self._log_alpha for p in self._weights())
        self._calls = Calls() if recalibrate is None and has_statistics(gated) else None
        self._listens = (
            gated.register_forward_pre_hook(self._calls, with_kwargs=True) if self._calls is not None else None
        )
        self._recalibrate = recalibrate or (self._calls.recalibrate if self._calls else lambda model: None)
        goal = self.goal
        if isinstance(goal, Tolerance) and goal.score is not None:
            goal = replace(goal, score=partial(self._scored, goal.score))
        average = self.copies[0] if self.copies else None
        measuring = None
        if goal.measured:
            bench = Bench(self._whole(gated), goal.measured, goal.call, clock, align if align > 1 else None)
            measuring = Measuring(bench, calibration)
        self.controller = make_controller(
            goal, self.schedule, gated, align=align, average=average, measuring=measuring
        )  # fmt: skip
        self.controller.before_step(gated, 0)
        self._draw()

    def _weights(self) -> list[Tensor]:
        return [p for o in self.optimizers for group in o.param_groups for p in group["params"]]

    def _scored(self, score: Callable[[Any], float], model: nn.Module) -> float:
        """The mean of the processes' scores of a model that has its own batch statistics; its mode stays."""
        with kept_modes(model):
            self._recalibrate(model)
            found = float(score(model))
        return float(processes.mean(torch.tensor(found, dtype=torch.float64)))

    @property
    def calibration(self) -> Calibration | None:
        """What was measured of calls, for another pruner of the same model; None where nothing is."""
        measuring = self.controller.measuring
        return None if measuring is None else measuring.calibration

    # ---- in the loop, by itself -------------------------------------------------------------------------------------

    def _collect(self, grad: Tensor) -> Tensor:
        """Take the gates' gradient of a backward pass, so that nothing that the loop does to gradients changes it."""
        if self._own:
            return grad
        if self._zeroed and self._log_alpha.grad is None:  # the loop has begun a new step, or the last one was skipped
            self._grad = None
        before, grad = self._grad, grad.detach()
        self._grad = grad.clone() if before is None else torch.where(torch.isfinite(before).all(), before + grad, grad)
        return torch.zeros_like(grad)

    def _clear(self, log_alpha: Tensor) -> None:
        log_alpha.grad = None

    def _before(self, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        self._log_alpha.grad = None  # the loop's optimizer leaves the gates alone, its weight decay too

    @torch.no_grad()
    def _after(self, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        self._begun = self._begun or not self._is_empty_step()
        if not self._begun:
            return
        if not self.is_decided:
            self._step_gates()
        self.step += 1
        late = self.step > self.schedule.gated_steps
        if late and not self.is_decided:
            self._decide()  # the loop was to cut, and did not: as with cut="end"
        elif self.step == self.schedule.gated_steps and self.cut_when != "call":
            self._decide()
            if self.cut_when == "training":
                self._cut()
        elif self.step < self.schedule.gated_steps:
            self.controller.before_step(self.gated, self.step)
            self._draw()

    def _is_empty_step(self) -> bool:
        """Whether a step has neither rate nor gradient: with such a one torch.distributed.checkpoint makes a state."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        if any(float(group.get("lr", 1.0)) != 0 for group in groups):
            return False
        return not any(p.grad is not None and bool((p.grad != 0).any()) for group in groups for p in group["params"])

    def _step_gates(self) -> None:
        """Give the gates their step: the loss's gradient and the penalty's, by an optimizer of their own."""
        grad = torch.zeros_like(self._log_alpha) if self._grad is None else self._grad
        self._grad = None
        if self.scaler is not None:
            grad = grad / self.scaler.get_scale()
        grad = processes.mean(grad)
        on_cpu = read_at_once(grad)
        if on_cpu and not bool(torch.isfinite(grad).all()):
            self._not_finite += 1
            if math.log10(self._not_finite).is_integer():  # the first, the tenth, the hundredth
                log.warning(
                    f"step {self.step}: the gradient of the gates is not finite (time {self._not_finite}); they "
                    "keep their values; where the loss is not finite either, lower the learning rate"
                )
            return
        if not on_cpu:
            grad = torch.where(torch.isfinite(grad).all(), grad, torch.zeros_like(grad))
        if self.penalty_by == "hook":
            self._own = True  # a gradient that is not the loop's
            with torch.enable_grad():
                (priced,) = torch.autograd.grad(self.penalty(), self._log_alpha)
            self._own = False
            grad = grad + priced
        self._log_alpha.grad = grad
        self._adam.step()
        self._log_alpha.grad = None
        self.gated.project(look=on_cpu or (self.step + 1) % LOOK_EVERY == 0)
        with torch.enable_grad():
            self.controller.after_step(self.gated, self.step + 1)
        self.history.note(self.gated, self.step + 1)
        self.detector.look(self.step + 1, lambda: open_widths(self.gated))
        if self.step + 1 == self.schedule.gated_steps // 2:
            self._notice_still_gates()

    def _notice_still_gates(self) -> None:
        """Say so where half of the steps before the cut moved no gate: nothing will be removed."""
        gates = self.gated.gates
        moved = (gates.expected_open().detach() - gates.settings.initial_open).abs()
        if len(moved) and float(moved.max()) < STILL:
            log.warning(
                f"step {self.step + 1}: no gate has moved so far, so that nothing would be removed; gates learn at "
                f"{self._adam.param_groups[0]['lr']:.3g} a step: is the network's loss finite, and does it reach them?"
            )

    def _draw(self) -> None:
        """Draw the gates' noise of the coming step, the same in all processes."""
        if self._noise is not None:
            self.gated.draw(self._noise)

    # ---- the cut ----------------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Seconds since the training began, those before a restart included."""
        return self._earlier + time.perf_counter() - self._started

    @property
    def is_decided(self) -> bool:
        """Whether the gates stand still: the closed units are cut, or will be at the end."""
        return self.decided is not None

    @property
    def is_cut(self) -> bool:
        """Whether the closed units are cut out of ``gated.model``."""
        return self.small is not None

    @property
    def is_due(self) -> bool:
        """Whether it is time to call :meth:`cut`, with ``cut="call"``."""
        return self.step >= self.schedule.gated_steps and not self.is_cut

    def cut(self) -> CompactModel:
        """Cut the closed units out now; ``gated`` goes on as the compact model, and so does the optimizer.

        Returns:
            The compact model, which shares its parameters with ``gated`` from now on.

        Raises:
            CompactionError: Gated and compact differ.
        """
        if not self.is_decided:
            self._decide()
        if not self.is_cut:
            self._cut()
        assert self.small is not None
        return self.small

    def _decide(self) -> None:
        """Bring the gates to what is kept, and let them stand still from here on."""
        gated = self.gated
        if not read_at_once(self._log_alpha):
            gated.project()  # the last steps may have been without a look
        self.controller.finalize(gated)
        if self.align > 1:
            gated.align(self.align)
        found = []
        for model in (gated, *(copy.model for copy in self.copies)):
            assert isinstance(model, GatedModel)
            with kept_modes(model), torch.enable_grad():
                self._recalibrate(model)
            found.append(verify(self._whole(model), gated.structure.example))
        self.equivalence = max(found, key=lambda e: e.max_rel_diff)
        self.history.add(gated, self.schedule.gated_steps)
        self.decided = gate_report(gated)
        self._forget_calls()
        what = "gates held" if self.cut_when == "end" else "cut"
        log.info(f"{what} at step {self.step}: {summary(self.decided)}; {self.equivalence}")
        self.gated.gates.fixed = True

    def _forget_calls(self) -> None:
        """Let go of the loop's last inputs: after the cut nobody needs them."""
        if self._calls is not None and self._listens is not None:
            self._listens.remove()
            self._calls.last.clear()

    def _whole(self, model: GatedModel) -> GatedModel:
        return put_together(model) if self.sharded else model

    def _cut(self) -> None:
        """Cut the closed units out of the model, of its averaged copies, and of the optimizers' state."""
        gated = self.gated
        if self.sharded:  # what trained stays in its shards, with its closed units masked
            self.small = compact(put_together(gated))
            return
        self._log_alpha.requires_grad_(False)
        self.small = compact(gated.train())
        gain = rate_gain(matrix_sizes(gated.model, self.small.model), self.most_gain)
        for optimizer in self.optimizers:
            for lost in carry_over(optimizer, gated, self.small):
                log.info(f"the optimizer's state of {lost} begins anew at the cut")
            for group in optimizer.param_groups:
                for key in ("lr", "initial_lr"):
                    if key in group:
                        group[key] = group[key] * gain
        for scheduler in self.schedulers:
            scheduler.base_lrs = [base * gain for base in scheduler.base_lrs]
        for copy in self.copies:
            copy.cut()
        gated.become(self.small.model, self.small.selected)

    # ---- for the loop to ask ----------------------------------------------------------------------------------------

    def penalty(self) -> Tensor:
        """Return what the gates cost at this step, in the units of the loss, with a gradient; 0 after the cut."""
        if self.is_decided:
            return self._log_alpha.new_zeros(())
        terms = self.controller.penalty_terms(self.gated)
        return sum((c * t for c, t in zip(self.controller.coefficients(self.step), terms, strict=True)),
                   start=self._log_alpha.new_zeros(()))  # fmt: skip

    def metrics(self) -> dict[str, float]:
        """Return numbers for a log: the step, lambda, the penalty, open gates and expected sizes as shares of dense."""
        found = {"step": float(self.step), "cut": float(self.is_cut)}
        if self.decided is not None:
            return found | {"open_gates": float(self.decided["open"])}
        with torch.no_grad():
            found["penalty"] = float(self.penalty())
        found["lambda"] = float(self.controller.coefficient(self.step))
        return found | {key: float(value) for key, value in gate_columns(self.gated).items()}

    def feature_rows(self) -> list[dict[str, Any]]:
        """Return a row for each input feature: whether it is kept, when it closed, its open probability over time."""
        kept = self.gated.structure.kept_features(self.gated.gates.is_open())
        return self.history.rows(kept) if self.history.steps else []

    def features(self) -> DataFrame:
        """Return :meth:`feature_rows` as a pandas DataFrame, a row for each input feature, indexed by its name.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ConfigError("features() needs pandas: pip install pandas, or take feature_rows()") from None
        rows = self.feature_rows()
        table = pd.DataFrame(rows, index=pd.Index([row["feature"] for row in rows], name="feature"))
        for name in ("closed_at", "order"):  # whole numbers, missing for a feature that is kept
            table[name] = pd.array([None if row[name] == "" else row[name] for row in rows], dtype="Int64")
        table["kept"] = [bool(row["kept"]) for row in rows]
        return table.drop(columns="feature", errors="ignore")

    def report(self) -> dict[str, Any]:
        """Return what was asked for and what became of it: the part of a run's record that is the pruner's.

        :func:`lumos.write_record` writes the whole record, for ``lumos list``, ``compare`` and ``report``.

        Returns:
            ``phases`` (steps before and after the cut), ``gates`` (what they decided, None before the cut),
            ``steering`` (what was asked for and reached), ``equivalence`` (of gated and compact), and ``metrics``.
        """
        gated_steps = min(self.step, self.schedule.gated_steps)
        return {
            "phases": {"gated": gated_steps, "compact": self.step - gated_steps},
            "gates": self.decided,
            "steering": self.controller.report(),
            "equivalence": None if self.equivalence is None else asdict(self.equivalence),
            "metrics": self.metrics(),
        }

    def observe(self, loss: Tensor | float) -> None:
        """Tell the loss of the step that was taken: so a network that collapsed is told from one that needs no more.

        Args:
            loss: The training loss, without the penalty.

        Raises:
            TrainingError: Every group is down to one unit, and the loss is a trivial predictor's.
        """
        loss = loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss))
        self.detector.update(loss, self.step, lambda: open_widths(self.gated))

    def finish(self) -> CompactModel:
        """Cut what is still to be cut, and return the compact model in eval mode.

        Raises:
            CompactionError: Gated and compact differ.
            TrainingError: Weights are no longer finite.
        """
        broken = [name for name, p in self.gated.named_parameters() if not bool(torch.isfinite(p.detach()).all())]
        if broken:
            raise TrainingError(
                f"{broken[0]} is not finite after {self.step} steps ({len(broken)} such tensors): the loss was not "
                "finite; lower the learning rate or clip the gradients"
            )
        if not self.is_decided and self.step < self.schedule.gated_steps:
            log.warning(f"finished after {self.step} steps, before the cut at step {self.schedule.gated_steps}")
        small = self.cut()
        self.detach()
        return small.eval()

    def detach(self) -> None:
        """Take the pruner off the optimizer: later steps are the loop's alone."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget_calls()

    # ---- to go on after a stop --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes beside the gated model and the optimizer: tensors, numbers and containers of them."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "controller": self.controller.state_dict(),
            "detector": self.detector.state_dict(),
            "history": self.history.state_dict(),
            "adam": self._adam.state_dict(),
            "noise": None if self._noise is None else self._noise.get_state(),
            "drawn": None if self._noise is None else self.gated.gates.noise,
            "log_alpha": self._log_alpha.detach().clone(),
            "decided": self.decided,
            "equivalence": None if self.equivalence is None else asdict(self.equivalence),
            "cut": self.is_cut,
            "calls": None if self._calls is None or self.is_decided else self._calls.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what :meth:`state_dict` returned; after a cut, make the same cut.

        Call it before ``gated.load_state_dict`` and ``optimizer.load_state_dict``: their tensors have to have the sizes
        that they had.
        """
        device = self._log_alpha.device
        self._begun = False
        self.step, self._earlier, self._started = state["step"], state["seconds"], time.perf_counter()
        self.controller.load_state_dict(state["controller"])
        self.detector.load_state_dict(state["detector"])
        self.history.load_state_dict(state["history"])
        self._adam.load_state_dict(state["adam"])
        with torch.no_grad():
            self._log_alpha.copy_(state["log_alpha"])
        if self._noise is not None:
            self._noise.set_state(state["noise"].cpu())
            self.gated.hold(state["drawn"].to(device))
        self.decided = state["decided"]
        self.equivalence = None if state["equivalence"] is None else Equivalence(**state["equivalence"])
        self.gated.gates.fixed = self.is_decided
        if self.is_decided:
            self._forget_calls()
        elif self._calls is not None and state.get("calls"):
            self._calls.load_state_dict(state["calls"], device)
        if not state["cut"]:
            return
        self.small = compact_of(self.gated)
        if self.small is None:
            self._cut()
            return
        self._log_alpha.requires_grad_(False)
        if not any(p is q for q in self._weights() for p in self.gated.model.parameters()):
            raise ConfigError("gated: its state was loaded before that of the pruner; load the pruner's first")


def _optimizers(given: Any) -> list[torch.optim.Optimizer]:
    """The optimizers themselves, where accelerate or Lightning has wrapped them."""
    found = []
    for optimizer in given if isinstance(given, Sequence) else [given]:
        while not hasattr(optimizer, "register_step_pre_hook") or hasattr(optimizer, "optimizer"):
            if not hasattr(optimizer, "optimizer"):
                raise ConfigError(f"optimizer={type(optimizer).__name__}: expected a torch.optim.Optimizer")
            optimizer = optimizer.optimizer
        found.append(optimizer)
    if not found:
        raise ConfigError("optimizer=[]: expected one optimizer or more")
    return found


def _expect(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{name}={value}: expected {expected}")
