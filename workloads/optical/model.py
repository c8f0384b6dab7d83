"""The autoencoder: two halvings, a dense bottleneck, two doublings."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

Images = Float[Tensor, "images 1 rows columns"]


class Autoencoder(nn.Module):
    """Images in, the same images out, through ``latent`` numbers an image.

    ``encoder`` has the channels of its three convolutions, ``decoder`` those of its five. The mean image and the
    deviation of the pixels from it are buffers: the layers see, and give back, how an image differs from the mean
    one, in units of about 1. Rows and columns must be multiples of 4.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Float[Tensor, "1 rows columns"],
        std: Float[Tensor, ""],
        encoder: Sequence[int],
        latent: int,
        decoder: Sequence[int],
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        first, second, third = encoder
        height, width = mean.shape[1] // 4, mean.shape[2] // 4
        self.encode = nn.Sequential(
            *_conv(1, first), nn.MaxPool2d(2), *_conv(first, second), nn.MaxPool2d(2), *_conv(second, third)
        )
        self.squeeze = nn.Sequential(nn.Flatten(), nn.Linear(third * height * width, latent))
        self.expand = nn.Sequential(
            nn.Linear(latent, third * height * width), nn.Unflatten(1, (-1, height, width)), nn.BatchNorm2d(third)
        )
        a, b, c, d, e = decoder
        self.decode = nn.Sequential(
            *_conv(third, a), *_double(a, b), *_conv(b, c), *_double(c, d), *_conv(d, e), nn.Conv2d(e, 1, 1)
        )

    def forward(self, x: Images) -> Images:
        """Reproduce the images, as the bottleneck lets them through."""
        latent = self.squeeze(self.encode((x - self.mean) / self.std))
        return self.decode(self.expand(latent)) * self.std + self.mean


def _conv(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(channels_out)]


def _double(channels_in: int, channels_out: int) -> list[nn.Module]:
    # With these paddings, rows and columns are exactly doubled.
    grow = nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)
    return [grow, nn.ReLU(), nn.BatchNorm2d(channels_out)]
