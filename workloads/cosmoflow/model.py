"""CosmoFlow's network: convolutions and pooling in three dimensions, then three linear layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, max_pool3d

from lumos.workloads.common.mlp import dense_layers

SLOPE = 0.3
REACH = 1.2
"""Outputs lie in (-REACH, REACH): a label at the edge of [-1, 1] need not be at the flat end of the tanh."""


class CosmoNet(nn.Module):
    """Cubes (n, 4, d, d, d) of log(1 + count) to four parameters (n, 4) in (-1.2, 1.2).

    One block [3x3x3 convolution, max pooling by 2, LeakyReLU 0.3] for each of ``channels``, then linear layers of
    ``hidden`` units. Source: Mathuriya et al. 2018, as MLPerf HPC runs it. The function is the one with the pooling
    last, since LeakyReLU rises everywhere, at an eighth of the cost. With ``strided``, the first convolution has a
    stride of 2 besides. With ``means``, the linear layers see, in place of the last block's cells, the averages over
    the cube of each block's channels before the pooling, batch normalised; and redshifts are normalised before the
    first block. A parameter changes these averages by little beside what they are, and no place in the cube is special.
    """

    def __init__(
        self, cells: int, channels: Sequence[int], hidden: Sequence[int], *, means: bool, strided: bool
    ) -> None:
        super().__init__()
        pairs = list(zip([4, *channels[:-1]], channels, strict=True))
        self.means = means
        self.scaled = nn.BatchNorm3d(4, affine=False) if means else nn.Identity()
        self.convolutions = nn.ModuleList(
            nn.Conv3d(fan_in, fan_out, 3, padding=1, stride=2 if strided and number == 0 else 1)
            for number, (fan_in, fan_out) in enumerate(pairs)
        )
        cells_left = (cells >> (len(channels) + strided)) ** 3
        seen = sum(channels) if means else channels[-1] * cells_left
        normalised: list[nn.Module] = [nn.BatchNorm1d(seen)] if means else []
        self.head = nn.Sequential(*normalised, *dense_layers([seen, *hidden, 4], lambda: [nn.LeakyReLU(SLOPE)]))
        # Channels last, as the cubes lie on disk: several times faster on a CPU than channels first.
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, x: Float[Tensor, "n 4 d d d"]) -> Float[Tensor, "n 4"]:
        """Predict the parameters, in units in which each spans [-1, 1]."""
        x = self.scaled(x)
        means = []
        for convolution in self.convolutions:
            x = convolution(x)
            if self.means:
                means.append(leaky_relu(x, SLOPE).mean((2, 3, 4)))
            x = leaky_relu(max_pool3d(x, 2), SLOPE)
        seen = torch.cat(means, 1) if self.means else x.flatten(1)
        return REACH * torch.tanh(self.head(seen))
