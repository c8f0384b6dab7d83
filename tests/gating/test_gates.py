"""Equations 1-5 against values worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumos.gating.gates import Gates
from lumos.gating.hard_concrete import expected_open, log_alpha_of, median, open_probability, sample
from lumos.gating.settings import GateSettings
from lumos.tracing.structure import Group

PAPER = GateSettings(tau=2 / 3)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_sample_is_equation_2_and_3():
    # noise 0.8: log 4 = 1.386294; (1.386294 + 0.5) / 0.5 = 3.772589; sigmoid = .977525; * 1.2 - .1 = 1.073030 -> 1
    # noise 0.3: log(3/7) = -.847298; (-.847298 + .5) / .5 = -.694596; sigmoid = .333012; * 1.2 - .1 = .299614
    # noise 0.1: log(1/9) = -2.197225; -3.394449; sigmoid = .032469; * 1.2 - .1 = -.061037 -> 0
    got = sample(vector(0.5, 0.5, 0.5), vector(0.8, 0.3, 0.1), GateSettings(tau=0.5))
    torch.testing.assert_close(got, vector(1.0, 0.299614, 0.0), atol=1e-6, rtol=0)


def test_median_divides_by_tau():
    # 1 / (2/3) = 1.5; sigmoid(1.5) = .817574; * 1.2 - .1 = .881089.  0 -> .5.  -1.7: sigmoid(-2.55) = .072426 -> 0
    torch.testing.assert_close(median(vector(1.0, 0.0, -1.7), PAPER), vector(0.881089, 0.5, 0.0), atol=1e-6, rtol=0)


def test_what_the_penalty_counts_is_equation_5():
    # shift = 2/3 log(.1/1.1) = -1.598597; sigmoid(0 + 1.598597) = .831822
    torch.testing.assert_close(expected_open(vector(0.0), PAPER), vector(0.831822), atol=1e-6, rtol=0)
    assert PAPER.shift == pytest.approx(-1.598597, abs=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "log_alpha", "expected"),
    [
        # sigmoid(-1 + 1.598597) = .645335, equation 5
        (0.0, 1.0, -1.0, 0.645335),
        # open where the noise is above sigmoid(-1.598597 + 1.4) = .4505133: (.6 - .4505133) / .2 = .747433
        (0.4, 0.6, -1.4, 0.747433),
        (0.4, 0.6, 0.0, 1.0),
        (0.4, 0.6, -3.0, 0.0),
    ],
)
def test_open_probability_is_the_share_of_open_samples(low, high, log_alpha, expected):
    settings = GateSettings(t_l=low, t_u=high)
    assert float(open_probability(vector(log_alpha), settings)) == pytest.approx(expected, abs=1e-6)
    gates = Gates([Group("g", "hidden", 0, 200_000)], settings).train()
    gates.log_alpha.data.fill_(log_alpha)
    # the standard error of the share is at most .0011
    assert float((gates() > 0).float().mean()) == pytest.approx(expected, abs=5e-3)
    torch.testing.assert_close(gates.open_probability()[:1].double(), vector(expected), atol=1e-5, rtol=0)


def test_inner_thresholds_make_far_gates_deterministic():
    """Equation 1: above t_u always open, below t_l always closed, between them by chance."""
    gates = Gates([Group("g", "hidden", 0, 3)], GateSettings(t_l=0.1, t_u=0.9)).train()
    # noise in (.1, .9): logit within +-2.197; open where logit + log_alpha > -1.5986
    gates.log_alpha.data.copy_(torch.tensor([3.0, 0.0, -4.0]))
    draws = torch.stack([gates() for _ in range(500)])
    assert bool((draws[:, 0] > 0).all())
    assert bool((draws[:, 2] == 0).all())
    assert 0 < float((draws[:, 1] == 0).float().mean()) < 0.5


def test_gates_at_test_time_are_the_median():
    gates = Gates([Group("g", "hidden", 0, 4)], PAPER).eval()
    torch.testing.assert_close(gates(), median(gates.log_alpha, PAPER))
    assert bool(gates.is_open().all())


@given(st.floats(0.01, 0.99), st.floats(0.2, 2.0))
def test_log_alpha_of_inverts_equation_5(p, tau):
    settings = GateSettings(tau=tau)
    assert float(expected_open(vector(log_alpha_of(p, settings)), settings)) == pytest.approx(p, abs=1e-9)


def test_project_keeps_the_best_gate_of_each_group_open():
    gates = Gates([Group("a", "feature", 0, 2), Group("b", "hidden", 2, 5)], PAPER)
    gates.log_alpha.data.copy_(torch.tensor([-5.0, -7.0, -9.0, 99.0, 0.5]))
    gates.project()
    assert gates.log_alpha.tolist() == [0.0, -7.0, -8.0, 8.0, 0.5]
    assert gates.is_open().tolist() == [True, False, False, True, True]


def test_project_lifts_at_every_step_what_it_would_alone():
    """It looks at few gates where it can; a fresh one looks at all of them."""
    torch.manual_seed(0)
    groups = [Group(f"g{i}", "hidden", 5 * i, 5 * i + 5, optional=i == 3) for i in range(4)]
    gates, lifts, looks = Gates(groups, PAPER), 0, 0
    for step in range(400):
        with torch.no_grad():
            gates.log_alpha += 0.4 * torch.randn(20) - 0.04
        if step == 200:
            gates.protected[3] = True
        fresh = Gates(groups, PAPER)
        fresh.load_state_dict(gates.state_dict())
        before = gates._leaders
        known = gates.project()
        assert not fresh.project()
        assert torch.equal(gates.log_alpha, fresh.log_alpha)
        assert not known or all(bool(gates.is_open()[g.gates].any()) for g in groups)
        looks += gates._leaders is not before
        lifts += int((gates.log_alpha == 0).sum())
    assert lifts > 10
    assert 10 < looks < 390


@pytest.mark.parametrize("thresholds", [(0.0, 1.0), (0.4, 0.6)])
def test_noise_stays_inside_the_thresholds(thresholds, monkeypatch):
    gates = Gates([Group("g", "hidden", 0, 3)], GateSettings(t_l=thresholds[0], t_u=thresholds[1]))
    low, high = max(thresholds[0], 1e-6), min(thresholds[1], 1 - 1e-6)
    quarter = thresholds[0] + 0.25 * (thresholds[1] - thresholds[0])
    for drawn, expected in ((0.0, low), (0.25, quarter), (1.0, high)):
        monkeypatch.setattr(torch, "rand_like", lambda x, drawn=drawn, **_: torch.full_like(x, drawn).detach())
        assert bool(torch.isfinite(gates()).all())
        assert gates.noise[0].item() == pytest.approx(expected, abs=1e-7)


def test_gradient_reaches_log_alpha():
    log_alpha = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: sample(a, vector(0.3, 0.5, 0.6), PAPER), log_alpha)
    assert torch.autograd.gradcheck(lambda a: expected_open(a, PAPER), log_alpha)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"tau": 0.0}, "tau=0.0: expected a number > 0"),
        ({"tau": math.nan}, "tau=nan"),
        ({"gamma": 0.1}, "gamma=0.1: expected a number < 0"),
        ({"zeta": 1.0}, "zeta=1.0: expected a number > 1"),
        ({"gamma": -1.5, "zeta": 1.5}, "zeta=1.5: expected a number > 1.5, which is -gamma"),
        ({"t_l": 0.6}, r"t_l=0.6: expected a number in \[0, 0.5\)"),
        ({"t_u": 0.4}, "t_u=0.4"),
        ({"initial_open": 1.0}, "initial_open=1.0"),
    ],
)
def test_bad_settings_say_what_was_expected(bad, message):
    with pytest.raises(ValueError, match=message):
        GateSettings(**bad)
