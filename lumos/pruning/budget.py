"""A target in numbers: how large the compact model is expected to become, and which gates to keep to meet it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from lumos.errors import ConfigError
from lumos.gating.gates import rounded_up
from lumos.pruning.calibration import Calibration
from lumos.pruning.settings import Target
from lumos.shapes import Bool, Float
from lumos.tracing.structure import Structure

SLACK = 0.02
"""How far below a budget the compact model may stay, as a share of the budget."""
GROUPS = 6
"""How many groups take part in an exchange where units are too large to fill the budget."""


@dataclass(frozen=True)
class Budget:
    """Turns a target into numbers for a traced model: its size for given gates, and the gates that meet it.

    Args:
        target: A share of what the dense network has or costs, or a number of input features.
        align: The kept units of each hidden group are rounded up to a multiple of it, which the limit counts.
        calibration: What calls cost, for a target that is measured.
    """

    target: Target
    align: int = 1
    calibration: Calibration | None = None

    @property
    def limit(self) -> float:
        """The target's value."""
        return self.target.value

    def at(self, limit: float) -> Budget:
        """Return the same budget with another limit, a share."""
        limit = min(limit, 1 - 1e-9)
        return replace(self, target=replace(self.target, **{self.target.quantity: limit}))

    def size(self, structure: Structure, gates: Float[Tensor, " units"]) -> Float[Tensor, ""]:
        """Compute the expected size for gates that are open with these probabilities.

        Args:
            structure: The traced model.
            gates: Open probabilities (units,).

        Returns:
            The size in the unit of ``limit``; differentiable in ``gates``.
        """
        if self.target.quantity == "features":
            return expected_features(structure, gates)
        if self.target.measured:
            assert self.calibration is not None
            return self.calibration.cost.share(gates)
        which = {"params": 0, "macs": 1}[self.target.quantity]
        return structure.expected_sizes(gates)[which] / max(1.0, structure.dense_sizes[which])

    def check(self, structure: Structure) -> None:
        """Tell at once where no choice of gates meets the budget.

        Raises:
            ConfigError: The least or the largest possible size lies on the wrong side of it.
        """
        if self.target.quantity == "features" and not len(structure.feature_units):
            raise ConfigError(f"{self.target.key}={self.limit:g}: no input feature of this model can be removed")
        if self.calibration and self.calibration.floor > self.limit:
            raise ConfigError(
                f"{self.target.key}={self.limit:g}: this model can only have {self.calibration.floor:.3g} to 1, as "
                f"measured with {self.calibration.call}; `lumos explain` says what is fixed and why"
            )
        if self.calibration:
            return
        floor = torch.zeros(structure.units, dtype=torch.float64)
        floor[[g.start for g in structure.groups]] = 1.0
        floor = rounded_up(structure.groups, torch.zeros_like(floor), floor > 0, self.align).double()
        least, most = float(self.size(structure, floor)), float(self.size(structure, torch.ones_like(floor)))
        if not least <= self.limit <= most:
            more = "; `lumos explain` says what is fixed and why, and the option lumos.streams=true frees some of it"
            raise ConfigError(
                f"{self.target.key}={self.limit:g}: this model can only have {least:.3g} to {most:.3g}"
                + (more if self.limit < least and self.target.quantity != "features" else "")
            )

    def rounding(
        self, structure: Structure, log_alpha: Float[Tensor, " units"], is_open: Bool[Tensor, " units"]
    ) -> float:
        """Compute how many times as large the compact model is with what rounding adds to these open gates."""
        if self.align == 1:
            return 1.0
        added = rounded_up(structure.groups, log_alpha, is_open, self.align)
        bare, whole = (float(self.size(structure, gates.double())) for gates in (is_open, added))
        return whole / max(bare, 1e-12)

    def fit(
        self, structure: Structure, log_alpha: Float[Tensor, " units"], is_open: Bool[Tensor, " units"]
    ) -> Bool[Tensor, " units"]:
        """Choose the gates to keep: the widest open ones that meet the budget from below.

        They come within ``SLACK`` of the budget, where units are small enough for that. In each group the widest one
        stays, and each hidden group is rounded up. For a budget of features the other gates stay as they are; for one
        that is measured, groups that have closed as a whole do.

        Args:
            structure: The traced model.
            log_alpha: What gates are ranked by (units,).
            is_open: Which gates are open now (units,).

        Returns:
            Which gates to keep (units,).
        """
        values = log_alpha.detach().double().cpu()
        movable = torch.ones(structure.units, dtype=torch.bool)
        if self.target.quantity == "features":
            movable[:] = False
            movable[structure.feature_units] = True
        keep = is_open.cpu() & ~movable
        gone = structure.closed_groups(is_open) if self.target.measured else []
        for group in gone:
            movable[group.gates] = False
        for group in structure.groups:
            if movable[group.gates].any():
                keep[group.start + int(values[group.gates].argmax())] = True
        # Open gates first. Of the closed ones, a hidden unit adds capacity where a feature that closed adds noise.
        feature = torch.zeros(structure.units, dtype=torch.bool)
        feature[structure.feature_units] = True
        rank = [(bool(is_open[u]), bool(is_open[u] or not feature[u]), float(values[u])) for u in range(len(values))]
        order = sorted(
            (u for u in range(len(values)) if movable[u] and not keep[u]), key=lambda u: rank[u], reverse=True
        )

        def size(more: list[int]) -> float:
            chosen = keep.clone()
            chosen[more] = True
            return float(self.size(structure, rounded_up(structure.groups, values, chosen, self.align).double()))

        # The size grows with every gate, so the longest prefix that fits is found by bisection.
        limit = self.limit * (1 + 1e-9)
        low, high = 0, len(order)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if size(order[:middle]) <= limit else (low, middle - 1)
        group = {u: g.name for g in structure.groups for u in range(g.start, g.stop)}
        keep[_filled(order[:low], order[low:], group, size, self.limit)] = True
        return rounded_up(structure.groups, values, keep, self.align)


def _filled(
    chosen: list[int], left: list[int], group: dict[int, str], size: Callable[[list[int]], float], limit: float
) -> list[int]:
    """The chosen units, by rank, and what it takes of those left to come within the slack of the limit.

    First those that still fit, in the order of their rank. Where none does, the best exchange: one unit out, up to two
    in, each the nearest to the border of its group (the units of a group cost about the same), until none is better.
    """
    chosen, best = list(chosen), size(chosen)
    for unit in left:
        if best >= (1 - SLACK) * limit:
            return chosen
        if size([*chosen, unit]) <= limit * (1 + 1e-9):
            chosen.append(unit)
            best = size(chosen)
    while best < (1 - SLACK) * limit:
        out = _border(list(reversed(chosen)), group, 1)
        into = _border([u for u in left if u not in chosen], group, 2)
        trials = [
            [*(u for u in chosen if u != gone), *new]
            for gone in [None, *out]
            for new in ([], *combinations(into, 1), *combinations(into, 2))
        ]
        sizes = [s if s <= limit * (1 + 1e-9) else 0.0 for s in map(size, trials)]
        if max(sizes) <= best:
            break
        best = max(sizes)
        chosen = trials[sizes.index(best)]
    return chosen


def _border(units: list[int], group: dict[int, str], each: int) -> list[int]:
    """The first few units of each group, of the few groups that come first."""
    found: dict[str, list[int]] = {}
    for unit in units:
        if len(found.setdefault(group[unit], [])) < each:
            found[group[unit]].append(unit)
    return [unit for some in list(found.values())[:GROUPS] for unit in some]


def expected_features(structure: Structure, gates: Float[Tensor, " units"]) -> Float[Tensor, ""]:
    """Compute the expected number of input features that are read; differentiable. Those without a gate count one."""
    padded = torch.cat([gates.new_ones(1), gates])
    read = [padded[structure.on(selection.units, gates.device)].sum() for selection in structure.inputs]
    return torch.stack(read).sum() if read else gates.new_zeros(())  # inputs that are indices have no features


def expected_cost_of_features(structure: Structure, gates: Float[Tensor, " units"]) -> Float[Tensor, ""]:
    """Compute what the open gates of input features are expected to cost, by their prices; differentiable."""
    if not len(structure.prices):
        return expected_features(structure, gates)
    return structure.priced(gates)[structure.on(structure.feature_units, gates.device)].sum()
