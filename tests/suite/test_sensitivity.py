"""Score against dense width: which runs, that they resume, and what the table says of them."""

import json

import pytest

from lumos.errors import ConfigError, RecordError
from lumos.suite import archive, record, sensitivity
from lumos.suite.paths import CONF
from lumos.suite.report import sensitivity as table
from lumos.suite.run_suite import workload_of
from tests.records import WORKLOADS, entry


def test_every_workload_of_the_paper_has_widths_and_they_are_keys_of_its_own():
    found = sensitivity.narrowings()
    assert set(found) == {*WORKLOADS, "synthetic_16"}
    for name, how in found.items():
        text = (CONF / "workload" / f"{workload_of(name, how.words)}.yaml").read_text()
        words = [word for word in how.words if not word.startswith("workload=")]
        keys = [*how.widths, *(word.removeprefix("workload.").partition("=")[0] for word in words)]
        assert all(f"\n{key}: " in text for key in keys)


def test_the_whole_width_is_the_workload_as_it_is_and_a_share_is_narrower_everywhere():
    one, half = (sensitivity.job(cell) for cell in sensitivity.cells("cfd", "1,1/2", "100"))
    assert not [word for word in one.overrides if word.startswith("workload.")]
    assert [word for word in half.overrides if word.startswith("workload.")] == ["workload.widths=[392,150,50]"]
    assert one.folder != half.folder


def test_a_further_problem_is_a_run_of_its_workload():
    (cell,) = sensitivity.cells("synthetic_16", "1/8", "100")
    words = sensitivity.job(cell).overrides
    assert words[0] == "workload=synthetic"
    assert {"workload.truth=interactions", "workload.widths=[38,38,38,38]"} <= set(words)


@pytest.mark.slow
def test_every_workload_composes_at_every_width():
    for cell in sensitivity.cells():
        assert sensitivity.job(cell).workload == cell.workload.removesuffix("_16")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cfd,cdf", "1", "0"), "--only cdf: there is no such workload"),
        (("cfd", "1/0", "0"), "--widths 1/0: expected shares"),
        (("cfd", "2", "0"), "--widths 2: expected shares"),
        (("cfd", "1", "x"), "--seeds x: expected whole numbers"),
    ],
)
def test_wrong_words(words, message):
    with pytest.raises(ConfigError, match=message):
        sensitivity.cells(*words)


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """The runs that are done; in the place of each a record is made up, better the wider, and one fails."""
    done = []

    def run(job, minutes):
        done.append(job.overrides)
        seed = next(int(word[5:]) for word in job.overrides if word.startswith("seed="))
        if seed == 102:
            return "out of memory (log: there)"
        narrow = any(word.startswith("workload.widths") for word in job.overrides)
        made = entry(job.workload, seed, job.folder.name, method="dense", baselines={"mean": 0.0, "linear": 0.6})
        made["dense"] |= {"score": (0.7 if narrow else 0.9) + 0.001 * (seed % 2), "params": 10 if narrow else 100}
        record.write(job.folder, made)
        return None

    monkeypatch.setattr(sensitivity, "run", run)
    return done


def test_it_goes_on_after_a_failure_and_after_a_stop(ran, tmp_path):
    wanted, said = sensitivity.cells("cfd,synthetic", "1/2,1"), []
    words = [f"paths.results={tmp_path}"]
    assert not sensitivity.run_study(wanted, words, 0.0, said.append)
    assert said == ["stopped after 0 minutes; the same command goes on"]
    assert not sensitivity.run_study(wanted, words, None, said.append)
    assert len(ran) == 12
    assert sum("FAILED: out of memory" in line for line in said) == 4
    ran.clear()
    assert not sensitivity.run_study(wanted, words, None, said.append)
    assert len(ran) == 4  # those that failed
    assert len(json.loads((tmp_path / table.LIST).read_text())["runs"]) == 8


def test_table_and_figure_are_made_from_a_folder_as_from_an_archive(ran, tmp_path):
    results, out = tmp_path / "results", tmp_path / "out"
    sensitivity.run_study(sensitivity.cells("cfd", "1/2,1"), [f"paths.results={results}"], None, lambda _: None)
    (curve,) = found = table.curves(table.read(results))
    assert curve.best_trivial == ("linear", 0.6)
    assert curve.gain(*sorted(curve.test))[0] == pytest.approx(0.2)
    assert curve.verdict() == "wider is better"
    assert "| cfd | R2 | 0.6000 (linear) | 0.7005 ± 0.000707 | 0.9005 ± 0.000707 | 10 to 100 | wider is better |" in (
        table.markdown(found)
    )
    archive.pack([results], out / "sensitivity.jsonl.gz")
    (out / table.LIST).write_text((results / sensitivity.LIST).read_text())
    assert table.curves(table.read(out / "sensitivity.jsonl.gz")) == found
    csv, figure = table.write(table.read(results), out)
    assert len(csv.read_text().splitlines()) == 5
    assert figure.stat().st_size > 1000


def test_a_difference_within_the_spread_is_none():
    def curve(*scores, higher=True):
        test = {sensitivity.Fraction(k + 1, 8): list(s) for k, s in enumerate(scores)}
        return table.Curve("cfd", "R2", higher, dict.fromkeys(test, 1), test, test, {})

    assert curve((0.5, 0.7), (0.65, 0.8)).verdict() == "no difference"
    assert curve((0.5, 0.51), (0.65, 0.66)).verdict() == "wider is better"
    assert curve((0.5, 0.51), (0.65, 0.66), higher=False).verdict() == "wider is worse"
    assert curve((0.5,), (0.65,)).verdict() == "one seed so far"
    assert curve((0.5, 0.6)).verdict() == "one width so far"


def test_without_records(tmp_path):
    with pytest.raises(RecordError, match="there is no such list; run lumos suite sensitivity"):
        table.read(tmp_path)
    (tmp_path / table.LIST).write_text('{"runs": [{"workload": "cfd", "width": "1", "seed": 1, "run_id": "ab"}]}')
    with pytest.raises(RecordError, match="run ab is not there"):
        table.read(tmp_path)
    (tmp_path / table.LIST).write_text("[]")
    with pytest.raises(Exception, match="not a list of the study's runs"):
        table.read(tmp_path)
