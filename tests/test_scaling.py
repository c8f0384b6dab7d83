"""What every scaler of the project divides by."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumos.scaling import EPSILON, spread, standardised, varies
from lumos.suite.feature_statistics import relevance
from lumos.workloads.common.classifiers import logistic_accuracy
from lumos.workloads.common.mlp import ScaledMLP
from lumos.workloads.common.tables import Table, linear_r2

scales = st.integers(-30, 30).map(lambda n: 10.0**n)


def column(rows=200, seed=0):
    return torch.randn(rows, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(scale=scales, offset=st.sampled_from([0.0, 1.0, 1e3]), seed=st.integers(0, 10))
def test_a_column_in_any_unit_has_its_standard_deviation(scale, offset, seed):
    x = ((column(seed=seed) + offset) * scale).float()
    found = float(spread(x))
    assert found == pytest.approx(float(x.double().std(0, correction=0)), rel=1e-3, abs=0)
    assert bool(varies(x))


@given(scale=scales, share=st.floats(0, 0.3), seed=st.integers(0, 10))
def test_rounding_is_no_variation(scale, share, seed):
    x = (scale * (1 + share * EPSILON * column(seed=seed).sign())).float()
    assert spread(x).tolist() == [1.0]
    assert not bool(varies(x))


@pytest.mark.parametrize("dust", [1e-45, 1e-38, 1e-33])
def test_a_column_of_dust_is_no_variation(dust):
    x = (dust * column()).float()
    assert spread(x).tolist() == [1.0]


def test_a_plain_column_has_the_deviation_that_it_always_had():
    x = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3, 1e-3, 1e5, 7]) + 2
    assert torch.equal(spread(x), x.std(0, correction=0))


def test_a_column_of_dust_does_not_explode_in_any_scaler():
    torch.manual_seed(0)
    x, held = torch.randn(300, 3), torch.randn(100, 3)
    x[:, 2], held[:, 2] = 1e-38 * x[:, 2], 0.1 * held[:, 2]
    y, truth = x[:, :1].clone(), held[:, :1].clone()
    assert ScaledMLP(x, y, (8,))(held).abs().max() < 100
    assert linear_r2(Table(x, y), Table(held, truth)) > 0.99
    labels, their = (y[:, 0] > 0).long(), (truth[:, 0] > 0).long()
    assert logistic_accuracy(x, labels, held, their) > 0.9
    assert np.abs(standardised(x.numpy())).max() < 10
    assert relevance(x.numpy(), y.numpy())["abs_pearson"] == pytest.approx([1, 0, 0], abs=0.15)
