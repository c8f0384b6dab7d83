"""What sets the penalty's coefficient, a target or a tolerance, and what is decided at the cut."""

import itertools
import math

import pytest
import torch

from lumos.errors import TrainingError
from lumos.pruning.budget import Budget
from lumos.pruning.controllers import (
    CLOSE,
    FALL,
    GRACE,
    LEARN,
    PATIENCE,
    SEARCH,
    TargetController,
    ToleranceController,
    make_controller,
    nearly_decided,
)
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


def tolerant(higher=True, dense=0.9, scores=(), curve=(), penalty="gates"):
    given = iter(scores)
    goal = Tolerance(0.1, lambda model: next(given), dense, higher_is_better=higher, curve=curve, penalty=penalty)
    controller = make_controller(goal, SCHEDULE, mlp())
    assert isinstance(controller, ToleranceController)
    return controller


def test_the_threshold_lies_on_the_worse_side_of_the_dense_score():
    assert tolerant(True, 0.9).threshold == pytest.approx(0.81)
    assert tolerant(True, -0.5).threshold == pytest.approx(-0.55)
    assert tolerant(False, 2.0).threshold == pytest.approx(2.2)
    assert tolerant(False, 2.0).within(2.1)
    assert not tolerant(False, 2.0).within(2.3)


def checked(controller, *scores, gated=None):
    """Share that the budget allows after checks that find these scores, with the steps in between."""
    gated = gated or mlp()
    given, found, done = iter(scores), [], len(controller.checks)
    controller.score = lambda model: next(given)
    for number in range(done, done + len(scores)):
        for step in range(number * controller.interval, (number + 1) * controller.interval):
            controller.before_step(gated, step)
            controller.after_step(gated, step + 1)
        found.append(controller.limit(0))
    return found


CURVE = ((0.02, 0.5), (0.5, 0.8), (1.0, 0.9))
"""What a dense network came to, from step 4 of 200 on."""


def test_the_budget_falls_while_the_network_keeps_up_with_the_dense_one():
    controller = tolerant(curve=CURVE)
    start = math.exp(controller.start)
    found = checked(controller, 0.1, 0.6, 0.6, 0.6)
    # A check at each second step; the first ones come before the curve, and the second begins the fall.
    fall = math.exp(-2 * FALL / 100)
    assert found == pytest.approx([start, start, start * fall, start * fall**2])


def test_it_learns_first_where_operations_are_saved_and_inputs_go_from_the_first_step_where_gates_are_counted():
    controller, gated = tolerant(curve=CURVE, penalty="macs"), mlp()
    count = math.ceil(LEARN * SCHEDULE.gated_steps / controller.interval) - 1
    start, fall = math.exp(controller.start), math.exp(-2 * FALL / 100)
    assert checked(controller, *[0.9] * count, gated=gated) == pytest.approx([start] * count)
    assert controller.coefficients(29) == (0.0, 0.0)
    # A check at each second step; the one that ends the learning begins the fall.
    assert checked(controller, *[0.9] * 3, gated=gated) == pytest.approx([start, start * fall, start * fall**2])
    assert min(controller.coefficients(31)) > 0
    assert min(tolerant(curve=CURVE).coefficients(1)) > 0


def test_nothing_presses_on_a_network_that_is_smaller_than_what_it_is_held_at():
    controller, gated = tolerant(curve=CURVE), mlp()
    checked(controller, *[0.9] * 4, gated=gated)
    falling = controller.coefficient(40)
    checked(controller, -0.1, gated=gated)
    assert not controller.falling
    held = controller.coefficient(40)
    controller.excess = -0.1
    assert controller.coefficient(40) < 0.01 * held
    assert min(held, falling) > 0


def test_a_network_that_falls_behind_gets_time_and_then_its_units_back():
    controller, gated = tolerant(curve=CURVE), mlp()
    start = math.exp(controller.start)
    good = checked(controller, 0.1, 0.9, 0.9, gated=gated)
    with torch.no_grad():  # what closed was needed
        gated.gates.log_alpha[8:40] = -3.0
    held = checked(controller, *[-0.1] * GRACE, gated=gated)
    assert len({round(x, 9) for x in held}) == 1  # the budget is held, so that it may recover
    assert held[0] < good[-1]
    assert int(gated.gates.is_open().sum()) == 160 - 32
    small = math.log(float(controller._share(gated, gated.gates.is_open().double())))
    (back,) = checked(controller, -0.1, gated=gated)
    assert back == pytest.approx(start)  # it had kept up with nothing closed
    assert bool(gated.gates.is_open().all())
    assert controller.too_small == pytest.approx(small)
    after = checked(controller, *[0.9] * 30, gated=gated)
    assert math.exp(small) < min(after) < start
    assert min(after) == pytest.approx(math.exp((small + controller.start) / 2), rel=0.2)


def test_what_falls_behind_again_gets_what_it_had_before_that():
    controller, gated = tolerant(curve=CURVE), mlp()
    checked(controller, -0.1, gated=gated)
    for units in (24, 48, 72):  # it keeps up with ever fewer
        with torch.no_grad():
            gated.gates.log_alpha[8 : 8 + units] = -3.0
        checked(controller, 0.9, gated=gated)
    counts = [int(gated.gates.is_open().sum())]
    checked(controller, -0.1, gated=gated)  # from here on the budget is held
    for _ in range(3):
        checked(controller, *[-0.1] * GRACE, gated=gated)
        counts.append(int(gated.gates.is_open().sum()))
    assert counts == [88, 112, 136, 160]


def shrunk_slowly(most):
    """A network that kept up at every size on its way to so many closed units, four at a time."""
    controller, gated = tolerant(curve=CURVE), mlp()
    checked(controller, 0.1, gated=gated)
    for closed in range(4, most, 4):
        with torch.no_grad():
            gated.gates.log_alpha[8 : 8 + closed] = -3.0
        checked(controller, 0.9, gated=gated)
    return controller, gated


def test_of_a_slow_fall_it_gets_back_the_last_step_and_then_steps_that_double():
    """Each size is within 15% of the one before: none of them may hide the others."""
    controller, gated = shrunk_slowly(100)
    counts = [int(gated.gates.is_open().sum())]
    checked(controller, 0.1, gated=gated)
    while counts[-1] < 160:
        checked(controller, *[0.1] * GRACE, gated=gated)
        counts.append(int(gated.gates.is_open().sum()))
    assert counts[0] == 64
    ratios = [math.log(more / fewer) for fewer, more in itertools.pairwise(counts)]
    assert CLOSE / 2 < ratios[0] < 2 * CLOSE
    assert all(step > CLOSE / 2 * 2**k for k, step in enumerate(ratios[:-1]))
    assert len(ratios) <= 5


def test_a_network_that_falls_behind_is_held_at_its_size_and_not_at_the_budget_ahead_of_it():
    controller, gated = tolerant(curve=CURVE), mlp()
    budget = checked(controller, 0.1, *[0.9] * 10, gated=gated)[-1]  # nothing closes meanwhile
    assert budget < math.exp(controller.start) / 1.5
    (held,) = checked(controller, 0.1, gated=gated)
    assert held == pytest.approx(math.exp(controller.start))


@pytest.mark.parametrize(("behind", "last"), [(True, 0.9), (True, 0.1), (False, 0.9)])
def test_a_network_that_fell_behind_shrinks_no_further_at_the_end_of_the_search(behind, last):
    controller, gated = shrunk_slowly(80)
    if behind:
        checked(controller, 0.1, *[0.1] * GRACE, 0.9, gated=gated)
    few = int(gated.gates.is_open().sum())
    left = math.ceil(SEARCH * SCHEDULE.gated_steps / controller.interval) - 1 - len(controller.checks)
    checked(controller, *[0.9] * left, gated=gated)
    assert not controller.settled
    (limit,) = checked(controller, last, gated=gated)
    assert controller.settled == behind
    if last == 0.9:
        assert int(gated.gates.is_open().sum()) == few
    else:
        assert int(gated.gates.is_open().sum()) > few
    after = checked(controller, *[0.9] * 10, gated=gated)
    if behind:
        assert set(after) == {limit}


def test_a_network_that_never_keeps_up_loses_nothing():
    controller = tolerant(curve=CURVE)
    start = math.exp(controller.start)
    assert checked(controller, *[0.1] * 20) == pytest.approx([start] * 20)


def test_without_a_curve_it_waits_until_the_network_is_trained_out():
    controller = tolerant()
    start = math.exp(controller.start)
    found = checked(controller, 0.3, *[0.2] * PATIENCE, *[0.29] * 5)
    assert found[: PATIENCE + 1] == pytest.approx([start] * (PATIENCE + 1))
    assert controller.line(50) == pytest.approx(0.27)  # a tenth below its own best: .81 is out of its reach
    assert found[-1] < start
    reached = tolerant()
    assert checked(reached, 0.85, 0.85)[-1] < start
    assert reached.line(50) == pytest.approx(0.765)


def test_the_cut_opens_units_again_where_the_network_did_not_keep_up_at_last():
    controller, gated = tolerant(curve=CURVE), mlp()
    checked(controller, 0.1, 0.9, gated=gated)
    with torch.no_grad():
        gated.gates.log_alpha[8:40] = -3.0
    checked(controller, 0.1, 0.1, gated=gated)
    controller.finalize(gated)
    assert bool(gated.gates.is_open().all())
    assert controller.report(0.7)["returned_at_cut"]
    assert not controller.report(0.7)["met"]


def test_until_there_is_a_line_lambda_is_the_default_and_then_the_budget_is_what_it_left():
    controller, gated = tolerant(), mlp()
    with torch.no_grad():
        gated.gates.log_alpha[8:40] = -3.0
    checked(controller, 0.3, 0.4, gated=gated)
    assert controller.coefficient(50) == pytest.approx(1e-3)
    assert controller.log_limit == controller.start
    (limit,) = checked(controller, 0.85, gated=gated)
    assert limit == pytest.approx(128 / 160)
    without_scores = tolerant(curve=[(0.5, math.nan)])
    assert not without_scores.ready  # as without a curve


def test_a_tolerance_needs_a_score_and_a_baseline():
    for goal, message in (
        (Tolerance(0.1, score=lambda model: 0.0), "lumos.tolerance needs the dense network's validation score"),
        (Tolerance(0.1, baseline=0.9), "lumos.tolerance needs a function that scores a model"),
    ):
        with pytest.raises(TrainingError, match=message):
            make_controller(goal, SCHEDULE, mlp())
