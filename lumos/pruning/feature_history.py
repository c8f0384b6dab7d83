"""What became of each input feature: its open probability over time, and when it closed."""

from __future__ import annotations

from typing import Any

import torch

from lumos.gating.gated_model import GatedModel
from lumos.pruning.resumable import Resumable

MOMENTS = 50
"""How often the open probabilities are noted before the cut."""


class FeatureHistory(Resumable):
    """Notes the open probability of every input feature while the gates train; features without a gate stay at 1.

    Args:
        gated: The model whose features are followed.
        gated_steps: Steps before the cut, over which ``MOMENTS`` notes are spread.
    """

    memory = ("steps", "probabilities", "expected", "open")

    def __init__(self, gated: GatedModel, gated_steps: int) -> None:
        self.names = gated.structure.feature_names
        self.units = torch.cat([torch.zeros(0, dtype=torch.int64), *(s.units for s in gated.structure.inputs)])
        if len(self.units) != len(self.names):
            self.names = ()
        self.interval = max(1, gated_steps // MOMENTS)
        self.steps: list[int] = []
        self.probabilities: list[list[float]] = []
        self.expected: list[list[float]] = []  # equation 5, which goes on telling gates apart that are all open
        self.open: list[list[bool]] = []

    def note(self, gated: GatedModel, step: int) -> None:
        """Note the probabilities at this step, where it is one to note."""
        if step % self.interval == 0 and self.names:
            self.add(gated, step)

    def add(self, gated: GatedModel, step: int) -> None:
        """Note the probabilities at this step."""
        if not self.names or (self.steps and self.steps[-1] == step):
            return
        probability, expected = (
            torch.cat([torch.ones(1), values.detach().cpu()])
            for values in (gated.gates.open_probability(), gated.gates.expected_open())
        )
        is_open = torch.cat([torch.ones(1, dtype=torch.bool), gated.gates.is_open().cpu()])
        self.steps.append(step)
        self.probabilities.append(probability[self.units].tolist())
        self.expected.append(expected[self.units].tolist())
        self.open.append(is_open[self.units].tolist())

    def rows(self, kept: list[str]) -> list[dict[str, Any]]:
        """Tell what became of each feature.

        Args:
            kept: The features that the compact model has.

        Returns:
            One row for each feature: its name, whether it is ``kept``, the step ``closed_at`` from which on it was
            closed, its place in the ``order`` of closing (1 closed first; features that closed at the same noted step
            share a place), and its probability at each noted step, ``p@STEP``.
        """
        closed_at = {name: None if name in kept else self._closed_at(i) for i, name in enumerate(self.names)}
        places = sorted({step for step in closed_at.values() if step is not None})
        rows = []
        for i, name in enumerate(self.names):
            step = closed_at[name]
            over_time = {f"p@{s}": round(p[i], 4) for s, p in zip(self.steps, self.probabilities, strict=True)}
            rows.append({"feature": name, "kept": int(name in kept), "closed_at": "" if step is None else step,
                         "order": "" if step is None else places.index(step) + 1, **over_time})  # fmt: skip
        return rows

    def _closed_at(self, feature: int) -> int:
        """The first noted step of the last stretch in which the feature was closed."""
        step = self.steps[-1]
        for s, is_open in zip(reversed(self.steps), reversed(self.open), strict=True):
            if is_open[feature]:
                break
            step = s
        return step
