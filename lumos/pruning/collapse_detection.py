"""Detects a network that collapsed: to one unit in every group, or to a loss no better than a trivial predictor's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lumos.errors import TrainingError
from lumos.gating.gated_model import GatedModel
from lumos.pruning.resumable import Resumable
from lumos.pruning.settings import Goal

log = logging.getLogger("lumos")

CHECKS = 4
"""Checks in a row that have to agree."""
TRIVIAL = 0.9
"""Share of the way from the dense network's loss to a trivial predictor's, from which on a loss counts as trivial."""

FIRST = 5
"""Steps whose losses are the fresh network's."""
LEARNT = 0.1
"""What the dense network has to gain on a trivial predictor for a gated one to be judged by it."""

Widths = Sequence[tuple[int, int]]
"""Open units and all units of each group."""


class CollapseDetector(Resumable):
    """Checks gates and losses every ``interval`` steps: at most 50, so that four checks are 200 steps.

    A trivial predictor's loss is taken to be 1; where the fresh network starts above, that counts.

    Args:
        steps: Steps of the whole training.
        goal: What was asked for; the error says what to change in it.
        dense_loss: The dense network's last mean training loss, 0 where it is not known.
    """

    memory = ("losses", "first", "bad", "narrow")

    def __init__(self, steps: int, goal: Goal, dense_loss: float = 0.0) -> None:
        self.interval = max(1, min(50, steps // 40))
        self.goal = goal
        self.dense_loss = dense_loss
        self.losses: list[Tensor] = []
        self.first: list[Tensor] = []
        self.bad = 0
        self.narrow = 0

    def look(self, step: int, widths: Callable[[], Widths]) -> None:
        """Say so, once, where every group is down to one unit and no loss was ever told that could judge it."""
        if self.first or step % self.interval:
            return
        self.narrow = self.narrow + 1 if at_floor(widths()) else 0
        if self.narrow == CHECKS:
            log.warning(
                f"step {step}: every group is down to one unit; unless the loss is still good, "
                f"{self.goal.key}={self.goal.value:g} is too strong: {self.goal.remedy}"
            )

    def update(self, loss: Tensor, step: int, widths: Callable[[], Widths]) -> None:
        """Take the loss of a step; where a check is due, ask for the widths.

        Raises:
            TrainingError: The network collapsed.
        """
        self.losses.append(loss)
        if len(self.first) < FIRST:
            self.first.append(loss)
        if step % self.interval:
            return
        mean = sum(torch.stack(self.losses).tolist()) / len(self.losses)
        self.losses.clear()
        self.bad = self.bad + 1 if at_floor(widths()) and self.is_trivial(mean) else 0
        if self.bad == CHECKS:
            raise TrainingError(self._line(f"at step {step} every group is down to one unit and", mean))

    def check_finished(self, loss: float) -> None:
        """Judge the finished network by its loss, whatever its widths.

        Raises:
            TrainingError: It is a trivial predictor's.
        """
        if self.is_trivial(loss):
            raise TrainingError(self._line("after the last step", loss))

    def is_trivial(self, loss: float) -> bool:
        """Tell whether a loss is a trivial predictor's; never where the dense network learnt nothing either."""
        fresh = sum(float(x) for x in self.first) / max(1, len(self.first))
        gain = max(1.0, fresh) - self.dense_loss
        return gain > LEARNT and loss > self.dense_loss + TRIVIAL * gain

    def _line(self, when: str, loss: float) -> str:
        return (
            f"the network collapsed: {when} the loss is {loss:.3g}, a trivial predictor's; "
            f"{self.goal.key}={self.goal.value:g} is too strong, {self.goal.remedy}"
        )


def open_widths(gated: GatedModel) -> Widths:
    """Count the open units and all units of each group."""
    is_open = gated.gates.is_open().cpu()
    return [(int(is_open[g.gates].sum()), g.size) for g in gated.structure.groups]


def at_floor(widths: Widths) -> bool:
    """Tell whether every group that had a choice is down to one unit."""
    choice = [left for left, size in widths if size > 1]
    return bool(choice) and max(choice) <= 1
