"""What can be asked for: a lambda, a target, a tolerance."""

import math
import subprocess
import sys

import pytest

from lumos.pruning.settings import Lambda, Schedule, Target, Tolerance, warm_up


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (lambda: Lambda(-1), "lumos.lambda=-1: expected a number >= 0"),
        (lambda: Lambda(float("inf")), "lumos.lambda=inf: expected a number >= 0"),
        (lambda: Target(params=1.0), "lumos.target.params=1.0: expected a share between 0 and 1"),
        (lambda: Target(macs=float("nan")), "lumos.target.macs=nan: expected a share"),
        (lambda: Target(features=0), "lumos.target.features=0: expected a whole number >= 1"),
        (lambda: Target(), "a target has none: expected one of params, macs, latency, memory, features"),
        (lambda: Target(params=0.1, macs=0.2), "a target has params and macs: expected one of"),
        (lambda: Tolerance(0.1, curve=[0.3, 0.4]), "curve=0.3: expected pairs of a share"),  # pyright: ignore[reportArgumentType]
        (lambda: Tolerance(0.1, curve=[(40, 0.3)]), r"curve=\(40, 0.3\): expected pairs of a share of the training"),
        (lambda: Tolerance(1.0), r"lumos.tolerance=1.0: expected a share in \[0, 1\)"),
    ],
)
def test_what_cannot_be_asked_for(goal, message):
    with pytest.raises(ValueError, match=message) as error:
        goal()
    assert "\n" not in str(error.value)


def test_warm_up_is_a_line():
    assert [warm_up(s, 100, 0.2) for s in (0, 10, 20, 99)] == [0.0, 0.5, 1.0, 1.0]
    assert warm_up(0, 100, 0.0) == 1.0
    assert Schedule(100, 50, 0.2).warm_up(10) == 0.5


def test_settings_import_no_torch():
    code = "import sys; sys.modules['torch'] = None; import lumos.pruning.settings"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_line_of_a_tolerance_follows_the_dense_course():
    rising = Tolerance(0.1, baseline=1.0, curve=((0.25, 0.2), (0.5, 0.5), (0.6, 0.3), (0.75, 0.8), (1.0, 1.0)))
    # What falls again is noise: .2, .4, .4, .8, 1, with 0, .1, -.1, 0, 0 around that.
    noise = math.sqrt((0.1**2 + 0.2**2 + 0.1**2) / 4 / 2)
    assert rising.line(0.1) is None
    assert rising.line(0.25) == pytest.approx(0.9 * 0.2 - noise)
    assert rising.line(0.375) == pytest.approx(0.9 * 0.3 - noise)
    assert rising.line(0.55) == pytest.approx(0.9 * 0.4 - noise)
    assert rising.line(1.0) == pytest.approx(0.9 - noise)
    noisy_losses = Tolerance(0.1, baseline=0.1, curve=((0.25, 1.0), (0.5, 3.0)), higher_is_better=False)
    assert noisy_losses.line(0.5) == pytest.approx(1.1 * 2.0 + math.sqrt(2.0**2 / 2))
    falling = Tolerance(0.1, baseline=0.5, curve=((0.5, 2.0), (1.0, 1.0), (1.0, math.nan)), higher_is_better=False)
    assert falling.line(0.5) == pytest.approx(1.1 * 2.0)
    assert falling.line(1.0) == pytest.approx(1.1)
    overfitted = Tolerance(0.1, baseline=1.0, curve=((0.5, 1.0), (0.6, 0.9), (0.8, 0.8), (0.9, 0.7)))
    assert overfitted.line(0.9) == pytest.approx(0.9 * 0.85 - math.sqrt(0.1**2 / 2))
    above = Tolerance(0.1, baseline=1.0, curve=((0.1, 3.0),))
    assert above.line(0.5) == pytest.approx(0.9)  # never above the threshold
    assert Tolerance(0.1, baseline=1.0).line(0.5) is None
