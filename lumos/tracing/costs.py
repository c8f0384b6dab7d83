"""What a network with gates costs: expected parameters and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lumos.shapes import Float, Int
from lumos.tracing.calls import Axis


@dataclass(frozen=True)
class Contraction:
    """One call that multiplies activations by a weight.

    Args:
        weight: The weight's name.
        in_dim: The weight's dimension along which it reads.
        out_dim: The weight's dimension along which it makes units.
        macs: Multiply-accumulates for each pair of an input and an output unit.
        rows: Number of input vectors that the example gave it.
        module: Path of the module that made the call.
        direct: Whether that module is a plain ``nn.Linear``, which does nothing but this call.
    """

    weight: str
    in_dim: int
    out_dim: int
    macs: int
    rows: int
    module: str
    direct: bool


@dataclass(frozen=True)
class CostModel:
    """Every position of every parameter axis in flat vectors, so that costs take a handful of kernels.

    Args:
        unit: For each gated position, its place among the values that :meth:`sizes` is given.
        axis: For each gated position, the number of its axis.
        always: For each axis, how many of its positions always stay.
        owner: For each axis, the number of its parameter.
        pairs: For each contraction: its input axis, its output axis, its MACs for each pair of units.
        parameters: The number of parameters.
    """

    unit: Int[Tensor, " positions"]
    axis: Int[Tensor, " positions"]
    always: Float[Tensor, " axes"]
    owner: Int[Tensor, " axes"]
    pairs: Int[Tensor, "contractions 3"]
    parameters: int

    @classmethod
    def of(
        cls,
        shapes: Mapping[str, tuple[int, ...]],
        maps: Mapping[Axis, Tensor],
        contractions: Iterable[Contraction],
        values: int,
    ) -> CostModel:
        """Build the model.

        Args:
            shapes: Shapes of the parameters that count, by name.
            maps: The unit map of every axis that has units.
            contractions: The products that count.
            values: How many values :meth:`sizes` is given: negative units in the maps count from their end.
        """
        number: dict[Axis, int] = {}
        unit, axis = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=torch.int64)]
        always: list[float] = []
        for name, shape in shapes.items():
            for dim, size in enumerate(shape):
                number[name, dim] = len(always)
                units = maps.get((name, dim), torch.zeros(size, dtype=torch.int64))
                unit.append(units[units != 0] % values)
                axis.append(torch.full((len(unit[-1]),), len(always)))
                always.append(float((units == 0).sum()))
        owner = [i for i, shape in enumerate(shapes.values()) for _ in shape]
        pairs = [(number[c.weight, c.in_dim], number[c.weight, c.out_dim], c.macs) for c in contractions]
        return cls(
            torch.cat(unit),
            torch.cat(axis),
            torch.tensor(always, dtype=torch.float64),
            torch.tensor(owner, dtype=torch.int64),
            torch.tensor(pairs, dtype=torch.int64).reshape(-1, 3),
            len(shapes),
        )

    def sizes(self, values: Float[Tensor, " values"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return expected parameters and expected multiply-accumulates.

        A parameter counts the product, over its dimensions, of the sum of its positions' values; a contraction counts
        its MACs for each pair times the sums of its two axes. Differentiable.

        Args:
            values: What each place counts: a one first, then the units' probabilities to be open, then the pairs'.
        """
        at = self._on(values.device)
        sums = at.always.to(values.dtype).index_add(0, at.axis, values.index_select(0, at.unit))
        # A scatter product and not exp(sum(log)): a parameter that is wholly closed counts exactly zero.
        each = torch.ones(at.parameters, dtype=values.dtype, device=values.device)
        parameters = each.scatter_reduce(0, at.owner, sums, "prod").sum()
        return parameters, (sums[at.pairs[:, 0]] * sums[at.pairs[:, 1]] * at.pairs[:, 2]).sum()

    def _on(self, device: torch.device) -> CostModel:
        if self.unit.device == device:
            return self
        names = ("unit", "axis", "always", "owner", "pairs")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})
