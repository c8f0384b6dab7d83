"""A fully connected network that takes the columns of a table as they are, with one place for each column."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from lumos.errors import ConfigError
from lumos.scaling import spread, varies
from lumos.shapes import Float

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}
FAR = 1e30
"""Where the bins begin that a column with few distinct values does not have."""


class TableNetwork(nn.Module):
    """Raw columns in, physical units out: encode each column, linear layers, scale back.

    A number becomes its standardised value, its place in each of some quantile bins (a piecewise linear encoding), and
    a flag where values are missing; a category becomes one of several. Whatever a column becomes belongs to that
    column: a gate on it closes all of it. The scaling is inside, so that a saved network needs no file beside it.
    Source of the encoding: Gorishniy et al., On Embeddings for Numerical Features, NeurIPS 2022.

    Args:
        numbers: How many columns are numbers; they come first. NaN stands for a missing value.
        categories: The number of categories of each other column; its values are 0, 1, 2… and -1 for an unknown one.
        outputs: How many numbers, or logits, come out.
        widths: Units of the hidden layers.
        bins: Bins of the encoding; 0 for the standardised value alone.
        missing: Whether columns of numbers get a flag for missing values.
        activation: ``relu``, ``silu`` or ``tanh``.
        dropout: Share of the hidden units that training leaves out.

    Example:
        >>> import torch
        >>> from lumos.tabular.network import TableNetwork
        >>> x = torch.tensor([[1.0, 20.0, 0], [2.0, float("nan"), 1], [3.0, 40.0, -1]])
        >>> network = TableNetwork(2, [2], outputs=1, widths=(8,), missing=True).scaled_by(x, x[:, :1])
        >>> network(x).shape, network.encode(x).shape
        (torch.Size([3, 1]), torch.Size([3, 6]))
    """

    mean: Tensor
    rate: Tensor
    edge: Tensor
    slope: Tensor
    code: Tensor
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
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(f"activation={activation}: expected one of {', '.join(ACTIVATIONS)}")
        self.has_numbers, self.has_categories = numbers > 0, len(categories) > 0
        self.has_bins, self.has_missing = bins > 0, missing
        most = max(categories, default=0)
        self.register_buffer("mean", torch.zeros(numbers, 1))
        self.register_buffer("rate", torch.ones(numbers, 1))
        self.register_buffer("edge", torch.zeros(numbers, bins))
        self.register_buffer("slope", torch.ones(numbers, bins))
        self.register_buffer("code", torch.arange(float(most)).repeat(len(categories), 1))
        self.register_buffer("output_mean", torch.zeros(outputs))
        self.register_buffer("output_scale", torch.ones(outputs))
        encoded = numbers * (1 + bins + missing) + len(categories) * most
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([encoded, *widths]):
            layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers, nn.Linear([encoded, *widths][-1], outputs))

    @torch.no_grad()
    def scaled_by(
        self, x: Float[Tensor, "rows columns"], y: Float[Tensor, "rows outputs"] | None = None
    ) -> TableNetwork:
        """Take the scaling from training rows, and return the network.

        A column that does not vary becomes zero, whatever comes later: nothing can have been learnt from it.

        Args:
            x: Training rows, numbers first; NaN stands for a missing value.
            y: Their outputs; None where logits come out.
        """
        for k in range(len(self.mean)):
            values = x[:, k][~x[:, k].isnan()]
            if not len(values) or not bool(varies(values[:, None])):
                self.mean[k], self.rate[k], self.edge[k], self.slope[k] = values[:1].sum(), 0.0, 0.0, 0.0
                continue
            self.mean[k] = values.double().mean()
            self.rate[k] = 1.0 / spread(values[:, None])
            self.edge[k], self.slope[k] = _bins(values, self.edge.shape[1])
        if y is not None:
            self.output_mean.copy_(y.mean(0))
            self.output_scale.copy_(spread(y))
        return self

    def encode(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows encoded"]:
        """Return what the first layer takes: the parts of each column side by side."""
        columns, parts = x.shape[1] - self.code.shape[0], []
        if self.has_numbers:
            number = x[:, :columns].unsqueeze(2)
            missing = torch.isnan(number)
            number = torch.where(missing, self.mean, number)
            of_number = [(number - self.mean) * self.rate]
            if self.has_bins:
                of_number.append(((number - self.edge) * self.slope).clamp(0.0, 1.0))
            if self.has_missing:
                of_number.append(missing.to(x.dtype))
            parts.append(torch.cat(of_number, 2).flatten(1))
        if self.has_categories:
            parts.append((x[:, columns:].unsqueeze(2) == self.code).to(x.dtype).flatten(1))
        return torch.cat(parts, 1)

    def forward(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows outputs"]:
        """Predict, in the units of the outputs that the network was scaled by; logits where there were none."""
        return self.layers(self.encode(x)) * self.output_scale + self.output_mean


def _bins(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Where each of the quantile bins begins, and one over its width; bins that are empty never begin."""
    edges = np.unique(np.quantile(values.double().numpy(), np.linspace(0, 1, count + 1)).astype(np.float32))
    wide = np.diff(edges) > np.finfo(np.float32).eps * np.abs(edges).max(initial=0)
    begin, slope = np.full(count, FAR, np.float32), np.ones(count, np.float32)
    begin[: wide.sum()], slope[: wide.sum()] = edges[:-1][wide], 1.0 / np.diff(edges)[wide]
    return torch.from_numpy(begin).to(values.dtype), torch.from_numpy(slope).to(values.dtype)
