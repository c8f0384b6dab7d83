"""What a network takes in place of a column of numbers or categories, with one place for each column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from lumos.errors import ConfigError
from lumos.scaling import spread, varies
from lumos.shapes import Float

Kind = Literal["quantiles", "plain", "periodic"]
"""How a number is encoded."""
BINS = 8
FREQUENCY = 0.3
"""Standard deviation of the frequencies of a periodic encoding at the start, in periods for a standard deviation."""
FAR = 1e30
"""Where the bins begin that a column with few distinct values does not have."""


class Encoding(nn.Module):
    """Encode each column of a table; whatever a column becomes belongs to that column.

    Put in front of a network, it takes raw columns, NaN among them: a gate on a column closes all that it became, and
    the compact and the exported network have the encoding of the kept columns inside. Source: Gorishniy et al., On
    Embeddings for Numerical Features in Tabular Deep Learning, NeurIPS 2022.

    Args:
        numbers: How many columns are numbers; they come first. NaN stands for a missing value.
        categories: The number of categories of each other column; its values are 0, 1, 2… and -1 for an unknown one.
        kind: ``quantiles``: the standardised value, and its place in each of some quantile bins (piecewise linear);
            ``plain``: the standardised value alone; ``periodic``: besides it, sines and cosines of frequencies that are
            trained.
        bins: Bins, or frequencies, of each number.
        missing: Whether columns of numbers get a flag for missing values.

    Attributes:
        out_features: How many columns come out.

    Example:
        >>> import torch
        >>> from lumos.tabular.encoding import Encoding
        >>> x = torch.tensor([[1.0, 20.0, 0], [2.0, float("nan"), 1], [3.0, 40.0, -1]])
        >>> encoding = Encoding(2, [2], kind="quantiles", bins=3, missing=True).scaled_by(x)
        >>> encoding.out_features, encoding(x).shape
        (12, torch.Size([3, 12]))
    """

    mean: Tensor
    rate: Tensor
    edge: Tensor
    slope: Tensor
    code: Tensor

    def __init__(
        self,
        numbers: int,
        categories: Sequence[int] = (),
        *,
        kind: str = "quantiles",
        bins: int = BINS,
        missing: bool = False,
    ) -> None:
        super().__init__()
        check(kind, bins)
        self.has_numbers, self.has_categories = numbers > 0, len(categories) > 0
        self.has_missing = missing
        self.has_bins = kind == "quantiles" and bins > 0
        self.has_waves = kind == "periodic" and bins > 0
        most, places = max(categories, default=0), bins if self.has_bins else 0
        self.register_buffer("mean", torch.zeros(numbers, 1))
        self.register_buffer("rate", torch.ones(numbers, 1))
        self.register_buffer("edge", torch.zeros(numbers, places))
        self.register_buffer("slope", torch.ones(numbers, places))
        self.register_buffer("code", torch.arange(float(most)).repeat(len(categories), 1))
        if self.has_waves:
            self.frequency = nn.Parameter(FREQUENCY * torch.randn(numbers, bins))
        of_number = 1 + places + 2 * bins * self.has_waves + missing
        self.out_features = numbers * of_number + len(categories) * most

    @torch.no_grad()
    def scaled_by(self, x: Float[Tensor, "rows columns"]) -> Any:
        """Take the scaling from training rows, and return the module.

        A column that does not vary becomes constant, whatever comes later: nothing can have been learnt from it.

        Args:
            x: Training rows, numbers first; NaN stands for a missing value.
        """
        for k in range(len(self.mean)):
            values = x[:, k][~x[:, k].isnan()]
            if not len(values) or not bool(varies(values[:, None])):
                self.mean[k], self.rate[k], self.edge[k], self.slope[k] = values[:1].sum(), 0.0, 0.0, 0.0
                continue
            self.mean[k] = values.double().mean()
            self.rate[k] = 1.0 / spread(values[:, None])
            self.edge[k], self.slope[k] = _bins(values, self.edge.shape[1])
        return self

    def encode(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows encoded"]:
        """Return the parts of each column side by side."""
        columns, parts = x.shape[1] - self.code.shape[0], []
        if self.has_numbers:
            number = x[:, :columns].unsqueeze(2)
            missing = torch.isnan(number)
            number = torch.where(missing, self.mean, number)
            of_number = [(number - self.mean) * self.rate]
            if self.has_bins:
                of_number.append(((number - self.edge) * self.slope).clamp(0.0, 1.0))
            if self.has_waves:
                phase = 2 * math.pi * of_number[0] * self.frequency
                of_number += [torch.sin(phase), torch.cos(phase)]
            if self.has_missing:
                of_number.append(missing.to(x.dtype))
            parts.append(torch.cat(of_number, 2).flatten(1))
        if self.has_categories:
            parts.append((x[:, columns:].unsqueeze(2) == self.code).to(x.dtype).flatten(1))
        return torch.cat(parts, 1)

    def forward(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows encoded"]:
        """Encode rows."""
        return self.encode(x)


def encode(
    x: Float[Tensor, "rows columns"],
    kind: str = "quantiles",
    bins: int = BINS,
    *,
    categories: Sequence[int] = (),
) -> Encoding:
    """Make the encoding of a table's columns, to put in front of a network of one's own.

    Args:
        x: Training rows, numbers first; NaN stands for a missing value.
        kind: ``quantiles``, ``plain`` or ``periodic``, see :class:`lumos.Encoding`.
        bins: Bins, or frequencies, of each number.
        categories: The number of categories of each of the last columns; their values are 0, 1, 2… and -1.

    Returns:
        A module from (rows, columns) to (rows, ``out_features``), scaled by x.

    Raises:
        ConfigError: There is no such kind, ``bins`` is negative, or x is not a table with these categories.

    Example:
        >>> import torch, lumos
        >>> x = torch.rand(500, 6)
        >>> encoding = lumos.encode(x, "quantiles", bins=4)
        >>> model = torch.nn.Sequential(encoding, torch.nn.Linear(encoding.out_features, 1))
        >>> gated = lumos.gate(model, x[:8])
        >>> gated.gates.log_alpha.data[2:] = -9.0  # in place of a training
        >>> small = lumos.compact(gated.eval())
        >>> small.features, small.model[1].in_features
        (['x0', 'x1'], 10)
    """
    if x.ndim != 2 or x.shape[1] < len(categories) or not len(x):
        raise ConfigError(f"encode: x has the shape {tuple(x.shape)}; expected rows of columns, {len(categories)} or "
                          "more, the categories last")  # fmt: skip
    numbers = x.shape[1] - len(categories)
    missing = bool(x[:, :numbers].isnan().any())
    made = Encoding(numbers, categories, kind=kind, bins=bins, missing=missing)
    return made.scaled_by(x.detach().cpu().float()).to(x.device)


def check(kind: str, bins: int) -> None:
    """Raise ConfigError where there is no encoding of this kind."""
    if kind not in get_args(Kind):
        raise ConfigError(f"encoding={kind}: expected one of {', '.join(get_args(Kind))}")
    if bins < 0:
        raise ConfigError(f"bins={bins}: expected a whole number >= 0")


def _bins(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Where each of the quantile bins begins, and one over its width; bins that are empty never begin."""
    edges = np.unique(np.quantile(values.double().numpy(), np.linspace(0, 1, count + 1)).astype(np.float32))
    wide = np.diff(edges) > np.finfo(np.float32).eps * np.abs(edges).max(initial=0)
    begin, slope = np.full(count, FAR, np.float32), np.ones(count, np.float32)
    begin[: wide.sum()], slope[: wide.sum()] = edges[:-1][wide], 1.0 / np.diff(edges)[wide]
    return torch.from_numpy(begin).to(values.dtype), torch.from_numpy(slope).to(values.dtype)
