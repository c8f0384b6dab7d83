"""What stands below a run's table."""

import pytest

from lumos.suite.report.console import _worse_than_trivial


def entry(dense, compact, baselines, higher=True):
    return {
        "metric": {"name": "R2", "higher_is_better": higher}, "baselines": baselines,
        "dense": {"score": dense}, "compact": compact if compact is None else {"score": compact},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (entry(0.9, 0.9, {"mean": 0.0, "linear": 0.8}), None),
        (entry(0.9, 0.7, {"mean": 0.0, "linear": 0.8, "other": None}), "compact (test R2 of linear: 0.8000)"),
        (entry(0.8, 0.7, {"mean": 0.0, "linear": 0.8}), "dense and compact (test R2 of linear: 0.8000)"),
        (entry(0.5, 0.3, {"mean": 0.4}, higher=False), "dense (test R2 of mean: 0.4000)"),
        (entry(0.5, None, {"mean": 0.4}, higher=False), "dense (test R2 of mean: 0.4000)"),
    ],
)
def test_a_network_no_better_than_a_trivial_predictor_has_a_line_of_its_own(found, said):
    lines = _worse_than_trivial(found)
    assert lines == ([] if said is None else [f"NO BETTER THAN A TRIVIAL PREDICTOR: {said}"])
