"""The classifier: convolutions with a kernel of 4, each halved, then linear layers."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from lumos.errors import DataError
from lumos.workloads.common.mlp import dense_layers


class DMSNet(nn.Module):
    """Two logits, monoclinic and tetragonal, for each image (3, rows, columns).

    ``channels`` are those of the convolutions, ``hidden`` the units of the linear layers before the last. The mean
    and deviation of each input channel are buffers, so that a saved network needs no file beside it. Raises DataError
    where the images are too small for so many convolutions.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Float[Tensor, " inputs"],
        std: Float[Tensor, " inputs"],
        shape: tuple[int, int],
        channels: Sequence[int],
        hidden: Sequence[int],
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])
        layers: list[nn.Module] = []
        rows, columns = shape
        for fan_in, fan_out in zip([len(mean), *channels[:-1]], channels, strict=True):
            layers += [nn.Conv2d(fan_in, fan_out, 4), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(fan_out)]
            rows, columns = (rows - 3) // 2, (columns - 3) // 2
        if min(rows, columns) < 1:
            raise DataError(
                f"workload.channels={list(channels)}: {shape[0]} x {shape[1]} pixels are too few for {len(channels)} "
                "convolutions; take fewer, or a larger workload.shape"
            )
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Flatten(), *dense_layers([channels[-1] * rows * columns, *hidden, 2]))

    def forward(self, x: Float[Tensor, "images inputs rows columns"]) -> Float[Tensor, "images 2"]:
        """Compute the logits."""
        return self.head(self.convolutions((x - self.mean) / self.std))
