"""Columns whose values say what happens: as flags, indices, numbers. They are held, and no other is."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lumos
from tests.networks import random_gates

COLUMN = 3


class Net(nn.Module):
    """Reads one column of its input, or one hidden unit, in some way beside its layers."""

    def __init__(self, read):
        super().__init__()
        self.a, self.b, self.read = nn.Linear(6, 16), nn.Linear(16, 2), read
        self.table = nn.Parameter(torch.randn(4, 16))

    def forward(self, x):
        return self.read(self, x, torch.relu(self.a(x)))


def flagged(m, c, h):
    h = h.clone()
    h[c > 0] = 0.0
    return m.b(h)


def somewhere(m, c, h):
    h = h.clone()
    h[torch.where(c > 0)[0]] = 0.0
    return m.b(h)


def places(c):
    return c.abs().long().clamp(0, 3)


READS = {
    "boolean index": flagged,
    "where": somewhere,
    "rows": lambda m, c, h: m.b(h[c > -9]),
    "branch": lambda m, c, h: m.b(h if bool((c > 0).any()) else -h),
    "if": lambda m, c, h: m.b(h) if c.max() > 1 else m.b(-h),
    "float": lambda m, c, h: m.b(h) * float(c[0]),
    "int": lambda m, c, h: m.b(h) * int(c.sum()),
    "item": lambda m, c, h: m.b(h) * c.max().item(),
    "tolist": lambda m, c, h: m.b(h) * c.tolist()[0],
    "numpy": lambda m, c, h: m.b(h) * float(c.numpy()[0]),
    "tensor": lambda m, c, h: m.b(h) * torch.tensor([c[0], c[1]]),
    "argsort": lambda m, c, h: m.b(h)[torch.argsort(c)],
    "parameter's rows": lambda m, c, h: m.b(h + m.table[places(c)]),
    "index_select": lambda m, c, h: m.b(h.index_select(0, places(c))),
    "gather": lambda m, c, h: m.b(h).gather(1, places(c).clamp(0, 1)[:, None]),
    "index_add": lambda m, c, h: m.b(h.new_zeros(4, h.shape[1]).index_add(0, places(c), h)),
    "one_hot": lambda m, c, h: m.b(h) + F.one_hot(places(c).clamp(0, 1), 2),
    "cat of indices": lambda m, c, h: m.b(h)[torch.cat([places(c)[:, None], places(c)[:, None]], 1)[:, 0]],
    "mask": lambda m, c, h: m.b(torch.where(c[:, None] > 0, h, -h)),
}


@pytest.mark.parametrize("example", ["randn", "ones", "zeros", "rows alike"])
@pytest.mark.parametrize("name", READS)
def test_the_column_that_is_read_is_held_and_no_other(name, example):
    x = {
        "randn": torch.randn(8, 6) * 2,
        "ones": torch.ones(8, 6),
        "zeros": torch.zeros(8, 6),
        "rows alike": torch.linspace(0.1, 1, 8)[:, None].expand(8, 6).clone(),
    }[example]
    model = Net(lambda m, x, h: READS[name](m, x[:, COLUMN], h))
    gated = lumos.gate(model, x).eval()
    assert {g.name: g.size for g in gated.structure.groups} == {"input": 5, "a": 16}
    (held,) = [f for f in gated.structure.fixed if f.name == "input"]
    assert held.size == 1
    random_gates(gated, random.Random(0))
    gated.gates.log_alpha.data[:COLUMN:2] = -8.0
    lumos.verify(gated, torch.randn(32, 6) * 2)
    assert f"x{COLUMN}" in lumos.compact(gated).features


@pytest.mark.parametrize("name", ["float", "argsort", "boolean index"])
def test_a_hidden_unit_that_is_read_is_held_and_no_other(name):
    x = torch.randn(8, 6)
    gated = lumos.gate(Net(lambda m, x, h: READS[name](m, h[:, COLUMN], h)), x)
    assert {g.name: g.size for g in gated.structure.groups} == {"input": 6, "a": 15}
    random_gates(gated, random.Random(0))
    lumos.verify(gated.eval(), torch.randn(32, 6))


def masked_by_itself(m, x, h):
    h = h.clone()
    h[h > 0.5] = 0.5
    return m.b(h)


@pytest.mark.parametrize(
    "read",
    [
        masked_by_itself,
        lambda m, x, h: m.b(h.masked_fill(h > 0.5, 0.5)),
        lambda m, x, h: m.b(torch.cat([h[:, :5], h[:, 5:-2], h[..., -2:]], 1)),
        lambda m, x, h: m.b(h[h.shape[0] // 2 :]) + len(x),
    ],
)
def test_what_reads_no_values_holds_nothing(read):
    gated = lumos.gate(Net(read), torch.randn(8, 6))
    assert {g.name: g.size for g in gated.structure.groups} == {"input": 6, "a": 16}
    for seed in range(3):
        random_gates(gated, random.Random(seed))
        lumos.verify(gated.eval(), torch.randn(32, 6))
