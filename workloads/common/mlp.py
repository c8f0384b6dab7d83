"""Fully connected layers, and the network of the paper's surrogates, with its scaling inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from lumos.scaling import spread


class ScaledMLP(nn.Module):
    """Physical units in, physical units out: standardise, linear layers with ReLU between them, scale back.

    The means and standard deviations are buffers, so that a saved network needs no file beside it.
    """

    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor

    def __init__(
        self,
        inputs: Float[Tensor, "rows inputs"],
        outputs: Float[Tensor, "rows outputs"],
        widths: Sequence[int],
    ) -> None:
        super().__init__()
        for name, table in (("input", inputs), ("output", outputs)):
            self.register_buffer(f"{name}_mean", table.mean(0))
            # A constant column carries nothing; dividing by one leaves it at zero after centring.
            self.register_buffer(f"{name}_std", spread(table))
        self.layers = nn.Sequential(*dense_layers([inputs.shape[1], *widths, outputs.shape[1]]))

    def forward(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """Predict, in the units of the outputs that the network was made with."""
        return self.layers((x - self.input_mean) / self.input_std) * self.output_std + self.output_mean


def relu() -> list[nn.Module]:
    """Make what stands between two layers by default."""
    return [nn.ReLU()]


def dense_layers(sizes: Sequence[int], between: Callable[[], list[nn.Module]] = relu) -> list[nn.Module]:
    """Make linear layers from ``sizes[0]`` inputs to ``sizes[-1]`` outputs; ``between()`` follows all but the last."""
    *inner, last = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
    return [module for layer in inner for module in (layer, *between())] + [last]
