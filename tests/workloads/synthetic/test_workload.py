from dataclasses import replace

import numpy as np
import pytest
import torch

from lumos.errors import DataError
from lumos.suite.workload import DataSource
from lumos.workloads.synthetic import Synthetic, interactions, target


def test_output_by_hand() -> None:
    x = np.array([[0.0, np.pi / 2], [1.0, -1.0]])
    np.testing.assert_allclose(target(x), [[(np.pi / 2) ** 2 + 15], [2.0]])


@pytest.mark.parametrize("seed", range(3))
def test_the_output_depends_on_the_true_features_alone(seed: int) -> None:
    made = Synthetic(seed=seed, relevant_features=16, train_rows=100)
    names = made.features()
    places = [names.index(name) for name in made.true_features()]
    assert len(names) == 200
    assert len(places) == 16
    table = made.splits.train
    np.testing.assert_allclose(table.outputs, target(table.inputs[:, places].double().numpy()), rtol=1e-5, atol=1e-5)


def test_all_features_matter_unless_told_otherwise() -> None:
    assert list(Synthetic().true_features()) == list(Synthetic().features())


def test_places_and_rows_follow_the_seed() -> None:
    one, same, other = (Synthetic(seed=s, relevant_features=16, train_rows=50) for s in (0, 0, 1))
    assert one.true_features() == same.true_features() != other.true_features()
    assert one.loaders().sha256 == same.loaders().sha256 != other.loaders().sha256


def test_splits_share_no_row() -> None:
    splits = Synthetic(train_rows=500).splits
    rows = torch.cat([splits.train.inputs, splits.valid.inputs, splits.test.inputs])
    assert len(torch.unique(rows, dim=0)) == 500 + 1024 + 1024


def test_a_linear_fit_explains_three_quarters() -> None:
    """By Stein's lemma: cov^2 / var = 225 E[x sin^3 x]^2 / (2 + 225 E[sin^6 x]) = 0.7729 for each feature."""
    x, weight = np.polynomial.hermite_e.hermegauss(120)
    weight = weight / weight.sum()
    slope = 15 * (weight * x * np.sin(x) ** 3).sum()
    share = slope**2 / (2 + 225 * (weight * np.sin(x) ** 6).sum())
    assert share == pytest.approx(0.7729, abs=5e-4)
    scores = Synthetic(train_rows=20_000, test_rows=5000).baselines()
    assert scores["linear"] == pytest.approx(share, abs=0.015)
    assert scores["mean"] == pytest.approx(0, abs=0.01)


def test_of_interactions_a_linear_fit_explains_a_twentieth() -> None:
    made = Synthetic(truth="interactions", relevant_features=16, train_rows=20_000, test_rows=5000)
    share = (2 * np.exp(-2)) ** 2 / (1 + (1 - np.exp(-8)) / 2)
    assert made.baselines()["linear"] == pytest.approx(share, abs=0.02)
    table, places = made.splits.test, [int(name[1:]) for name in made.true_features()]
    right = interactions(table.inputs[:, places].double().numpy())
    np.testing.assert_allclose(table.outputs, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": "interactions", "relevant_features": 3}, "expected an even number"),
        ({"truth": "friedman"}, "workload.truth=friedman: expected one of sum, interactions"),
        ({"relevant_features": 0}, "expected 1 to 200, or null for all"),
        ({"relevant_features": 201}, "expected 1 to 200"),
        ({"train_rows": 0}, "workload.train_rows=0"),
        ({"widths": (3, 0)}, "one or more whole numbers"),
        ({"data": DataSource("public")}, "no public data"),
    ],
)
def test_settings_that_cannot_be_used(change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(Synthetic(), **change)


def test_tiny_keeps_the_kind_of_question() -> None:
    assert Synthetic().tiny().n_relevant == 20
    assert Synthetic(relevant_features=16).tiny().n_relevant == 4
