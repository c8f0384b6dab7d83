"""Random fully connected networks for the property tests."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid, nn.ELU, nn.Softplus, nn.Identity)


class RandomMLP(nn.Module):
    """Layers of random widths with random activations, normalisation, skips, concatenation and scaling."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.inputs = rng.randint(1, 12)
        width = rng.randint(1, 16)
        self.first = nn.Linear(self.inputs, width, bias=rng.random() < 0.8)
        self.blocks = nn.ModuleList()
        self.kinds: list[str] = []
        size = width
        for _ in range(rng.randint(0, 3)):
            kind = rng.choice(["plain", "plain", "skip", "concat", "scale", "norm", "inplace"])
            out = size if kind in ("skip", "scale", "norm", "inplace") else rng.randint(1, 16)
            block: nn.Module = nn.Linear(size, out, bias=rng.random() < 0.8)
            if kind == "norm":
                block = nn.Sequential(block, nn.BatchNorm1d(out))
            if kind == "scale":
                block.register_parameter("scale", nn.Parameter(torch.randn(out)))
            self.blocks.append(block)
            self.kinds.append(kind)
            size = out + self.inputs if kind == "concat" else out
        self.activation = rng.choice(ACTIVATIONS)()
        self.last = nn.Linear(size, rng.randint(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.first(x))
        for kind, block in zip(self.kinds, self.blocks, strict=True):
            y = self.activation(block(h))
            if kind == "skip":
                h = h + y
            elif kind == "inplace":
                h = h * 1.0
                h += y
            elif kind == "scale":
                h = y * block.scale
            elif kind == "concat":
                h = torch.cat([y, x], dim=1)
            else:
                h = y
        return self.last(h)


def random_gates(gated, rng: random.Random) -> None:
    """Close a random share of the gates, leave the others open by different amounts, as a training would."""
    share = rng.random()
    with torch.no_grad():
        values = torch.rand_like(gated.gates.log_alpha) * 6 - 1.0
        values[torch.rand_like(values) < share] = -8.0
        gated.gates.log_alpha.copy_(values)
        gated.project()
