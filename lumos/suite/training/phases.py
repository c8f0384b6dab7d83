"""The two phases of a gated training: gates and weights together, then, after the cut, the weights of what remains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lumos.compaction.compact import compact
from lumos.compaction.model import CompactModel
from lumos.compaction.verify import Equivalence, verify
from lumos.gating.gated_model import GatedModel
from lumos.pruning.averaging import Average
from lumos.pruning.collapse_detection import CollapseDetector, open_widths
from lumos.pruning.controllers import Controller
from lumos.pruning.feature_history import FeatureHistory
from lumos.pruning.optimizers import matrix_sizes, rate_gain, transfer_state
from lumos.pruning.report import gate_report, summary
from lumos.pruning.resumable import Resumable
from lumos.suite.config import LumosConfig
from lumos.suite.console import log
from lumos.suite.training.evaluation import recalibrate
from lumos.suite.workload import Batch, Workload


@dataclass(frozen=True)
class Handover:
    """What a training gives to its phase at the cut; ``recent`` are the latest batches, for batch statistics."""

    optimizer: torch.optim.Optimizer
    workload: Workload
    settings: LumosConfig
    recent: Sequence[Batch]
    average: Average | None = None


class Phase:
    """What a training does beside the steps that all share, until the step ``freeze_at`` that changes its network.

    ``sizes`` times ``prices`` are added to the loss, ``gradients`` follows its backward, ``after`` follows the step,
    and ``cut`` returns the network that trains on. ``names`` are what the record calls the steps before and after.
    """

    freeze_at: int
    names: tuple[str, str]
    done = False
    """Whether the network was changed."""

    def prices(self, step: int) -> Sequence[float]:
        """What each of ``sizes`` adds to the loss at this step, before the cut; asked once a step."""
        return ()

    def sizes(self) -> Sequence[Tensor]:
        """What has a price: differentiable scalars."""
        return ()

    def gradients(self) -> None:
        """Change the gradients of a step, before the cut."""

    def after(self, optimizer: torch.optim.Optimizer, step: int, loss: Tensor) -> None:
        """Follow a step."""

    def rate(self, step: int, total: int) -> float:
        """The weights' learning rate as a share of its peak."""
        return rate(step, total, self.freeze_at)

    def cut(self, given: Handover) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The network that trains on, and its optimiser; the averaged copy becomes one of that network, in place."""
        raise NotImplementedError

    def conclude(self, trained: Any) -> None:
        """Add to the finished training (``lumos.training.Trained``) what is known of it."""

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint has to keep beside the model."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state that :meth:`state_dict` returned."""


class GatedPhase(Phase):
    """What a gated training does beside the steps that it shares with the dense one.

    ``gates`` and ``equivalence`` are known from the cut on.
    """

    names = ("gated", "compact")

    def __init__(self, gated: GatedModel, controller: Controller, detector: CollapseDetector, freeze_at: int) -> None:
        self.gated, self.controller, self.detector, self.freeze_at = gated, controller, detector, freeze_at
        self.history = FeatureHistory(gated, freeze_at)
        self.equivalence: Equivalence | None = None
        self.gates: dict[str, Any] | None = None

    @property
    def done(self) -> bool:  # type: ignore[override]
        """Whether the closed units were cut out."""
        return self.gates is not None

    @property
    def parts(self) -> dict[str, Resumable]:
        """What of it changes from step to step, by name."""
        return {"controller": self.controller, "detector": self.detector, "history": self.history}

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint has to keep beside the model: the parts, and, after the cut, what was cut."""
        state: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()}
        if self.equivalence is not None:
            log_alpha = self.gated.gates.log_alpha.detach()
            state["cut"] = {"gates": self.gates, "equivalence": asdict(self.equivalence), "log_alpha": log_alpha}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state that :meth:`state_dict` returned."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        if "cut" in state:
            self.gates, self.equivalence = state["cut"]["gates"], Equivalence(**state["cut"]["equivalence"])
            with torch.no_grad():
                self.gated.gates.log_alpha.copy_(state["cut"]["log_alpha"])

    def prices(self, step: int) -> Sequence[float]:
        """What ``sizes`` cost at this step, before the cut, in the units of the loss."""
        self.controller.before_step(self.gated, step)
        return self.controller.coefficients(step)

    def sizes(self) -> Sequence[Tensor]:
        """How many gates are open, or what else is steered."""
        return self.controller.penalty_terms(self.gated)

    def after(self, optimizer: torch.optim.Optimizer, step: int, loss: Tensor) -> None:
        """Follow a step. Raises TrainingError where the network has collapsed."""
        if not self.gates:
            self.gated.project()
            self.controller.after_step(self.gated, optimizer, step)
            self.history.note(self.gated, step)
        # After the cut the gates stand still, and so do the widths.
        self.detector.update(loss, step, lambda: open_widths(self.gated))

    def conclude(self, trained: Any) -> None:
        """Add what the gates decided. Raises TrainingError where the network collapsed."""
        self.detector.check_finished(trained.curve[-1]["loss"])
        trained.gates, trained.equivalence = self.gates, self.equivalence
        trained.steering = self.controller.report(trained.valid_score)
        trained.features = self.history.rows(self.gates["features_kept"]) if self.gates else []

    def cut(self, given: Handover) -> tuple[CompactModel, torch.optim.Optimizer]:
        """Settle and freeze the gates, verify, and return the compact model with an optimiser that goes on."""
        gated, settings, average = self.gated, given.settings, given.average
        self.controller.finalize(gated, given.optimizer)
        if settings.align:
            gated.align(settings.align)
        found = []
        for model in (gated, average.model) if average else (gated,):
            assert isinstance(model, GatedModel)
            recalibrate(given.workload, model, given.recent)
            found.append(verify(model, given.workload.example()))
        self.equivalence = max(found, key=lambda e: e.max_rel_diff)
        self.history.add(gated, self.freeze_at)
        self.gates = gate_report(gated)
        log.info(f"gated: cut at step {self.freeze_at}: {summary(self.gates)}; {self.equivalence}")
        if average:
            average.cut()
        return cut(gated, given.optimizer, given.workload, settings)


def cut(
    gated: GatedModel, optimizer: torch.optim.Optimizer, workload: Workload, settings: LumosConfig
) -> tuple[CompactModel, torch.optim.Optimizer]:
    """The compact model in training mode, and an optimiser that goes on where the gated one's was."""
    small = compact(gated.train())
    fresh = make_optimizer(small, workload, settings)
    gain = rate_gain(matrix_sizes(gated.model, small.model), settings.rate_gain)
    for group in fresh.param_groups:
        group["peak"] *= gain
    transfer_state(optimizer, fresh, gated, small)
    return small, fresh


def rate(step: int, total: int, freeze_at: int) -> float:
    """The weights' learning rate as a share of its peak: a cosine from 1 to 0; in a gated training, from the cut on.

    Until then the rate stays at its peak, so that what remains after the cut is trained as a fresh start would be.
    """
    start = max(0, freeze_at)
    return 1.0 if step < start else 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, total - start)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Apply the schedule to the weights; the gates keep their rate until they freeze."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * (1.0 if group["name"] == "gates" else factor)


def make_optimizer(model: nn.Module, workload: Workload, settings: LumosConfig) -> torch.optim.Optimizer:
    """AdamW over the weights and, of a gated model, the gates: at their own rate and without weight decay."""
    recipe = workload.recipe
    inner = model.model if isinstance(model, GatedModel | CompactModel) else model
    groups: list[dict[str, Any]] = [{"name": "weights", "params": [p for p in inner.parameters() if p.requires_grad],
                                     "peak": recipe.learning_rate, "weight_decay": recipe.weight_decay}]  # fmt: skip
    if isinstance(model, GatedModel):
        groups.append({"name": "gates", "params": [model.gates.log_alpha], "peak": settings.learning_rate,
                       "weight_decay": 0.0})  # fmt: skip
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)
