"""The path of features of a model whose score is known in closed form."""

import math

import pytest
import torch
from torch import nn

import lumos
from lumos.errors import ConfigError


def r2(y, prediction):
    return float(1 - (y - prediction).square().mean() / y.var(correction=0))


def linear(*weights: float) -> tuple[lumos.CompactModel, torch.Tensor, torch.Tensor]:
    """A linear model of independent features, and what it says of them."""
    torch.manual_seed(0)
    x = torch.randn(4000, len(weights))
    layer = nn.Linear(len(weights), 1)
    layer.weight.data, layer.bias.data = torch.tensor([weights]), torch.zeros(1)
    small = lumos.compact(lumos.gate(layer, x[:8]).eval())
    return small, x, small(x).detach()


def test_the_scores_of_a_linear_model_are_those_of_its_weights():
    """A shuffled feature leaves R2 = 1 - 2 (the share of the variance that it makes)."""
    small, x, y = linear(1.0, 3.0, 0.0, 2.0)
    path = lumos.feature_path(small, x, y, r2)
    assert path.best(4)[:3] == ("x1", "x3", "x0")
    want = [1 - 2 * hidden / 14 for hidden in (14, 5, 1, 0, 0)]
    assert [step.score for step in path.steps] == pytest.approx(want, abs=0.05)
    for before, step in zip(path.steps, path.steps[1:], strict=False):
        assert step.gain == pytest.approx(step.score - before.score)
    assert path.smallest() == ("x1", "x3", "x0")
    assert "x3" in str(path).splitlines()[3]


def test_reduced_rows_and_full_ones_give_the_same_path():
    torch.manual_seed(0)
    x = torch.randn(300, 4)
    gated = lumos.gate(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)), x)
    gated.gates.log_alpha.data[1] = -9.0
    small = lumos.compact(gated.eval())
    y = small(x).detach()
    small.train()
    full, less = (lumos.feature_path(small, rows, y, r2) for rows in (x, x[:, [0, 2, 3]]))
    assert full == less
    assert set(full.best(3)) == {"x0", "x2", "x3"}
    assert small.training
    assert small.model.training
    assert lumos.feature_path(small, x, y, r2, seed=1) != full


def test_a_model_in_training_mode_is_scored_without_its_dropout():
    torch.manual_seed(0)
    x = torch.randn(500, 2)
    small = lumos.compact(lumos.gate(nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1)), x).eval())
    y = small(x).detach()
    assert lumos.feature_path(small.train(), x, y, r2).steps[-1].score == pytest.approx(1)


def test_labels_of_any_kind_are_taken():
    """Whatever is indexed by rows: here classes, scored by what a user brings."""
    small, x, y = linear(0.0, 1.0)
    labels = (y > 0).numpy()
    path = lumos.feature_path(small, x, labels, lambda true, out: float(((out > 0).numpy() == true).mean()))
    assert path.best(1) == ("x1",)
    assert path.steps[0].score == pytest.approx(0.5, abs=0.05)
    assert path.steps[2].score == 1.0
    assert math.isfinite(path.steps[1].spread)


def test_wrong_calls():
    small, x, y = linear(1.0, 2.0)
    with pytest.raises(ConfigError, match=r"x has the shape \(4, 2, 2\), and the model reads 2 features"):
        lumos.feature_path(small, x[:8].reshape(4, 2, 2), y[:4], r2)
    with pytest.raises(ConfigError, match="resamples=1 of 4000 rows of x and 4000 of y; expected at least 2"):
        lumos.feature_path(small, x, y, r2, resamples=1)
    with pytest.raises(ConfigError, match="as many rows of both"):
        lumos.feature_path(small, x, y[1:], r2)
    with pytest.raises(ConfigError, match="count=3: expected 0 to 2"):
        lumos.feature_path(small, x, y, r2, resamples=2).best(3)
