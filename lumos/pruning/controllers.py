"""What the penalty costs while gates train: a given lambda, or one that a target or a tolerance finds on the way."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lumos.errors import TrainingError
from lumos.gating.gated_model import GatedModel
from lumos.pruning.averaging import AveragedGated, RunningMean
from lumos.pruning.budget import Budget, expected_cost_of_features
from lumos.pruning.measuring import Measuring, decide
from lumos.pruning.resumable import Resumable
from lumos.pruning.settings import DEFAULT_LAMBDA, Cost, Goal, Lambda, Schedule, Target, Tolerance, measured, warm_up
from lumos.shapes import Float
from lumos.tracing.devices import read_at_once

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
"""Checks without a new best score after which a network that is below the threshold counts as trained out."""
FALL = math.log(100) / 0.7
"""By how much the logarithm of a tolerance's budget falls over all gated steps: to a hundredth in 70% of them."""
CALM = 2
"""Checks within the tolerance after which a budget that was held falls again."""
GRACE = 4
"""Checks for which a network may recover at a budget that is held, before units are opened again."""
QUICKER = 1.15
"""By how much the fall is quicker after each check that ends none, up to its first pace."""
CLOSE = math.log(1.15)
"""Two sizes whose logarithms are no further apart are not told from each other."""
HELD = 50.0
"""How much quicker lambda falls than the size below a budget that is held: 2% below it, it is a third."""
LEARN = 0.3
"""Share of the gated steps in which a network that has a course learns and nothing closes, unless gates are counted:
what goes before it has learnt something goes by chance, and does not come back."""
SEARCH = 0.75
"""Share of the gated steps after which a network that fell behind shrinks no further: it has to learn."""


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
            return self.measuring.calibration.cost.share(gated.gates.expected_open()) * gated.structure.units
        return gated.penalty(kind)  # pyright: ignore[reportArgumentType]

    def after_step(self, gated: GatedModel, step: int) -> None:
        """Note what the step did."""

    def finalize(self, gated: GatedModel) -> None:
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


class SizeController(Controller):
    """Holds a size under a limit by dual ascent on the logarithm of lambda.

    With ``r = log(size / limit)``, clipped to +-1/2, before each step ``log lambda`` grows by ``rise * r /
    gated_steps``, and the coefficient is ``lambda * exp(damping * r)``, times the warm-up. Logarithms let the same
    constants do for sizes and coefficients of any scale; the second term damps, as the augmented Lagrangian's does.
    ``size`` is what the gates come to when they are decided, and not the expected size: that one is small as soon as
    every gate is half open, before anything is learnt.
    """

    first, damping, rise, most = DEFAULT_LAMBDA / 10, 4.0, 20.0, 0.5

    def __init__(self, goal: Goal, schedule: Schedule, measuring: Measuring | None = None) -> None:
        super().__init__(goal, schedule, measuring)
        # Numbers where the gates are on a CPU; on a GPU tensors there, so that no step waits for them.
        self.log_lambda: Any = math.log(self.first)
        self.ascent = self.rise / schedule.gated_steps
        self.excess: Any = 0.0

    def coefficient(self, step: int) -> Any:
        """Lambda at this step: a number, on a GPU a tensor."""
        exponent = self.log_lambda + self.damping * self.excess
        grown = exponent.exp().float() if isinstance(exponent, Tensor) else math.exp(exponent)
        return grown * self.schedule.warm_up(step)

    def ascend(self, size: Tensor, limit: float, rounding: float = 1.0) -> None:
        """Do one step of the ascent, given the size, the limit, and what rounding the widths multiplies the size by."""
        if not read_at_once(size):
            excess = ((size.double() * rounding).clamp(min=1e-12) / limit).log()
            self.excess = excess.clamp(-self.most, self.most)
            self.log_lambda = (self.log_lambda + self.ascent * self.excess).clamp(-16.0, 5.0)
            return
        excess = math.log(max(float(size) * rounding, 1e-12) / limit)
        self.excess = min(self.most, max(-self.most, excess))
        self.log_lambda = min(5.0, max(-16.0, self.log_lambda + self.ascent * self.excess))

    def state_dict(self) -> dict[str, Any]:
        """Return what changes on the way, as plain numbers."""
        return super().state_dict() | {"log_lambda": float(self.log_lambda), "excess": float(self.excess)}


class TargetController(SizeController):
    """Meets a target, with a budget that shrinks from the full network.

    What is undecided at the cut is decided by rank, so that the budget is met.

    Raises:
        ConfigError: This model cannot meet the target.
    """

    memory = ("start", "log_lambda", "excess", "cut_size", "moved", "rounding")

    def __init__(
        self, goal: Target, schedule: Schedule, gated: GatedModel, align: int = 1, measuring: Measuring | None = None
    ) -> None:
        super().__init__(goal, schedule, measuring)
        # What is measured is rounded on trial, where that is faster.
        self._budget = Budget(goal, 1 if measuring else align)
        self.budget.check(gated.structure)
        self.units = gated.structure.units
        self.start = float(self._size(gated))
        self.cut_size, self.moved = math.nan, 0
        self.rounding = 1.0

    @property
    def budget(self) -> Budget:
        """The target in numbers, by the latest measurements where it is measured."""
        return replace(self._budget, calibration=self.measuring.calibration) if self.measuring else self._budget

    def _size(self, gated: GatedModel) -> Tensor:
        gates = gated.gates
        return self.budget.size(gated.structure, nearly_decided(gates.log_alpha.detach(), gates.settings.shift))

    def limit(self, step: int) -> float:
        """The budget at this step: it falls along a line from the size at the start, and is constant from then on."""
        return self.start + (self.budget.limit - self.start) * warm_up(step, self.schedule.gated_steps, SHRINK_OVER)

    def before_step(self, gated: GatedModel, step: int) -> None:
        """Do one step of the ascent."""
        if step % ROUNDING_EVERY == 0:
            gates = gated.gates
            self.rounding = self.budget.rounding(gated.structure, gates.log_alpha.detach(), gates.is_open())
        self.ascend(self._size(gated), self.limit(step), self.rounding)

    def coefficients(self, step: int) -> tuple[float, ...]:
        """What the size costs, in units of gates as ``GatedModel.penalty`` has them."""
        if self.budget.target.quantity == "features":
            return self.coefficient(step), DEFAULT_LAMBDA * self.schedule.warm_up(step)
        price = self.budget.target.feature_price * self.schedule.warm_up(step)
        return self.coefficient(step) * self.units, price

    def after_step(self, gated: GatedModel, step: int) -> None:
        """Measure now and then what the training has come to."""
        if self.measuring and step in {round(share * self.schedule.gated_steps) for share in LOOKS}:
            gates = gated.gates
            keep = self.budget.at(self.limit(step)).fit(gated.structure, gates.log_alpha, gates.is_open())
            self.measuring.look(step, keep, gates.log_alpha)

    def penalty_terms(self, gated: GatedModel) -> tuple[Tensor, ...]:
        """The size in the unit of the budget, and what that one does not price: hidden units, or input features."""
        probability = gated.gates.expected_open()
        size = self.budget.size(gated.structure, probability)
        if self.budget.target.quantity == "features":
            return size, gated.penalty("gates") - size
        return size, expected_cost_of_features(gated.structure, probability)

    def finalize(self, gated: GatedModel) -> None:
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


def check_interval(gated_steps: int) -> int:
    """Return the steps between two checks of a tolerance, over which weights are averaged."""
    return max(1, gated_steps // CHECKS)


class ToleranceController(SizeController):
    """Shrinks a budget while the network keeps up with the dense one, and opens units again where it does not.

    The budget is a share of what is minimised. Where that is not the number of gates, the network first learns as the
    dense one does, and nothing closes. Then the budget falls by a constant factor a step while the validation score is
    within the tolerance of what the dense network had come to at the same share of its training. Where it no longer is,
    the network is held at its size, and nothing presses on it, so that it can recover. Where that does not help, the
    units open again that were open when it last kept up; their weights are as they were when they closed. From there
    the budget falls half way to the size that was too small, and so on. A network that falls behind at that size too
    gets a larger one back, in steps that double. For such a network the search ends before the cut: units that opened
    again have to learn what changed meanwhile.

    The score is that of the test-time gates with weights averaged over the steps since the check before: sampled gates
    and a learning rate at its peak shake the weights, and the average is a better guess of where they will settle. The
    dense network's course should be one of weights that are averaged alike. Where the training keeps an averaged copy,
    it is that one's. What decides is a mean of the checks, of which each counts half as much as the next.

    Raises:
        TrainingError: The tolerance comes without a score and a baseline.
    """

    memory = (
        "log_lambda", "excess", "start", "log_limit", "falling", "pace", "aim", "too_small", "held", "setbacks",
        "settled", "margin", "ready", "high", "since_high", "kept_up", "returned", "checks",
    )  # fmt: skip
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
        self.interval = check_interval(schedule.gated_steps)
        structure, gates = gated.structure, gated.gates
        least = torch.zeros(structure.units, dtype=torch.float64)
        least[[group.start for group in structure.groups]] = 1.0
        self.least = self._log_share(gated, least)
        self.start = self._log_share(gated, nearly_decided(gates.log_alpha.detach(), gates.settings.shift))
        self.log_limit = self.start
        self.falling, self.pace, self.aim = False, 1.0, -math.inf
        self.too_small: float | None = None  # logarithm of a size that was not within the tolerance
        self.held = 0  # checks since the budget is held
        self.setbacks = 0  # how often units opened again since it last kept up
        self.settled = False  # whether the search has ended
        self.margin: float | None = None
        self.ready = bool(goal.course)  # whether there is a line to hold scores against
        self.mean = RunningMean()
        self.high = -math.inf
        self.since_high = 0
        # Where the network kept up: logarithms of size and of lambda, and the gates; each smaller than the one before.
        first = (self.start, float(self.log_lambda), gates.log_alpha.detach().clone())
        self.kept_up: list[tuple[float, float, Tensor]] = [first]
        self.returned = False
        self.checks: list[tuple[int, float, float, int, float, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return what changes on the way."""
        return super().state_dict() | {"mean": self.mean.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what ``state_dict`` returned; its tensors go to where the gates are."""
        super().load_state_dict(state)
        self.mean.load_state_dict(state["mean"])
        self.mean.weights = [mean.to(self.device) for mean in self.mean.weights]
        self.kept_up = [(size, log_lambda, gates.to(self.device)) for size, log_lambda, gates in self.kept_up]

    # ---- the size ---------------------------------------------------------------------------------------------------

    def _share(self, gated: GatedModel, gates: Tensor) -> Any:
        """What is minimised of a network with these gates, as a share of the dense one's: a number on a CPU."""
        structure, kind = gated.structure, self.goal.penalty
        if kind == "gates":
            full = structure.priced(torch.ones_like(gates)).sum()
            share = structure.priced(gates).sum() / full
        elif measured(kind):
            assert self.measuring is not None
            share = self.measuring.calibration.cost.share(gates)
        else:
            which = {"params": 0, "macs": 1}[kind]
            share = structure.expected_sizes(gates)[which] / max(1.0, structure.dense_sizes[which])
        return float(share) if read_at_once(share) else share

    def _log_share(self, gated: GatedModel, gates: Tensor) -> float:
        return math.log(max(1e-9, float(self._share(gated, gates))))

    def limit(self, step: int) -> float:
        """The budget, a share of what is minimised."""
        return math.exp(self.log_limit)

    def before_step(self, gated: GatedModel, step: int) -> None:
        """Lower the budget where it falls, and do one step of the ascent.

        As long as there is nothing to hold scores against, lambda is the default; with a course it is 0 then.
        """
        if self._learns(step):
            return
        if not self.ready:
            self.log_lambda, self.excess = math.log(DEFAULT_LAMBDA), 0.0
            return
        if self.falling:
            lower = self.log_limit - self.pace * FALL / self.schedule.gated_steps
            self.log_limit = max(lower, self.aim, self.least + CLOSE)
        gates = gated.gates
        size = self._share(gated, nearly_decided(gates.log_alpha.detach(), gates.settings.shift))
        self.ascend(torch.as_tensor(size), self.limit(step))

    def _learns(self, step: int) -> bool:
        """Tell whether nothing closes yet.

        Where gates are counted, an input counts as much as a unit, and needless inputs go best before the network has
        fitted noise with them: there it closes from the first step on.
        """
        if not self.goal.course or self.goal.penalty == "gates":
            return False
        return self.margin is None or step < LEARN * self.schedule.gated_steps

    def coefficient(self, step: int) -> Any:
        """Lambda at this step; next to nothing where the network is smaller than a budget at which it is held."""
        if self._learns(step):
            return 0.0
        found = super().coefficient(step)
        if self.falling or not self.ready:
            return found
        if isinstance(self.excess, Tensor):
            return found * (HELD * self.excess.clamp(max=0.0)).exp().float()
        return found * math.exp(HELD * min(0.0, self.excess))

    def coefficients(self, step: int) -> tuple[float, ...]:
        """Lambda, and what an input feature costs beside what is minimised, if that hardly prices one."""
        if self.goal.penalty == "gates":
            return (self.coefficient(step),)
        behind = bool(self.goal.course) and (self.margin is None or self.margin < 0)
        price = 0.0 if behind or self._learns(step) else DEFAULT_LAMBDA * self.schedule.warm_up(step)
        return self.coefficient(step), price

    def penalty_terms(self, gated: GatedModel) -> tuple[Tensor, ...]:
        """The complexity, and the expected number of input features."""
        found = super().penalty_terms(gated)
        if self.goal.penalty == "gates":
            return found
        return *found, expected_cost_of_features(gated.structure, gated.gates.expected_open())

    # ---- the score --------------------------------------------------------------------------------------------------

    def within(self, score: float) -> bool:
        """Tell whether a score is at the threshold or better."""
        return self.sign * score >= self.sign * self.threshold

    def line(self, step: int) -> float | None:
        """The worst score that is allowed at this step; None where there is nothing yet to hold it against."""
        if self.goal.course:
            return self.goal.line(step / self.schedule.steps)
        if not self.ready:
            return None
        trained_out = self.goal.below(self.sign * self.high)
        return self.sign * min(self.sign * trained_out, self.sign * self.threshold)

    def after_step(self, gated: GatedModel, step: int) -> None:
        """Average the weights, and check the score now and then."""
        if self.average is None:
            self.mean.follow(gated.model)
        if step % self.interval:
            return
        if self.average is None:
            with self.mean.taken_by(gated.model):
                score = self.score(gated)
        else:
            score = self.score(self.average.model)
        is_open = gated.gates.is_open()
        size = self._log_share(gated, is_open.double())
        line = self._note(step, score, size)
        self.checks.append((step, score, float(self.coefficient(step)), int(is_open.sum()), line, math.exp(size)))
        if self.margin is None:
            return
        if self.margin >= 0:
            self._remember(gated, size)
            self.setbacks = 0
        if not self.settled and self.too_small is not None and step >= SEARCH * self.schedule.gated_steps:
            self._settle(gated)
        elif self._learns(step):
            self.held += 1
        elif self._is_too_small(gated):
            self._open_again(gated)

    def _remember(self, gated: GatedModel, size: float) -> None:
        """Remember these gates as the last ones with which it kept up; those before stay, in steps of 15% or more."""
        while len(self.kept_up) > 1 and self.kept_up[-1][0] < size:
            self.kept_up.pop()
        if len(self.kept_up) > 1 and self.kept_up[-2][0] - self.kept_up[-1][0] < CLOSE:
            self.kept_up.pop()
        self.kept_up.append((size, float(self.log_lambda), gated.gates.log_alpha.detach().clone()))

    def _note(self, step: int, score: float, size: float) -> float:
        """Take a check's score into the margin over the line, and return the line.

        Without a course, the budget begins with what the default lambda has left when there is a line.
        """
        now = self.sign * score
        if not self.ready:
            self.since_high = 0 if now > self.high else self.since_high + 1
            self.high = max(self.high, now)
            self.ready = self.within(score) or self.since_high >= PATIENCE
            self.log_limit = min(self.start, size) if self.ready else self.log_limit
        line = self.line(step)
        if line is None:
            return math.nan
        margin = now - self.sign * line
        self.margin = margin if self.margin is None or not math.isfinite(self.margin) else (self.margin + margin) / 2
        return line

    # ---- the budget -------------------------------------------------------------------------------------------------

    def _is_too_small(self, gated: GatedModel) -> bool:
        """Let the budget fall, or hold it, as the score says. Returns whether the network did not recover."""
        assert self.margin is not None
        healthy = self.margin >= 0
        if self.falling:
            self.pace = min(1.0, self.pace * QUICKER)
            if not healthy:
                self._hold(gated)
            elif self.log_limit <= max(self.aim, self.least + CLOSE):
                self.falling, self.held = False, 0
            return False
        self.held += 1
        if healthy and not self.settled and (self.held >= CALM or self.log_limit >= self.start):
            self._lower()
        at_full_size = self.log_limit >= self.start  # where it is no better for being larger
        return not healthy and self.held >= GRACE and not at_full_size

    def _settle(self, gated: GatedModel) -> None:
        """End the search: at this size, or at a larger one if the network is behind at it."""
        assert self.margin is not None
        self.settled = True
        if self.margin < 0:
            self._open_again(gated)
        else:
            self._hold(gated)

    def _hold(self, gated: GatedModel) -> None:
        """Hold the network at its size. It follows the budget with a delay: held there, it would go on falling."""
        gates = gated.gates
        size = self._log_share(gated, nearly_decided(gates.log_alpha.detach(), gates.settings.shift))
        self.falling, self.held = False, 0
        self.log_limit, self.excess = max(self.log_limit, size), 0.0

    def _lower(self) -> None:
        """Let the budget fall again: freely, or half way to the size that was too small, where that is far enough."""
        if self.too_small is None:
            self.falling = self.log_limit > self.least + CLOSE
            self.pace = self.pace / 2 if self.log_limit < self.start else self.pace
            self.pace = max(self.pace, 0.25)
        elif self.log_limit - self.too_small > CLOSE:
            self.falling, self.aim = True, (self.log_limit + self.too_small) / 2

    def _open_again(self, gated: GatedModel) -> None:
        """Open the units that were open when the network last kept up at a larger size, in steps that double."""
        gates = gated.gates
        now = self._log_share(gated, gates.is_open().double())
        step = CLOSE / 2 * 2**self.setbacks
        self.setbacks += 1
        while len(self.kept_up) > 1 and self.kept_up[-1][0] <= now + step:
            self.kept_up.pop()
        size, log_lambda, then = self.kept_up[-1]
        shift = gates.settings.shift
        with torch.no_grad():
            back = (then > shift) & ~gates.is_open()
            gates.log_alpha[back] = then[back].clamp(min=shift + 0.5)
        self.too_small = min(now, size - 1e-3)
        self.log_limit, self.log_lambda, self.excess = max(size, now), min(log_lambda, float(self.log_lambda)), 0.0
        self.falling, self.held, self.margin, self.pace, self.aim = False, 0, None, 0.25, -math.inf

    def finalize(self, gated: GatedModel) -> None:
        """Open units again where the network did not keep up at last."""
        if self.margin is not None and self.margin < 0:
            self.returned = True
            self._open_again(gated)
        super().finalize(gated)

    def report(self, valid_score: float | None = None) -> dict[str, Any]:
        """The threshold, and whether the finished network keeps to it."""
        names = ("step", "valid", "lambda", "open", "line", "size")
        checks = [dict(zip(names, check, strict=True)) for check in self.checks]
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
