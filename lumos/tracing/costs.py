"""What a network with gates costs: expected parameters and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lumos.shapes import Float, Int
from lumos.tracing.calls import Axis

COUNTED = frozenset(
    """lstm gru rnn_tanh rnn_relu einsum tensordot bilinear matmul mm mv dot bmm addmm addmv baddbmm addbmm chain_matmul
    linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d scaled_dot_product_attention
    lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell multi_dot linalg_multi_dot""".split()  # noqa: SIM905
)
"""Calls that multiply, by plain name: where one is not followed, it is counted as torch counts it."""


def macs_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """Count the multiply-accumulates of one call as torch counts them, by making it once more."""
    with torch.no_grad(), countable(), FlopCounterMode(display=False) as counter:
        func(*args, **kwargs)
    return counter.get_total_flops() / 2


@contextmanager
def countable() -> Iterator[None]:
    """Let torch compute in the steps that its counter knows: fused layers hide products from it."""
    fast, fused = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(fused)


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
    macs: float
    rows: int
    module: str
    direct: bool


@dataclass(frozen=True)
class Product:
    """One product of activations with one another, or of activations whose units all pass through it.

    Args:
        units: The units of each position along the axes that it costs for, one or two of them.
        macs: Multiply-accumulates for each position, or for each pair of them.
    """

    units: tuple[Int[Tensor, " _"], ...]
    macs: float


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
        constant: Multiply-accumulates of what is not followed, and stays.
    """

    unit: Int[Tensor, " positions"]
    axis: Int[Tensor, " positions"]
    always: Float[Tensor, " axes"]
    owner: Int[Tensor, " axes"]
    pairs: Float[Tensor, "contractions 3"]
    parameters: int
    constant: float

    @classmethod
    def of(
        cls,
        shapes: Mapping[str, tuple[int, ...]],
        trainable: Collection[str],
        maps: Mapping[Axis, Tensor],
        contractions: Collection[Contraction],
        products: Collection[Product],
        values: int,
        constant: float = 0.0,
    ) -> CostModel:
        """Build the model.

        Args:
            shapes: Shapes of the parameters and buffers, by name.
            trainable: The names of those that count as parameters.
            maps: The unit map of every axis that has units.
            contractions: The products with parameters and buffers that count.
            products: The products of activations that count.
            values: How many values :meth:`sizes` is given: negative units in the maps count from their end.
            constant: Multiply-accumulates of what is not followed.
        """
        counted = [name for name in shapes if name in trainable]
        read = {c.weight for c in contractions} - set(counted)
        number: dict[Axis, int] = {}
        unit, axis = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=torch.int64)]
        always: list[float] = []
        owner: list[int] = []

        def add(units: Tensor, of: int) -> int:
            unit.append(units[units != 0] % values)
            axis.append(torch.full((len(unit[-1]),), len(always)))
            always.append(float((units == 0).sum()))
            owner.append(of)
            return len(always) - 1

        for place, name in enumerate([*counted, *sorted(read)]):
            for dim, size in enumerate(shapes[name]):
                units = maps.get((name, dim), torch.zeros(size, dtype=torch.int64))
                number[name, dim] = add(units, min(place, len(counted)))
        pairs: list[tuple[int, int, float]] = [
            (number[c.weight, c.in_dim], number[c.weight, c.out_dim], c.macs) for c in contractions
        ]
        one = torch.zeros(1, dtype=torch.int64)
        for product in products:
            first, second = (*product.units, one)[:2]
            pairs.append((add(first, len(counted)), add(second, len(counted)), product.macs))
        return cls(
            torch.cat(unit),
            torch.cat(axis),
            torch.tensor(always, dtype=torch.float64),
            torch.tensor(owner, dtype=torch.int64),
            torch.tensor(pairs, dtype=torch.float64).reshape(-1, 3),
            len(counted),
            constant,
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
        # A scatter product and not exp(sum(log)): a parameter that is wholly closed counts exactly zero. The last place
        # takes what is no parameter.
        each = torch.ones(at.parameters + 1, dtype=values.dtype, device=values.device)
        parameters = each.scatter_reduce(0, at.owner, sums, "prod")[:-1].sum()
        first, second, macs = at.pairs.unbind(1)
        return parameters, (sums[first.long()] * sums[second.long()] * macs.to(values.dtype)).sum() + at.constant

    def _on(self, device: torch.device) -> CostModel:
        """The same on a device, made once for each: this is asked for in every step."""
        if self.unit.device == device:
            return self
        if device not in self._placed:
            names = ("unit", "axis", "always", "owner", "pairs")
            self._placed[device] = replace(self, **{name: getattr(self, name).to(device) for name in names})
        return self._placed[device]

    @cached_property
    def _placed(self) -> dict[torch.device, CostModel]:
        return {}
