"""What the gates cost while they train: a given lambda, or one that a budget or a tolerance finds on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from lumos.errors import TrainingError
from lumos.gating.gated_model import GatedModel
from lumos.pruning.averaging import Average, snapshot, swapped
from lumos.pruning.budget import Budget
from lumos.pruning.resumable import Resumable
from lumos.pruning.settings import DEFAULT_LAMBDA
from lumos.shapes import Float
from lumos.suite.config import LumosConfig
from lumos.suite.workload import Metric

SHRINK_OVER = 0.3
"""Share of the gated steps over which a budget shrinks from the full network to what was asked for."""
LOOKS = 40
"""How often a tolerance looks at the validation score before the cut."""
ROUNDING_EVERY = 20
"""Steps after which it is counted anew how much rounding the widths adds to a size."""
PATIENCE = 5
"""Looks without a new best score after which a network that is below the line counts as held down by lambda."""


def warm_up(step: int, total: int, share: float) -> float:
    """The factor by which lambda has grown: linearly from 0 to 1 over a share of the steps."""
    return min(1.0, step / (share * total)) if share > 0 else 1.0


class Steering(Resumable):
    """A given lambda, which grows to its value over the first steps: equation 6.

    Training adds each of ``sizes`` times its one of ``prices`` to the loss; ``after`` is called after each step, and
    ``settle`` before the cut.
    """

    def __init__(self, settings: LumosConfig, total: int, gated_steps: int) -> None:
        self.settings, self.total, self.gated_steps = settings, total, gated_steps

    def price(self, step: int) -> float:
        """Lambda at this step."""
        assert self.settings.lambda_ is not None
        return self.settings.lambda_ * warm_up(step, self.total, self.settings.warmup)

    def prices(self, gated: GatedModel, step: int) -> tuple[float, ...]:
        """What each of ``sizes`` costs, in the units of the loss; asked once a step, before it."""
        return (self.price(step),)

    def sizes(self, gated: GatedModel) -> tuple[Tensor, ...]:
        """Scalars, differentiable in the gates."""
        return (gated.penalty(self.settings.penalty),)

    def after(self, gated: GatedModel, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Note what the step did."""

    def settle(self, gated: GatedModel, optimizer: torch.optim.Optimizer) -> None:
        """Bring the gates to what is cut."""

    def report(self, valid_score: float) -> dict[str, Any]:
        """What was asked for and reached, for the record, given the finished network's validation score."""
        return {"key": "lumos.lambda", "asked": self.settings.lambda_}


def nearly_decided(log_alpha: Float[Tensor, " units"], shift: float) -> Float[Tensor, " units"]:
    """0 to 1 for gates that are closed to open at test time, with a steep slope between: what a size will be."""
    return torch.sigmoid(4.0 * (log_alpha - shift))


class ToBudget(Steering):
    """A budget is met by dual ascent on the logarithm of lambda, with a budget that shrinks from the full network.

    With ``r = log(size / current budget)``, cut off at +-1/2, after each step ``log lambda += rise / gated_steps * r``,
    and the price is ``lambda * exp(damping * r)``, times the warm-up of lambda. Logarithms let the same constants do
    for sizes and prices of any scale; the second term damps, as the augmented Lagrangian's does. ``size`` is what the
    gates come to when they are decided, and not the expected size: that one is small as soon as every gate is
    half open, before anything is learnt. What is undecided at the cut is settled by rank, so that the budget is met.
    """

    first, damping, rise, most = DEFAULT_LAMBDA / 10, 4.0, 20.0, 0.5
    memory = ("start", "log_lambda", "excess", "cut_size", "moved", "rounding")

    def __init__(self, settings: LumosConfig, total: int, gated_steps: int, budget: Budget, gated: GatedModel) -> None:
        super().__init__(settings, total, gated_steps)
        budget.check(gated.structure)
        self.budget = budget
        self.start = self._size(gated)
        self.log_lambda = math.log(self.first)
        self.ascent = self.rise / gated_steps
        self.excess = 0.0
        self.cut_size, self.moved = math.nan, 0
        self.rounding = 1.0

    def _size(self, gated: GatedModel) -> float:
        gates = gated.gates
        return float(self.budget.size(gated.structure, nearly_decided(gates.log_alpha.detach(), gates.settings.shift)))

    def limit(self, step: int) -> float:
        """The budget at this step: it falls along a line from the size at the start, and is constant from then on."""
        return self.start + (self.budget.limit - self.start) * warm_up(step, self.gated_steps, SHRINK_OVER)

    def price(self, step: int) -> float:
        """Lambda at this step."""
        price = math.exp(self.log_lambda + self.damping * self.excess)
        return price * warm_up(step, self.total, self.settings.warmup)

    def prices(self, gated: GatedModel, step: int) -> tuple[float, ...]:
        """The price of the size, in units of gates as ``GatedModel.penalty`` has them, after one step of the ascent."""
        if step % ROUNDING_EVERY == 0:
            gates = gated.gates
            self.rounding = self.budget.rounding(gated.structure, gates.log_alpha.detach(), gates.is_open())
        excess = math.log(max(self._size(gated) * self.rounding, 1e-12) / self.limit(step))
        self.excess = min(self.most, max(-self.most, excess))
        self.log_lambda = min(5.0, max(-16.0, self.log_lambda + self.ascent * self.excess))
        if self.budget.quantity == "features":
            return self.price(step), DEFAULT_LAMBDA * warm_up(step, self.total, self.settings.warmup)
        return (self.price(step) * gated.structure.units,)

    def sizes(self, gated: GatedModel) -> tuple[Tensor, ...]:
        """The size in the unit of the budget; beside one of features, what else is open."""
        size = self.budget.size(gated.structure, gated.gates.open_probability())
        # Hidden units have no budget then; they cost what they cost by default.
        return (size, gated.penalty("gates") - size) if self.budget.quantity == "features" else (size,)

    def settle(self, gated: GatedModel, optimizer: torch.optim.Optimizer) -> None:
        """Close and open the few gates that it takes to meet the budget, lowest and highest rank first."""
        gates, shift = gated.gates, gated.gates.settings.shift
        is_open = gates.is_open()
        keep = self.budget.fit(gated.structure, gates.log_alpha, is_open).to(is_open.device)
        with torch.no_grad():
            gates.log_alpha[is_open & ~keep] = shift - 1.0
            # Barely open: the function hardly changes, and the weights behind the gate can learn again.
            gates.log_alpha[keep & ~is_open] = shift + 0.5
        self.moved = int((is_open != keep).sum())
        self.cut_size = float(self.budget.size(gated.structure, keep.double()))

    def report(self, valid_score: float) -> dict[str, Any]:
        """The budget, and the size at the cut in its unit."""
        return {"key": self.budget.key, "asked": self.budget.limit, "reached": self.cut_size,
                "moved_at_cut": self.moved, "lambda": math.exp(self.log_lambda)}  # fmt: skip


class WithinTolerance(Steering):
    """Lambda starts at its default, rises while the validation score is above a line and falls where that is too much.

    The line lies a share ``tolerance`` of the dense network's score below it (above it, where lower is better). The
    score is that of the test-time gates with weights averaged over the steps since the look before: sampled gates and a
    learning rate at its peak shake the weights, and the average is a better guess of where they will settle. Where the
    training keeps an averaged copy, it is that one's.
    Gates that closed hardly come back, so the smallest state above the line is kept, and the cut returns to it where
    the last one is below.
    """

    up, down = math.log(1.3), math.log(2.0)
    memory = ("log_lambda", "mean", "seen", "last", "high", "since_high", "kept", "returned", "looks")

    def __init__(
        self,
        settings: LumosConfig,
        total: int,
        gated_steps: int,
        metric: Metric,
        dense_score: float,
        validate: Callable[[nn.Module], float],
        average: Average | None = None,
    ) -> None:
        super().__init__(settings, total, gated_steps)
        assert settings.tolerance is not None
        self.sign = 1 if metric.higher_is_better else -1
        self.line = dense_score - self.sign * settings.tolerance * abs(dense_score)
        self.validate, self.average = validate, average
        self.interval = max(1, gated_steps // LOOKS)
        self.log_lambda = math.log(DEFAULT_LAMBDA)
        self.mean: list[Tensor] = []
        self.seen = 0
        self.last = self.high = -math.inf
        self.since_high = 0
        self.kept: tuple[Any, ...] | None = None  # its size, its state, the optimiser's, and that of an averaged copy
        self.returned = False
        self.looks: list[tuple[int, float, float, int]] = []

    def price(self, step: int) -> float:
        """Lambda at this step."""
        return math.exp(self.log_lambda) * warm_up(step, self.total, self.settings.warmup)

    def above(self, score: float) -> bool:
        """Whether a score is on the right side of the line."""
        return self.sign * score >= self.sign * self.line

    def after(self, gated: GatedModel, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Average the weights, and look at the score now and then."""
        if self.average is None:
            self._follow([p.detach() for p in gated.model.parameters()])
        if step % self.interval:
            return
        if self.average is None:
            with swapped(list(gated.model.parameters()), self.mean):
                score = self.validate(gated)
        else:
            score = self.validate(self.average.model)
        self.seen = 0
        self._steer(score)
        size = int(gated.gates.is_open().sum())
        self.looks.append((step, score, math.exp(self.log_lambda), size))
        if self.above(score) and (self.kept is None or size <= self.kept[0]):
            state = {n: t.detach().clone() for n, t in gated.state_dict().items()}
            self.kept = (size, state, deepcopy(optimizer.state_dict()), *snapshot(self.average))

    def _follow(self, weights: list[Tensor]) -> None:
        """Take a step's weights into their mean since the last look."""
        if not self.mean:
            self.mean = [w.clone() for w in weights]
        self.seen += 1
        for mean, weight in zip(self.mean, weights, strict=True):
            mean.lerp_(weight, 1.0 / self.seen)

    def _steer(self, score: float) -> None:
        """Move lambda after a look. A network that was never above the line may still be learning: it has time."""
        self.last = self.sign * score
        self.since_high = 0 if self.last > self.high else self.since_high + 1
        self.high = max(self.high, self.last)
        if self.above(score):
            self.log_lambda = min(math.log(10.0), self.log_lambda + self.up)
        elif self.above(self.sign * self.high) or self.since_high >= PATIENCE:
            self.log_lambda = max(math.log(1e-8), self.log_lambda - self.down)

    def settle(self, gated: GatedModel, optimizer: torch.optim.Optimizer) -> None:
        """Return to the smallest state above the line, where the last one is below it."""
        if self.kept is not None and not self.above(self.sign * self.last):
            self.returned = True
            gated.load_state_dict(self.kept[1])
            optimizer.load_state_dict(self.kept[2])
            if self.average is not None:
                self.average.load_state_dict(self.kept[3])

    def report(self, valid_score: float) -> dict[str, Any]:
        """The line, and whether the finished network keeps to it."""
        looks = [dict(zip(("step", "valid", "lambda", "open"), look, strict=True)) for look in self.looks]
        return {"key": "lumos.tolerance", "asked": self.settings.tolerance, "line": self.line,
                "met": self.above(valid_score), "returned_at_cut": self.returned, "looks": looks}  # fmt: skip


def steer(
    settings: LumosConfig,
    total: int,
    gated_steps: int,
    gated: GatedModel,
    metric: Metric,
    dense_score: float | None,
    validate: Callable[[nn.Module], float],
    average: Average | None = None,
) -> Steering:
    """The steering that the configuration asks for. Raises ConfigError for a budget that this model cannot meet."""
    if settings.tolerance is not None:
        if dense_score is None or not math.isfinite(dense_score):
            raise TrainingError("lumos.tolerance needs the dense network's validation score; train it first")
        return WithinTolerance(settings, total, gated_steps, metric, dense_score, validate, average)
    for quantity in ("params", "macs", "features"):
        limit = getattr(settings.target, quantity)
        if limit is not None:
            return ToBudget(settings, total, gated_steps, Budget(quantity, limit, settings.align or 1), gated)
    return Steering(settings, total, gated_steps)
