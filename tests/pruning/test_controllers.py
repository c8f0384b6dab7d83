"""What sets the penalty's coefficient: a target, a tolerance; what is decided at the cut, and what a collapse says."""

import math

import pytest
import torch
from torch import nn

import lumos
from lumos.errors import ConfigError, TrainingError
from lumos.pruning.budget import Budget
from lumos.pruning.collapse_detection import CollapseDetector, at_floor
from lumos.pruning.controllers import PATIENCE, TargetController, ToleranceController, make_controller, nearly_decided
from lumos.pruning.settings import Lambda, Schedule, Target, Tolerance


def mlp(features=40, width=60):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    return lumos.gate(net, torch.randn(4, features))


# ---- budgets ----


@pytest.mark.parametrize("quantity", ["params", "macs"])
@pytest.mark.parametrize("limit", [0.5, 0.29, 0.1, 0.03])
def test_what_is_kept_is_at_or_under_the_budget_and_within_two_percent(quantity, limit):
    gated = mlp()
    for seed in range(5):
        log_alpha = torch.randn(gated.structure.units, generator=torch.Generator().manual_seed(seed)) * 3
        keep = Budget(Target(**{quantity: limit})).fit(gated.structure, log_alpha, log_alpha > 0)
        which = {"params": 0, "macs": 1}[quantity]
        share = float(gated.structure.expected_sizes(keep.double())[which]) / gated.structure.dense_sizes[which]
        assert 0.98 * limit <= share <= limit * (1 + 1e-9)
        assert all(keep[g.gates].any() for g in gated.structure.groups)


@pytest.mark.parametrize("multiple", [4, 8])
@pytest.mark.parametrize("limit", [0.5, 0.29])
def test_a_budget_counts_what_rounding_the_widths_adds(multiple, limit):
    gated = mlp()
    hidden = [g for g in gated.structure.groups if g.kind == "hidden"]
    budget = Budget(Target(params=limit), multiple)
    for seed in range(5):
        log_alpha = torch.randn(gated.structure.units, generator=torch.Generator().manual_seed(seed)) * 3
        added = sum(-int((log_alpha[g.gates] > 0).sum()) % multiple for g in hidden)
        assert (budget.rounding(gated.structure, log_alpha, log_alpha > 0) > 1) == (added > 0)
        keep = budget.fit(gated.structure, log_alpha, log_alpha > 0)
        share = float(gated.structure.expected_sizes(keep.double())[0]) / gated.structure.dense_sizes[0]
        assert 0.8 * limit <= share <= limit * (1 + 1e-9)
        assert all(int(keep[g.gates].sum()) % multiple == 0 or keep[g.gates].all() for g in hidden)
        assert budget.rounding(gated.structure, log_alpha, keep) == 1.0
        gated.gates.log_alpha.data = torch.where(keep, 3.0, -3.0)
        gated.align(multiple)
        assert torch.equal(gated.gates.is_open(), keep)
    assert Budget(Target(params=limit)).rounding(gated.structure, log_alpha, log_alpha > 0) == 1.0


def test_gates_are_kept_by_rank():
    gated = mlp()
    log_alpha = torch.linspace(4, 1, gated.structure.units)  # all open, the first widest
    keep = Budget(Target(features=3)).fit(gated.structure, log_alpha, log_alpha > 0)
    group = gated.structure.group("input")
    assert keep[group.gates].nonzero().flatten().tolist() == [0, 1, 2]
    assert keep[group.stop :].all()  # a budget of features leaves hidden units alone


def test_a_hidden_unit_is_opened_before_a_feature_that_closed():
    gated = mlp()
    group = gated.structure.group("input")
    log_alpha = torch.full((gated.structure.units,), -8.0)
    log_alpha[group.gates] = -7.0
    log_alpha[[g.start for g in gated.structure.groups]] = 3.0
    keep = Budget(Target(params=0.5)).fit(gated.structure, log_alpha, log_alpha > 0)
    assert keep[group.gates].sum() == 1
    assert keep.sum() > len(gated.structure.groups)


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        (
            Budget(Target(params=1e-6)),
            "lumos.target.params=1e-06: this model can only have 0.000[0-9]* to 1; .*lumos.streams=true",
        ),
        (Budget(Target(features=41)), "lumos.target.features=41: this model can only have 1 to 40"),
    ],
)
def test_a_budget_that_cannot_be_met_is_said_at_once(budget, line):
    with pytest.raises(ConfigError, match=line):
        budget.check(mlp().structure)


def test_features_of_a_model_without_feature_gates():
    net = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 1))
    gated = lumos.gate(net, torch.arange(4))
    with pytest.raises(ConfigError, match=r"lumos.target.features=3: no input feature of this model can be removed"):
        Budget(Target(features=3)).check(gated.structure)


SCHEDULE = Schedule(200, 100, 0.1)


def test_dual_ascent_by_hand():
    gated = mlp()
    controller = make_controller(Target(params=0.2), SCHEDULE, gated)
    assert isinstance(controller, TargetController)
    gates = nearly_decided(gated.gates.log_alpha.detach(), gated.gates.settings.shift)
    start = float(Budget(Target(params=0.2)).size(gated.structure, gates))
    assert [controller.limit(s) for s in (0, 15, 30, 99)] == pytest.approx([start, (start + 0.2) / 2, 0.2, 0.2])
    # far above the budget: r is clipped to 1/2
    controller.before_step(gated, 50)
    assert controller.log_lambda == pytest.approx(math.log(1e-4) + 20 / 100 * 0.5)
    assert controller.coefficient(50) == pytest.approx(math.exp(controller.log_lambda + 4 * 0.5))
    # below the budget lambda falls
    with torch.no_grad():
        gated.gates.log_alpha.fill_(-3.0)
    before = controller.log_lambda
    controller.before_step(gated, 51)
    assert controller.log_lambda == pytest.approx(before - 20 / 100 * 0.5)


def penalty(controller, gated, step):
    controller.before_step(gated, step)
    pairs = zip(controller.coefficients(step), controller.penalty_terms(gated), strict=True)
    return sum(c * float(term.detach()) for c, term in pairs)


def test_the_penalty_of_a_target_counts_the_full_network_as_its_gates():
    gated = mlp()
    controller = make_controller(Target(macs=0.2), SCHEDULE, gated)
    with torch.no_grad():
        gated.gates.log_alpha.fill_(40.0)
    assert penalty(controller, gated, 50) == pytest.approx(controller.coefficient(50) * gated.structure.units)


def test_hidden_units_keep_their_default_coefficient_beside_a_target_of_features():
    gated = mlp()
    controller = make_controller(Target(features=5), SCHEDULE, gated)
    with torch.no_grad():
        gated.gates.log_alpha.fill_(40.0)
    got = penalty(controller, gated, 50)
    assert got == pytest.approx(40 * controller.coefficient(50) + 120 * 1e-3, rel=1e-5)


# ---- a tolerance ----


def tolerant(higher=True, dense=0.9, scores=()):
    given = iter(scores)
    goal = Tolerance(0.1, score=lambda model: next(given), baseline=dense, higher_is_better=higher)
    controller = make_controller(goal, SCHEDULE, mlp())
    assert isinstance(controller, ToleranceController)
    return controller


def test_the_threshold_lies_on_the_worse_side_of_the_dense_score():
    assert tolerant(True, 0.9).threshold == pytest.approx(0.81)
    assert tolerant(True, -0.5).threshold == pytest.approx(-0.55)
    assert tolerant(False, 2.0).threshold == pytest.approx(2.2)
    assert tolerant(False, 2.0).within(2.1)
    assert not tolerant(False, 2.0).within(2.3)


def checked(controller, *scores):
    """Lambda after checks that find these scores, from its start on, as logarithms."""
    gated = mlp()
    optimizer = torch.optim.AdamW(gated.parameters())
    given, found = iter(scores), [controller.log_lambda]
    controller.score = lambda model: next(given)
    for number in range(len(scores)):
        controller.after_step(gated, optimizer, controller.interval * (number + 1))
        found.append(controller.log_lambda)
    return [b - found[0] for b in found[1:]]


def test_lambda_follows_the_score():
    up, down = ToleranceController.up, ToleranceController.down
    # still learning; within the tolerance; below what it had been
    assert checked(tolerant(), 0.3, 0.85, 0.8) == pytest.approx([0.0, up, up - down])


def test_a_network_that_stops_learning_below_the_threshold_pays_less():
    assert checked(tolerant(), *[0.3] * (1 + PATIENCE)) == pytest.approx([0.0] * PATIENCE + [-ToleranceController.down])


def test_the_cut_returns_to_the_smallest_state_within_the_tolerance():
    controller, gated = tolerant(scores=[0.85, 0.5]), mlp()
    optimizer = torch.optim.AdamW(gated.parameters())
    controller.after_step(gated, optimizer, 2)
    kept = gated.gates.log_alpha.detach().clone()
    with torch.no_grad():
        gated.gates.log_alpha.fill_(-3.0)
    controller.after_step(gated, optimizer, 4)
    controller.finalize(gated, optimizer)
    assert torch.equal(gated.gates.log_alpha, kept)
    assert controller.report(0.7)["returned_at_cut"]
    assert not controller.report(0.7)["met"]


def test_a_tolerance_needs_a_score_and_a_baseline():
    for goal, message in (
        (Tolerance(0.1, score=lambda model: 0.0), "lumos.tolerance needs the dense network's validation score"),
        (Tolerance(0.1, baseline=0.9), "lumos.tolerance needs a function that scores a model"),
    ):
        with pytest.raises(TrainingError, match=message):
            make_controller(goal, SCHEDULE, mlp())


# ---- a collapse ----


def test_a_collapse_is_noticed_within_two_hundred_steps():
    detector = CollapseDetector(10_000, Lambda(0.5))
    for step in range(1, 200):
        detector.update(torch.tensor(1.0), step, lambda: [(1, 20), (1, 30)])
    with pytest.raises(
        TrainingError, match=r"at step 200 every .* lumos.lambda=0.5 is too strong, lower it: .*=0.05, say"
    ):
        detector.update(torch.tensor(1.0), 200, lambda: [(1, 20), (1, 30)])


@pytest.mark.parametrize(
    ("loss", "widths"),
    [(0.3, [(1, 20), (1, 30)]), (1.0, [(1, 20), (2, 30)]), (1.0, [(1, 1)])],
    ids=["it predicts", "units are left", "there was no choice"],
)
def test_what_is_no_collapse(loss, widths):
    detector = CollapseDetector(100, Lambda(0.5))
    for step in range(1, 100):
        detector.update(torch.tensor(1.0 if step == 1 else loss), step, lambda: widths)


def test_noisy_data_are_no_collapse():
    """Where the dense network itself ends at a loss of .95, a loss of .955 is no trivial one."""
    detector = CollapseDetector(100, Lambda(0.5), dense_loss=0.95)
    for step in range(1, 100):
        detector.update(torch.tensor(1.0 if step == 1 else 0.955), step, lambda: [(1, 20)])


def test_at_floor_by_hand():
    assert at_floor([(1, 5), (1, 1)])
    assert not at_floor([(1, 5), (2, 5)])
    assert not at_floor([])


def test_a_finished_network_that_predicts_nothing_is_an_error():
    detector = CollapseDetector(100, Target(params=0.01), dense_loss=0.1)
    detector.check_finished(0.8)
    with pytest.raises(TrainingError, match=r"after the last step the loss is 0.95, .* ask for a larger one"):
        detector.check_finished(0.95)
    CollapseDetector(100, Lambda(0.01), dense_loss=0.99).check_finished(1.0)  # nor did the dense one learn
