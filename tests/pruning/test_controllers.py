"""What sets the penalty's coefficient, a target or a tolerance, and what is decided at the cut."""

import math

import pytest
import torch

from lumos.errors import TrainingError
from lumos.pruning.budget import Budget
from lumos.pruning.controllers import PATIENCE, TargetController, ToleranceController, make_controller, nearly_decided
from lumos.pruning.settings import Schedule, Target, Tolerance
from tests.pruning.networks import mlp

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
    found = penalty(controller, gated, 50)
    assert found == pytest.approx(controller.coefficient(50) * gated.structure.units + 40 * 1e-3, rel=1e-5)
    free = make_controller(Target(macs=0.2, feature_price=0.0), SCHEDULE, gated)
    assert penalty(free, gated, 50) == pytest.approx(free.coefficient(50) * gated.structure.units)


def test_hidden_units_keep_their_default_coefficient_beside_a_target_of_features():
    gated = mlp()
    controller = make_controller(Target(features=5), SCHEDULE, gated)
    with torch.no_grad():
        gated.gates.log_alpha.fill_(40.0)
    got = penalty(controller, gated, 50)
    assert got == pytest.approx(40 * controller.coefficient(50) + 120 * 1e-3, rel=1e-5)


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
        controller.after_step(gated, [optimizer], controller.interval * (number + 1))
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
    controller.after_step(gated, [optimizer], 2)
    kept = gated.gates.log_alpha.detach().clone()
    with torch.no_grad():
        gated.gates.log_alpha.fill_(-3.0)
    controller.after_step(gated, [optimizer], 4)
    controller.finalize(gated, [optimizer])
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
