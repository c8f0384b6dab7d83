"""Gates in anyone's training loop: two lines before the loop, none in it.

Everything that turns gates into a smaller model hangs on the steps of the user's optimizer: the penalty's gradient, the
step of the gates, the projection, the controller, the history of the features, the cut. So accumulated gradients,
gradient scaling, mixed precision, schedulers and trainers of other libraries need nothing of ours.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lumos.compaction.compact import compact
from lumos.compaction.model import CompactModel
from lumos.compaction.verify import Equivalence, verify
from lumos.errors import ConfigError, TrainingError
from lumos.gating.gated_model import GatedModel
from lumos.pruning.batch_statistics import STATISTICS_BATCHES, has_statistics, recalibrate
from lumos.pruning.collapse_detection import at_floor, open_widths
from lumos.pruning.controllers import make_controller
from lumos.pruning.feature_history import FeatureHistory
from lumos.pruning.optimizers import carry_over, matrix_sizes, rate_gain
from lumos.pruning.report import gate_columns, gate_report, summary
from lumos.pruning.settings import Goal, Lambda, Schedule

log = logging.getLogger("lumos")

CHECKS = 4
"""Checks in a row at which every group is down to one unit, from which on the network counts as collapsed."""


class Pruner:
    """Prune a model while a loop of one's own trains it.

    Before the cut, each step of the optimizer is followed by a step of the gates, by an Adam of the pruner's own:
    schedulers, weight decay, clipping and the optimizer's kind concern the weights alone. At the cut the closed units
    go: parameters become smaller at their places in ``gated.model`` and in ``optimizer.param_groups``, with their
    state; ``gated`` goes on as what the loop calls.

    Args:
        gated: What :func:`lumos.gate` returned; the loop calls it in place of the model.
        optimizer: Any optimizer of its parameters.
        steps: Steps of the optimizer in the whole training.
        target: What is asked for: :class:`lumos.Lambda`, :class:`lumos.Target` or :class:`lumos.Tolerance`.
        cut_at: Share of the steps after which the closed units go, between 0 and 1.
        cut: ``"training"`` to cut there; ``"end"`` to let the gates stand still from there on and to cut in
            :meth:`finish`, where nothing may change its shape on the way. By default ``"end"`` where several processes
            train, else ``"training"``.
        rate: The gates' learning rate.
        warmup: Share of the steps over which the penalty grows from zero.
        rate_gain: The most by which the weights' learning rate may rise at the cut, since narrow layers take a higher
            one; 1 leaves it as it is.
        align: The multiple to which the kept units of each hidden group are rounded up.
        schedulers: Schedulers of the optimizer, whose base rates rise with the rate.
        scaler: The ``torch.amp.GradScaler`` of the loop, where it has one.
        averaged: Averaged copies of ``gated`` (``torch.optim.swa_utils.AveragedModel``), which are cut along.
        penalty: ``"hook"`` adds the penalty's gradient by itself; with ``"loss"`` the loop adds :meth:`penalty` to its
            loss.
        seed: Of the gates' noise.

    Raises:
        ConfigError: This model cannot meet the target, or an argument is out of its range.

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
        optimizer: torch.optim.Optimizer,
        steps: int,
        target: Goal | None = None,
        *,
        cut_at: float = 0.5,
        cut: str | None = None,
        rate: float = 0.1,
        warmup: float = 0.1,
        rate_gain: float = 5.0,
        align: int = 1,
        schedulers: Any = (),
        scaler: Any = None,
        averaged: Iterable[nn.Module] = (),
        penalty: str = "hook",
        seed: int = 0,
    ) -> None:
        if not isinstance(gated, GatedModel):
            raise ConfigError(f"gated={type(gated).__name__}: expected what lumos.gate returned")
        _expect(steps >= 2, "steps", steps, "two steps or more")
        _expect(0 < cut_at < 1, "cut_at", cut_at, "a share between 0 and 1")
        _expect(rate > 0, "rate", rate, "a number > 0")
        _expect(rate_gain >= 1, "rate_gain", rate_gain, "a number >= 1")
        _expect(cut in (None, "training", "end"), "cut", cut, "training or end")
        _expect(penalty in ("hook", "loss"), "penalty", penalty, "hook or loss")
        self.gated, self.optimizer, self.goal = gated, optimizer, target or Lambda()
        self.schedule = Schedule(steps, min(steps - 1, max(1, round(cut_at * steps))), warmup)
        self.cut_when = cut or ("end" if _processes() > 1 else "training")
        self.align, self.most_gain, self.scaler, self.penalty_by = align, rate_gain, scaler, penalty
        self.schedulers = list(schedulers) if isinstance(schedulers, Iterable) else [schedulers]
        self.copies = [_gated_in(model) for model in averaged]
        self.controller = make_controller(self.goal, self.schedule, gated, align=align)
        self.history = FeatureHistory(gated, self.schedule.gated_steps)
        self.step = 0
        self.decided: dict[str, Any] | None = None
        """What the gates decided, from the cut on."""
        self.equivalence: Equivalence | None = None
        self.small: CompactModel | None = None
        self._at_floor = 0
        self._log_alpha = gated.gates.log_alpha
        self._adam = torch.optim.Adam([self._log_alpha], lr=rate)
        self._grad: Tensor | None = None
        self._own = False
        self._noise = torch.Generator().manual_seed(_shared(seed))
        self._recent: deque[tuple[tuple[Any, ...], dict[str, Any]]] = deque(maxlen=STATISTICS_BATCHES)
        self._handles: list[Any] = [
            self._log_alpha.register_hook(self._collect),
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]
        if has_statistics(gated):
            self._handles.append(gated.register_forward_pre_hook(self._remember, with_kwargs=True))
        self.controller.before_step(gated, 0)
        self._draw()

    # ---- in the loop, by itself -------------------------------------------------------------------------------------

    def _collect(self, grad: Tensor) -> Tensor:
        """Take the gates' gradient of a backward pass, so that nothing that the loop does to gradients changes it."""
        if self._own:
            return grad
        if self._log_alpha.grad is None:  # the loop has begun a new step, or the last one was skipped
            self._grad = None
        self._grad = grad.detach().clone() if self._grad is None else self._grad + grad.detach()
        return torch.zeros_like(grad)

    def _before(self, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        self._log_alpha.grad = None  # the loop's optimizer leaves the gates alone, its weight decay too

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        if not self.is_decided:
            self._step_gates()
        self.step += 1
        if self.step == self.schedule.gated_steps:
            self._decide()
        elif not self.is_decided:
            self.controller.before_step(self.gated, self.step)
            self._draw()

    def _step_gates(self) -> None:
        """Give the gates their step: the loss's gradient and the penalty's, by an optimizer of their own."""
        grad = torch.zeros_like(self._log_alpha) if self._grad is None else self._grad
        self._grad = None
        if self.scaler is not None:
            grad = grad / self.scaler.get_scale()
        if _processes() > 1:
            dist.all_reduce(grad)
            grad = grad / _processes()
        if not bool(torch.isfinite(grad).all()):
            log.warning(f"step {self.step}: the gradient of the gates is not finite; they keep their values")
            return
        if self.penalty_by == "hook":
            self._own = True  # a gradient that is not the loop's
            with torch.enable_grad():
                (priced,) = torch.autograd.grad(self.penalty(), self._log_alpha)
            self._own = False
            grad = grad + priced
        self._log_alpha.grad = grad
        self._adam.step()
        self._log_alpha.grad = None
        self.gated.project()
        with torch.enable_grad():
            self.controller.after_step(self.gated, self.optimizer, self.step + 1)
        self.history.note(self.gated, self.step + 1)
        self._watch()

    def _draw(self) -> None:
        """Draw the gates' noise of the coming step, the same in all processes."""
        self.gated.draw(self._noise)

    def _remember(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.gated.training and not self.is_decided:
            self._recent.append((args, kwargs))

    def _watch(self) -> None:
        """Notice a network that has nothing left to give."""
        if (self.step + 1) % max(1, min(50, self.schedule.steps // 40)):
            return
        self._at_floor = self._at_floor + 1 if at_floor(open_widths(self.gated)) else 0
        if self._at_floor == CHECKS:
            raise TrainingError(
                f"the network collapsed: at step {self.step + 1} every group is down to one unit; "
                f"{self.goal.key}={self.goal.value:g} is too strong, {self.goal.remedy}"
            )

    # ---- the cut ----------------------------------------------------------------------------------------------------

    @property
    def is_decided(self) -> bool:
        """Whether the gates stand still: the closed units are cut, or will be at the end."""
        return self.decided is not None

    @property
    def is_cut(self) -> bool:
        """Whether the closed units are cut out of ``gated.model``."""
        return self.small is not None

    def _decide(self) -> None:
        """Bring the gates to what is kept, and let them stand still from here on."""
        gated = self.gated
        self.controller.finalize(gated, self.optimizer)
        if self.align > 1:
            gated.align(self.align)
        if self._recent:
            recalibrate(gated, [lambda a=args, k=kwargs: gated(*a, **k) for args, kwargs in self._recent])
            self._recent.clear()
        self.equivalence = verify(gated, gated.structure.example)
        self.history.add(gated, self.schedule.gated_steps)
        self.decided = gate_report(gated)
        log.info(f"step {self.step}: {summary(self.decided)}; {self.equivalence}")
        self._stand_still()
        if self.cut_when == "training":
            self._cut()

    def _stand_still(self) -> None:
        self._log_alpha.requires_grad_(False)
        self.gated.gates.fixed = True
        for copy in self.copies:
            copy.gates.log_alpha.data.copy_(self._log_alpha)
            copy.gates.fixed = True

    def _cut(self) -> None:
        """Cut the closed units out of the model, of its averaged copies, and of the optimizer's state."""
        gated = self.gated
        self.small = compact(gated)
        gain = rate_gain(matrix_sizes(gated.model, self.small.model), self.most_gain)
        fresh = carry_over(self.optimizer, gated, self.small)
        for lost in fresh:
            log.info(f"the optimizer's state of {lost} begins anew at the cut")
        for group in self.optimizer.param_groups:
            for key in ("lr", "initial_lr"):
                if key in group:
                    group[key] = group[key] * gain
        for scheduler in self.schedulers:
            scheduler.base_lrs = [base * gain for base in scheduler.base_lrs]
        gated.become(self.small.model, self.small.selected)
        for copy in self.copies:
            small = compact(copy)
            copy.become(small.model, small.selected)

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

    def features(self) -> list[dict[str, Any]]:
        """Return a row for each input feature: whether it is kept, when it closed, its open probability over time."""
        kept = self.gated.structure.kept_features(self.gated.gates.is_open())
        return self.history.rows(kept) if self.history.steps else []

    def finish(self) -> CompactModel:
        """Cut what is still to be cut, and return the compact model in eval mode.

        Raises:
            CompactionError: Gated and compact differ.
        """
        if not self.is_decided:
            log.warning(f"finished after {self.step} steps, before the cut at step {self.schedule.gated_steps}")
            self._decide()
        if not self.is_cut:
            self._cut()
        self.detach()
        assert self.small is not None
        return self.small.eval()

    def detach(self) -> None:
        """Take the pruner off the optimizer: later steps are the loop's alone."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    # ---- to go on after a stop --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes beside the gated model and the optimizer: tensors, numbers and containers of them."""
        return {
            "step": self.step,
            "at_floor": self._at_floor,
            "controller": self.controller.state_dict(),
            "history": self.history.state_dict(),
            "adam": self._adam.state_dict(),
            "noise": self._noise.get_state(),
            "drawn": self.gated.gates.noise,
            "log_alpha": self._log_alpha.detach().clone(),
            "decided": self.decided,
            "equivalence": None if self.equivalence is None else asdict(self.equivalence),
            "cut": self.is_cut,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what :meth:`state_dict` returned; after a cut, make the same cut.

        Call it before ``gated.load_state_dict`` and ``optimizer.load_state_dict``: their tensors have to have the sizes
        that they had.
        """
        self.step, self._at_floor = state["step"], state["at_floor"]
        self.controller.load_state_dict(state["controller"])
        self.history.load_state_dict(state["history"])
        self._adam.load_state_dict(state["adam"])
        self._noise.set_state(state["noise"])
        with torch.no_grad():
            self._log_alpha.copy_(state["log_alpha"])
        self.gated.hold(state["drawn"])
        self.decided = state["decided"]
        self.equivalence = None if state["equivalence"] is None else Equivalence(**state["equivalence"])
        if self.is_decided:
            self._stand_still()
        if state["cut"]:
            self._cut()


def _gated_in(model: nn.Module) -> GatedModel:
    found = getattr(model, "module", model)
    if not isinstance(found, GatedModel):
        raise ConfigError(f"averaged={type(found).__name__}: expected an AveragedModel of the gated model")
    return found


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _shared(seed: int) -> int:
    """The first process's seed, for all."""
    if _processes() == 1:
        return seed
    found = [seed]
    dist.broadcast_object_list(found)
    return found[0]


def _expect(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{name}={value}: expected {expected}")
