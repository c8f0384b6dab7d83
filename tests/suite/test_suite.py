"""The suite: every workload, one after the other; what is finished stays, what failed is named."""

import json
import subprocess
import sys

import pytest

from lumos.errors import ConfigError
from lumos.suite import record, run_suite
from lumos.suite.paths import CONF, PROJECT
from lumos.suite.report.results import Results
from tests.records import entry


@pytest.fixture
def suite(monkeypatch, tmp_path):
    settings = tmp_path / "suite.yaml"
    settings.write_text(
        "questions: {tolerance: {all: [lumos.tolerance=0.01]}, reductions: {fluid: [lumos.target.params=0.24]}}\n"
    )
    monkeypatch.setattr(run_suite, "SETTINGS", settings)
    monkeypatch.setenv("LUMOS_RESULTS", str(tmp_path / "results"))
    return run_suite


@pytest.fixture
def ran(suite, monkeypatch):
    """The commands of the runs; in the place of each run a record is made up, and ``puremd`` fails."""
    commands = []

    def run(job, minutes):
        commands.append(job.overrides)
        if job.workload == "puremd":
            return "out of memory (log: there)"
        record.write(job.folder, entry(job.workload, run_id=job.folder.name))
        return None

    monkeypatch.setattr(suite, "run", run)
    return commands


def test_it_knows_every_workload(suite):
    assert set(suite.workloads()) == {p.stem for p in (CONF / "workload").glob("*.yaml")}
    assert suite.workloads()[:3] == ["cfd", "fluid", "puremd"]


def test_the_projects_own_settings_are_good(suite, monkeypatch):
    monkeypatch.setattr(suite, "SETTINGS", CONF / "suite.yaml")
    asked = suite.Settings.read()
    for question in suite.QUESTIONS:
        for name in {*suite.workloads(), *asked.problems}:
            made = suite.job(name, 0, asked.words(name, question), [], question)
            assert name in (made.workload, made.problem)


def test_a_further_problem_of_a_workload_is_run_and_does_not_stand_for_it(suite, ran, tmp_path):
    suite.SETTINGS.write_text("problems: {few: [workload=synthetic, workload.relevant_features=16]}\n")
    assert suite.run_suite(only="synthetic,few", ask="tolerance")
    assert [c[0] for c in ran] == ["workload=synthetic"] * 2
    assert suite.run_suite(only="few", ask="tolerance")
    assert len(ran) == 2
    named = json.loads((tmp_path / "results" / "suite.json").read_text())["runs"]
    assert [r.get("problem") for r in named] == [None, "few"]
    assert Results((tmp_path / "results",)).suite == {named[0]["run_id"]}


def test_it_goes_on_after_a_failure_and_names_it(suite, ran, capsys, tmp_path):
    assert not suite.run_suite(only="cfd,puremd,fluid", ask="reductions")
    out, err = capsys.readouterr()
    assert err == "failed: puremd seed 0 reductions: out of memory (log: there)\n"
    assert "[ 2/3] puremd seed 0 reductions … FAILED after" in out
    assert "2 of 3 finished" in out
    assert [c[0] for c in ran] == ["workload=cfd", "workload=puremd", "workload=fluid"]
    assert "lumos.target.params=0.24" in ran[2]
    assert all("scale=small" in c for c in ran)
    named = json.loads((tmp_path / "results" / "suite.json").read_text())["runs"]
    assert [r["workload"] for r in named] == ["cfd", "fluid"]
    assert Results((tmp_path / "results",)).suite == {r["run_id"] for r in named}


def test_both_questions_are_asked_and_the_common_one_stands_for_the_workload(suite, ran, tmp_path):
    assert suite.run_suite(only="fluid")
    assert [c[-1] for c in ran] == ["lumos.tolerance=0.01", "lumos.target.params=0.24"]
    common, sized = json.loads((tmp_path / "results" / "suite.json").read_text())["runs"]
    assert (common["question"], sized["question"]) == ("tolerance", "reductions")
    found = Results((tmp_path / "results",))
    assert found.suite == {common["run_id"], sized["run_id"]}
    assert found.asked == {"tolerance": {common["run_id"]}, "reductions": {sized["run_id"]}}


def test_it_resumes(suite, ran, capsys):
    suite.run_suite(only="cfd,fluid", ask="tolerance")
    ran.clear()
    assert suite.run_suite(only="cfd,fluid,synthetic", ask="tolerance")
    assert [c[0] for c in ran] == ["workload=synthetic"]
    assert "[ 1/3] cfd seed 0 tolerance … finished before" in capsys.readouterr().out


def test_new_settings_take_the_place_of_the_old_ones_in_the_list(suite, ran, tmp_path):
    suite.run_suite(only="cfd", ask="reductions", seeds="0,1")
    suite.run_suite(["lumos.lambda=5e-3"], only="cfd", ask="reductions")
    named = json.loads((tmp_path / "results" / "suite.json").read_text())["runs"]
    assert [[o for o in r["overrides"] if "seed" in o or "lambda" in o] for r in named] == [
        ["seed=1"],
        ["seed=0", "lumos.lambda=5e-3"],
    ]


def test_wrong_words(suite, ran, capsys):
    with pytest.raises(ConfigError, match="--only cdf: there is no such workload"):
        suite.run_suite(only="cdf")
    with pytest.raises(ConfigError, match="--seeds x: expected whole numbers"):
        suite.run_suite(seeds="x")
    with pytest.raises(ConfigError, match="--ask speed: there is no such question; expected tolerance, reductions"):
        suite.run_suite(ask="speed")
    assert not suite.run_suite(["lumos.tau=0"], only="cfd", ask="reductions")
    assert "lumos.tau=0.0: expected a number > 0" in capsys.readouterr().err
    for wrong, said in (
        ("fluid: []", "expected `questions:` with tolerance and reductions"),
        ("- fluid", "expected `questions:`"),
        ("questions: [tolerance]", "expected `questions:`"),
        ("questions: {speed: {}}", "expected `questions:` with tolerance and reductions"),
        ("questions: {tolerance: {fluid: 3}}", "expected a line `workload:"),
        ("questions: {tolerance: [fluid]}", "expected a line `workload:"),
        ("questions: {reductions: {fliud: []}}", "there is no workload fliud"),
        ("problems: {few: [workload=fliud]}", "there is no workload fliud"),
    ):
        suite.SETTINGS.write_text(wrong + "\n")
        with pytest.raises(ConfigError, match=said):
            suite.Settings.read()


def test_a_process_that_fails_or_hangs(suite, monkeypatch, tmp_path):
    job = suite.Job("cfd", ("workload=cfd",), tmp_path / "results" / "runs" / "cfd" / "abc")
    script = tmp_path / "run.py"
    monkeypatch.setattr(suite, "COMMAND", (sys.executable, str(script)))
    script.write_text("import sys; print('lumos: disk is full', file=sys.stderr); sys.exit(1)")
    assert suite.run(job, None).startswith("lumos: disk is full (log: ")
    script.write_text("import time; time.sleep(60)")
    assert "stopped after 0.01 minutes" in suite.run(job, 0.01)
    script.write_text("")
    assert "left no finished record" in suite.run(job, None)


@pytest.mark.slow
def test_for_real(tmp_path):
    command = [sys.executable, "-m", "lumos", "suite", "--only", "synthetic", "scale=tiny", "trainer.threads=1",
               f"paths.results={tmp_path}", f"paths.cache={tmp_path / 'data'}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 finished" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
    assert "finished before" in again.stdout
