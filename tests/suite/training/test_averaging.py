"""The averaged copy of the weights in a training: what is scored, kept and returned, also after a restart."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lumos.pruning.averaging import Average
from lumos.suite import runner
from lumos.suite.settings import TargetConfig
from lumos.suite.training import checkpoint
from lumos.suite.training.checkpoint import Store
from lumos.suite.training.evaluation import Best, evaluate
from lumos.suite.training.loop import train
from lumos.suite.training.pretrained import read_weights
from lumos.suite.training.state import TrainState
from lumos.workloads.synthetic import Synthetic
from tests.suite.methods.test_methods import configured, needs
from tests.suite.training.test_checkpoint import IDENTITY, Killed, WithStatistics, assert_same, dies_at, outcome
from tests.suite.training.test_loop import CPU, run_config


def averaged(ema=0.9, **changes):
    config = run_config(**changes)
    return replace(config, trainer=config.trainer.model_copy(update={"ema": ema}))


@pytest.fixture(scope="module")
def tiny():
    return replace(Synthetic(relevant_features=4).tiny(), train_rows=600, valid_rows=200, epochs=4, learning_rate=0.01)


@pytest.mark.slow
def test_scoring_the_average_leaves_the_training_as_it_was(tiny):
    state = TrainState(tiny, averaged(), CPU, gated=True)
    average = Average(state.model, 0.9)
    before = {n: t.clone() for n, t in state.model.state_dict().items()}
    state.model.train()
    evaluate(tiny, average.model, tiny.loaders().valid, CPU)
    assert state.model.gates.training
    assert state.model.gates is average.model.gates
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("gated", [False, True], ids=["dense", "gated"])
@pytest.mark.parametrize("kind", [Synthetic, WithStatistics])
def test_what_is_validated_kept_and_returned_is_the_average(kind, gated, monkeypatch):
    tiny = replace(kind(relevant_features=4).tiny(), train_rows=600, valid_rows=200, epochs=4, learning_rate=0.01)
    loaders, config = tiny.loaders(), averaged()
    states = []
    keep = Best.update
    monkeypatch.setattr(Best, "update", lambda self, score, model: (states.append(model), keep(self, score, model))[1])
    kept = []
    restart = TrainState.next_epoch
    monkeypatch.setattr(TrainState, "next_epoch", lambda self: (kept.append(self), restart(self))[1])
    trained = train(tiny, loaders, config, CPU, gated=gated)
    state = kept[-1]
    assert states
    assert all(model is not state.model for model in states)
    assert states[-1] is state.average.model
    assert type(trained.model) is type(states[-1])
    # its batch statistics are its own: the score is the one that was noted
    assert evaluate(tiny, trained.model, loaders.valid, CPU) == pytest.approx(trained.valid_score, abs=1e-6)
    plain = train(tiny, loaders, run_config(), CPU, gated=gated)
    assert plain.curve[0]["loss"] == trained.curve[0]["loss"]
    assert plain.curve[0]["valid"] != trained.curve[0]["valid"]


@pytest.mark.parametrize(
    "settings",
    [
        {"lambda_": 0.02},
        pytest.param({"lambda_": None, "target": TargetConfig(params=0.5)}, marks=pytest.mark.slow),
        pytest.param({"lambda_": None, "tolerance": 0.3}, marks=pytest.mark.slow),
    ],
    ids=["lambda", "budget", "tolerance"],
)
def test_a_training_that_dies_ends_in_the_same_average(settings, tmp_path, monkeypatch):
    tiny = WithStatistics(relevant_features=4).tiny()
    tiny = replace(tiny, train_rows=600, valid_rows=200, epochs=4, learning_rate=0.03)
    config, loaders = averaged(0.95, **settings), tiny.loaders()
    dense = train(tiny, loaders, config, CPU, gated=False)
    for gated in (False, True):
        whole = outcome(train(tiny, loaders, config, CPU, gated=gated, dense=dense))
        store = lambda: Store(tmp_path, f"{gated}", IDENTITY, None, 3)  # noqa: B023, E731
        for step in (5, 11, 14, 23):
            with monkeypatch.context() as patch:
                dies_at(step, patch)
                with pytest.raises(Killed):
                    train(tiny, loaders, config, CPU, gated=gated, dense=dense, store=store())
        saved = checkpoint.read(tmp_path / f"{gated}.ckpt")["state"]["average"]
        assert saved["updates"] > 15
        assert_same(outcome(train(tiny, loaders, config, CPU, gated=gated, dense=dense, store=store())), whole)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["scratch", "l1", "loxia", "oto"])
def test_other_methods_average_too(method, tmp_path):
    needs(method)

    tiny = replace(Synthetic(relevant_features=4).tiny(), epochs=3)
    entry = runner.run(configured(tmp_path, f"method={method}", "method.target=0.5", "trainer.ema=0.9"), tiny)
    assert entry["status"] == "finished", entry["error"]
    assert entry["config"]["trainer"]["ema"] == 0.9
    assert entry["compact"]["params"] <= 0.5 * entry["dense"]["params"]
    folder = next((tmp_path / "runs" / "synthetic").glob("*/record.json")).parent
    assert (folder / "curve.csv").exists()


def test_a_checkpoint_gives_a_start_from_the_average(tmp_path):
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    average = Average(other, 0.9)
    state = {"model": model.state_dict(), "average": average.state_dict(), "step": 3}
    for kept, want in ((state, other), (state | {"average": None}, model)):
        checkpoint.write(tmp_path / "x.ckpt", tmp_path / "y", {"identity": {}, "state": kept})
        found = read_weights(tmp_path / "x.ckpt")
        assert set(found) == {"weight", "bias"}
        assert torch.equal(found["weight"], want.state_dict()["weight"])
