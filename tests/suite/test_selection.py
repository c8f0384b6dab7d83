"""The study of features that carry a nonlinear signal: problems, screening, records, table."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from lumos.errors import ConfigError, RecordError
from lumos.suite.cli import lumos
from lumos.suite.selection import rankings, study, table
from lumos.suite.selection.problems import FOLDS, TRUE, problem, sizes
from lumos.suite.selection.rankings import RANKINGS
from lumos.tabular.screening import screen


@pytest.mark.parametrize("name", TRUE)
def test_the_signal_is_in_the_true_features_and_folds_share_the_rows(name):
    posed = problem(name, 16, 0)
    assert posed.x.shape == (833, 16)
    assert len(posed.true) == TRUE[name]
    assert 0.4 < posed.y.mean() < 0.6  # the widths of the paper make the classes alike
    again, other = problem(name, 16, 0), problem(name, 16, FOLDS - 1)
    assert np.array_equal(posed.x, again.x)
    assert other.x.shape == (834, 16)
    rows = {tuple(sorted(row)) for row in np.round(posed.x, 12).tolist()}
    assert len(rows & {tuple(sorted(row)) for row in np.round(other.x, 12).tolist()}) > 600


@pytest.mark.parametrize("name", TRUE)
def test_the_screening_finds_the_pairs(name):
    posed = problem(name, 128, 0, seed=1000)
    found = screen(posed.x, posed.y[:, None].astype(float))
    assert set(found.order()[: len(posed.true)]) == set(posed.true)
    assert found.expected[posed.true].max() < 0.1


def test_noise_looks_good_as_often_as_the_screening_expects():
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(12):
        x, y = rng.random((200, 60)), rng.normal(size=(200, 1))
        counts.append((screen(x, y).expected <= 1.0).sum())
    assert 0 <= np.mean(counts) <= 8  # three tests of a column, each with one expected; a pair counts for both of its


def test_categories_gaps_constants_and_copies_are_screened():
    rng = np.random.default_rng(0)
    x = rng.random((400, 7))
    x[:, 1] = rng.integers(0, 3, 400)
    x[:, 2] = 5.0
    x[:, 3] = x[:, 0]
    x[::9, 4] = np.nan
    y = (x[:, 1] == 1) ^ (x[:, 0] > 0.5)
    found = screen(x, np.stack([y, np.zeros(400)], 1).astype(float), categories=[1])
    assert set(found.order()[:3]) == {0, 1, 3}
    assert found.expected[2] >= 1
    assert found.partner[1] in (0, 3)
    assert found.chosen(5).tolist() == sorted(found.order()[:5].tolist())
    with pytest.raises(ConfigError, match="3 rows of x"):
        screen(x[:3], np.zeros((3, 1)))


@pytest.mark.parametrize("method", [m for m in RANKINGS if m != "random_forest"])
def test_every_ranking_finds_a_step_in_one_of_few_features(method, monkeypatch):
    monkeypatch.setattr(rankings, "STEPS", 40)
    x = np.random.default_rng(0).random((120, 4))
    score = RANKINGS[method](x, (x[:, 2] > 0.5).astype(np.int64), 0)
    assert score.argmax() == 2


def test_a_study_goes_on_where_it_was_stopped(tmp_path):
    path, said = tmp_path / "records.ndjson", []
    wanted = study.cells(["xor"], [2, 8], 2, ["screening", "pearson"], 0)
    assert len(wanted) == 8
    assert not study.run_study(wanted, path, minutes=0, say=said.append)
    assert study.run_study(wanted[:3], path, say=said.append)
    before = path.read_text()
    path.write_text(before + '{"problem": "xo')  # a kill in the middle of a line
    assert study.run_study(wanted, path, say=said.append)
    assert path.read_text().startswith(before)
    assert [study._key(r) for r in study.read(path)] == [study._key(c) for c in wanted]
    rows = table.summarise(study.read(path))
    assert {(r["features"], r["percent"]) for r in rows if r["method"] == "screening alone"} == {(2, 100), (8, 100)}
    path.write_text("nonsense\n" + before)
    with pytest.raises(RecordError, match="line 1"):
        study.read(path)


@pytest.mark.parametrize(
    "wrong", [{"problems": ["rong"]}, {"features": [3]}, {"folds": 7}, {"methods": ["guess"]}], ids=str
)
def test_what_there_is_not_is_said(wrong):
    given = {"problems": [], "features": [], "folds": 1, "methods": [], "seed": 0}
    with pytest.raises(ConfigError, match="expected"):
        study.cells(**{**given, **wrong})


def test_the_mean_needs_all_sizes():
    records = [
        {"problem": "xor", "features": m, "fold": 0, "seed": 0, "method": "lumos", "found": 1, "seconds": 1.0}
        for m in sizes("xor")
    ]
    rows = table.summarise(records)
    assert rows[-1]["features"] == "mean"
    assert rows[-1]["percent"] == 50
    assert all(row["features"] != "mean" for row in table.summarise(records[1:]))
    assert {r["percent"] for r in table.published() if r["method"] == "random forest" and r["features"] == "mean"} == {
        100, 54.5, 88.8, 85.3,
    }  # fmt: skip


def test_the_command_runs_and_draws(tmp_path):
    words = ["suite", "features", "--problems", "ring", "--m", "2", "--folds", "1", "--methods", "screening"]
    done = CliRunner().invoke(lumos, [*words, "--records", str(tmp_path / "r.ndjson")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "r.ndjson").read_text())["found"] == 2
    assert "random forest (published) | 100.0 | 54.5 | 88.8 | 85.3" in done.output
    assert (tmp_path / "feature_selection.png").stat().st_size > 10_000
