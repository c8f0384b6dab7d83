"""Trainings of people who have no loop: lumos.fit."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

import lumos
from lumos.errors import ConfigError, TrainingError

LITTLE: dict[str, Any] = {"epochs": 8, "batch_size": 40, "learning_rate": 1e-2}


def data(rows=160, seed=0):
    x = torch.rand(rows, 6, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :1] - 2 * x[:, 3:4]


def network(norm=False):
    torch.manual_seed(0)
    middle = nn.BatchNorm1d(16) if norm else nn.Dropout(0.1)
    return nn.Sequential(nn.Linear(6, 16), middle, nn.ReLU(), nn.Linear(16, 1))


class Interrupted(Exception):
    pass


def interrupt_after(epochs, phase):
    def progress(row):
        if row["phase"] == phase and row["epoch"] >= epochs:
            raise Interrupted

    return progress


@pytest.mark.parametrize(
    "target",
    [
        lumos.Target(features=2),
        *(pytest.param(t, marks=pytest.mark.slow) for t in (lumos.Tolerance(0.1), lumos.Lambda(0.02))),
    ],
    ids=repr,
)
def test_the_right_features_are_found(target):
    found = lumos.fit(
        network(), data(480), data(100, 1), mse_loss, target, epochs=36, batch_size=40, learning_rate=2e-2
    )  # fmt: skip
    assert {"x0", "x3"} <= set(found.kept)
    if not isinstance(target, lumos.Tolerance):  # it promises a score and no number of features
        assert len(found.kept) == 2
    assert found.params[1] < found.params[0] == sum(p.numel() for p in network().parameters())
    x, y = data(100, 1)
    assert float(mse_loss(found.model(x), y).detach()) == pytest.approx(found.score) == min(
        row["valid"] for row in found.curve if row["phase"] == "compact"
    )  # fmt: skip
    if isinstance(target, lumos.Tolerance):
        assert found.dense_score == pytest.approx(float(mse_loss(found.dense(x), y).detach()))
    assert [row["feature"] for row in found.features if row["kept"]] == found.kept
    assert f"{len(found.kept)} of 6: {', '.join(found.kept)}" in str(found)


@pytest.mark.parametrize("norm", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(
    "stop",
    [
        pytest.param((3, "dense"), marks=pytest.mark.slow),
        (2, "gated"),
        pytest.param((6, "compact"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_stopped_training_ends_in_the_same_numbers(tmp_path, norm, stop):
    def run(**more):
        loader = DataLoader(TensorDataset(*data()), 40, shuffle=True)
        return lumos.fit(network(norm), loader, data(40, 1), mse_loss, lumos.Tolerance(0.5), **LITTLE, **more)

    whole = run()
    with pytest.raises(Interrupted):
        run(folder=tmp_path, progress=interrupt_after(*stop))
    resumed = run(folder=tmp_path)
    assert [{**row} for row in resumed.curve] == whole.curve
    assert resumed.features == whole.features
    for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_folder_of_another_training_is_refused(tmp_path):
    run = lambda seed: lumos.fit(network(), data(), data(), mse_loss, **LITTLE, folder=tmp_path, seed=seed)  # noqa: E731
    run(0)
    with pytest.raises(ConfigError, match=r"gated\.ckpt is of another training: seed was 0, here 1; give another"):
        run(1)
    (tmp_path / "gated.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match=r"cannot be read .*delete it"):
        run(0)


def test_model_and_random_state_are_left_alone():
    model = network()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    lumos.fit(model, data(), data(), mse_loss, lumos.Tolerance(0.5), **LITTLE)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert type(model[0]) is nn.Linear
    assert torch.equal(torch.get_rng_state(), state)


def test_training_ends_early_where_the_score_no_longer_gets_better():
    scores = iter(range(100))
    found = lumos.fit(network(), data(), data(), mse_loss, **LITTLE | {"epochs": 30}, patience=3,
                      score=lambda model, batches: -abs(next(scores) - 20.0), higher_is_better=True)  # fmt: skip
    assert len(found.curve) == 24
    assert found.score == 0.0


def test_weights_of_samples_and_batches_of_any_kind_are_taken():
    x, y = data()
    weighted = lumos.fit(network(), (x, y, torch.ones(len(x))), (x, y, torch.ones(len(x))),
                         lambda out, y, w: (w[:, None] * (out - y).square()).mean(), **LITTLE)  # fmt: skip
    batches = [{"x": x[k : k + 32], "y": y[k : k + 32]} for k in range(0, 160, 32)]

    class Takes(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, batch):
            return self.inner(batch["x"])

    def objective(model, batch):
        return mse_loss(model(batch), batch["y"])

    of_dicts = lumos.fit(Takes(), batches, batches, mse_loss, objective=objective, **LITTLE)
    plain = lumos.fit(network(), (x, y), (x, y), mse_loss, **LITTLE)
    assert weighted.score == pytest.approx(plain.score)
    assert of_dicts.score < 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": iter([data()])}, "train=list_iterator: expected a DataLoader, or a tuple of tensors"),
        ({"valid": (torch.ones(3, 6), torch.ones(4, 1))}, "valid: tensors of 3, 4 samples; expected as many in each"),
        ({"valid": []}, "valid has no batch"),
        ({"epochs": 0}, "epochs=0: expected at least 1"),
        ({"train": (torch.full((8, 6), torch.nan), torch.ones(8, 1))}, "the loss of the first batch is nan"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_line(changes, said):
    given = {"train": data(), "valid": data(), "loss": mse_loss} | LITTLE | changes
    with pytest.raises((ConfigError, TrainingError), match=said):
        lumos.fit(network(), **given)


class Slopes(nn.Module):
    """A potential of six coordinates and its slope along each: it differentiates in its forward."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        x = x.detach().requires_grad_()
        energy = self.inner(x)
        return torch.cat([energy, torch.autograd.grad(energy.sum(), x, create_graph=True)[0]], 1)


@pytest.mark.parametrize("of", ["loss", "score"])
def test_models_that_differentiate_in_their_forward_are_fitted(of):
    x, y = data()
    slope = torch.zeros(len(x), 6)
    slope[:, 0], slope[:, 3] = 1.0, -2.0
    rows, score = (x, torch.cat([y, slope], 1)), None
    if of == "score":
        score = lambda model, batches: float(mse_loss(model(x), rows[1]).detach())  # noqa: E731
    found = lumos.fit(Slopes(), rows, rows, mse_loss, lumos.Tolerance(0.5), score=score, **LITTLE)
    assert found.score < 0.5
    assert found.score == pytest.approx(float(mse_loss(found.model(x), rows[1]).detach()))


def test_the_first_look_at_the_loss_leaves_batch_statistics_and_modes_alone():
    model = network(norm=True)
    counted = []
    lumos.fit(model, data(), data(), mse_loss, objective=lambda net, batch: (
        counted.append(int(net.model[1].num_batches_tracked) if isinstance(net, lumos.GatedModel) else None),
        mse_loss(net(batch[0]), batch[1]))[1], **LITTLE)  # fmt: skip
    assert counted[:2] == [None, 0]


def test_what_stays_and_goes_together_is_asked_of_fit_as_of_gate():
    found = lumos.fit(network(), data(480), data(), mse_loss, lumos.Lambda(0.05), features=list("abcdef"), keep=["b"],
                      groups={"pair": ["a", "e"]}, prices={"c": 0.0}, **LITTLE | {"epochs": 20})  # fmt: skip
    assert {"b", "c"} <= set(found.kept)
    assert ("a" in found.kept) == ("e" in found.kept)
    assert "f" not in found.kept
