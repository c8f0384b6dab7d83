"""Code that one run of a model does not reach: branches of train mode, of other sizes, of optional inputs."""

import random

import pytest
import torch
from torch import nn

import lumos
from lumos.errors import StructureError
from lumos.tracing.trace_structure import trace_structure
from tests.networks import random_gates


class Auxiliary(nn.Module):
    """Has a head that runs in train mode alone."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.body, self.head, self.aux = nn.Conv2d(16, 8, 3), nn.Linear(8, 2), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        h = torch.relu(self.norm(self.stem(x)))
        y = self.head(torch.relu(self.body(h)).mean((2, 3)))
        return (y, self.aux(h).mean((2, 3))) if self.training else y


class Supervised(Auxiliary):
    """Returns what a layer makes, in train mode alone."""

    def forward(self, x):
        h = torch.relu(self.norm(self.stem(x)))
        y = self.head(torch.relu(self.body(h)).mean((2, 3)))
        return (y, h) if self.training else y


class Dropping(nn.Module):
    """Asks for the mode, and makes the same calls."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 2)

    def forward(self, x):
        return self.b(nn.functional.dropout(torch.relu(self.a(x)), 0.5, self.training))


def groups(structure):
    return {g.name: g.size for g in structure.groups}


def test_branches_of_train_mode_are_followed():
    x = torch.randn(4, 3, 8, 8)
    gated = lumos.gate(Auxiliary(), x)
    assert groups(gated.structure) == {"input": 3, "stem": 16, "body": 8}
    gated.gates.fixed = True
    for seed in range(3):
        random_gates(gated, random.Random(seed))
        lumos.verify(gated, x)
        small = lumos.compact(gated)
        for a, b in zip(gated.train()(x), small.train()(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_what_is_returned_in_train_mode_is_held():
    structure = lumos.gate(Supervised(), torch.randn(4, 3, 8, 8)).structure
    assert groups(structure) == {"input": 3, "body": 8}
    assert structure.unreached == ("aux",)


def test_train_mode_is_traced_where_it_makes_other_calls():
    assert trace_structure(Auxiliary(), (torch.randn(4, 3, 8, 8),)).trains_otherwise
    assert not trace_structure(Dropping(), (torch.randn(4, 6),)).trains_otherwise


class Rare(nn.Module):
    """Has a branch for many rows, and an optional input."""

    def __init__(self):
        super().__init__()
        self.e, self.a, self.b = nn.Linear(10, 16), nn.Linear(16, 12), nn.Linear(12, 16)
        self.rare, self.extra, self.o = nn.Linear(16, 16), nn.Linear(3, 16), nn.Linear(16, 2)

    def forward(self, x, extra=None):
        h = torch.relu(self.e(x))
        z = self.b(torch.relu(self.a(h)))
        if len(x) > 8:
            z = z + self.rare(h)
        if extra is not None:
            z = z + self.extra(extra)
        return self.o(torch.relu(z))


def test_units_that_a_part_which_never_ran_may_read_are_held():
    model, x = Rare(), torch.randn(8, 10)
    gated = lumos.gate(model, x)
    assert groups(gated.structure) == {"input": 10, "a": 12}
    assert gated.structure.unreached == ("rare", "extra")
    assert "rare may read it, and no example reaches that" in next(f.reason for f in gated.structure.fixed)
    assert "not reached by the example: rare, extra" in lumos.explain(model, x)
    random_gates(gated, random.Random(0))
    small = lumos.compact(gated.eval())
    for args in ((torch.randn(9, 10),), (x, torch.randn(8, 3))):
        torch.testing.assert_close(small(*args), gated(*args))


def test_further_examples_reach_more():
    x = torch.randn(8, 10)
    examples = [torch.randn(9, 10), (x, torch.randn(8, 3))]
    gated = lumos.gate(Rare(), x, examples=examples)
    assert groups(gated.structure) == {"input": 10, "e": 16, "a": 12, "b": 16}
    assert not gated.structure.unreached
    for seed in range(3):
        random_gates(gated, random.Random(seed))
        for inputs in (x, *examples):
            lumos.verify(gated.eval(), inputs)


def test_further_examples_have_the_same_features():
    with pytest.raises(StructureError, match=r"other features: expected 10 along dimension 1 .*\(8, 11\)"):
        lumos.gate(Rare(), torch.randn(8, 10), examples=[torch.randn(8, 11)])
    with pytest.raises(StructureError, match="does not run on further example 1"):
        lumos.gate(Rare(), torch.randn(8, 10), examples=[(torch.randn(8, 10), torch.randn(8, 4))])
