"""VGG11 without batch normalisation, of any width."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from lumos.workloads.common.mlp import dense_layers

LAYERS = (1, 1, 2, 2, 2)
"""Convolutions in each of the five stages of VGG11; each stage ends in a pooling that halves the image."""


class VGG11(nn.Module):
    """Eight 3x3 convolutions with ReLU, five poolings, three linear layers with dropout between them.

    ``widths`` are the channels of the five stages, ``hidden`` the units of the two linear layers before the last.
    Source: Simonyan and Zisserman 2015, configuration A, with their later scheme of weights (He et al. 2015), without
    which a network without normalisation does not start to learn.
    """

    def __init__(
        self,
        channels: int,
        pixels: int,
        classes: int,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        hidden: Sequence[int] = (4096, 4096),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, count in zip(widths, LAYERS, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.convolutions = nn.Sequential(*layers)
        units = channels * (pixels // 2 ** len(LAYERS)) ** 2
        head = dense_layers([units, *hidden, classes], lambda: [nn.ReLU(), nn.Dropout(dropout)])
        self.head = nn.Sequential(nn.Flatten(), *head)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                module.bias.data.zero_()  # type: ignore[union-attr]

    def forward(self, x: Float[Tensor, "rows channels pixels pixels"]) -> Float[Tensor, "rows classes"]:
        """Compute the logits of the classes."""
        return self.head(self.convolutions(x))
