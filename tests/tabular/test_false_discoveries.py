"""Columns that are told from shuffled ones, and columns that the network does not miss."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import false_discovery_control

import lumos
from lumos.errors import ConfigError, TrainingError
from lumos.sklearn import LumosClassifier, LumosRegressor
from lumos.tabular.false_discoveries import copies_needed, p_values, shuffled

QUICK = {"hidden": (32,), "strength": 1e-3, "max_iter": 40}


def problem(seed, rows=300):
    draws = np.random.default_rng(seed)
    x = draws.random((rows, 12))
    return x, 2 * x[:, 0] + np.sin(6 * x[:, 1]) + x[:, 2] + 0.3 * draws.normal(size=rows)


def test_p_values_are_shares_of_shuffled_columns_as_important():
    assert p_values(np.array([3.0, 1.0, 0.0]), np.array([0.0, 1.0, 2.0, 0.0])).tolist() == [0.2, 0.6, 1.0]


@pytest.mark.parametrize(("columns", "rate"), [(2, 0.1), (12, 0.05), (300, 0.2)])
def test_there_are_copies_enough_to_tell_a_single_true_column(columns, rate):
    copies = copies_needed(columns, rate)
    best = np.ones(columns)
    best[0] = 1 / (1 + copies * columns)
    assert (false_discovery_control(best)[0] <= rate) == (columns < 300)


def test_a_shuffled_column_has_the_same_values():
    x = torch.rand(50, 3)
    others = shuffled(x, 2, 0)
    assert others.shape == (50, 6)
    assert torch.equal(others.sort(0).values, x.repeat(1, 2).sort(0).values)
    assert not torch.equal(others[:, :3], others[:, 3:])


@pytest.mark.slow
def test_what_is_left_is_not_there_by_chance():
    chosen = []
    for seed in range(5):
        x, y = problem(seed)
        model = LumosRegressor(**QUICK, random_state=seed, false_discovery_rate=0.2).fit(x, y)
        assert model.model_.features == model.get_feature_names_out().tolist()
        chosen.append(set(model.get_support(indices=True)))
    assert all({0, 1} <= found for found in chosen)
    assert np.mean([len(found - {0, 1, 2}) / len(found) for found in chosen]) <= 0.2


@pytest.mark.slow
def test_where_nothing_can_be_told_from_chance_it_is_said():
    draws = np.random.default_rng(0)
    x = draws.random((200, 6))
    with pytest.raises(TrainingError, match=r"no column can be told from shuffled ones at false_discovery_rate=0.1"):
        LumosClassifier(**QUICK, random_state=0, false_discovery_rate=0.1).fit(x, draws.random(200) > 0.5)
    with pytest.raises(ConfigError, match=r"false_discovery_rate=2: expected a share between 0 and 1"):
        LumosRegressor(**QUICK | {"max_iter": 1}, false_discovery_rate=2).fit(*problem(0, 40))


@pytest.mark.slow
def test_of_a_radius_and_its_square_one_goes(tmp_path):
    x, _ = problem(0)
    x[:, 4] = x[:, 0] ** 2
    y = np.cos(4 * x[:, 0]) + x[:, 1]
    model = LumosRegressor(**QUICK, random_state=0, eliminate=0.02, keep=["x7"]).fit(x, y)
    kept = set(model.get_feature_names_out())
    assert {"x1", "x7"} <= kept
    assert len(kept & {"x0", "x4"}) == 1
    assert model.validation_score_ == model.eliminated_.score >= 0.97 * model.eliminated_.baseline
    assert set(model.eliminated_.gone).isdisjoint(kept)
    model.export(tmp_path / "net.onnx", reduced=True)


def linear(coefficients):
    model = torch.nn.Linear(len(coefficients), 1)
    model.weight.data = torch.tensor([coefficients])
    return model


def test_a_feature_that_adds_nothing_goes_and_one_that_does_stays():
    torch.manual_seed(0)
    x = torch.randn(200, 4)
    x[:, 3] = x[:, 0] + 0.01 * torch.randn(200)
    model = linear([1.0, 2.0, 0.0, 1.0])
    small = lumos.compact(lumos.gate(model, x[:8]).eval())
    data = x, model(x).detach()
    found = lumos.eliminate(small, data, data, torch.nn.functional.mse_loss, score=lambda net, batches: r2(net, *data),
                            higher_is_better=True, epochs=2, batch_size=20)  # fmt: skip
    assert len({"x0", "x3"} & set(found.model.features)) == 1
    assert "x1" in found.model.features
    assert "x2" in found.gone
    assert found.model(x).shape == (200, 1)
    assert [line.split()[0] for line in str(found).splitlines()[2:]] == [trial.feature for trial in found.trials]
    assert small.features == ["x0", "x1", "x2", "x3"]


def r2(net, x, y):
    return 1 - float((net(x) - y).square().mean() / y.var())


def test_what_eliminate_cannot_use_is_said():
    x = torch.randn(20, 3)
    small = lumos.compact(lumos.gate(linear([1.0, 2.0, 3.0]), x[:8]).eval())
    loss, data = torch.nn.functional.mse_loss, (x, x[:, :1])
    with pytest.raises(ConfigError, match="keep: 'z' is no feature that the model reads: x0, x1, x2"):
        lumos.eliminate(small, data, data, loss, keep=["z"])
    with pytest.raises(ConfigError, match=r"expected a compact model of one input \(rows, features\)"):
        lumos.eliminate(small, [(x[None], x)], data, loss)
    with pytest.raises(ConfigError, match="expected a share in"):
        lumos.eliminate(small, data, data, loss, tolerance=2.0)


@pytest.mark.slow
def test_of_numbers_and_of_categories_one_column_stays():
    """Few operators take empty tensors: the last column of a kind is never tried."""
    draws = np.random.default_rng(0)
    x = pd.DataFrame({"a": draws.random(400), "b": draws.random(400), "c": draws.choice(list("xyz"), 400), "e": 7.0})
    x.loc[::11, "a"] = np.nan
    y = 2 * x["a"].fillna(0.5) + 0.1 * draws.normal(size=400)
    model = LumosRegressor(**QUICK, random_state=0, eliminate=0.1).fit(x, y)
    assert model.get_feature_names_out().tolist() == ["a", "c"]
    assert model.eliminated_.gone == ["b"]
    assert model.model_.features == ["a", "c"]
