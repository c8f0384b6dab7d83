"""What a user asks of the units: what stays, what goes together, what it costs."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lumos
from lumos.errors import StructureError
from tests.networks import random_gates

NAMES = ["a", "b", "c", "dt", "e", "f"]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.ReLU(),
        nn.Sequential(nn.Linear(8, 7), nn.Tanh()),
        nn.Linear(7, 5),
        nn.ReLU(),
        nn.Linear(5, 2),
    ).double()


def rows(count: int = 9) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(1)).double()


def close(gated: lumos.GatedModel, seed: int) -> lumos.CompactModel:
    """Close gates at random, and cut."""
    torch.manual_seed(seed)
    random_gates(gated, random.Random(seed))
    gated.eval()
    small = lumos.compact(gated)
    torch.testing.assert_close(small(rows()), gated(rows()), rtol=0, atol=1e-10)
    return small


@settings(max_examples=12)
@given(seed=st.integers(0, 2**16), kept=st.sets(st.sampled_from(NAMES), min_size=1, max_size=5))
def test_features_that_are_kept_stay(seed, kept):
    gated = lumos.gate(net(), rows(), features=NAMES, keep=sorted(kept))
    assert {f.reason for f in gated.structure.fixed if f.name == "input"} == {"keep asks for it"}
    assert kept <= set(close(gated, seed).features)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**16))
def test_features_of_a_group_go_together(seed):
    gated = lumos.gate(net(), rows(), features=NAMES, groups={"crystal": ["b", "dt", "f"], "pair": ["a", "c"]})
    assert gated.structure.group("input").size == 3
    left = set(close(gated, seed).features)
    assert left & {"b", "dt", "f"} in (set(), {"b", "dt", "f"})
    assert left & {"a", "c"} in (set(), {"a", "c"})


def test_all_features_may_be_one_group():
    gated = lumos.gate(net(), rows(), features=NAMES, groups={"all": NAMES})
    assert gated.structure.group("input").size == 1


@pytest.mark.parametrize(("grouped", "size"), [(["a", "b"], 4), (["b", "c"], 4), (["a", "b", "c"], 3)])
def test_a_feature_that_is_kept_keeps_its_group(grouped, size):
    """Six features: one kept, and what is in a group with it."""
    gated = lumos.gate(net(), rows(), features=NAMES, keep=["a"], groups={"pair": grouped})
    assert gated.structure.group("input").size == size


@settings(max_examples=12)
@given(seed=st.integers(0, 2**16))
def test_units_of_a_module_that_is_kept_stay(seed):
    gated = lumos.gate(net(), rows(), keep=["2"])
    assert ("2.0", 7, "keep asks for 2") in [(f.name, f.size, f.reason) for f in gated.structure.fixed]
    small = close(gated, seed)
    assert small.model[2][0].out_features == 7
    assert "2.0" not in [g.name for g in gated.structure.groups]


@settings(max_examples=12)
@given(seed=st.integers(0, 2**16))
def test_a_module_that_is_excluded_stays_as_it_is(seed):
    gated = lumos.gate(net(), rows(), exclude=["2"])
    assert {g.name for g in gated.structure.groups} == {"input", "3"}
    small = close(gated, seed)
    assert torch.equal(small.model[2][0].weight, net()[2][0].weight)


def test_prices_count_in_the_penalty():
    prices = {"a": 10.0, "crystal": 4.0, "e": 3.0, "2": 0.5}
    gated = lumos.gate(net(), rows(), features=NAMES, groups={"crystal": ["b", "c"], "two": ["e", "f"]}, prices=prices)
    gated.gates.log_alpha.data.fill_(50.0)  # all open
    # a 10, crystal 4, dt 1, e and f 3 + 1; the first layer 8, the one of 2 seven halves, the last hidden one 5
    assert gated.penalty().item() == pytest.approx(10 + 4 + 1 + 4 + 8 + 3.5 + 5)
    assert gated.penalty("params").item() == pytest.approx(gated.structure.units)


def test_prices_follow_their_units_when_a_group_is_fixed():
    structure = lumos.gate(net(), rows(), features=NAMES, prices={"a": 10.0, "3": 2.0}).structure
    fewer = structure.without({"0": "for the test"})
    assert fewer.prices.tolist() == [10.0, *[1.0] * 5, *[1.0] * 7, *[2.0] * 5]


@pytest.mark.slow
@pytest.mark.parametrize(("price", "left"), [(1.0, ["x0", "x1"]), (100.0, ["x1"])])
def test_of_two_copies_the_dear_one_goes(price, left):
    torch.manual_seed(0)
    x = torch.randn(128, 1).repeat(1, 2)
    y = torch.sin(2 * x[:, :1])
    gated = lumos.gate(nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)), x, prices={"x0": price})
    optimizer = torch.optim.Adam(gated.parameters(), 1e-2)
    pruner = lumos.Pruner(gated, optimizer, steps=600, target=lumos.Lambda(1e-2))
    for _ in range(600):
        optimizer.zero_grad()
        nn.functional.mse_loss(gated(x), y).backward()
        optimizer.step()
    assert pruner.finish().features == left


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"keep": ["bb"]}, r"keep: 'bb' is no input feature or module of this model; did you mean 'b'\?"),
        ({"keep": "a"}, r"keep='a': expected a list of names, as \['a'\]"),
        ({"exclude": ["a"]}, "exclude: 'a' is no module of this model; there are 0, 1, 2, 2.0, 2.1, 3, 4, 5"),
        ({"groups": {"g": ["a", "x9"]}}, "groups: 'x9' is no input feature of this model; there are a, b, c, dt, e, f"),
        ({"groups": {"g": ["a"], "h": ["a"]}}, "groups: feature 'a' is in 'g' and in 'h'"),
        ({"groups": {"g": "ab"}}, "groups: 'g' has 'ab'; expected a list"),
        ({"prices": {"a": -1}}, "prices: 'a' costs -1; expected a number >= 0"),
        ({"prices": {"z": 1}}, "prices: 'z' is no input feature or module"),
        ({"keep": NAMES, "exclude": ["0", "2", "3"]}, "nothing in Sequential can be removed: .*keep asks for it"),
    ],
)
def test_what_cannot_be_asked_is_said(asked, message):
    with pytest.raises(StructureError, match=message):
        lumos.gate(net(), rows(), features=NAMES, **asked)


def test_names_are_those_of_the_dimension_that_holds_features():
    """Tokens of three features: the features lie along the last dimension, and the names with them."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)).mean(1))

    gated = lumos.gate(Tokens(), torch.randn(4, 5, 3), features=["u", "v", "w"], keep=["v"])
    assert gated.structure.group("input").size == 2
    assert "keep asks for it" in lumos.explain(Tokens(), torch.randn(4, 5, 3), features=["u", "v", "w"], keep=["v"])
