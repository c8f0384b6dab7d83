"""Notices a network that collapsed: to one unit in every group, or to a loss no better than a trivial predictor's."""

from __future__ import annotations

from torch import Tensor

from lumos.errors import TrainingError
from lumos.pruning.resumable import Resumable

LOOKS = 4
"""Looks in a row that have to agree."""
TRIVIAL = 0.9
"""Share of the way from the dense network's loss to a trivial predictor's, from which on a loss counts as trivial."""

FIRST = 5
"""Steps whose losses are the fresh network's."""
LEARNT = 0.1
"""What the dense network has to gain on a trivial predictor for a gated one to be judged by it."""


class CollapseWatch(Resumable):
    """Looks at the gates and the losses every ``interval`` steps: at most 50, so that four looks are 200 steps.

    A workload's contract puts a trivial predictor's loss at about 1; where the fresh network starts above, that
    counts. ``dense_loss`` is the dense network's last mean training loss, 0 where it is not known.
    """

    memory = ("losses", "first", "bad")

    def __init__(self, total: int, asked: dict[str, float], dense_loss: float = 0.0) -> None:
        self.interval = max(1, min(50, total // 40))
        self.asked = asked
        self.dense_loss = dense_loss
        self.losses: list[Tensor] = []
        self.first: list[Tensor] = []
        self.bad = 0

    def after(self, loss: Tensor, step: int, widths: list[tuple[int, int]] | None) -> None:
        """Take a step's loss; ``widths`` are (open, all) units of each group, asked for when ``due``.

        Raises TrainingError where the network collapsed.
        """
        self.losses.append(loss)
        if len(self.first) < FIRST:
            self.first.append(loss)
        if widths is None:
            return
        mean = sum(float(x) for x in self.losses) / len(self.losses)
        self.losses.clear()
        self.bad = self.bad + 1 if self.is_trivial(mean) and at_floor(widths) else 0
        if self.bad == LOOKS:
            raise TrainingError(self._line(f"at step {step} every group is down to one unit and", mean))

    def verdict(self, loss: float) -> None:
        """Raise TrainingError where the finished network, of whatever widths, has a trivial predictor's loss."""
        if self.is_trivial(loss):
            raise TrainingError(self._line("after the last step", loss))

    def is_trivial(self, loss: float) -> bool:
        """Whether a loss is a trivial predictor's; never where the dense network learnt nothing either."""
        fresh = sum(float(x) for x in self.first) / max(1, len(self.first))
        gain = max(1.0, fresh) - self.dense_loss
        return gain > LEARNT and loss > self.dense_loss + TRIVIAL * gain

    def due(self, step: int) -> bool:
        """Whether this step is one to look at."""
        return step % self.interval == 0

    def _line(self, when: str, loss: float) -> str:
        key, value = next(iter(self.asked.items()))
        change = {
            "lumos.lambda": f"lower it: {key}={value / 10:g}, say",
            "lumos.tolerance": "ask for a smaller tolerance",
        }.get(key, "ask for a larger one")
        return (
            f"the network collapsed: {when} the loss is {loss:.3g}, a trivial predictor's; "
            f"{key}={value:g} is too strong, {change}"
        )


def at_floor(widths: list[tuple[int, int]]) -> bool:
    """Whether every group that had a choice is down to one unit."""
    choice = [left for left, size in widths if size > 1]
    return bool(choice) and max(choice) <= 1
