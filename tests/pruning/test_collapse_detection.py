"""What is a collapse, and what it says."""

import pytest
import torch

from lumos.errors import TrainingError
from lumos.pruning.collapse_detection import CollapseDetector, at_floor
from lumos.pruning.settings import Lambda, Target


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
