"""Standard errors of scores: against closed forms, against pairs counted one by one, against the bootstrap."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from torch import nn

from lumos.suite.standard_error import errors_of_both, score_terms, standard_error
from lumos.workloads.common.score_terms import auc_terms, balanced_accuracy_terms, r2_terms_of

CPU = torch.device("cpu")


@given(right=st.integers(0, 400), wrong=st.integers(1, 400))
def test_that_of_an_accuracy_is_the_binomial_one(right, wrong):
    n, p = right + wrong, right / (right + wrong)
    found = standard_error(np.repeat([1.0, 0.0], [right, wrong]))
    if n < 2:
        assert found is None
    else:
        assert found == pytest.approx(math.sqrt(p * (1 - p) / (n - 1)), abs=1e-12)


@given(st.integers(0, 10_000))
def test_that_of_an_area_is_delongs(seed):
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, 30), [0, 1])
    guesses = np.round(rng.normal(labels, 1.0), 1)  # with ties
    terms = auc_terms(labels, guesses)
    assert terms.mean() == pytest.approx(roc_auc_score(labels, guesses))
    above, below = guesses[labels == 1][:, None], guesses[labels == 0][None]
    wins = (above > below) + 0.5 * (above == below)
    v10, v01 = wins.mean(1), wins.mean(0)
    delong = v10.var() / len(v10) + v01.var() / len(v01)
    assert standard_error(terms) == pytest.approx(math.sqrt(delong * len(labels) / (len(labels) - 1)))


@given(st.integers(0, 10_000))
def test_terms_have_the_score_as_their_mean(seed):
    rng = np.random.default_rng(seed)
    truth, labels = rng.normal(size=(40, 3)), np.arange(40) % 4
    guess, named = truth + rng.normal(size=(40, 3)), rng.integers(0, 4, 40)
    assert r2_terms_of(guess, truth).mean() == pytest.approx(r2_score(truth, guess))
    expected = balanced_accuracy_score(labels, named)
    assert balanced_accuracy_terms(labels, named).mean() == pytest.approx(expected)


def test_that_of_an_r2_is_the_bootstraps():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(500, 2))
    guess = truth + rng.normal(size=(500, 2)) * [0.3, 0.8]
    draws = [r2_score(truth[rows], guess[rows]) for rows in rng.integers(0, 500, (800, 500))]
    assert standard_error(r2_terms_of(guess, truth)) == pytest.approx(np.std(draws), rel=0.1)


def test_samples_of_a_group_count_as_one_draw():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(400), 10)
    own = rng.normal(size=400)[groups]
    assert standard_error(own, groups) == pytest.approx(1 / 20, rel=0.1)  # 400 draws, not 4,000
    alone = rng.normal(size=4000)
    assert standard_error(alone, groups) == pytest.approx(standard_error(alone), rel=0.1)
    assert standard_error(own, np.zeros(4000, int)) is None


def test_the_difference_of_two_networks_is_seen_on_the_same_samples():
    rng = np.random.default_rng(0)
    hard = rng.random(5000)
    dense, compact = (hard < p for p in (0.70, 0.71))  # all that dense gets right, compact does too
    found = errors_of_both(SimpleNamespace(), dense.astype(float), compact.astype(float))
    assert found["dense"] == pytest.approx(math.sqrt(0.21 / 5000), rel=0.02)
    assert found["difference"] == pytest.approx(math.sqrt(0.01 / 5000), rel=0.2)
    assert errors_of_both(SimpleNamespace(), None, None) == {}
    # As often as it should be: the interval of 95% holds the truth.
    held = []
    for _ in range(400):
        hits = (rng.random(300) < 0.8).astype(float)
        held.append(abs(hits.mean() - 0.8) <= norm.ppf(0.975) * standard_error(hits))
    assert 0.92 <= np.mean(held) <= 0.98


def test_terms_that_are_not_the_scores_are_named_and_left_out(caplog):
    caplog.set_level("WARNING")
    workload: Any = SimpleNamespace(name="mine", score_terms=lambda model, batches: np.ones(4))
    assert score_terms(workload, nn.Identity(), [], CPU, 1.0) is not None
    assert score_terms(workload, nn.Identity(), [], CPU, 0.9) is None
    assert "mine: no standard error: score_terms() has shape (4,) and the mean 1; expected one number" in caplog.text
    assert score_terms(workload, nn.Identity(), [], CPU, math.nan) is None
    without: Any = SimpleNamespace(name="mine")
    assert score_terms(without, nn.Identity(), [], CPU, 1.0) is None
