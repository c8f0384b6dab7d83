"""Our method in a training: gates and weights together, then, after the cut, the weights of what remains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from lumos.compaction.compact import compact
from lumos.compaction.model import CompactModel
from lumos.compaction.verify import Equivalence, verify
from lumos.gating.gated_model import GatedModel
from lumos.pruning.collapse_detection import CollapseDetector, open_widths
from lumos.pruning.controllers import Controller
from lumos.pruning.feature_history import FeatureHistory
from lumos.pruning.optimizers import matrix_sizes, rate_gain, transfer_state
from lumos.pruning.report import gate_report, summary
from lumos.pruning.resumable import Resumable
from lumos.suite.console import log
from lumos.suite.settings import LumosConfig
from lumos.suite.training.evaluation import recalibrate
from lumos.suite.training.method import CutContext, PruningMethod
from lumos.suite.training.optimizer import make_optimizer
from lumos.suite.training.trained import Trained
from lumos.suite.workload import Workload


class LumosMethod(PruningMethod):
    """L0 gates that a controller closes, until the closed units are cut out.

    ``gates``, what they decided, and ``equivalence``, of gated and compact network, are known from the cut on.
    """

    phase_names = ("gated", "compact")

    def __init__(self, gated: GatedModel, controller: Controller, detector: CollapseDetector, prune_at: int) -> None:
        self.gated, self.controller, self.detector, self.prune_at = gated, controller, detector, prune_at
        self.history = FeatureHistory(gated, prune_at)
        self.equivalence: Equivalence | None = None
        self.gates: dict[str, Any] | None = None

    @property
    def pruned(self) -> bool:  # type: ignore[override]
        """Whether the closed units are cut out."""
        return self.gates is not None

    @property
    def parts(self) -> dict[str, Resumable]:
        """What of it changes from step to step, by name."""
        return {"controller": self.controller, "detector": self.detector, "history": self.history}

    def state_dict(self) -> dict[str, Any]:
        """Return all that a checkpoint has to keep beside the model: the parts, and, after the cut, what was cut."""
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

    def coefficients(self, step: int) -> Sequence[float]:
        """Let the controller adapt to the gates, and return what multiplies its penalty terms."""
        self.controller.before_step(self.gated, step)
        return self.controller.coefficients(step)

    def penalty_terms(self) -> Sequence[Tensor]:
        """Return how many gates are open, or what else is penalised."""
        return self.controller.penalty_terms(self.gated)

    def after_step(self, optimizer: torch.optim.Optimizer, step: int, loss: Tensor) -> None:
        """Project the gates and let controller, history and detector follow. Raises TrainingError after a collapse."""
        if not self.gates:
            self.gated.project()
            self.controller.after_step(self.gated, optimizer, step)
            self.history.note(self.gated, step)
        # After the cut the gates stand still, and so do the widths.
        self.detector.update(loss, step, lambda: open_widths(self.gated))

    def finalize(self, trained: Trained) -> None:
        """Add what the gates decided. Raises TrainingError where the network collapsed."""
        self.detector.check_finished(trained.curve[-1]["loss"])
        trained.gates, trained.equivalence = self.gates, self.equivalence
        trained.steering = self.controller.report(trained.valid_score)
        trained.features = self.history.rows(self.gates["features_kept"]) if self.gates else []

    def prune(self, context: CutContext) -> tuple[CompactModel, torch.optim.Optimizer]:
        """Decide and freeze the gates, verify, and return the compact model with an optimizer that goes on.

        Raises:
            CompactionError: Compact and gated network differ.
        """
        gated, settings, average = self.gated, context.settings, context.average
        self.controller.finalize(gated, context.optimizer)
        if settings.align:
            gated.align(settings.align)
        found = []
        for model in (gated, average.model) if average else (gated,):
            assert isinstance(model, GatedModel)
            recalibrate(context.workload, model, context.recent)
            found.append(verify(model, context.workload.example()))
        self.equivalence = max(found, key=lambda e: e.max_rel_diff)
        self.history.add(gated, self.prune_at)
        self.gates = gate_report(gated)
        log.info(f"gated: cut at step {self.prune_at}: {summary(self.gates)}; {self.equivalence}")
        if average:
            average.cut()
        return compact_with_optimizer(gated, context.optimizer, context.workload, settings)


def compact_with_optimizer(
    gated: GatedModel, optimizer: torch.optim.Optimizer, workload: Workload, settings: LumosConfig
) -> tuple[CompactModel, torch.optim.Optimizer]:
    """Return the compact model in training mode, and an optimizer that goes on where the gated one's was."""
    small = compact(gated.train())
    fresh = make_optimizer(small, workload, settings)
    gain = rate_gain(matrix_sizes(gated.model, small.model), settings.rate_gain)
    for group in fresh.param_groups:
        group["peak"] *= gain
    transfer_state(optimizer, fresh, gated, small)
    return small, fresh
