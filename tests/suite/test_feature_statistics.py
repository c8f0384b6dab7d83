"""What simple statistics say of each feature."""

import sys

import numpy as np
import pytest

from lumos.suite.feature_statistics import relevance


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 4))
    x[:, 3] = 7.0
    return x, np.stack([2 * x[:, 0] + 1, x[:, 1] ** 2], 1)


def test_pearson_and_mutual_information(table):
    pytest.importorskip("sklearn")
    columns = relevance(*table)
    pearson, information = columns["abs_pearson"], columns["mutual_information"]
    assert pearson[0] == pytest.approx(1)
    assert max(pearson[1:3]) < 0.15
    assert pearson[3] == 0
    assert min(information[:2]) > 1 > 0.1 > max(information[2:])  # a square has information and no correlation


def test_without_scikit_learn_its_column_is_left_out(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.feature_selection", None)
    assert list(relevance(*table)) == ["abs_pearson"]
