"""What a call costs as a function of a network's widths, fitted to measurements of whole networks.

``cost = c + sum over groups of b * width + sum over products of a * width in * width out``, with widths as they are and
rounded up to the block that kernels work in, all coefficients non-negative. Whole networks are measured, so that
normalisation, pooling, copies and overheads are in it, for any architecture and without a table of kinds of layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from lumos.pruning.bench import BLOCK
from lumos.shapes import Float
from lumos.tracing.structure import Structure


@dataclass(frozen=True)
class CostColumns:
    """The terms of the cost of a structure, each as a share of what it is for the dense network.

    In this order: one constant; each group's width; the same rounded up; for each group that may go as a whole, whether
    something of it is left; each product's width in times width out; the same with both rounded up.

    Args:
        unit: For each gated position of an axis, its place among the padded gates.
        axis: For each of them the number of its axis.
        always: For each axis, how many of its positions always stay. The first axes are those of the groups.
        groups: The number of groups.
        optional: The groups that may go as a whole.
        owner: For each gate, its group.
        pairs: For each product, its two axes.
        dense: The terms of the dense network, before they are made shares.
    """

    unit: Tensor
    axis: Tensor
    always: Tensor
    groups: int
    optional: Tensor
    owner: Tensor
    pairs: Tensor
    dense: Tensor

    @classmethod
    def of(cls, structure: Structure) -> CostColumns:
        """List the terms of a structure."""
        values = 1 + structure.units + len(structure.pairs)
        number: dict[bytes, int] = {}
        unit: list[Tensor] = []
        axis: list[Tensor] = []
        always: list[float] = []

        def add(units: Tensor) -> int:
            key = units.numpy().tobytes()
            if key not in number:
                gated = units[units != 0] % values
                number[key] = len(always)
                unit.append(gated)
                axis.append(torch.full((len(gated),), len(always)))
                always.append(float((units == 0).sum()))
            return number[key]

        for group in structure.groups:
            add(torch.arange(group.start, group.stop) + 1)
        pairs: dict[tuple[int, int], None] = {}
        for c in structure.contractions:
            shape = structure.shapes[c.weight]
            sides = (structure.maps.get((c.weight, d), torch.zeros(shape[d], dtype=torch.int64))
                     for d in (c.in_dim, c.out_dim))  # fmt: skip
            first, second = (add(units) for units in sides)
            pairs[first, second] = None
        one = torch.zeros(1, dtype=torch.int64)
        for product in structure.products:
            first, second = (add(units) for units in (*product.units, one)[:2])
            pairs[first, second] = None
        owner = torch.cat([torch.full((g.size,), i) for i, g in enumerate(structure.groups)])
        optional = torch.tensor([i for i, g in enumerate(structure.groups) if g.optional], dtype=torch.int64)
        columns = cls(
            torch.cat(unit), torch.cat(axis), torch.tensor(always, dtype=torch.float64), len(structure.groups),
            optional, owner, torch.tensor(list(pairs), dtype=torch.int64).reshape(-1, 2), torch.ones(()),
        )  # fmt: skip
        dense = columns.values(structure.padded(torch.ones(structure.units, dtype=torch.float64)))
        return replace(columns, dense=dense.clamp(min=1.0))

    def values(self, padded: Float[Tensor, " padded"]) -> Float[Tensor, " terms"]:
        """Compute the terms; differentiable, and none of them falls when a gate opens.

        Args:
            padded: What each place counts: a one first, then the units' probabilities to be open, then the pairs'.
        """
        sums = self.always.to(padded.dtype).index_add(0, self.axis, padded.index_select(0, self.unit))
        up = rounded_up(sums, BLOCK)
        gates = padded[1 : 1 + len(self.owner)]
        closed = gates.new_ones(self.groups).scatter_reduce(0, self.owner, 1.0 - gates, "prod")
        first, second = self.pairs.unbind(1)
        terms = (
            padded[:1], sums[: self.groups], up[: self.groups], 1.0 - closed[self.optional],
            sums[first] * sums[second], up[first] * up[second],
        )  # fmt: skip
        return torch.cat(terms) / self.dense.to(padded.dtype)

    def on(self, device: torch.device) -> CostColumns:
        """Return the same on a device."""
        if self.unit.device == device:
            return self
        names = ("unit", "axis", "always", "optional", "owner", "pairs", "dense")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def rounded_up(widths: Tensor, block: int) -> Tensor:
    """Round widths up to multiples of a block, between two whole numbers along a line.

    The gradient is one, so that a width of twelve can fall to eight; and zero where one block is left, which costs the
    same with any number of units.

    Example:
        >>> import torch
        >>> from lumos.pruning.fitted_cost import rounded_up
        >>> rounded_up(torch.tensor([0.0, 1.0, 8.0, 8.5, 9.0, 16.0]), 8)
        tensor([ 0.,  8.,  8., 12., 16., 16.])
    """
    whole = torch.floor(widths / block) * block
    value = whole + block * (widths - whole).clamp(max=1.0)
    moving = torch.where(widths > block, widths, widths.detach())
    return moving + (value - widths).detach()


def fit_coefficients(
    terms: Float[np.ndarray, "networks terms"], costs: Float[np.ndarray, " networks"], weights: Any = 1.0
) -> Float[np.ndarray, " terms"]:
    """Fit non-negative coefficients, so that squared *relative* errors are least.

    Args:
        terms: The terms of each network.
        costs: What was measured for each, > 0.
        weights: How often each network counts.
    """
    scale = np.sqrt(np.broadcast_to(np.asarray(weights, dtype=np.float64), costs.shape)) / costs
    return nnls(terms * scale[:, None], costs * scale, maxiter=30 * terms.shape[1])[0]


class FittedCost:
    """The cost of a call as a share of the dense network's, for any gates of a structure.

    Args:
        structure: The traced model.
        coefficients: One for each term of :class:`CostColumns`.
    """

    def __init__(self, structure: Structure, coefficients: Float[Tensor, " terms"]) -> None:
        self.structure = structure
        self._columns = CostColumns.of(structure)
        self.coefficients = coefficients.double()

    def terms(self, gates: Float[Tensor, " units"]) -> Float[Tensor, " terms"]:
        """Compute what the coefficients multiply, for gates that are open with these probabilities."""
        self._columns = self._columns.on(gates.device)
        return self._columns.values(self.structure.padded(gates))

    def share(self, gates: Float[Tensor, " units"]) -> Float[Tensor, ""]:
        """Compute the expected cost as a share of the dense network's; differentiable, growing with every gate."""
        return (self.terms(gates) * self.coefficients.to(gates.device, gates.dtype)).sum()
