"""A Pruner in loops as people write them."""

import copy
import io
import subprocess
import sys

import pytest
import torch
from torch import nn

import lumos
from lumos.errors import CompactionError, ConfigError, TrainingError
from lumos.pruning.pruner import Pruner
from lumos.pruning.restoring import cut_when_loaded

STEPS = 60


def problem(seed=0, norm=False):
    """Six inputs of which two matter."""
    torch.manual_seed(seed)
    x = torch.rand(256, 6)
    layers = [nn.Linear(6, 24), nn.BatchNorm1d(24) if norm else nn.Identity(), nn.ReLU(), nn.Linear(24, 24), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(24, 1)), x, x[:, :1] - 2 * x[:, 3:4]


def steps(gated, optimizer, x, y, count, scheduler=None, accumulate=1, clip=None):
    optimizers = optimizer if isinstance(optimizer, list) else [optimizer]
    for _ in range(count):
        for one in optimizers:
            one.zero_grad()
        for part in torch.randperm(len(x)).chunk(4)[:accumulate]:
            ((gated(x[part]) - y[part]).square().mean() / accumulate).backward()
        if clip:
            nn.utils.clip_grad_norm_(gated.parameters(), clip)
        for one in optimizers:
            one.step()
        if scheduler:
            scheduler.step()


MAKERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.1),
    "adamax": lambda p: torch.optim.Adamax(p, lr=3e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    "muon": lambda p: muon_and_adamw(list(p)),
}
if not hasattr(torch.optim, "Muon"):  # before torch 2.9
    del MAKERS["muon"]


def muon_and_adamw(parameters):
    matrices = [p for p in parameters if p.ndim == 2]
    others = [p for p in parameters if p.ndim != 2]
    return [torch.optim.Muon(matrices, lr=1e-2), torch.optim.AdamW(others, lr=3e-3)]


@pytest.mark.parametrize("target", [lumos.Target(params=0.4), lumos.Target(macs=0.5), lumos.Lambda(1e-2)], ids=str)
def test_a_model_whose_only_inputs_are_indices(target):
    """A table of words takes numbers of rows: there is no input feature to price."""
    model = nn.Sequential(nn.Embedding(20, 12), nn.Flatten(), nn.Linear(60, 24), nn.ReLU(), nn.Linear(24, 1))
    words = torch.randint(0, 20, (64, 5))
    gated = lumos.gate(model, words[:8])
    optimizer = torch.optim.Adam(gated.parameters(), lr=3e-3)
    pruner = Pruner(gated, optimizer, STEPS, target)
    steps(gated, optimizer, words, words[:, :1] / 20.0, STEPS)
    small = pruner.finish()
    assert small.features == []
    assert pruner.equivalence.max_rel_diff < 1e-10
    assert small(words).shape == (64, 1)


def test_after_the_cut_there_is_nothing_to_cut_or_compare():
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.Adam(gated.parameters(), lr=3e-3)
    pruner = Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3))
    steps(gated, optimizer, x, y, 4)
    pruner.finish()
    for what in (lambda: lumos.compact(gated), lambda: lumos.verify(gated, x)):
        with pytest.raises(CompactionError, match=r"are cut already, .* take what Pruner\.finish returned"):
            what()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("cut", ["training", pytest.param("end", marks=pytest.mark.slow)])
def test_a_target_is_met_with_any_optimizer(name, cut):
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = MAKERS[name](gated.parameters())
    pruner = Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3), cut=cut)
    steps(gated, optimizer, x, y, STEPS)
    assert pruner.is_cut == (cut == "training")
    small = pruner.finish()
    dense = sum(p.numel() for p in model.parameters())
    assert 0.25 * dense < sum(p.numel() for p in small.parameters()) <= 0.3 * dense
    torch.testing.assert_close(small(x), gated.eval()(x))
    assert pruner.equivalence.max_rel_diff < 1e-10


@pytest.mark.parametrize("name", ["sgd", pytest.param("adamw", marks=pytest.mark.slow)])
def test_the_two_features_of_a_product_are_found(name):
    """One group of parameters, any optimizer, nothing in the loop."""
    torch.manual_seed(0)
    x = torch.randn(1000, 10)
    y = x[:, :1] * x[:, 1:2]
    gated = lumos.gate(nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1)), x[:8])
    optimizer = MAKERS[name](gated.parameters())
    pruner = Pruner(gated, optimizer, 300, lumos.Target(params=0.15))
    for _ in range(300):
        i = torch.randint(len(x), (128,))
        loss = (gated(x[i]) - y[i]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    small = pruner.finish()
    assert small.features == ["x0", "x1"]
    assert float((small(x) - y).square().mean().detach() / y.var()) < 0.2


def test_what_the_loop_does_to_gradients_and_rates_does_not_reach_the_gates():
    """Weight decay, schedulers, clipping, gradients in parts: the same gates as without, in the first step."""

    def after_one(clip=None, accumulate=1, **options):
        model, x, y = problem()
        gated = lumos.gate(model, x[:8])
        gated.gates.log_alpha.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.AdamW(gated.parameters(), **options)
        Pruner(gated, optimizer, STEPS, lumos.Lambda(1e-3))
        torch.manual_seed(3)
        parts = [x] if accumulate == 1 else x.chunk(accumulate)
        optimizer.zero_grad()
        for part, target in zip(parts, y.chunk(accumulate) if accumulate > 1 else [y], strict=True):
            ((gated(part) - target).square().mean() / accumulate).backward()
        if clip:
            nn.utils.clip_grad_norm_(gated.parameters(), clip)
        optimizer.step()
        return gated.gates.log_alpha.detach().clone()

    expected = after_one()
    assert torch.equal(after_one(lr=1.0, weight_decay=0.5), expected)
    assert torch.equal(after_one(clip=1e-3), expected)
    torch.testing.assert_close(after_one(accumulate=4), expected)


def test_all_calls_of_a_step_see_one_network_and_steps_see_others():
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    gated.gates.log_alpha.data.uniform_(-1, 1)
    optimizer = torch.optim.LBFGS(gated.parameters(), lr=0.1, max_iter=4)
    pruner = Pruner(gated, optimizer, 6, lumos.Lambda(1e-3))
    noise = []

    def closure():
        optimizer.zero_grad()
        loss = (gated(x) - y).square().mean()
        loss.backward()
        noise.append((pruner.step, float(gated.gates.noise[0])))
        return loss

    for _ in range(6):
        optimizer.step(closure)
    gated_steps = {step: {n for s, n in noise if s == step} for step in range(3)}
    assert all(len(found) == 1 for found in gated_steps.values())
    assert len(set.union(*gated_steps.values())) == 3
    assert pruner.is_cut
    pruner.finish()


def test_a_step_that_a_scaler_skips_leaves_nothing_behind():
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    gated.gates.log_alpha.data.uniform_(-1, 1)
    optimizer = torch.optim.SGD(gated.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    pruner = Pruner(gated, optimizer, STEPS, lumos.Lambda(0.0), scaler=scaler)
    before = gated.gates.log_alpha.detach().clone()
    for factor in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale((gated(x) - y).square().mean() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        assert pruner.step == (factor == 1.0)
    assert not torch.equal(gated.gates.log_alpha, before)


@pytest.mark.parametrize("at", [STEPS // 4, pytest.param(STEPS // 2, marks=pytest.mark.slow), STEPS - 5])
@pytest.mark.parametrize("goal", [lumos.Lambda(1e-2), lumos.Target(params=0.3)], ids=["lambda", "target"])
def test_stopped_and_resumed_to_the_same_digits(at, goal):
    resume_to_the_same_digits(at, goal, norm=False)


def test_batch_statistics_of_a_training_that_stopped_just_before_its_cut():
    """They are taken over the last batches, of which some came before the stop."""
    resume_to_the_same_digits(STEPS // 2 - 3, lumos.Target(params=0.3), norm=True)


def resume_to_the_same_digits(at, goal, norm):
    def begun():
        model, x, y = problem(norm=norm)
        gated = lumos.gate(model, x[:8])
        optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        return gated, optimizer, scheduler, Pruner(gated, optimizer, STEPS, goal, schedulers=scheduler), x, y

    gated, optimizer, scheduler, pruner, x, y = begun()
    torch.manual_seed(7)
    steps(gated, optimizer, x, y, at, scheduler)
    parts = {"pruner": pruner, "gated": gated, "optimizer": optimizer, "scheduler": scheduler}
    file = io.BytesIO()
    torch.save({name: part.state_dict() for name, part in parts.items()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    random = torch.get_rng_state()
    steps(gated, optimizer, x, y, STEPS - at, scheduler)
    expected = pruner.finish().state_dict()

    gated, optimizer, scheduler, pruner, x, y = begun()
    for name, part in {"pruner": pruner, "gated": gated, "optimizer": optimizer, "scheduler": scheduler}.items():
        part.load_state_dict(saved[name])
    torch.set_rng_state(random)
    steps(gated, optimizer, x, y, STEPS - at, scheduler)
    found = pruner.finish().state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_step_without_rate_and_gradient_is_none(loaded):
    """torch.distributed.checkpoint makes the state of an optimizer with one, before it reads a checkpoint."""
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3)
    pruner = Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3))
    if loaded:
        pruner.load_state_dict({**pruner.state_dict(), "step": 7})
    before = gated.gates.log_alpha.detach().clone()
    for p in gated.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert pruner.step == 7 * loaded
    assert torch.equal(gated.gates.log_alpha, before)
    (gated(x) - y).square().mean().backward()
    optimizer.step()  # a rate that warms up begins at zero, too
    assert pruner.step == 7 * loaded + 1


def test_the_optimizer_keeps_its_groups_options_and_moments():
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    inner = gated.model
    groups = [{"params": inner[0].parameters(), "lr": 1e-3}, {"params": inner[3].parameters(), "lr": 2e-3},
              {"params": inner[5].parameters(), "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    pruner = Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3), schedulers=scheduler, rate_gain=3.0)
    steps(gated, optimizer, x, y, STEPS // 2, scheduler)
    assert pruner.is_cut
    rates = [group["lr"] for group in optimizer.param_groups]
    assert 1 < rates[0] / 1e-3 <= 3
    assert rates[1] / rates[0] == pytest.approx(2)
    steps(gated, optimizer, x, y, 1, scheduler)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates)
    now = dict(gated.model.named_parameters())
    assert [p for group in optimizer.param_groups for p in group["params"]] == list(now.values())
    assert all(optimizer.state[p]["exp_avg"].shape == p.shape for p in now.values())
    assert all(int(optimizer.state[p]["step"]) == STEPS // 2 + 1 for p in now.values())


def test_averaged_copies_are_cut_along():
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.SGD(gated.parameters(), lr=0.05)
    mean = torch.optim.swa_utils.AveragedModel(gated, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    pruner = Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3), averaged=[mean])
    for _ in range(STEPS):
        steps(gated, optimizer, x, y, 1)
        mean.update_parameters(gated)
    pruner.finish()
    shapes = [p.shape for p in gated.model.parameters()]
    assert [p.shape for p in mean.module.model.parameters()] == shapes
    assert torch.isfinite(mean.eval()(x)).all()
    assert not torch.equal(mean(x), gated.eval()(x))


def test_batch_statistics_are_those_of_the_network_that_is_cut():
    model, x, y = problem(norm=True)
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.SGD(gated.parameters(), lr=0.02)
    pruner = Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3), cut="end")
    steps(gated, optimizer, x, y, STEPS // 2)
    norm = gated.model[1]
    gated.eval()
    with torch.no_grad():
        expected = gated.model[0](x).mean(0)
    torch.testing.assert_close(norm.running_mean, expected, rtol=0.2, atol=0.1)
    assert pruner.is_decided


def test_a_lambda_that_kills_the_network_is_noticed(caplog):
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.SGD(gated.parameters(), lr=0.01)
    pruner = Pruner(gated, optimizer, 400, lumos.Lambda(100.0), rate=1.0)
    with caplog.at_level("WARNING", "lumos"):
        steps(gated, optimizer, x, y, 100)
    assert "every group is down to one unit; unless the loss is still good, lumos.lambda=100" in caplog.text
    with pytest.raises(TrainingError, match=r"collapsed.*lumos.lambda=100 is too strong, lower it"):  # noqa: PT012
        for _ in range(50):
            steps(gated, optimizer, x, y, 1)
            pruner.observe(1.0)


def test_metrics_features_and_the_penalty_in_the_loss():
    def trained(penalty):
        model, x, y = problem()
        gated = lumos.gate(model, x[:8])
        optimizer = torch.optim.SGD(gated.parameters(), lr=0.01)
        pruner = Pruner(gated, optimizer, 20, lumos.Lambda(1e-2), penalty=penalty)
        for _ in range(9):
            loss = (gated(x) - y).square().mean()
            loss = loss + pruner.penalty() if penalty == "loss" else loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return gated, pruner

    (gated, pruner), (other, _) = trained("loss"), trained("hook")
    torch.testing.assert_close(gated.gates.log_alpha, other.gates.log_alpha)
    metrics = pruner.metrics()
    assert metrics["step"] == 9
    assert metrics["penalty"] == pytest.approx(float(pruner.penalty().detach()))
    assert all(isinstance(value, float) for value in metrics.values())
    assert [row["feature"] for row in pruner.feature_rows()] == [f"x{i}" for i in range(6)]


def test_the_loop_may_cut_itself():
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3)
    pruner = Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3), cut="call")
    steps(gated, optimizer, x, y, STEPS // 2)
    assert pruner.is_due
    assert not pruner.is_decided
    small = pruner.cut()
    assert not pruner.is_due
    assert small.model is gated.model
    steps(gated, optimizer, x, y, STEPS // 2)
    assert pruner.finish() is small


def test_a_loop_that_forgets_to_cut_is_cut_at_the_end():
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3)
    pruner = Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3), cut="call")
    steps(gated, optimizer, x, y, STEPS)
    assert pruner.is_decided
    assert not pruner.is_cut
    assert sum(p.numel() for p in pruner.finish().parameters()) <= 0.3 * sum(p.numel() for p in model.parameters())


def test_a_tolerance_scores_what_would_be_cut_and_leaves_modes_and_statistics():
    model, x, y = problem(norm=True)
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.SGD(gated.parameters(), lr=0.02)
    mean = torch.optim.swa_utils.AveragedModel(gated)
    scored = []

    def score(found):
        scored.append(found)
        found.eval()
        with torch.no_grad():
            return float((found(x) - y).square().mean())

    goal = lumos.Tolerance(0.5, score=score, baseline=0.1, higher_is_better=False)
    pruner = Pruner(gated, optimizer, STEPS, goal, averaged=[mean])
    for _ in range(STEPS):
        steps(gated, optimizer, x, y, 1)
        mean.update_parameters(gated)
        assert gated.training
    assert scored
    assert all(found is mean.module for found in scored)
    assert pruner.controller.checks
    pruner.finish()


def test_bfloat16_autocast_trains_as_float32_does():
    found = []
    for enabled in (False, True):
        model, x, y = problem()
        gated = lumos.gate(model, x[:8])
        optimizer = torch.optim.SGD(gated.parameters(), lr=0.05)
        pruner = Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3))
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = (gated(x) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append((sum(p.numel() for p in pruner.finish().parameters()), float(loss.detach())))
    assert found[0][0] == pytest.approx(found[1][0], rel=0.1)
    assert found[0][1] == pytest.approx(found[1][1], rel=0.5)


def test_a_copy_of_the_gated_model_does_not_take_the_pruner_along():
    model, x, y = problem(norm=True)
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.SGD(gated.parameters(), lr=0.05)
    pruner = Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3))
    steps(gated, optimizer, x, y, 2)
    other = copy.deepcopy(gated)
    before = pruner.step
    twin = torch.optim.SGD(other.parameters(), lr=0.05)
    steps(other, twin, x, y, 2)
    assert pruner.step == before
    (mine,), (its,) = gated._forward_pre_hooks.values(), other._forward_pre_hooks.values()
    assert mine is not its


def test_training_the_gated_model_trains_the_users_until_the_cut():
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.SGD(gated.parameters(), lr=0.05)
    Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3))
    assert gated.model is not model
    steps(gated, optimizer, x, y, STEPS // 2 - 1)
    assert all(p is q for p, q in zip(gated.model.parameters(), model.parameters(), strict=True))
    steps(gated, optimizer, x, y, 2)
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert {p.shape for p in gated.model.parameters()} != {p.shape for p in before.values()}
    steps(gated, optimizer, x, y, 2)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_state_of_after_the_cut_cuts_a_whole_model_where_that_is_asked_for():
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3)
    pruner = Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3))
    steps(gated, optimizer, x, y, STEPS // 2 + 2)
    saved, state = gated.state_dict(), pruner.state_dict()
    whole = lumos.gate(problem()[0], x[:8])
    stale = torch.optim.AdamW(whole.parameters(), lr=3e-3)
    cut_when_loaded(whole)
    whole.load_state_dict(saved)
    torch.testing.assert_close(whole.eval()(x), gated.eval()(x))
    fresh = Pruner(whole, torch.optim.AdamW(whole.parameters(), lr=3e-3), STEPS, lumos.Target(params=0.3))
    fresh.load_state_dict(state)
    assert fresh.is_cut
    assert fresh.finish().features == pruner.finish().features
    whole.gates.log_alpha.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"its state was loaded before that of the pruner; load the pruner's first"):
        Pruner(whole, stale, STEPS, lumos.Target(params=0.3)).load_state_dict(state)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["parallel", "resumed", "compiled"])
def test_in_a_process_of_its_own(program):
    run = subprocess.run(
        [sys.executable, "-m", f"tests.pruning.{program}"], capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.endswith("same\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1}, "steps=1: expected two steps or more"),
        ({"cut_at": 1.0}, r"cut_at=1\.0: expected a share between 0 and 1"),
        ({"cut": "later"}, "cut=later: expected training, end or call"),
        ({"rate_gain": 0.5}, r"rate_gain=0\.5: expected a number >= 1"),
        ({"target": lumos.Target(params=1e-6)}, "this model can only have"),
        ({"averaged": [nn.Linear(2, 2)]}, "averaged=Linear: expected an AveragedModel of the gated model"),
    ],
)
def test_wrong_arguments(options, message):
    model, x, _ = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.SGD(gated.parameters(), lr=0.01)
    with pytest.raises(ConfigError, match=message):
        Pruner(gated, optimizer, **{"steps": 10, **options})
    for wrong, line in ((3, "optimizer=int: expected a torch.optim.Optimizer"), ([], r"optimizer=\[\]: expected one")):
        with pytest.raises(ConfigError, match=line):
            Pruner(gated, wrong, 10)
    with pytest.raises(ConfigError, match=r"gated=Sequential: expected what lumos\.gate returned"):
        Pruner(model, optimizer, 10)


def test_gradients_that_are_not_finite_are_said_now_and_then(caplog):
    """Not in each step: the line that says it first would be far above."""
    gated = lumos.gate(nn.Linear(3, 1), torch.randn(8, 3))
    optimizer = torch.optim.SGD(gated.parameters(), lr=0.1)
    Pruner(gated, optimizer, 100, lumos.Lambda(0.1), warmup=0.0)
    with caplog.at_level("WARNING"):
        for _ in range(25):
            optimizer.zero_grad()
            (gated(torch.randn(8, 3)).mean() * float("nan")).backward()
            optimizer.step()
    said = [r.message for r in caplog.records if "not finite" in r.message]
    assert [message.partition("(")[2].partition(")")[0] for message in said] == ["time 1", "time 10"]


def test_a_network_that_is_no_longer_finite_is_not_handed_out():
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.SGD(gated.parameters(), lr=1e30)
    pruner = Pruner(gated, optimizer, STEPS, cut="end")
    steps(gated, optimizer, x, y, 4)
    with pytest.raises(TrainingError, match=r"is not finite after 4 steps .*; lower the learning rate"):
        pruner.finish()
