"""What must fail at the end of a training is found before it."""

from dataclasses import replace
from pathlib import Path

import pytest

from lumos.errors import ConfigError, DataError
from lumos.suite import runner
from lumos.suite.config import read
from lumos.workloads.synthetic import Synthetic
from tests.configurations import composed


class OneClass(Synthetic):
    """A workload whose trivial predictors scikit-learn refuses."""

    def baselines(self) -> dict[str, float]:
        raise ValueError("This solver needs samples of at least 2 classes")


def test_trivial_predictors_without_a_score_end_a_run_before_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read(composed(["workload=synthetic", "scale=tiny", f"paths.results={tmp_path}", "trainer.device=cpu"]))
    monkeypatch.setattr(runner, "dense_baseline", lambda *_: pytest.fail("a training began"))
    tiny = replace(Synthetic(), train_rows=200, valid_rows=50, test_rows=50, n_features=4, widths=(4,))
    workload = OneClass(**{key: getattr(tiny, key) for key in ("train_rows", "valid_rows", "test_rows", "n_features")})
    with pytest.raises(DataError, match="synthetic: the trivial predictors have no score on these samples"):
        runner.run(config, workload)


def test_names_of_what_is_to_stay_are_checked_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read(composed(["workload=synthetic", "scale=tiny", f"paths.results={tmp_path}", "lumos.keep=[y1]"]))
    monkeypatch.setattr(runner, "dense_baseline", lambda *_: pytest.fail("a training began"))
    with pytest.raises(ConfigError, match=r"lumos.keep: 'y1' is no input feature or module of this model; there"):
        runner.run(config, Synthetic().tiny())
