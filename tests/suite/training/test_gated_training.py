"""Gated trainings as a whole: a target is met, a tolerance kept, and a lambda that is too strong is an error."""

from dataclasses import replace

import pytest

from lumos.errors import TrainingError
from lumos.suite.settings import TargetConfig
from lumos.suite.training.loop import train
from lumos.workloads.synthetic import Synthetic
from tests.suite.training.test_loop import CPU, run_config


@pytest.fixture(scope="module")
def tiny():
    return replace(Synthetic(relevant_features=4).tiny(), epochs=10)


@pytest.mark.parametrize(
    "target",
    [
        {"params": 0.4},
        pytest.param({"macs": 0.3}, marks=pytest.mark.slow),
        pytest.param({"features": 4}, marks=pytest.mark.slow),
    ],
)
def test_a_training_meets_its_budget(tiny, target):
    config = run_config(lambda_=None, target=TargetConfig(**target))
    trained = train(tiny, tiny.loaders(), config, CPU, gated=True)
    (name, limit), steering = next(iter(target.items())), trained.steering
    assert steering["key"] == f"lumos.target.{name}"
    assert 0.98 * limit <= steering["reached"] <= limit * (1 + 1e-9)
    if name == "params":
        dense = sum(p.numel() for p in tiny.model().parameters())
        compact = sum(p.numel() for p in trained.model.parameters())
        assert compact / dense == pytest.approx(steering["reached"], abs=1e-6)
    if name == "features":
        assert trained.gates["features_kept"] == list(tiny.true_features())


@pytest.mark.slow
def test_a_tolerance_is_kept(tiny):
    loaders = tiny.loaders()
    dense = train(tiny, loaders, run_config(), CPU, gated=False)
    trained = train(tiny, loaders, run_config(lambda_=None, tolerance=0.01), CPU, gated=True, dense=dense)
    assert trained.steering["met"]
    assert trained.valid_score >= 0.99 * dense.valid_score
    assert trained.gates["open"] < trained.gates["total"]


def test_a_tolerance_needs_the_dense_score(tiny):
    with pytest.raises(TrainingError, match=r"lumos.tolerance needs the dense network's validation score"):
        train(tiny, tiny.loaders(), run_config(lambda_=None, tolerance=0.01), CPU, gated=True)


@pytest.mark.parametrize("epochs", [2, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("lambda_", [10.0**k for k in range(-5, 2)])
def test_over_six_decades_lambda_ends_in_a_usable_model_or_a_clear_error(tiny, lambda_, epochs):
    tiny = replace(tiny, epochs=epochs)
    if lambda_ < 0.1:
        assert train(tiny, tiny.loaders(), run_config(lambda_=lambda_), CPU, gated=True).valid_score > 0.2
    else:
        with pytest.raises(TrainingError, match=f"lumos.lambda={lambda_:g} is too strong, lower it"):
            train(tiny, tiny.loaders(), run_config(lambda_=lambda_), CPU, gated=True)
