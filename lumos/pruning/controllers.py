"""What the penalty costs while gates train: a given lambda, or one that a target or a tolerance finds on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lumos.errors import TrainingError
from lumos.gating.gated_model import GatedModel
from lumos.pruning.averaging import AveragedGated, snapshot, swapped
from lumos.pruning.budget import Budget, expected_cost_of_features
from lumos.pruning.measuring import Measuring, decide
from lumos.pruning.resumable import Resumable
from lumos.pruning.settings import DEFAULT_LAMBDA, Cost, Goal, Lambda, Schedule, Target, Tolerance, measured, warm_up
from lumos.shapes import Float

SHRINK_OVER = 0.3
"""Share of the gated steps over which a budget shrinks from the full network to what was asked for."""
CHECKS = 40
"""How often a tolerance checks the validation score before the cut."""
ROUNDING_EVERY = 20
"""Steps after which it is counted anew how much rounding the widths adds to a size."""
LOOKS = (0.4, 0.6, 0.8, 0.9)
"""Shares of the gated steps at which the network that a target has come to is measured: training finds the widths where
a prediction is wrong."""
PATIENCE = 5
"""Checks without a new best score after which a network that is below the threshold counts as held down by lambda."""


class Controller(Resumable):
    """Adds ``sum(coefficient * term)`` over its penalty terms to the loss of every step before the cut.

    A training calls ``before_step``, takes ``coefficients`` and ``penalty_terms`` into the loss of the step, calls
    ``after_step``, and ``finalize`` before the cut.
    """

    def __init__(self, goal: Goal, schedule: Schedule, measuring: Measuring | None = None) -> None:
        self.goal, self.schedule, self.measuring = goal, schedule, measuring

    def coefficient(self, step: int) -> float:
        """Lambda at this step."""
        raise NotImplementedError

    def before_step(self, gated: GatedModel, step: int) -> None:
        """Adapt the coefficients to the gates; called once a step."""

    def coefficients(self, step: int) -> tuple[float, ...]:
        """What multiplies each of the penalty terms, in the units of the loss."""
        return (self.coefficient(step),)

    def penalty_terms(self, gated: GatedModel) -> tuple[Tensor, ...]:
        """Scalars, differentiable in the gates."""
        assert not isinstance(self.goal, Target)
        return (self.penalty_of(gated, self.goal.penalty),)

    def penalty_of(self, gated: GatedModel, kind: Cost) -> Tensor:
        """The complexity L_C, in units of gates, as ``GatedModel.penalty`` has it; of what is measured too."""
        if measured(kind):
            assert self.measuring is not None
            return self.measuring.calibration.cost.share(gated.gates.open_probability()) * gated.structure.units
        return gated.penalty(kind)  # pyright: ignore[reportArgumentType]

    def after_step(self, gated: GatedModel, optimizers: Sequence[torch.optim.Optimizer], step: int) -> None:
        """Note what the step did."""

    def finalize(self, gated: GatedModel, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Bring the gates to what the cut shall keep."""
        if self.measuring is not None:
            self.measuring.round_up(gated)

    def report(self, valid_score: float | None = None) -> dict[str, Any]:
        """What was asked for and reached, for the record, given the finished network's validation score if known."""
        found = {} if self.measuring is None else self.measuring.report()
        return {"key": self.goal.key, "asked": self.goal.value, **found}

    def state_dict(self) -> dict[str, Any]:
        """Return what changes on the way, and what was measured."""
        return super().state_dict() | ({} if self.measuring is None else {"measuring": self.measuring.state_dict()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        if self.measuring is not None:
            self.measuring.load_state_dict(state["measuring"])


class FixedLambda(Controller):
    """A given lambda, which grows to its value over the first steps: equation 6."""

    def coefficient(self, step: int) -> float:
        """Lambda at this step."""
        return self.goal.value * self.schedule.warm_up(step)


def nearly_decided(log_alpha: Float[Tensor, " units"], shift: float) -> Float[Tensor, " units"]:
    """0 to 1 for gates that are closed to open at test time, with a steep slope between: what a size will be."""
    return torch.sigmoid(4.0 * (log_alpha - shift))


class TargetController(Controller):
    """Meets a target by dual ascent on the logarithm of lambda, with a budget that shrinks from the full network.

    With ``r = log(size / current budget)``, clipped to +-1/2, before each step ``log lambda`` grows by ``rise * r /
    gated_steps``, and the coefficient is ``lambda * exp(damping * r)``, times the warm-up. Logarithms let the same
    constants do for sizes and coefficients of any scale; the second term damps, as the augmented Lagrangian's does.
    ``size`` is what the gates come to when they are decided, and not the expected size: that one is small as soon as
    every gate is half open, before anything is learnt. What is undecided at the cut is decided by rank, so that the
    budget is met.

    Raises:
        ConfigError: This model cannot meet the target.
    """

    first, damping, rise, most = DEFAULT_LAMBDA / 10, 4.0, 20.0, 0.5
    memory = ("start", "log_lambda", "excess", "cut_size", "moved", "rounding")

    def __init__(
        self, goal: Target, schedule: Schedule, gated: GatedModel, align: int = 1, measuring: Measuring | None = None
    ) -> None:
        super().__init__(goal, schedule, measuring)
        # What is measured is rounded on trial, where that is faster.
        self._budget = Budget(goal, 1 if measuring else align)
        self.budget.check(gated.structure)
        self.units = gated.structure.units
        self.start = self._size(gated)
        self.log_lambda = math.log(self.first)
        self.ascent = self.rise / schedule.gated_steps
        self.excess = 0.0
        self.cut_size, self.moved = math.nan, 0
        self.rounding = 1.0

    @property
    def budget(self) -> Budget:
        """The target in numbers, by the latest measurements where it is measured."""
        return replace(self._budget, calibration=self.measuring.calibration) if self.measuring else self._budget

    def _size(self, gated: GatedModel) -> float:
        gates = gated.gates
        return float(self.budget.size(gated.structure, nearly_decided(gates.log_alpha.detach(), gates.settings.shift)))

    def limit(self, step: int) -> float:
        """The budget at this step: it falls along a line from the size at the start, and is constant from then on."""
        return self.start + (self.budget.limit - self.start) * warm_up(step, self.schedule.gated_steps, SHRINK_OVER)

    def coefficient(self, step: int) -> float:
        """Lambda at this step."""
        return math.exp(self.log_lambda + self.damping * self.excess) * self.schedule.warm_up(step)

    def before_step(self, gated: GatedModel, step: int) -> None:
        """Do one step of the ascent."""
        if step % ROUNDING_EVERY == 0:
            gates = gated.gates
            self.rounding = self.budget.rounding(gated.structure, gates.log_alpha.detach(), gates.is_open())
        excess = math.log(max(self._size(gated) * self.rounding, 1e-12) / self.limit(step))
        self.excess = min(self.most, max(-self.most, excess))
        self.log_lambda = min(5.0, max(-16.0, self.log_lambda + self.ascent * self.excess))

    def coefficients(self, step: int) -> tuple[float, ...]:
        """What the size costs, in units of gates as ``GatedModel.penalty`` has them."""
        if self.budget.target.quantity == "features":
            return self.coefficient(step), DEFAULT_LAMBDA * self.schedule.warm_up(step)
        price = self.budget.target.feature_price * self.schedule.warm_up(step)
        return self.coefficient(step) * self.units, price

    def after_step(self, gated: GatedModel, optimizers: Sequence[torch.optim.Optimizer], step: int) -> None:
        """Measure now and then what the training has come to."""
        if self.measuring and step in {round(share * self.schedule.gated_steps) for share in LOOKS}:
            gates = gated.gates
            keep = self.budget.at(self.limit(step)).fit(gated.structure, gates.log_alpha, gates.is_open())
            self.measuring.look(step, keep, gates.log_alpha)

    def penalty_terms(self, gated: GatedModel) -> tuple[Tensor, ...]:
        """The size in the unit of the budget, and what that one does not price: hidden units, or input features."""
        probability = gated.gates.open_probability()
        size = self.budget.size(gated.structure, probability)
        if self.budget.target.quantity == "features":
            return size, gated.penalty("gates") - size
        return size, expected_cost_of_features(gated.structure, probability)

    def finalize(self, gated: GatedModel, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Close and open the few gates that it takes to meet the budget, lowest and highest rank first."""
        gates, is_open = gated.gates, gated.gates.is_open()
        if self.measuring is None:
            keep = self.budget.fit(gated.structure, gates.log_alpha, is_open)
            self.cut_size = float(self.budget.size(gated.structure, keep.double()))
        else:
            keep = self.measuring.settle(self.budget, gates.log_alpha, is_open)
            self.cut_size = self.measuring.measured
        self.moved = decide(gated, keep.to(is_open.device))

    def report(self, valid_score: float | None = None) -> dict[str, Any]:
        """The budget, and the size at the cut in its unit."""
        return {**super().report(valid_score), "reached": self.cut_size,
                "moved_at_cut": self.moved, "lambda": math.exp(self.log_lambda)}  # fmt: skip


class ToleranceController(Controller):
    """Raises lambda from its default while the validation score is within the tolerance; lowers it where it is not.

    The score is that of the test-time gates with weights averaged over the steps since the check before: sampled gates
    and a learning rate at its peak shake the weights, and the average is a better guess of where they will settle.
    Where the training keeps an averaged copy, it is that one's.
    Gates that closed hardly come back, so the smallest state within the tolerance is kept, and the cut returns to it
    where the last one is not.

    Raises:
        TrainingError: The tolerance comes without a score and a baseline.
    """

    up, down = math.log(1.3), math.log(2.0)
    memory = ("log_lambda", "mean", "seen", "last", "high", "since_high", "kept", "returned", "checks")
    goal: Tolerance

    def __init__(
        self, goal: Tolerance, schedule: Schedule, gated: GatedModel, average: AveragedGated | None = None,
        measuring: Measuring | None = None,
    ) -> None:  # fmt: skip
        super().__init__(goal, schedule, measuring)
        self.device = gated.gates.log_alpha.device
        if goal.baseline is None or not math.isfinite(goal.baseline):
            raise TrainingError(f"{goal.key} needs the dense network's validation score; train it first")
        if goal.score is None:
            raise TrainingError(f"{goal.key} needs a function that scores a model on validation data")
        self.sign, self.threshold = goal.sign, goal.threshold
        self.score, self.average = goal.score, average
        self.interval = max(1, schedule.gated_steps // CHECKS)
        self.log_lambda = math.log(DEFAULT_LAMBDA)
        self.mean: list[Tensor] = []
        self.seen = 0
        self.last = self.high = -math.inf
        self.since_high = 0
        self.kept: tuple[Any, ...] | None = None  # its size, its state, the optimizers', and that of an averaged copy
        self.returned = False
        self.checks: list[tuple[int, float, float, int]] = []

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what ``state_dict`` returned; the mean of the weights goes to where they are."""
        super().load_state_dict(state)
        self.mean = [mean.to(self.device) for mean in self.mean]

    def coefficient(self, step: int) -> float:
        """Lambda at this step."""
        return math.exp(self.log_lambda) * self.schedule.warm_up(step)

    def within(self, score: float) -> bool:
        """Tell whether a score is at the threshold or better."""
        return self.sign * score >= self.sign * self.threshold

    def after_step(self, gated: GatedModel, optimizers: Sequence[torch.optim.Optimizer], step: int) -> None:
        """Average the weights, and check the score now and then."""
        if self.average is None:
            self._follow([p.detach() for p in gated.model.parameters()])
        if step % self.interval:
            return
        if self.average is None:
            with swapped(list(gated.model.parameters()), self.mean):
                score = self.score(gated)
        else:
            score = self.score(self.average.model)
        self.seen = 0
        self._adapt(score)
        is_open = gated.gates.is_open()
        self.checks.append((step, score, math.exp(self.log_lambda), int(is_open.sum())))
        size = self._smallness(gated, is_open)
        if self.within(score) and (self.kept is None or size <= self.kept[0]):
            state = {n: t.detach().clone() for n, t in gated.state_dict().items()}
            self.kept = (size, state, deepcopy([o.state_dict() for o in optimizers]), *snapshot(self.average))

    def _smallness(self, gated: GatedModel, is_open: Tensor) -> float:
        """What is minimised, of the network with these units."""
        kind = self.goal.penalty
        if kind == "gates":
            return int(is_open.sum())
        if measured(kind):
            assert self.measuring is not None
            return self.measuring.calibration.share(is_open.cpu())
        return float(gated.structure.expected_sizes(is_open.double())[{"params": 0, "macs": 1}[kind]])

    def _follow(self, weights: list[Tensor]) -> None:
        """Take a step's weights into their mean since the last check."""
        if not self.mean:
            self.mean = [w.clone() for w in weights]
        self.seen += 1
        for mean, weight in zip(self.mean, weights, strict=True):
            mean.lerp_(weight, 1.0 / self.seen)

    def _adapt(self, score: float) -> None:
        """Move lambda after a check. A network that was never within the tolerance may still be learning."""
        self.last = self.sign * score
        self.since_high = 0 if self.last > self.high else self.since_high + 1
        self.high = max(self.high, self.last)
        if self.within(score):
            self.log_lambda = min(math.log(10.0), self.log_lambda + self.up)
        elif self.within(self.sign * self.high) or self.since_high >= PATIENCE:
            self.log_lambda = max(math.log(1e-8), self.log_lambda - self.down)

    def finalize(self, gated: GatedModel, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Return to the smallest state within the tolerance, where the last one is not."""
        if self.kept is not None and not self.within(self.sign * self.last):
            self.returned = True
            gated.load_state_dict(self.kept[1])
            for optimizer, kept in zip(optimizers, self.kept[2], strict=True):
                optimizer.load_state_dict(kept)
            if self.average is not None:
                self.average.load_state_dict(self.kept[3])
        super().finalize(gated, optimizers)

    def report(self, valid_score: float | None = None) -> dict[str, Any]:
        """The threshold, and whether the finished network keeps to it."""
        checks = [dict(zip(("step", "valid", "lambda", "open"), check, strict=True)) for check in self.checks]
        met = None if valid_score is None else self.within(valid_score)
        return {**super().report(valid_score), "line": self.threshold, "met": met,
                "returned_at_cut": self.returned, "looks": checks}  # fmt: skip


def make_controller(
    goal: Goal, schedule: Schedule, gated: GatedModel, *, align: int = 1, average: AveragedGated | None = None,
    measuring: Measuring | None = None,
) -> Controller:  # fmt: skip
    """Make the controller of a goal.

    Args:
        goal: What is asked for.
        schedule: When the training does what.
        gated: The model that it trains.
        align: The multiple to which the kept units of each hidden group are rounded up.
        average: The averaged copy that is scored, where there is one.
        measuring: What is measured, for a goal that asks for it.

    Raises:
        ConfigError: This model cannot meet the target.
        TrainingError: A tolerance comes without a score and a baseline.
    """
    if isinstance(goal, Lambda):
        return FixedLambda(goal, schedule, measuring)
    if isinstance(goal, Target):
        return TargetController(goal, schedule, gated, align, measuring)
    return ToleranceController(goal, schedule, gated, average, measuring)
