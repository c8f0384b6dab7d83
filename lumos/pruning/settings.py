"""What a gated training is asked for, as plain values: a lambda, a target or a tolerance. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from scipy.optimize import isotonic_regression

from lumos.errors import ConfigError

DEFAULT_LAMBDA = 1e-3
"""What lambda is where neither it nor a target nor a tolerance is given."""

Measured = Literal["latency", "memory"]
"""What of a call is measured: its time; or the bytes of weights, inputs and activations at its peak."""
Quantity = Literal["params", "macs", "latency", "memory", "features"]
"""What a target can limit."""
Cost = Literal["gates", "params", "macs", "latency", "memory"]
"""What lambda can multiply."""


@dataclass(frozen=True)
class Call:
    """Say how the compact model will be called, where its time or its memory is asked for.

    Args:
        batch: Samples of a call; those of the example by default.
        device: Where it is called, ``cpu`` or ``cuda``; where it trains by default.
        threads: Threads of a call on a CPU; torch's by default.
        precision: ``float32``, or ``bfloat16`` or ``float16`` for calls under ``torch.autocast``.

    Raises:
        ConfigError: A value is out of its range.

    Example:
        >>> from lumos.pruning.settings import Call, Target
        >>> Target(latency=0.33, call=Call(batch=1, threads=1)).call.batch
        1
    """

    batch: int | None = None
    device: str | None = None
    threads: int | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "threads"):
            value = getattr(self, name)
            good = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)
            _expect(good, f"lumos.call.{name}", value, "a whole number >= 1")
        good = self.precision in (None, "float32", "bfloat16", "float16")
        _expect(good, "lumos.call.precision", self.precision, "float32, bfloat16 or float16")


@dataclass(frozen=True)
class Lambda:
    """Ask for a given coefficient of the penalty: ``loss + lambda * penalty`` is minimised (equation 6).

    Args:
        value: The coefficient, >= 0, in units of the loss per gate.
        penalty: What is penalised: the expected number of open ``gates``, or the expected share of the dense network's
            ``params``, ``macs``, ``latency`` or ``memory`` times the number of gates.
        call: How the compact model will be called, for ``latency`` and ``memory``.

    Raises:
        ConfigError: The value is negative or not a number.

    Example:
        >>> from lumos.pruning.settings import Lambda
        >>> Lambda(0.01).remedy
        'lower it: lumos.lambda=0.001, say'
    """

    value: float = DEFAULT_LAMBDA
    penalty: Cost = "gates"
    call: Call = field(default_factory=Call)

    key: ClassVar[str] = "lumos.lambda"

    def __post_init__(self) -> None:
        _expect(0 <= self.value < math.inf, self.key, self.value, "a number >= 0")
        _expect_cost(self.penalty)

    @property
    def measured(self) -> Measured | None:
        """What of a call has to be measured for it."""
        return measured(self.penalty)

    @property
    def remedy(self) -> str:
        """What to change where too little of the network is left."""
        return f"lower it: {self.key}={self.value / 10:g}, say"


@dataclass(frozen=True)
class Target:
    """Ask for a size of the compact model; lambda is found on the way. Exactly one quantity is given.

    Args:
        params: Share of the dense network's parameters, between 0 and 1.
        macs: Share of the dense network's multiply-accumulates, between 0 and 1.
        latency: Share of the time of a dense call, between 0 and 1, as measured on this machine.
        memory: Share of what a dense call holds at its peak, between 0 and 1: weights, inputs and activations.
        features: Number of input features, >= 1.
        feature_price: What each input feature costs beside a budget of another quantity, which hardly prices one, in
            units of the loss; 0 for nothing.
        call: How the compact model will be called, for ``latency`` and ``memory``.

    Raises:
        ConfigError: None or several of them are given, or a value is out of its range.

    Example:
        >>> from lumos.pruning.settings import Target
        >>> target = Target(params=0.1)
        >>> target.quantity, target.value, target.key
        ('params', 0.1, 'lumos.target.params')
    """

    params: float | None = None
    macs: float | None = None
    features: int | None = None
    feature_price: float = DEFAULT_LAMBDA
    latency: float | None = None
    memory: float | None = None
    call: Call = field(default_factory=Call)

    def __post_init__(self) -> None:
        given = [name for name in get_args(Quantity) if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ConfigError(f"a target has {found}: expected one of {', '.join(get_args(Quantity))}")
        _expect(0 <= self.feature_price < math.inf, "feature_price", self.feature_price, "a number >= 0")
        if self.quantity == "features":
            _expect(self.value >= 1 and float(self.value).is_integer(), self.key, self.value, "a whole number >= 1")
        else:
            _expect(0 < self.value < 1, self.key, self.value, "a share between 0 and 1")

    @property
    def measured(self) -> Measured | None:
        """What of a call has to be measured for it."""
        return measured(self.quantity)

    @property
    def quantity(self) -> Quantity:
        """What is limited."""
        return next(name for name in get_args(Quantity) if getattr(self, name) is not None)

    @property
    def value(self) -> float:
        """The limit: a share of the dense network, or a number of features."""
        return getattr(self, self.quantity)

    @property
    def key(self) -> str:
        """Its name in messages, in records and in the suite's configuration."""
        return f"lumos.target.{self.quantity}"

    @property
    def remedy(self) -> str:
        """What to change where too little of the network is left."""
        return "ask for a larger one"


@dataclass(frozen=True)
class Tolerance:
    """Ask for the smallest model whose validation score is worse than the dense one's by no more than a share.

    Args:
        share: How much worse the score may be, as a share of the dense score, in [0, 1).
        score: Scores a model on validation data.
        baseline: The score of the trained dense network.
        higher_is_better: Whether a higher score is better.
        penalty: What is penalised, see :class:`Lambda`; the smallest model is the one that has least of it.
        call: How the compact model will be called, for ``latency`` and ``memory``.
        curve: What the dense network scored on its way: pairs of a share of its training, in (0, 1], and a score.
            While gates train, the score is held against that of the same share, which a network that is not trained
            out can reach. What is held against it are weights averaged over the steps since the check before; scores
            of dense weights averaged alike make a fair line, those of single steps a lower one. Without a curve it is
            held against the baseline; where that is not reached, against the score at which it stops to grow.

    Raises:
        ConfigError: The share is out of its range, or the curve is not such pairs.

    Example:
        >>> from lumos.pruning.settings import Tolerance
        >>> Tolerance(0.1, baseline=2.0, higher_is_better=False).threshold
        2.2
    """

    share: float
    score: Callable[[Any], float] | None = None
    baseline: float | None = None
    higher_is_better: bool = True
    penalty: Cost = "gates"
    call: Call = field(default_factory=Call)
    curve: Sequence[tuple[float, float]] = ()

    key: ClassVar[str] = "lumos.tolerance"

    def __post_init__(self) -> None:
        _expect(0 <= self.share < 1, self.key, self.share, "a share in [0, 1)")
        _expect_cost(self.penalty)
        for point in self.curve:
            good = isinstance(point, Sequence) and len(point) == 2 and 0 < point[0] <= 1
            _expect(good, "curve", point, "pairs of a share of the training in (0, 1] and a score")

    @property
    def measured(self) -> Measured | None:
        """What of a call has to be measured for it."""
        return measured(self.penalty)

    @property
    def value(self) -> float:
        """The share."""
        return self.share

    @property
    def threshold(self) -> float:
        """The worst score that is allowed."""
        assert self.baseline is not None
        return self.below(self.baseline)

    def below(self, score: float) -> float:
        """Return the score that is worse by the share."""
        return score - self.sign * self.share * abs(score)

    @property
    def course(self) -> list[tuple[float, float]]:
        """The points of the curve that have a score, in order."""
        return sorted((at, score) for at, score in self.curve if math.isfinite(score))

    def line(self, share: float) -> float | None:
        """Return the worst score that is allowed at a share of the training: None before the curve begins, or without.

        It is worse than the curve by the share and by the curve's own noise, since scores do not tell a difference that
        is smaller. The curve counts without its noise, as the nearest one that nowhere gets worse (isotonic
        regression); the noise is the scatter of neighbouring scores around that. The line is never stricter than
        :attr:`threshold`.
        """
        known = self.course
        if not known or share < known[0][0]:
            return None
        scores = np.array([score for _, score in known])
        fitted = isotonic_regression(scores, increasing=self.higher_is_better).x
        steps = np.diff(scores - fitted)
        noise = math.sqrt(float(np.square(steps).mean()) / 2) if len(steps) else 0.0  # von Neumann's: without the trend
        smooth = [(at, float(score)) for (at, _), score in zip(known, fitted, strict=True)]
        before = max(point for point in smooth if point[0] <= share)
        after = min((point for point in smooth if point[0] > share), default=before)
        part = 0.0 if after == before else (share - before[0]) / (after[0] - before[0])
        found = self.below(before[1] + part * (after[1] - before[1])) - self.sign * noise
        return min(found, self.threshold) if self.higher_is_better else max(found, self.threshold)

    @property
    def sign(self) -> int:
        """1 where a higher score is better, else -1."""
        return 1 if self.higher_is_better else -1

    @property
    def remedy(self) -> str:
        """What to change where too little of the network is left."""
        return "ask for a smaller tolerance"


Goal = Lambda | Target | Tolerance
"""What a gated training is asked for."""


@dataclass(frozen=True)
class Schedule:
    """Say when a gated training does what, in steps of the optimizer.

    Args:
        steps: Steps of the whole training.
        gated_steps: Steps before the cut, in which gates and weights train together.
        warmup: Share of all steps over which the penalty's coefficient grows from zero.
    """

    steps: int
    gated_steps: int
    warmup: float = 0.1

    def warm_up(self, step: int) -> float:
        """The factor by which the penalty's coefficient has grown."""
        return warm_up(step, self.steps, self.warmup)


CUT_AT = 0.5
"""Share of the steps after which the closed units go, where nothing else is asked for."""


def cut_step(share: float, steps: int) -> int:
    """Return the step after which the closed units go: this share of them, with one or more on either side."""
    return min(steps - 1, max(1, round(share * steps)))


def warm_up(step: int, total: int, share: float) -> float:
    """Grow linearly from 0 to 1 over the first ``share`` of ``total`` steps."""
    return min(1.0, step / (share * total)) if share > 0 else 1.0


def measured(quantity: Cost | Quantity) -> Measured | None:
    """Return the quantity where it has to be measured; None where the trace counts it."""
    return quantity if quantity in ("latency", "memory") else None


def _expect_cost(penalty: str) -> None:
    _expect(penalty in get_args(Cost), "lumos.penalty", penalty, f"one of {', '.join(get_args(Cost))}")


def _expect(condition: bool, key: str, value: Any, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{key}={value}: expected {expected}")
