"""The loop: schedules, the cut in the middle, and what it does when things go wrong."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import lumos
from lumos.errors import TrainingError
from lumos.pruning.optimizers import rate_gain
from lumos.pruning.settings import warm_up
from lumos.suite.config import RunConfig
from lumos.suite.settings import LumosConfig, TrainerConfig
from lumos.suite.training.loop import train
from lumos.suite.training.optimizer import cosine, make_optimizer
from lumos.workloads.synthetic import Synthetic

CPU = torch.device("cpu")
GATES = LumosConfig(
    lambda_=1e-3, penalty="gates", tau=2 / 3, t_l=0.0, t_u=1.0, gamma=-0.1, zeta=1.1, initial_open=0.9,
    learning_rate=0.1, warmup=0.1, freeze_at=0.5, rate_gain=1.0,
)  # fmt: skip


def run_config(**changes) -> RunConfig:
    gates = LumosConfig(**{**dict(GATES), **changes})
    return RunConfig("tiny", 0, False, gates, TrainerConfig(device="cpu"), Path("unused"), {})


@pytest.fixture(scope="module")
def tiny():
    return Synthetic(relevant_features=4).tiny()


def test_schedules_by_hand():
    assert [warm_up(s, 100, 0.2) for s in (0, 10, 20, 99)] == [0.0, 0.5, 1.0, 1.0]
    assert warm_up(0, 100, 0.0) == 1.0
    assert [round(cosine(s, 4), 6) for s in range(4)] == [1.0, 0.853553, 0.5, 0.146447]
    # gated: at its peak until the cut, then the same cosine over what is left
    assert [round(cosine(s, 8, start=4), 6) for s in range(8)] == [1.0] * 4 + [1.0, 0.853553, 0.5, 0.146447]


def test_the_rate_rises_at_the_cut_as_the_widths_fall(tiny):
    assert [rate_gain([(100, c)], 5.0) for c in (100, 25, 4, 1, 0)] == pytest.approx([1.0, 2.0, 5.0, 5.0, 5.0])
    assert rate_gain([(100, 1)], 1.0) == 1.0
    # Widths a quarter and the same: the geometric mean of 4 and 1, however large the layers are.
    assert rate_gain([(1600, 100), (30, 30)], 5.0) == pytest.approx(2.0)
    assert rate_gain([], 5.0) == 1.0
    peaks, dense = [], tiny.model()
    for most in (1.0, 5.0):
        gated = lumos.gate(dense, tiny.example())
        optimizer = make_optimizer(gated, tiny)
        pruner = lumos.Pruner(gated, optimizer, 2, cut="call", rate_gain=most)
        with torch.no_grad():
            gated.gates.log_alpha[::2] = -8.0
        small = pruner.cut()
        peaks.append(optimizer.param_groups[0]["initial_lr"])
    pairs = zip(dense.parameters(), small.parameters(), strict=True)
    sizes = [(old.numel(), new.numel()) for old, new in pairs if old.ndim > 1]
    gain = math.prod(old / new for old, new in sizes) ** (0.5 / len(sizes))
    assert 1.5 < gain < 5
    peak = tiny.recipe.learning_rate
    assert peaks == pytest.approx([peak, peak * gain])


def test_both_trainings_take_the_same_steps(tiny):
    tiny = replace(tiny, epochs=10)
    loaders = tiny.loaders()
    dense = train(tiny, loaders, run_config(), CPU, gated=False)
    gated = train(tiny, loaders, run_config(lambda_=0.02), CPU, gated=True)
    assert dense.steps == gated.steps == tiny.recipe.epochs * len(loaders.train)
    assert isinstance(gated.model, lumos.CompactModel)
    assert gated.equivalence.max_rel_diff < 1e-10
    assert gated.gates["open"] < gated.gates["total"]
    assert sum(p.numel() for p in gated.model.parameters()) < sum(p.numel() for p in dense.model.parameters())


def test_training_twice_gives_the_same_numbers(tiny):
    first, second = (train(tiny, tiny.loaders(), run_config(), CPU, gated=True) for _ in range(2))
    for (name, a), b in zip(first.model.named_parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_the_optimizer_has_the_weights_alone(tiny):
    model = lumos.gate(tiny.model(), tiny.example())
    (group,) = make_optimizer(model, tiny).param_groups
    assert group["params"] == list(model.model.parameters())
    assert group["lr"] == group["initial_lr"] == tiny.recipe.learning_rate


def test_the_cut_is_invisible_to_a_fully_decided_training(tiny):
    """With gates that are exactly 0 or 1, the step after the cut is the step that the gated model would have made."""
    torch.manual_seed(0)
    gated = lumos.gate(tiny.model(), tiny.example()).train()
    with torch.no_grad():
        gated.gates.log_alpha.fill_(8.0)
        gated.gates.log_alpha[[0, 1, 25, 30, 31]] = -8.0
    gated.gates.fixed = True  # test-time gates: exactly 0 and 1
    other = copy.deepcopy(gated)
    optimizer, others = make_optimizer(gated, tiny), make_optimizer(other, tiny)
    pruner = lumos.Pruner(other, others, 100, lumos.Lambda(0.0), cut="call", rate_gain=1.0)
    x, y = next(iter(tiny.loaders().train))

    def step(model, opt):
        opt.zero_grad()
        tiny.loss(model, (x, y)).backward()
        opt.step()

    for _ in range(3):
        step(gated, optimizer)
        step(other, others)
    small = pruner.cut()
    step(gated, optimizer)
    step(small, others)
    again = lumos.compact(gated)
    for (name, a), b in zip(small.model.named_parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_a_loss_that_is_not_finite_stops_with_the_batch(tiny):
    class Broken(Synthetic):
        def loss(self, model, batch):
            return super().loss(model, batch) * math.nan

    broken = Broken(relevant_features=4).tiny()
    with pytest.raises(TrainingError, match=r"not finite from batch 0 of epoch 1 on .* lower workload.learning_rate"):
        train(broken, broken.loaders(), run_config(), CPU, gated=False)


def test_one_step_is_too_few_for_gates(tiny):
    config = replace(run_config(), trainer=TrainerConfig(device="cpu", max_steps=1))
    with pytest.raises(TrainingError, match="needs two steps or more, this one has 1"):
        train(tiny, tiny.loaders(), config, CPU, gated=True)


def test_lambda_zero_closes_nothing(tiny):
    trained = train(tiny, tiny.loaders(), run_config(lambda_=0.0), CPU, gated=True)
    assert trained.gates["features_kept"] == list(tiny.features())


@pytest.mark.parametrize("kind", ["gates", "params", "macs"])
def test_penalties_count_the_full_network_alike(kind):
    gated = lumos.gate(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)), torch.randn(4, 4))
    with torch.no_grad():
        gated.gates.log_alpha.fill_(40.0)
    assert float(gated.penalty(kind).detach()) == pytest.approx(10)
