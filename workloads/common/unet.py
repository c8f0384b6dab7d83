"""UNet: an image in, an image of the same size out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class UNet(nn.Module):
    """Levels of two 3x3 convolutions with ReLU, each at half the resolution of the one before, and back up again.

    ``widths`` are the channels of the levels. On the way up the image is doubled (bilinearly, or by a learnt 2x2
    transposed convolution) and joined to the level's own output on the way down. Image sides must be divisible by
    2^(len(widths) - 1). Source: Ronneberger, Fischer and Brox 2015, with padding.
    """

    def __init__(
        self, inputs: int, outputs: int, widths: Sequence[int], *, normalise: bool = False, transposed: bool = False
    ) -> None:
        super().__init__()
        channels = [inputs, *widths]
        self.down = nn.ModuleList(_block(a, b, normalise) for a, b in zip(channels, widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # from a level to the one above
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(low, high, 2, stride=2)
            if transposed
            else nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            for low, high in steps
        )
        self.up = nn.ModuleList(
            _block((2 if transposed else 1) * high + (0 if transposed else low), high, normalise) for low, high in steps
        )
        self.last = nn.Conv2d(widths[0], outputs, 1)
        if not normalise:
            # Torch's own start lets the signal fade from layer to layer where nothing normalises it (He et al. 2015).
            for module in (*self.down.modules(), *self.up.modules()):
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Float[Tensor, "rows inputs height width"]) -> Float[Tensor, "rows outputs height width"]:
        """Compute the output image; no function is applied to it."""
        levels: list[Tensor] = []
        for block in self.down:
            x = block(self.pool(levels[-1]) if levels else x)
            levels.append(x)
        levels.pop()
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            x = block(torch.cat([levels.pop(), enlarge(x)], dim=1))
        return self.last(x)


def _block(inputs: int, outputs: int, normalise: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU()]
        if normalise:
            layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers)
