"""CosmoFlow's network: convolutions and pooling in three dimensions, then three linear layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

SLOPE = 0.3
REACH = 1.2
"""Outputs lie in (-REACH, REACH): a label at the edge of [-1, 1] need not be at the flat end of the tanh."""


class CosmoNet(nn.Module):
    """Cubes (n, 4, d, d, d) of log(1 + count) to four parameters (n, 4) in (-1.2, 1.2).

    One block [3x3x3 convolution, max pooling by 2, LeakyReLU 0.3] for each of ``channels``, then linear layers of
    ``hidden`` units. Source: Mathuriya et al. 2018, as MLPerf HPC runs it. The function is the one with the pooling
    last, since LeakyReLU rises everywhere, at an eighth of the cost. With ``norm``, batch normalisation comes before
    LeakyReLU; with ``strided``, the first convolution has a stride of 2 in place of the pooling.
    """

    def __init__(
        self, cells: int, channels: Sequence[int], hidden: Sequence[int], *, norm: bool, strided: bool
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for number, (fan_in, fan_out) in enumerate(zip([4, *channels[:-1]], channels, strict=True)):
            halved = strided and number == 0
            blocks += [nn.Conv3d(fan_in, fan_out, 3, padding=1, stride=2 if halved else 1)]
            blocks += [] if halved else [nn.MaxPool3d(2)]
            blocks += [nn.BatchNorm3d(fan_out)] if norm else []
            blocks += [nn.LeakyReLU(SLOPE)]
        self.blocks = nn.Sequential(*blocks)
        sizes = [channels[-1] * (cells >> len(channels)) ** 3, *hidden]
        head: list[nn.Module] = []
        for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
            head += [nn.Linear(fan_in, fan_out), nn.LeakyReLU(SLOPE)]
        self.head = nn.Sequential(*head, nn.Linear(sizes[-1], 4))
        # Channels last, as the cubes lie on disk: several times faster on a CPU than channels first.
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, x: Float[Tensor, "n 4 d d d"]) -> Float[Tensor, "n 4"]:
        """The parameters, in units in which each spans [-1, 1]."""
        return REACH * torch.tanh(self.head(self.blocks(x).flatten(1)))
