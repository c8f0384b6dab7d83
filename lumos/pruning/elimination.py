"""Features that a network can do without once it is trained on for a little while, each of them tried out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from lumos.compaction.input_relations import without_inputs
from lumos.compaction.model import CompactModel
from lumos.errors import ConfigError, StructureError
from lumos.pruning.fit import Batches, Score, polish
from lumos.pruning.settings import Tolerance

BATCHES = 16
"""Batches of the training on which the features are compared with each other."""
ROWS = 4096
"""Rows of these."""


@dataclass(frozen=True)
class Trial:
    """One feature that was left out for a trial.

    Attributes:
        feature: Its name.
        score: The validation score without it, and without those that had gone before, trained on.
        bound: The score that was still good enough.
        gone: Whether it was, so that the feature stays out.
    """

    feature: str
    score: float
    bound: float
    gone: bool


@dataclass(frozen=True)
class Eliminated:
    """A compact model without the features that it does not miss; printed, a table of the trials.

    Attributes:
        model: The model, trained on.
        score: Its validation score.
        baseline: That of the model with all its features, trained on as long.
        trials: Each feature that was tried, in this order; one that the model cannot do without is not.
    """

    model: CompactModel
    score: float
    baseline: float
    trials: tuple[Trial, ...]

    @property
    def gone(self) -> list[str]:
        """The features that went, in this order."""
        return [trial.feature for trial in self.trials if trial.gone]

    def __str__(self) -> str:
        width = max(8, *(len(trial.feature) for trial in self.trials), 0)
        lines = [f"{'without':<{width}}  score      at most or at least", f"{'':<{width}}  {self.baseline:<9.4g}"]
        lines += [
            f"{trial.feature:<{width}}  {trial.score:<9.4g}  {trial.bound:<9.4g}  {'goes' if trial.gone else 'stays'}"
            for trial in self.trials
        ]
        return "\n".join(line.rstrip() for line in lines)


def eliminate(
    model: CompactModel,
    train: Batches | tuple[Tensor, ...],
    valid: Batches | tuple[Tensor, ...],
    loss: Callable[..., Tensor],
    *,
    tolerance: float = 0.01,
    keep: Collection[str] = (),
    score: Score | None = None,
    higher_is_better: bool = False,
    epochs: int = 5,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    clip_norm: float | None = None,
    seed: int = 0,
) -> Eliminated:
    """Take out features that the network does not miss: what a radius says, its square says too.

    Gates see what a feature is worth while the others are there, and of two that say the same both can stay. Here each
    feature is left out for a trial, the least missed first: linear layers that read it get, in its place, what the
    other features say of it linearly; then the model trains on for some epochs. It stays out where the validation score
    is within the tolerance of the best one that was seen with more features, the model with all of them trained on as
    long included. That is backward elimination (Kohavi and John, Wrappers for Feature Subset Selection, 1997) from one
    trained network on.

    It takes a short training for each feature. The validation samples choose: score the result on others.

    Args:
        model: The compact model of a table: one input (rows, features).
        train: Training batches as :func:`lumos.fit` takes them, ``(x, outputs, ...)``, with all columns.
        valid: Validation batches, likewise.
        loss: Takes the model's output and the rest of the batch, and returns a scalar.
        tolerance: How much worse the score may become in all, as a share of the best one: 0.01 for 1%.
        keep: Names of features that stay.
        score: Scores a model on validation batches; by default the mean loss.
        higher_is_better: Whether a higher score is better.
        epochs: Passes over the training batches in each trial.
        batch_size: Samples of a batch, where tensors are given.
        learning_rate: The peak rate of AdamW in each trial; it falls to zero along a cosine.
        clip_norm: The norm to which the gradient is clipped; None for none.
        seed: Of the order of the samples and of dropout.

    Returns:
        The model, and what each trial found.

    Raises:
        ConfigError: The model takes more than one input, or no table; a name is none of its features; a number is out
            of its range.
        TrainingError: A loss or score is not finite.

    Example:
        >>> import torch, lumos
        >>> _ = torch.manual_seed(0)
        >>> x = torch.rand(400, 3)
        >>> x[:, 2] = x[:, 0] ** 2
        >>> y = x[:, :1] - x[:, 1:2]
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
        >>> train, valid, loss = (x[:300], y[:300]), (x[300:], y[300:]), torch.nn.functional.mse_loss
        >>> weak = lumos.Lambda(1e-6)  # closes nothing
        >>> small = lumos.fit(model, train, valid, loss, weak, epochs=20, batch_size=30, learning_rate=1e-2).model
        >>> found = lumos.eliminate(small, train, valid, loss, tolerance=0.5, batch_size=30)
        >>> found.gone
        ['x2']
    """
    rows = _rows(model, train)
    unknown = [name for name in keep if name not in model.features]
    if unknown:
        raise ConfigError(f"keep: {unknown[0]!r} is no feature that the model reads: {', '.join(model.features)}")
    higher = higher_is_better and score is not None
    sign = 1 if higher else -1
    settings: dict[str, Any] = {
        "score": score, "higher_is_better": higher_is_better, "epochs": epochs, "batch_size": batch_size,
        "learning_rate": learning_rate, "clip_norm": clip_norm, "seed": seed,
    }  # fmt: skip

    def trained(candidate: nn.Module) -> tuple[Any, float]:
        return polish(candidate, train, valid, loss, **settings)

    now, best = trained(model)
    baseline = last = best
    trials = []
    for name in _order(now, rows, [name for name in model.features if name not in keep]):
        less = _without(now, rows, name)
        if less is None:
            continue
        candidate, found = trained(less)
        bound = Tolerance(tolerance, baseline=best, higher_is_better=higher).threshold
        gone = sign * found >= sign * bound
        trials.append(Trial(name, found, bound, gone))
        if gone:
            now, last, best = candidate, found, max(best, found, key=lambda value: sign * value)
    return Eliminated(now, last, baseline, tuple(trials))


def _rows(model: CompactModel, train: Any) -> Tensor:
    """Some rows of the training, where the model is."""
    if isinstance(train, tuple):
        found: Any = train[0]
    else:
        found = [batch[0] if isinstance(batch, tuple | list) else batch for batch in islice(train, BATCHES)]
        found = torch.cat(found) if all(isinstance(x, Tensor) and x.ndim == 2 for x in found) else None
    if not isinstance(found, Tensor) or found.ndim != 2 or len(model._inputs) > 1 or not model.select:
        raise ConfigError("eliminate: expected a compact model of one input (rows, features), and batches that begin "
                          "with it")  # fmt: skip
    return found[:: max(1, len(found) // ROWS)].to(next(model.parameters()).device)


@torch.no_grad()
def _order(model: CompactModel, rows: Tensor, names: list[str]) -> list[str]:
    """The features by how far the outputs are off without them, the nearest first."""
    whole = model(rows)
    without = {name: _without(model, rows, name) for name in names}
    off = {name: float((less.eval()(rows) - whole).square().mean()) for name, less in without.items() if less}
    return sorted(off, key=lambda name: off[name])


def _without(model: CompactModel, rows: Tensor, name: str) -> CompactModel | None:
    """The model without a feature; None where it cannot do without: it is held, or the last one of its kind."""
    try:
        less = without_inputs(model, rows, [name])
    except StructureError:
        return None
    return None if name in less.features else less
