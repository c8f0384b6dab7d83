"""The score of a model against the number of features that it may see: what the next one would bring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumos.compaction.model import CompactModel
from lumos.errors import ConfigError
from lumos.pruning.batch_statistics import kept_modes

Score = Callable[[Any, Any], float]


@dataclass(frozen=True)
class PathStep:
    """One point of a path: the best set of so many features that was found.

    Attributes:
        features: The features that the model sees, in the order in which they were added.
        score: The mean score over the resamples.
        spread: Its standard deviation over the resamples.
        gain: How much more that is than with one feature less, the mean over the same resamples.
        gain_spread: The standard deviation of that gain.
    """

    features: tuple[str, ...]
    score: float
    spread: float
    gain: float
    gain_spread: float


@dataclass(frozen=True)
class FeaturePath:
    """The sets of features, from none to all that the model reads; printed, it is a table.

    Attributes:
        steps: A step for each number of features, none first.
    """

    steps: tuple[PathStep, ...]

    def best(self, count: int) -> tuple[str, ...]:
        """Return the set of so many features.

        Raises:
            ConfigError: The model does not read so many.
        """
        if not 0 <= count < len(self.steps):
            raise ConfigError(f"count={count}: expected 0 to {len(self.steps) - 1}, which is what the model reads")
        return self.steps[count].features

    def smallest(self, spreads: float = 1.0) -> tuple[str, ...]:
        """Return the smallest set whose score is within so many spreads of the best one's.

        With 1.0 that is the rule of one standard error (Breiman et al., Classification and Regression Trees, 1984).
        """
        best = max(self.steps, key=lambda step: step.score)
        return next(step.features for step in self.steps if step.score >= best.score - spreads * best.spread)

    def __str__(self) -> str:
        width = max(8, *(len(step.features[-1]) for step in self.steps if step.features), 0)
        lines = [f"features  {'added':<{width}}  score              gain"]
        for count, step in enumerate(self.steps):
            added = step.features[-1] if step.features else ""
            gain = f"{step.gain:+.4f} ± {step.gain_spread:.4f}" if count else ""
            lines.append(f"{count:8}  {added:<{width}}  {step.score:.4f} ± {step.spread:.4f}  {gain}".rstrip())
        return "\n".join(lines)


@torch.no_grad()
def feature_path(
    small: CompactModel, x: Tensor, y: Any, score: Score, *, resamples: int = 10, seed: int = 0
) -> FeaturePath:
    """Find what each feature brings: leave out, one after the other, the one that is missed least.

    A feature is left out by giving its values to other rows, all that are left out together, so that the rows keep what
    these have in common with each other. The model is not trained again: a network that was trained without the feature
    can do better, and where two features say the same, leaving out one may cost more than it has to. Take rows that no
    training saw. Features that the training closed are not tried. It takes n (n + 1) / 2 times ``resamples`` calls of
    the model for n features.

    Args:
        small: The compact model, of one input (rows, features).
        x: The rows, with all features or with the kept ones alone.
        y: What belongs to the rows, indexed by row: a tensor or an array.
        score: Called with ``(y, prediction)``, higher is better: scikit-learn's order, so that its metrics fit.
        resamples: How often the rows are drawn anew, with replacement; the spread is that over these draws.
        seed: Of the draws.

    Returns:
        The path, with the score and its spread for each number of features.

    Raises:
        ConfigError: The model has more than one input, x has other columns than features, or resamples is below 2.

    Example:
        >>> import lumos
        >>> from sklearn.metrics import r2_score
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(500, 3)
        >>> linear = torch.nn.Linear(3, 1)
        >>> linear.weight.data = torch.tensor([[0.1, 2.0, 1.0]])
        >>> small = lumos.compact(lumos.gate(linear, x).eval())
        >>> path = lumos.feature_path(small, x, small(x).detach(), r2_score)
        >>> path.best(2)
        ('x1', 'x2')
    """
    names = small.features
    columns = x if x.shape[-1] == len(names) else small.reduced(x)[0]
    if x.ndim != 2 or columns.shape[1] != len(names):
        raise ConfigError(
            f"feature_path: x has the shape {tuple(x.shape)}, and the model reads {len(names)} features; "
            "expected (rows, features), a column for each"
        )
    if resamples < 2 or len(x) != len(y):
        raise ConfigError(
            f"feature_path: resamples={resamples} of {len(x)} rows of x and {len(y)} of y; "
            "expected at least 2, and as many rows of both"
        )
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randint(len(x), (2, len(x)), generator=generator) for _ in range(resamples)]

    def scores(seen: Sequence[int]) -> Tensor:
        hidden = [k for k in range(len(names)) if k not in seen]
        found = []
        for rows, others in draws:
            drawn = columns[rows]
            drawn[:, hidden] = columns[others][:, hidden]
            found.append(float(score(y[rows], plain(drawn))))
        return torch.tensor(found, dtype=torch.float64)

    plain = CompactModel(small.model, small._inputs, names, select=False)
    with kept_modes(small):
        plain.eval()
        seen = list(range(len(names)))
        left, found = [], [scores(seen)]
        while seen:
            without = {k: scores([other for other in seen if other != k]) for k in seen}
            least = max(without, key=lambda k: float(without[k].mean()))
            seen.remove(least)
            left.append(names[least])
            found.append(without[least])
    return _path(left[::-1], found[::-1])


def _path(order: list[str], found: list[Tensor]) -> FeaturePath:
    """The steps of the features in this order, from the scores of the resamples with 0, 1, ... of them."""
    steps = []
    for count, now in enumerate(found):
        gain = now - found[count - 1] if count else torch.zeros_like(now)
        steps.append(
            PathStep(tuple(order[:count]), float(now.mean()), float(now.std()), float(gain.mean()), float(gain.std()))
        )
    return FeaturePath(tuple(steps))
