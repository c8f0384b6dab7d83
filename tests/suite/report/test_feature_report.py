"""The feature report: what is read from runs, the CSV and back, stability, agreement, the figure, the command."""

import csv
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lumos.errors import ConfigError, RecordError
from lumos.suite import feature_report
from lumos.suite.cli import main
from lumos.suite.feature_selectors import SELECTORS
from lumos.suite.paths import PROJECT
from lumos.suite.report import feature_table
from lumos.suite.report.feature_figure import draw, figure
from lumos.suite.report.results import Results

NAMES = "abcdef"


def made(seed, kept, *, enters: Any = "ab", count=6, **strengths):
    """A run of which the features not kept close at steps 10, 20, ... from the last one down."""
    names = [NAMES[i] if count == len(NAMES) else f"x{i}" for i in range(count)]
    closing = iter(range(10, 1000, 10))
    rows = []
    for name in reversed(names):
        closed = "" if name in kept else str(next(closing))
        rows.insert(0, {
            "feature": name, "kept": str(int(name in kept)), "closed_at": closed, "order": "",
            **{k: str(v[names.index(name)]) for k, v in strengths.items()},
            **{f"p@{s}": str(0.9 if not closed or s < int(closed) else 0.1) for s in (10, 20, 40)},
        })  # fmt: skip
    entry = {"workload": "some", "run_id": f"id{seed}", "seed": seed}
    return feature_table.run_features(entry, rows, enters)


def test_features_from_the_rows_of_a_run():
    found = made(0, "ab", abs_pearson=[0.1, 0.9, 0.2, 0.0, 0.0, 0.8])
    assert found.steps == (10, 20, 40)
    assert found.closed_at.tolist() == [np.inf, np.inf, 40, 30, 20, 10]
    assert found.open[3].tolist() == [0.9, 0.9, 0.1]
    assert [NAMES[i] for i in found.by_closing()] == list(NAMES)
    assert list(found.enters if found.enters is not None else []) == [True, True, False, False, False, False]
    assert found.strongest("abs_pearson").tolist() == [False, True, False, False, False, True]
    with pytest.raises(RecordError, match=r"run x: features\.csv has no open probabilities"):
        feature_table.run_features({"run_id": "x"}, [{"feature": "a", "kept": "1"}])


def test_stability_by_hand():
    same = np.array([[1, 1, 0, 0]] * 3, dtype=bool)
    assert feature_table.stability(same) == pytest.approx(1)
    # two runs, two of four features each, none in common: s^2 = 2 * 1/2 * 1/2 each, over 1/2 * 1/2
    assert feature_table.stability(np.array([[1, 1, 0, 0], [0, 0, 1, 1]], dtype=bool)) == pytest.approx(-1)
    # one of two in common: features with p = 1, 1/2, 1/2, 0; 1 - (0 + .5 + .5 + 0) / 4 / .25
    assert feature_table.stability(np.array([[1, 1, 0, 0], [1, 0, 1, 0]], dtype=bool)) == pytest.approx(0)
    assert feature_table.stability(same[:1]) is None
    assert feature_table.stability(np.ones((3, 4), dtype=bool)) is None


def test_random_selections_are_not_stable():
    rng = np.random.default_rng(0)
    chosen = np.array([rng.permutation(200) < 20 for _ in range(50)])
    assert feature_table.stability(chosen) == pytest.approx(0, abs=0.02)


def test_agreement_with_the_truth_and_with_the_gates():
    pearson = [0.9, 0.1, 0.8, 0, 0, 0]
    first, second = made(0, "ab", abs_pearson=pearson), made(1, "ac", abs_pearson=pearson)
    gates, other = feature_table.agreements([first, second])
    assert (gates.name, gates.hits, gates.of) == ("gates", (2, 1), (2, 2))
    assert (other.name, other.hits, other.shares) == ("|Pearson|", (1, 1), (0.5, 0.5))
    assert other.stability == pytest.approx(1)
    assert gates.stability == pytest.approx(1 - (2 / 1 * 2 * 0.25) / 6 / (1 / 3 * 2 / 3))
    unknown = [made(seed, kept, enters=None, abs_pearson=pearson) for seed, kept in enumerate(["ab", "ac"])]
    assert feature_table.agreements(unknown)[1].hits == (1, 2)  # beside what the gates kept
    # that all enter tells no selection from another
    assert feature_table.agreements([made(0, "ac", enters=NAMES, abs_pearson=pearson)])[0].hits == (2,)


def test_seeds_with_problems_of_their_own_are_not_compared_by_name():
    apart = [made(0, "ab"), made(1, "cd", enters="cd")]
    assert not feature_table.one_problem(apart)
    assert [a.stability for a in feature_table.agreements(apart)] == [None]
    assert [a.hits for a in feature_table.agreements(apart)] == [(2, 2)]
    assert "each seed draws a problem of its own" in "\n".join(feature_table.lines(apart))
    together = "\n".join(feature_table.lines([made(0, "ab"), made(1, "ac")]))
    assert "kept in all 2 runs: a\nkept in some: b, c\n" in together


@pytest.mark.parametrize("enters", ["ab", None])
def test_the_csv_has_it_all_and_can_be_read(tmp_path, enters):
    runs = [made(s, k, enters=enters, abs_pearson=[0.5, 0.25, 0, 0, 0, 0], lasso=range(6))
            for s, k in enumerate(["ab", "ac"])]  # fmt: skip
    path = tmp_path / "new" / "report.csv"
    feature_table.write(runs, path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert [r["kept_in"] for r in rows[:4]] == ["2", "1", "1", "0"]
    assert [r["order"] for r in rows[:6]] == ["", "", "4", "3", "2", "1"]
    assert [r["enters"] for r in rows[:3]] == (["1", "1", "0"] if enters else ["", "", ""])
    for before, after in zip(runs, feature_table.read(path), strict=True):
        assert (before.run_id, before.seed, before.names, before.steps) == (
            after.run_id, after.seed, after.names, after.steps,
        )  # fmt: skip
        for name in ("kept", "closed_at", "open", "enters"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
        assert list(after.strengths) == ["abs_pearson", "lasso"]


def test_what_is_no_report_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RecordError, match=r"other\.csv: cannot be read .* expected a feature report"):
        feature_table.read(tmp_path / "other.csv")
    with pytest.raises(RecordError, match="do not select from the same features"):
        feature_table.write([made(0, "ab"), made(1, ["x1"], count=7)], tmp_path / "out.csv")
    with pytest.raises(RecordError, match="no runs"):
        feature_table.check([])


@pytest.mark.parametrize(
    ("runs", "titles"),
    [
        ([made(0, "ab", lasso=range(6))], {"open probability: 2 kept", "LASSO\n0 of 2 true"}),
        ([made(0, "ab", lasso=range(6)), made(1, "ab", lasso=range(6))],
         {"open probability, mean of 2 seeds", "stability\n1.00", "LASSO\n0 of 2 true"}),
        ([made(0, "ab"), made(1, "cd", enters="cd")], {"seed 0: 2 kept, 2 of 2 true", "seed 1: 2 kept, 2 of 2 true"}),
        ([made(0, ["x1"], enters=["x1"], count=50, stg=range(50))], {"seed 0: 1 kept, 1 of 1 true", "STG",
                                                                        "true, of as many as kept"}),
    ],
    ids=["one run", "two seeds", "two problems", "many features"],
)  # fmt: skip
def test_panels_of_the_figure(runs, titles):
    assert {axis.get_title() for axis in figure(runs).axes} - {""} == titles
    plt.close("all")


def test_the_figure_is_written_the_same_each_time(tmp_path):
    for name in ("a", "b"):
        draw([made(0, "ab", lasso=range(6))], tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "settings"),
    [("pearson", {}), ("mutual_information", {}), ("lasso", {}), ("forward", {}), ("stg", {"steps": 300, "price": 1.0}),
     pytest.param("lassonet", {}, marks=pytest.mark.slow)],
)  # fmt: skip
def test_what_others_say_of_an_easy_table(name, settings):
    """y = 3 x1 + 2 x3 of six columns: every method has these two first."""
    if name == "lassonet":
        pytest.importorskip("lassonet")
    x = np.random.default_rng(0).standard_normal((400, 6))
    y = (3 * x[:, 1] + 2 * x[:, 3])[:, None] / 13**0.5
    strength = SELECTORS[name](x, y, 2, 0, **settings)
    assert strength.shape == (6,)
    assert set(np.argsort(-strength, kind="stable")[:2]) == {1, 3}


REFERENCE = PROJECT / "results" / "reference" / "feature_report.csv"
COMMITTED = Results((REFERENCE.parent,))


def test_the_committed_report_is_of_the_committed_runs():
    for run in feature_table.read(REFERENCE):
        entry = COMMITTED.runs[run.run_id].record
        assert entry["seed"] == run.seed
        assert [n for n, kept in zip(run.names, run.kept, strict=True) if kept] == entry["gates"]["features_kept"]
        assert run.enters is not None
        assert [n for n, yes in zip(run.names, run.enters, strict=True) if yes] == entry["true_features"]


def test_the_command_draws_again_from_the_csv(tmp_path, capsys):
    feature_table.write([made(0, "ab")], tmp_path / "report.csv")
    main(["feature-report", "--draw", str(tmp_path / "report.csv")])
    assert (tmp_path / "report.png").stat().st_size > 10_000
    assert "some id0 seed 0: 2 of 6 kept, 2 of the 2 that enter" in capsys.readouterr().out


def test_which_runs_a_call_means():
    ids = {c.seed: c.run_id for c in feature_table.read(REFERENCE)}
    runs = feature_report.runs_of([ids[3]], seeds=True)
    assert {run.entry["seed"]: run.entry["run_id"] for run in runs} == ids
    other = next(r for r in COMMITTED.records if r["workload"] == "synthetic" and r["run_id"] not in ids.values())
    with pytest.raises(RecordError, match=r"differ in more than their seed; compare them with lumos compare"):
        feature_report.runs_of([ids[3], other["run_id"]], seeds=False)
    with pytest.raises(RecordError, match="expected folders or ids of finished runs"):
        feature_report.runs_of([], seeds=False)


def test_without_a_library_its_column_is_left_out(monkeypatch, caplog):
    def missing(*_):
        raise ImportError("No module named 'lassonet'")

    first = feature_table.read(REFERENCE)[0]
    (run,) = feature_report.runs_of([first.run_id], seeds=False)
    monkeypatch.setattr(feature_report.FinishedRun, "check_data", lambda _: None)
    monkeypatch.setattr(feature_report, "training_table", lambda *_: (np.zeros((3, 200)), np.zeros((3, 1))))
    monkeypatch.setitem(SELECTORS, "lassonet", missing)
    monkeypatch.setitem(SELECTORS, "stg", lambda *_: np.array([np.inf, 2.0, *[0.0] * 198]))
    found = feature_report.features_of(run, ["stg", "lassonet"])
    assert list(found.strengths) == ["abs_pearson", "mutual_information", "stg"]
    assert found.strengths["stg"][:2].tolist() == pytest.approx([2.2, 2.0])
    assert "lassonet is left out: No module named 'lassonet'" in caplog.text


def test_a_figure_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"a\.txt: expected a figure's name that ends in \.png, \.pdf, \.svg"):
        draw([made(0, "ab")], tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())
