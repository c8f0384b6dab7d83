"""A target in numbers: which gates are kept, and what cannot be met."""

import pytest
import torch
from torch import nn

import lumos
from lumos.errors import ConfigError
from lumos.pruning.budget import Budget
from lumos.pruning.settings import Target
from tests.pruning.networks import mlp


@pytest.mark.parametrize("quantity", ["params", "macs"])
@pytest.mark.parametrize("limit", [0.5, 0.29, 0.1, 0.03])
def test_what_is_kept_is_at_or_under_the_budget_and_within_two_percent(quantity, limit):
    gated = mlp()
    for seed in range(5):
        log_alpha = torch.randn(gated.structure.units, generator=torch.Generator().manual_seed(seed)) * 3
        keep = Budget(Target(**{quantity: limit})).fit(gated.structure, log_alpha, log_alpha > 0)
        which = {"params": 0, "macs": 1}[quantity]
        share = float(gated.structure.expected_sizes(keep.double())[which]) / gated.structure.dense_sizes[which]
        assert 0.98 * limit <= share <= limit * (1 + 1e-9)
        assert all(keep[g.gates].any() for g in gated.structure.groups)


@pytest.mark.parametrize("multiple", [4, 8])
@pytest.mark.parametrize("limit", [0.5, 0.29])
def test_a_budget_counts_what_rounding_the_widths_adds(multiple, limit):
    gated = mlp()
    hidden = [g for g in gated.structure.groups if g.kind == "hidden"]
    budget = Budget(Target(params=limit), multiple)
    for seed in range(5):
        log_alpha = torch.randn(gated.structure.units, generator=torch.Generator().manual_seed(seed)) * 3
        added = sum(-int((log_alpha[g.gates] > 0).sum()) % multiple for g in hidden)
        assert (budget.rounding(gated.structure, log_alpha, log_alpha > 0) > 1) == (added > 0)
        keep = budget.fit(gated.structure, log_alpha, log_alpha > 0)
        share = float(gated.structure.expected_sizes(keep.double())[0]) / gated.structure.dense_sizes[0]
        assert 0.8 * limit <= share <= limit * (1 + 1e-9)
        assert all(int(keep[g.gates].sum()) % multiple == 0 or keep[g.gates].all() for g in hidden)
        assert budget.rounding(gated.structure, log_alpha, keep) == 1.0
        gated.gates.log_alpha.data = torch.where(keep, 3.0, -3.0)
        gated.align(multiple)
        assert torch.equal(gated.gates.is_open(), keep)
    assert Budget(Target(params=limit)).rounding(gated.structure, log_alpha, log_alpha > 0) == 1.0


def test_gates_are_kept_by_rank():
    gated = mlp()
    log_alpha = torch.linspace(4, 1, gated.structure.units)  # all open, the first widest
    keep = Budget(Target(features=3)).fit(gated.structure, log_alpha, log_alpha > 0)
    group = gated.structure.group("input")
    assert keep[group.gates].nonzero().flatten().tolist() == [0, 1, 2]
    assert keep[group.stop :].all()  # a budget of features leaves hidden units alone


def test_a_hidden_unit_is_opened_before_a_feature_that_closed():
    gated = mlp()
    group = gated.structure.group("input")
    log_alpha = torch.full((gated.structure.units,), -8.0)
    log_alpha[group.gates] = -7.0
    log_alpha[[g.start for g in gated.structure.groups]] = 3.0
    keep = Budget(Target(params=0.5)).fit(gated.structure, log_alpha, log_alpha > 0)
    assert keep[group.gates].sum() == 1
    assert keep.sum() > len(gated.structure.groups)


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        (
            Budget(Target(params=1e-6)),
            "lumos.target.params=1e-06: this model can only have 0.000[0-9]* to 1; .*lumos.streams=true",
        ),
        (Budget(Target(features=41)), "lumos.target.features=41: this model can only have 1 to 40"),
    ],
)
def test_a_budget_that_cannot_be_met_is_said_at_once(budget, line):
    with pytest.raises(ConfigError, match=line):
        budget.check(mlp().structure)


def test_features_of_a_model_without_feature_gates():
    net = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 1))
    gated = lumos.gate(net, torch.arange(4))
    with pytest.raises(ConfigError, match=r"lumos.target.features=3: no input feature of this model can be removed"):
        Budget(Target(features=3)).check(gated.structure)


def test_kept_widths_are_rounded_up_where_asked_for():
    gated = lumos.gate(nn.Sequential(nn.Linear(5, 20), nn.ReLU(), nn.Linear(20, 1)), torch.randn(2, 5))
    with torch.no_grad():
        gated.gates.log_alpha.fill_(-8.0)
        gated.gates.log_alpha[[0, 1, 7, 11, 19]] = 3.0
        gated.gates.log_alpha[9] = -3.0
    gated.align(4)
    is_open = gated.gates.is_open()
    hidden = gated.structure.group("0").gates
    assert int(is_open[hidden].sum()) == 4
    assert bool(is_open[9])
    assert is_open[gated.structure.group("input").gates].tolist() == [True, True, False, False, False]
