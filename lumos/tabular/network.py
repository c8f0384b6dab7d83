"""A fully connected network that takes the columns of a table as they are, with one place for each column."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lumos.errors import ConfigError
from lumos.scaling import spread
from lumos.shapes import Float
from lumos.tabular.encoding import Encoding

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


class TableNetwork(Encoding):
    """Raw columns in, physical units out: encode each column, linear layers, scale back.

    A number becomes its standardised value, its place in each of some quantile bins (or sines and cosines of it), and a
    flag where values are missing; a category becomes one of several. The scaling is inside, so that a saved network
    needs no file beside it.

    Args:
        numbers: How many columns are numbers; they come first. NaN stands for a missing value.
        categories: The number of categories of each other column; its values are 0, 1, 2… and -1 for an unknown one.
        outputs: How many numbers, or logits, come out.
        widths: Units of the hidden layers.
        bins: Bins, or frequencies, of the encoding; 0 for the standardised value alone.
        missing: Whether columns of numbers get a flag for missing values.
        activation: ``relu``, ``silu`` or ``tanh``.
        dropout: Share of the hidden units that training leaves out.
        encoding: ``quantiles``, ``plain`` or ``periodic``, see :class:`lumos.tabular.encoding.Encoding`.

    Example:
        >>> import torch
        >>> from lumos.tabular.network import TableNetwork
        >>> x = torch.tensor([[1.0, 20.0, 0], [2.0, float("nan"), 1], [3.0, 40.0, -1]])
        >>> network = TableNetwork(2, [2], outputs=1, widths=(8,), missing=True).scaled_by(x, x[:, :1])
        >>> network(x).shape, network.encode(x).shape
        (torch.Size([3, 1]), torch.Size([3, 6]))
    """

    output_mean: Tensor
    output_scale: Tensor

    def __init__(
        self,
        numbers: int,
        categories: Sequence[int],
        outputs: int,
        widths: Sequence[int],
        *,
        bins: int = 0,
        missing: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        encoding: str = "quantiles",
    ) -> None:
        super().__init__(numbers, categories, kind=encoding, bins=bins, missing=missing)
        if activation not in ACTIVATIONS:
            raise ConfigError(f"activation={activation}: expected one of {', '.join(ACTIVATIONS)}")
        self.register_buffer("output_mean", torch.zeros(outputs))
        self.register_buffer("output_scale", torch.ones(outputs))
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([self.out_features, *widths]):
            layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers, nn.Linear([self.out_features, *widths][-1], outputs))

    @torch.no_grad()
    def scaled_by(
        self, x: Float[Tensor, "rows columns"], y: Float[Tensor, "rows outputs"] | None = None
    ) -> TableNetwork:
        """Take the scaling from training rows, and return the network.

        Args:
            x: Training rows, numbers first; NaN stands for a missing value.
            y: Their outputs; None where logits come out.
        """
        super().scaled_by(x)
        if y is not None:
            self.output_mean.copy_(y.mean(0))
            self.output_scale.copy_(spread(y))
        return self

    def forward(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows outputs"]:
        """Predict, in the units of the outputs that the network was scaled by; logits where there were none."""
        return self.layers(self.encode(x)) * self.output_scale + self.output_mean
