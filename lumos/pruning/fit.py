"""A whole training for those who have no loop: gated, cut, validated, and gone on with after a stop."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lumos.api import gate
from lumos.compaction.model import CompactModel
from lumos.errors import ConfigError, TrainingError
from lumos.files import atomic
from lumos.gating.gated_model import GatedModel
from lumos.gating.settings import GateSettings
from lumos.pruning.averaging import EpochMean, swapped
from lumos.pruning.batch_statistics import STATISTICS_BATCHES, has_statistics, kept_modes, recalibrate
from lumos.pruning.calibration import Calibration
from lumos.pruning.controllers import check_interval
from lumos.pruning.pruner import Pruner
from lumos.pruning.report import gate_columns
from lumos.pruning.settings import CUT_AT, Goal, Lambda, Tolerance, cut_step
from lumos.tracing.derivatives import asks_for_gradients
from lumos.tracing.feature_names import FeatureNames
from lumos.tracing.options import StructureOptions

log = logging.getLogger("lumos")

EXAMPLES = 16
"""Samples of the first batch with which the model is traced."""

Batches = Iterable[Any]
Score = Callable[[nn.Module, Batches], float]


@dataclass(frozen=True)
class FitResult:
    """What :func:`fit` found.

    Attributes:
        model: The compact model in eval mode, at its best validation score after the cut.
        score: That score.
        dense: The trained dense model; None where no dense one was trained.
        dense_score: Its validation score, or the baseline that the tolerance came with.
        params: The numbers of parameters of the dense and of the compact model.
        features: A row for each input feature: whether it is kept, when it closed, its open probability over time.
        gates: What the gates decided: counts, kept features and the units left in each group.
        curve: A row for each epoch: phase, step, mean loss, validation score.
        seconds: Time of the training.
    """

    model: CompactModel
    score: float
    dense: nn.Module | None
    dense_score: float | None
    params: tuple[int, int]
    features: list[dict[str, Any]]
    gates: dict[str, Any]
    curve: list[dict[str, Any]]
    seconds: float

    @property
    def kept(self) -> list[str]:
        """Names of the input features whose gates are open: all that the output depends on."""
        return self.gates["features_kept"]

    def __str__(self) -> str:
        before, after = self.params
        lines = [
            f"parameters  {before} -> {after} ({after / max(1, before):.1%})",
            f"validation  {self.score:.4g}" + ("" if self.dense_score is None else f" (dense {self.dense_score:.4g})"),
            f"features    {len(self.kept)} of {self.gates['features_total']}: {', '.join(self.kept) or 'none'}",
        ]
        return "\n".join(lines)


def fit(
    model: nn.Module,
    train: Batches | tuple[Tensor, ...],
    valid: Batches | tuple[Tensor, ...],
    loss: Callable[..., Tensor],
    target: Goal | None = None,
    *,
    objective: Callable[[nn.Module, Any], Tensor] | None = None,
    score: Score | None = None,
    higher_is_better: bool = False,
    epochs: int = 50,
    patience: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    scheduler: Callable[[torch.optim.Optimizer, int], Any] | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
    features: FeatureNames | None = None,
    settings: GateSettings | None = None,
    options: StructureOptions | None = None,
    keep: Sequence[str] = (),
    exclude: Sequence[str] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    prices: Mapping[str, float] | None = None,
    progress: bool | Callable[[dict[str, Any]], None] = False,
    folder: str | Path | None = None,
    **pruner: Any,
) -> FitResult:
    """Train a model with gates, cut the closed units out, train on, and return the best compact model.

    The model stays as it is; a copy is trained. A tolerance without a baseline trains a dense copy first, for the score
    that the compact one is held to. torch's global random state is not touched.

    Args:
        model: The model, on any device.
        train: Training batches, ``(inputs, outputs, ...)``: a DataLoader, or tensors with the samples along their
            first dimension, which are shuffled anew in each epoch.
        valid: Validation batches, likewise.
        loss: Takes the model's output and the rest of the batch, and returns a scalar: ``mse_loss``, say.
        target: What is asked for: :class:`lumos.Lambda`, :class:`lumos.Target` or :class:`lumos.Tolerance`.
        objective: Computes the loss of a batch from the model and the batch, where it is not
            ``loss(model(batch[0]), *batch[1:])``.
        score: Scores a model on validation batches; by default the mean loss.
        higher_is_better: Whether a higher score is better.
        epochs: Passes over the training batches, the most of them where ``patience`` is given.
        patience: Epochs without a better validation score after which the training ends; counted after the cut.
        batch_size: Samples of a batch, where tensors are given.
        learning_rate: The peak rate of AdamW; it falls to zero along a cosine.
        weight_decay: Of AdamW.
        clip_norm: The norm to which the gradient of the weights is clipped; None for none.
        optimizer: Makes another optimizer of the weights.
        scheduler: Makes another scheduler of an optimizer and a number of steps; it takes a step after each of theirs.
        device: Where to train; where the model is, by default.
        seed: Of the order of the samples, of dropout and of the gates' noise.
        features: The names of the input features, as :func:`lumos.gate` takes them.
        settings: The shape of the gates' distribution.
        options: What more of the model is made removable.
        keep: Features and modules that stay, as :func:`lumos.gate` takes them.
        exclude: Modules that stay as they are.
        groups: Features that stay or go together.
        prices: What an open gate costs, where the others cost 1.
        progress: True to write a line for each epoch to the log ``lumos``, or what is called with the row of each.
        folder: Where a checkpoint is left after each epoch; the same call goes on from there.
        **pruner: Further arguments of :class:`lumos.Pruner`: ``cut_at``, ``rate``, ``align``...

    Returns:
        The compact model, its score, and how it came to it.

    Raises:
        ConfigError: This model cannot meet the target, or an argument is out of its range.
        StructureError: Nothing in the model can be removed.
        TrainingError: The loss is not finite, or the network collapsed.

    Example:
        >>> import torch, lumos
        >>> _ = torch.manual_seed(0)
        >>> x = torch.rand(600, 8)
        >>> y = x[:, :1] - x[:, 1:2]
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
        >>> loss, target = torch.nn.functional.mse_loss, lumos.Target(features=2)
        >>> found = lumos.fit(model, (x[:500], y[:500]), (x[500:], y[500:]), loss, target,
        ...                   epochs=40, batch_size=64, learning_rate=1e-2)
        >>> found.kept
        ['x0', 'x1']
    """
    started = time.perf_counter()
    if epochs < 1:
        raise ConfigError(f"epochs={epochs}: expected at least 1")
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: expected at least 1")
    recipe = _recipe(
        train, valid, objective or _objective(loss), score, higher_is_better, batch_size, learning_rate, seed,
        device=torch.device(device) if device is not None else _device(model), epochs=epochs, patience=patience,
        clip_norm=clip_norm, weight_decay=weight_decay, optimizer=optimizer, scheduler=scheduler or _cosine,
        progress=progress, folder=None if folder is None else Path(folder),
    )  # fmt: skip
    goal, dense, curve = target or Lambda(), None, []
    with _own_random_state(seed, recipe.device):
        copied = copy.deepcopy(model).to(recipe.device)
        recipe = replace(recipe, gradients=_expect_loss(copied, recipe))
        if isinstance(goal, Tolerance):
            if goal.baseline is None:
                dense = _Training(copy.deepcopy(model), recipe, "dense")
                dense.keep_mean(cut_step((pruner or {}).get("cut_at", CUT_AT), recipe.steps))
                dense.run()
                course = [(row["epoch"] / epochs, row.get("averaged", row["valid"])) for row in dense.curve]
                curve, goal = dense.curve, replace(goal, baseline=dense.best, curve=course)
            goal = replace(goal, score=goal.score or recipe.scored, higher_is_better=recipe.sign > 0)
        gated = gate(copied, _example(recipe), features=features, settings=settings, options=options, keep=keep,
                     exclude=exclude, groups=groups, prices=prices)  # fmt: skip
        training = _Training(gated, recipe, "gated", goal, pruner)
        training.run()
    found, pruned = training.pruner, training.small()
    assert found is not None
    assert found.decided is not None
    return FitResult(
        model=pruned, score=training.best, dense=None if dense is None else dense.model.eval(),
        dense_score=goal.baseline if isinstance(goal, Tolerance) else None,
        params=(_parameters(model), _parameters(pruned)), features=found.feature_rows(), gates=found.decided,
        curve=curve + training.curve, seconds=time.perf_counter() - started,
    )  # fmt: skip


def polish(
    model: nn.Module,
    train: Batches | tuple[Tensor, ...],
    valid: Batches | tuple[Tensor, ...],
    loss: Callable[..., Tensor],
    *,
    score: Score | None = None,
    higher_is_better: bool = False,
    epochs: int = 5,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    clip_norm: float | None = None,
    seed: int = 0,
) -> tuple[nn.Module, float]:
    """Train a copy of a model on, without gates, where the model is.

    Args and errors are those of :func:`fit`.

    Returns:
        The copy at the end of its best epoch, and its validation score there.
    """
    device = _device(model)
    recipe = _recipe(
        train, valid, _objective(loss), score, higher_is_better, batch_size, learning_rate, seed, device=device,
        epochs=epochs, clip_norm=clip_norm,
    )  # fmt: skip
    with _own_random_state(seed, device):
        training = _Training(copy.deepcopy(model), recipe, "polish")
        training.run()
    return training.model.eval(), training.best


# ---- one training ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Recipe:
    """How a network is trained, dense or gated."""

    train: Batches
    valid: Batches
    objective: Callable[[nn.Module, Any], Tensor]
    score: Score
    sign: int
    epochs: int
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    device: torch.device
    seed: int
    settings: dict[str, Any]
    scheduler: Callable[[torch.optim.Optimizer, int], Any] = field(default_factory=lambda: _cosine)
    patience: int | None = None
    clip_norm: float | None = None
    progress: bool | Callable[[dict[str, Any]], None] = False
    folder: Path | None = None
    gradients: bool = False
    """Whether losses and scores need gradients: where the model's own forward differentiates (forces)."""

    @property
    def steps(self) -> int:
        return self.epochs * len(self.train)  # pyright: ignore[reportArgumentType]

    def scored(self, model: nn.Module, *, averaged: bool = False) -> float:
        """Score a model on the validation batches, in eval mode, with batch statistics that are its own."""
        training = model.training
        if has_statistics(model) and (averaged or isinstance(model, GatedModel)):
            recent = [b for b, _ in zip(_moved(self.train, self.device), range(STATISTICS_BATCHES), strict=False)]
            recalibrate(model, [lambda b=b: self.objective(model, b) for b in recent])
        model.eval()
        with torch.set_grad_enabled(self.gradients):
            found = float(self.score(model, _moved(self.valid, self.device)))
        model.train(training)
        return found


def _recipe(
    train: Any, valid: Any, objective: Callable[[nn.Module, Any], Tensor], score: Score | None, higher_is_better: bool,
    batch_size: int, learning_rate: float, seed: int, *, weight_decay: float = 0.0,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None, **others: Any,
) -> _Recipe:  # fmt: skip
    return _Recipe(
        train=_batches(train, "train", batch_size, seed), valid=_batches(valid, "valid", batch_size, None),
        objective=objective, score=score or (lambda net, batches: _mean_loss(objective, net, batches)),
        sign=1 if higher_is_better and score else -1, seed=seed,
        optimizer=optimizer or (lambda weights: torch.optim.AdamW(weights, learning_rate, weight_decay=weight_decay)),
        settings={"learning_rate": learning_rate, "weight_decay": weight_decay, "batch_size": batch_size}, **others,
    )  # fmt: skip


def _objective(loss: Callable[..., Tensor]) -> Callable[[nn.Module, Any], Tensor]:
    return lambda net, batch: loss(net(batch[0]), *batch[1:])


class _Training:
    """One training; all that changes on the way is in its ``state_dict``."""

    def __init__(
        self, model: nn.Module, recipe: _Recipe, label: str, goal: Goal | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.recipe, self.label = model.to(recipe.device), recipe, label
        inner = model.model if isinstance(model, GatedModel) else model
        self.optimizer = recipe.optimizer([p for p in inner.parameters() if p.requires_grad])
        self.scheduler = recipe.scheduler(self.optimizer, recipe.steps)
        self.goal = goal
        self.saved = self._read()
        self.pruner: Pruner | None = None
        if goal is not None:
            options = dict(options or {})
            if self.saved and goal.measured and isinstance(model, GatedModel):  # it is not measured again
                options["calibration"] = Calibration.in_state(model.structure, self.saved["pruner"])
            self.pruner = Pruner(
                model, self.optimizer, recipe.steps, goal, cut="training", schedulers=[self.scheduler],
                seed=recipe.seed, **options,
            )  # fmt: skip
        self.epoch, self.best, self.best_epoch = 0, math.nan, 0
        self.best_state: dict[str, Tensor] | None = None
        self.curve: list[dict[str, Any]] = []
        self.mean: EpochMean | None = None

    def keep_mean(self, gated_steps: int) -> None:
        """Keep the mean of the weights at the ends of epochs, for as many steps as a gated training has gates."""
        self.mean = EpochMean(check_interval(gated_steps), gated_steps)

    def run(self) -> None:
        """Train to the end, from the checkpoint on where there is one, and return to the best state."""
        self._resume()
        while self.epoch < self.recipe.epochs and not self._is_over():
            self._epoch()
            averaged = self._averaged_score()
            self._note(self.recipe.scored(self.model), averaged)
            self._checkpoint()
        if self.best_state is not None:
            self.model.load_state_dict(self.best_state)

    def _averaged_score(self) -> float | None:
        """The score of the mean weights, where they are kept; the network stays as it is."""
        if self.mean is None or not self.mean.steps:
            return None
        buffers = list(self.model.buffers())
        with self.mean.taken_by(self.model), swapped(buffers, [b.clone() for b in buffers]):
            return self.recipe.scored(self.model, averaged=True)

    def small(self) -> CompactModel:
        """Return the compact model, on the device of the training."""
        assert self.pruner is not None
        return self.pruner.finish()

    def _epoch(self) -> None:
        recipe = self.recipe
        _set_epoch(recipe.train, self.epoch)
        self.model.train()
        losses, batches = [], len(recipe.train)  # pyright: ignore[reportArgumentType]
        for number, batch in enumerate(_moved(recipe.train, recipe.device), start=1):
            loss = recipe.objective(self.model, batch)
            if not bool(torch.isfinite(loss)):
                raise TrainingError(f"{self.label}: the loss is {float(loss)} in epoch {self.epoch + 1}; lower the "
                                    "learning rate, or look for values that are not finite in the data")  # fmt: skip
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.clip_norm:
                weights = [p for group in self.optimizer.param_groups for p in group["params"]]
                nn.utils.clip_grad_norm_(weights, recipe.clip_norm)
            self.optimizer.step()
            self.scheduler.step()
            if self.mean:
                self.mean.follow_epoch(self.model, number, batches, self.epoch * batches + number)
            losses.append(loss.detach())
            if self.pruner:
                self.pruner.observe(losses[-1])
        self.mean_loss = float(torch.stack(losses).mean())
        self.epoch += 1

    @property
    def _counts(self) -> bool:
        """Whether scores count: a gated network's only once it is cut."""
        return self.pruner is None or self.pruner.is_cut

    def _note(self, score: float, averaged: float | None) -> None:
        if not math.isfinite(score):
            raise TrainingError(f"{self.label}: the validation score is {score} in epoch {self.epoch}")
        sign = self.recipe.sign
        if self._counts and (self.best_state is None or sign * score > sign * self.best):
            self.best, self.best_epoch = score, self.epoch
            self.best_state = {n: t.detach().clone() for n, t in self.model.state_dict().items()}
        phase = self.label if self.pruner is None or not self.pruner.is_cut else "compact"
        open_now = gate_columns(self.model) if self.pruner and not self.pruner.is_cut else {}
        row = {"phase": phase, "epoch": self.epoch, "loss": self.mean_loss, "valid": score, **open_now}
        if averaged is not None:
            row["averaged"] = averaged
        self.curve.append(row)
        if callable(self.recipe.progress):
            self.recipe.progress(row)
        elif self.recipe.progress:
            log.info(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))

    def _is_over(self) -> bool:
        patience = self.recipe.patience
        return patience is not None and self.best_state is not None and self.epoch - self.best_epoch >= patience

    # ---- to go on after a stop --------------------------------------------------------------------------------------

    @property
    def _identity(self) -> dict[str, Any]:
        recipe, goal = self.recipe, self.goal
        return {
            "epochs": recipe.epochs, "steps": recipe.steps, "seed": recipe.seed, **recipe.settings,
            "target": None if goal is None else f"{goal.key}={goal.value:g}",
            "optimizer": type(self.optimizer).__name__,
        }  # fmt: skip

    @property
    def _file(self) -> Path | None:
        return None if self.recipe.folder is None else self.recipe.folder / f"{self.label}.ckpt"

    def _checkpoint(self) -> None:
        if self._file is None:
            return
        state = {
            "identity": self._identity, "epoch": self.epoch, "best": self.best, "best_epoch": self.best_epoch,
            "best_state": self.best_state, "curve": self.curve, "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict(),
            "pruner": None if self.pruner is None else self.pruner.state_dict(), "random": _random_state(),
        }  # fmt: skip
        with atomic(self._file) as temporary:
            torch.save(state, temporary)

    def _read(self) -> dict[str, Any] | None:
        """What the checkpoint of this very training holds; None where there is none."""
        if self._file is None or not self._file.exists():
            return None
        try:
            state = torch.load(self._file, map_location=self.recipe.device, weights_only=True)
            theirs = state["identity"]
        except Exception as error:  # whatever torch raises for it, the file is of no use
            raise TrainingError(f"{self._file}: cannot be read ({type(error).__name__}); delete it") from error
        for key, value in self._identity.items():
            if theirs.get(key) != value:
                raise ConfigError(f"{self._file} is of another training: {key} was {theirs.get(key)}, here {value}; "
                                  "give another folder")  # fmt: skip
        return state

    def _resume(self) -> None:
        state = self.saved
        if state is None:
            return
        self.saved = None
        if self.pruner is not None:
            self.pruner.load_state_dict(state["pruner"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.epoch, self.best, self.best_epoch = state["epoch"], state["best"], state["best_epoch"]
        self.best_state, self.curve = state["best_state"], state["curve"]
        _set_random_state(state["random"])


# ---- data -----------------------------------------------------------------------------------------------------------


class TensorBatches:
    """Batches of tensors, in an order that seed and epoch alone decide.

    Args:
        tensors: With the samples along their first dimension.
        batch_size: Samples of a batch; an incomplete last one is dropped where samples are shuffled, unless it is the
            only one.
        seed: Of the order; None for the order that the samples have.

    Example:
        >>> import torch
        >>> from lumos.pruning.fit import TensorBatches
        >>> [x.tolist() for x, in TensorBatches((torch.arange(5),), 2, None)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, tensors: Sequence[Tensor], batch_size: int, seed: int | None) -> None:
        self.tensors, self.batch_size, self.seed, self.epoch = tuple(tensors), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        rows = len(self.tensors[0])
        return -(-rows // self.batch_size) if self.seed is None else max(1, rows // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        if self.seed is None:
            yield from zip(*(t.split(self.batch_size) for t in self.tensors), strict=True)
            return
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order = torch.randperm(len(self.tensors[0]), generator=generator)
        for rows in order.split(self.batch_size)[: len(self)]:
            yield tuple(t[rows.to(t.device)] for t in self.tensors)


def _batches(data: Any, name: str, batch_size: int, seed: int | None) -> Batches:
    if isinstance(data, tuple) and data and all(isinstance(t, Tensor) for t in data):
        if len({len(t) for t in data}) > 1 or not len(data[0]):
            rows = ", ".join(str(len(t)) for t in data)
            raise ConfigError(f"{name}: tensors of {rows} samples; expected as many in each, and at least one")
        return TensorBatches(data, batch_size, seed)
    if not hasattr(data, "__iter__") or not hasattr(data, "__len__"):
        raise ConfigError(f"{name}={type(data).__name__}: expected a DataLoader, or a tuple of tensors")
    if not len(data):
        raise ConfigError(f"{name} has no batch; give more samples or a smaller batch")
    return data


def _moved(batches: Batches, device: torch.device) -> Iterator[Any]:
    for batch in batches:
        if hasattr(batch, "to"):
            yield batch.to(device)
        else:
            yield pytree.tree_map(lambda t: t.to(device, non_blocking=True) if hasattr(t, "to") else t, batch)


def _set_epoch(batches: Any, epoch: int) -> None:
    for part in (batches, getattr(batches, "sampler", None), getattr(batches, "batch_sampler", None)):
        set_epoch = getattr(part, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)


def _expect_loss(model: nn.Module, recipe: _Recipe) -> bool:
    """Say what is wrong with the loss before a trace of the model does; return whether it needs gradients."""
    batch = next(_moved(recipe.train, recipe.device))
    needed = False
    with kept_modes(model):
        model.eval()  # one batch more would change the batch statistics
        try:
            with torch.no_grad():
                loss = recipe.objective(model, batch)
        except RuntimeError as error:
            if not asks_for_gradients(error):
                raise
            needed, loss = True, recipe.objective(model, batch)
    if not isinstance(loss, Tensor) or loss.ndim:
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ConfigError(f"the loss is {found}: expected a scalar tensor")
    if not bool(torch.isfinite(loss)):
        raise TrainingError(f"the loss of the first batch is {float(loss)}; look for values in the data that are not "
                            "finite, or are missing")  # fmt: skip
    return needed


def _example(recipe: _Recipe) -> tuple[Any, ...]:
    """A few samples of the first batch's inputs."""
    batch = next(_moved(recipe.train, recipe.device))
    inputs = batch[0] if isinstance(batch, tuple | list) else batch
    leaves = [t for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor) and t.ndim]
    if len({len(t) for t in leaves}) == 1 and len(leaves[0]) == 1:  # tracing has to tell samples from features
        inputs = pytree.tree_map(lambda t: torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t, inputs)
    elif isinstance(inputs, Tensor):
        inputs = inputs[:EXAMPLES]
    return (inputs,)


def _mean_loss(objective: Callable[[nn.Module, Any], Tensor], model: nn.Module, batches: Batches) -> float:
    total, samples = 0.0, 0
    for batch in batches:
        leaves = [t for t in pytree.tree_leaves(batch) if isinstance(t, Tensor) and t.ndim]
        count = len(leaves[0]) if leaves else 1
        total, samples = total + count * float(objective(model, batch).detach()), samples + count
    return total / max(1, samples)


# ---- small things ---------------------------------------------------------------------------------------------------


def _cosine(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@contextmanager
def _own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """torch's random state within a ``with`` block: begun by a seed, and as it was after it."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else ()):
        torch.manual_seed(seed)
        yield


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
