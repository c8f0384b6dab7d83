"""Random models with what real ones have beside their layers, for the property tests."""

from __future__ import annotations

import random
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks import ACTIVATIONS

KINDS = """plain skip concat norm buffer mixed masked tied twice flag index branch slices blocks noise rare aux kept
halves heads grouped turned""".split()  # noqa: SIM905


class Block(nn.Module):
    """A layer and what it does beside its product: (rows, width) to (rows, width of the next one)."""

    def __init__(self, kind: str, width: int, inputs: int, rng: random.Random) -> None:
        super().__init__()
        self.kind = kind
        same = kind in ("skip", "norm", "masked", "tied", "twice", "slices", "rare", "halves")
        self.width = width if same else rng.randint(2, 12)
        if kind in ("heads", "grouped", "turned"):
            self.heads, self.size = 4, 2 * rng.randint(1, 3)
            self.width = self.heads * self.size
            self.few = rng.choice([1, 2]) if kind == "grouped" else self.heads
            self.made = (self.heads + 2 * self.few) * self.size
            self.out_of_heads = nn.Linear(self.width, self.width)
        if kind == "turned":
            self.register_buffer("frequencies", torch.rand(self.size // 2))
        if kind in ("blocks", "halves"):
            self.width, self.blocks = 4 * (self.width // 4 + 1), 4
        made = self.made if kind in ("heads", "grouped", "turned") else self.width
        self.layer = nn.Linear(width, made, bias=rng.random() < 0.8)
        self.column, self.cut = rng.randrange(inputs), rng.randint(1, max(1, self.width - 1))
        if kind == "norm":
            self.norm = nn.BatchNorm1d(self.width)
        if kind == "buffer":
            self.register_buffer("filter", torch.randn(self.width), persistent=rng.random() < 0.5)
        if kind == "mixed":
            self.register_buffer("basis", torch.randn(self.width, self.width))
        if kind == "masked":
            self.register_buffer("mask", (torch.rand(self.width, width) > 0.4).float())
            self.gain = nn.Parameter(1 + 0.1 * torch.randn(self.width, 1)) if width % 2 == 0 else None
        if kind == "rare":
            self.other = nn.Linear(width, self.width)
        if kind == "aux":
            self.aux = nn.Linear(self.width, 2)
        if kind == "halves":
            self.second, self.back = nn.Linear(width, self.width), nn.Linear(2 * self.width, self.width)
        self.out = self.width + (inputs if kind == "concat" else 0)

    def forward(self, h: Tensor, x: Tensor, extra: list[Tensor]) -> Tensor:
        weight = self.layer.weight * self.mask if self.kind == "masked" else self.layer.weight
        if self.kind == "masked" and self.gain is not None:  # and each row standardised
            weight = F.batch_norm(weight[None], None, None, weight=self.gain.view(-1), training=True)[0]
        y = torch.tanh(F.linear(h, weight, self.layer.bias) if self.kind == "masked" else self.layer(h))
        return getattr(self, f"_{self.kind}", lambda y, h, x, extra: y)(y, h, x, extra)

    def _skip(self, y, h, x, extra):
        return y + h

    def _concat(self, y, h, x, extra):
        return torch.cat([y, x], 1)

    def _norm(self, y, h, x, extra):
        return self.norm(y)

    def _buffer(self, y, h, x, extra):
        return y * self.filter

    def _mixed(self, y, h, x, extra):
        return torch.tanh(y @ self.basis)

    def _tied(self, y, h, x, extra):
        return torch.tanh(F.linear(y, self.layer.weight.t()))

    def _twice(self, y, h, x, extra):
        return self.layer(y)

    def _flag(self, y, h, x, extra):
        y = y.clone()
        y[x[:, self.column] > 0] = 0.5
        return y

    def _index(self, y, h, x, extra):
        return y[torch.argsort(x[:, self.column])]

    def _branch(self, y, h, x, extra):
        return y if bool((x[:, self.column] > 0).any()) else -y

    def _slices(self, y, h, x, extra):
        return torch.cat([y[:, : self.cut], y[:, self.cut :].abs()], 1)

    def _blocks(self, y, h, x, extra):
        return y.view(len(y), self.blocks, -1).softmax(-1).flatten(1)

    def _halves(self, y, h, x, extra):
        u = y.view(len(y), self.blocks, -1).softmax(-1).flatten(1)
        v = self.second(h).view(len(y), self.blocks, -1).softmax(-1).flatten(1)
        return self.back(torch.cat([u, v], 1))

    def _heads(self, y, h, x, extra):
        q, k, v = y.reshape(len(y), 3, self.heads, self.size).permute(1, 2, 0, 3).unbind(0)
        return self._attend(q, k, v)

    def _turned(self, y, h, x, extra):
        q, k, v = y.reshape(len(y), 3, self.heads, self.size).permute(1, 2, 0, 3).unbind(0)
        angles = torch.outer(torch.arange(len(y), dtype=y.dtype), self.frequencies)
        angles = torch.cat([angles, angles], -1)
        q, k = (
            t * angles.cos() + torch.cat([-t.chunk(2, -1)[1], t.chunk(2, -1)[0]], -1) * angles.sin() for t in (q, k)
        )
        return self._attend(q, k, v)

    def _grouped(self, y, h, x, extra):
        first, second = self.heads * self.size, (self.heads + self.few) * self.size
        parts = y[:, :first], y[:, first:second], y[:, second:]
        q, k, v = (part.reshape(len(y), -1, self.size).transpose(0, 1) for part in parts)
        return self._attend(q, k.repeat_interleave(len(q) // len(k), 0), v.repeat_interleave(len(q) // len(k), 0))

    def _attend(self, q, k, v):
        return self.out_of_heads(F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))

    def _noise(self, y, h, x, extra):
        return F.dropout(y + torch.randn_like(y), 0.3, training=True)

    def _rare(self, y, h, x, extra):
        return y + self.other(h) if len(x) > 6 else y

    def _aux(self, y, h, x, extra):
        if self.training:
            extra.append(self.aux(y))
        return y

    def _kept(self, y, h, x, extra):
        self.seen = [y]
        return y


class RandomModel(nn.Module):
    """Blocks of random kinds and widths; what it returns is a tensor, a tuple, a dict or an object."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.inputs = rng.randint(2, 8)
        width = rng.randint(2, 12)
        self.first, self.blocks = nn.Linear(self.inputs, width), nn.ModuleList()
        for _ in range(rng.randint(1, 4)):
            self.blocks.append(Block(rng.choice(KINDS), width, self.inputs, rng))
            width = self.blocks[-1].out
        self.activation, self.last = rng.choice(ACTIVATIONS)(), nn.Linear(width, rng.randint(1, 3))
        self.wrap = rng.choice(["tensor", "tuple", "dict", "object"])

    def forward(self, x: Tensor) -> object:
        h, extra = self.activation(self.first(x)), []
        for block in self.blocks:
            h = block(h, x, extra)
        y = self.last(h)
        found = {"tensor": y, "tuple": (y, *extra), "dict": {"y": y, "extra": extra}}
        if self.wrap == "object":
            return SimpleNamespace(y=y, extra=extra)
        return found[self.wrap] if not extra or self.wrap != "tensor" else (y, *extra)
