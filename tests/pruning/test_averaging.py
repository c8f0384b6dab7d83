"""The averaged copy of the weights: by hand, through the cut, through a restart, and in what a training returns."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import lumos
from lumos.compaction.compact import compact
from lumos.compaction.plan import Plan
from lumos.compaction.verify import difference
from lumos.pruning.averaging import Average, decay_at
from lumos.pruning.controllers import ToleranceController
from lumos.pruning.settings import Schedule, Tolerance
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


class Branched(nn.Module):
    """Convolution, norm, residual and a head: cuts along three kinds of axis, and batch statistics."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

    def forward(self, x):
        h = torch.relu(self.norm(self.first(x)))
        return self.head((h + torch.relu(self.inner(h))).mean((2, 3)))


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 2)), (6,)),
    "images": (Branched, (3, 6, 6)),
}


def shaken(gated):
    """Other weights, as after a step."""
    with torch.no_grad():
        for p in gated.model.parameters():
            p.add_(0.3 * torch.randn_like(p))


def half_closed(kind):
    torch.manual_seed(0)
    make, shape = MODELS[kind]
    x = torch.randn(5, *shape)
    gated = lumos.gate(make(), x)
    with torch.no_grad():
        gated.gates.log_alpha[::2] = -8.0
        gated.gates.log_alpha[1::2] = 0.3  # open, and not altogether
        gated.project()
    return gated.double(), x.double()


def test_an_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, 0.5)
    means = []
    for value in (1.0, 3.0, 5.0, 7.0):
        model.weight.data.fill_(value)
        average.update(model)
        means.append(average.model(torch.ones(1)).item())
    # The first weights are taken as they are; then the decay after 1, 2 and 3 updates is 2/11, 3/12 and 4/13.
    second = 1 + (3 - 1) * 9 / 11
    third = second + (5 - second) * 9 / 12
    assert means == pytest.approx([1.0, second, third, third + (7 - third) * 9 / 13])
    assert [decay_at(0.5, n) for n in (8, 10_000)] == [0.5, 0.5]
    assert decay_at(0.999, 8980) == pytest.approx(8981 / 8990)
    assert decay_at(0.999, 9000) == 0.999


@pytest.mark.parametrize("kind", MODELS)
def test_the_cut_of_the_average_is_the_average_of_the_cuts(kind):
    gated, x = half_closed(kind)
    average = Average(gated, 0.9)
    cuts = Average(compact(gated), 0.9)
    for _ in range(4):
        shaken(gated)
        average.update(gated)
        cuts.update(compact(gated))
    with torch.no_grad():
        want = average.model.eval()(x)
    average.cut()
    small = average.model.eval()
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in gated.model.parameters())
    with torch.no_grad():
        assert difference(want, small(x))[1] < 1e-12
    expected = dict(cuts.model.named_parameters())
    for name, p in small.named_parameters():
        assert torch.allclose(p, expected[name], rtol=1e-10, atol=1e-14), name
    # and it goes on as one that was cut from the start
    weights = compact(gated)
    for one in (average, cuts):
        one.update(weights)
    for name, p in average.model.named_parameters():
        assert torch.allclose(p, dict(cuts.model.named_parameters())[name], rtol=1e-10, atol=1e-14), name


def test_what_is_cut_out_of_the_average_is_what_is_cut_out_of_the_weights():
    gated, _ = half_closed("mlp")
    average = Average(gated, 0.9)
    shaken(gated)
    average.update(gated)
    shaken(gated)
    average.update(gated)
    plan = Plan.of(gated.structure, gated.structure.with_places(gated.gates.is_open()))
    means = {n: p.detach().clone() for n, p in average.model.model.named_parameters()}
    m = gated.multipliers()
    average.cut()
    for name, p in average.model.model.named_parameters():
        assert torch.equal(p, plan.cut(name, means[name] * m.get(name, torch.ones(())))), name


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
    offer = Best.offer
    monkeypatch.setattr(Best, "offer", lambda self, score, model: (states.append(model), offer(self, score, model))[1])
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
    [{"lambda_": 0.02}, {"lambda_": None, "target": TargetConfig(params=0.5)}, {"lambda_": None, "tolerance": 0.3}],
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


def test_a_cut_that_returns_to_an_earlier_state_returns_to_its_average():
    torch.manual_seed(0)
    gated = lumos.gate(MODELS["mlp"][0](), torch.randn(4, 6))
    average = Average(gated, 0.9)
    scores, scored = [0.85, 0.5], []
    goal = Tolerance(0.1, score=lambda model: (scored.append(model), scores.pop(0))[1], baseline=0.9)
    controller = ToleranceController(goal, Schedule(100, 80), average)
    optimizer = torch.optim.AdamW(gated.parameters())
    average.update(gated)
    controller.after_step(gated, optimizer, 2)
    means = {n: t.clone() for n, t in average.state_dict()["model"].items()}
    shaken(gated)
    average.update(gated)
    controller.after_step(gated, optimizer, 4)
    controller.finalize(gated, optimizer)
    assert scored == [average.model] * 2
    assert average.state_dict()["updates"] == 1
    for name, tensor in average.state_dict()["model"].items():
        assert torch.equal(tensor, means[name])


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
