"""A sweep's end: what became of each job, the Pareto front, and how many failed."""

import io
import os
import subprocess

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from lumos.errors import RecordError
from lumos.suite import record, run, sweep
from lumos.suite.config import compose
from tests.suite.test_record import entry


@pytest.fixture
def folder(tmp_path):
    """Four jobs: three finished with (score, parameters), one that died; and one that failed."""
    for number, (score, params) in enumerate([(0.9, 50), (0.8, 60), (0.7, 20)]):
        run = tmp_path / "runs" / "w" / f"run{number}"
        side = {**entry()["dense"], "score": score, "params": params}
        record.write(run, entry(run_id=f"run{number}", compact=side))
        sweep.note(tmp_path / str(number), job=number, overrides=["workload=w", f"lumos.lambda={number}"],
                   status="running")  # fmt: skip
        sweep.note(tmp_path / str(number), status="finished", record=run)
    sweep.note(tmp_path / "3", job=3, overrides=["workload=w", "lumos.lambda=3"], status="running", log="/logs/3")
    sweep.note(tmp_path / "10", job=10, overrides=["workload=w", "lumos.lambda=-1"], status="failed", error="bad value")
    return tmp_path


def test_rows_have_what_differs_and_the_front(folder):
    rows = sweep.rows(sweep.jobs(folder))
    assert [row["job"] for row in rows] == [0, 1, 2, 3, 10]
    assert [row["settings"] for row in rows] == [f"lumos.lambda={n}" for n in (0, 1, 2, 3, -1)]
    assert [row["status"] for row in rows] == ["finished"] * 3 + ["died", "failed"]
    # 60 parameters for .8 are beaten by 50 for .9; 20 for .7 are the smallest
    assert [row["front"] for row in rows] == ["yes", "no", "yes", "", ""]
    assert rows[0]["params_share"] == pytest.approx(50 / 200)


def test_the_end_lists_what_failed_and_its_log(folder):
    out = io.StringIO()
    assert sweep.finish(folder, Console(file=out, width=160)) == 2
    said = out.getvalue()
    assert "job 3 died: workload=w lumos.lambda=3: it ended without a word" in said
    assert "log: /logs/3" in said
    assert "job 10 failed: workload=w lumos.lambda=-1: bad value" in said
    assert "2 of 5 failed; the same command runs only those again" in said
    assert len((folder / sweep.SUMMARY).read_text().splitlines()) == 6


def test_a_record_that_is_gone_leaves_a_row(folder):
    (folder / "runs" / "w" / "run0" / record.FILE).unlink()
    rows = sweep.rows(sweep.jobs(folder))
    assert "run" not in rows[0]
    assert [row["front"] for row in rows[1:3]] == ["yes", "yes"]


def test_a_method_without_gates_has_no_number_of_features(folder):
    record.write(folder / "runs" / "w" / "run0", entry(run_id="run0", gates=None, method="l1"))
    assert [row["features"] for row in sweep.rows(sweep.jobs(folder))[:3]] == [None, 1, 1]
    assert sweep.finish(folder, Console(file=io.StringIO(), width=160)) == 2


def test_two_sweeps_share_no_folder(folder):
    """Of an earlier sweep in the folder nothing is shown; beside one that is at work in it another folder is taken."""
    first, lock = sweep.claim(folder)
    assert first == folder
    assert sweep.jobs(first) == []
    second, other = sweep.claim(folder)
    assert second == folder.with_name(f"{folder.name}-2")
    lock.release()
    other.release()
    assert sweep.claim(folder)[0] == folder


def test_a_damaged_note_of_a_job_is_named_and_left_out(folder, caplog):
    (folder / "1" / sweep.JOB).write_text('{"job": 1}')
    (folder / "2" / sweep.JOB).write_text("{")
    assert [job["job"] for job in sweep.jobs(folder)] == [0, 3, 10]
    assert caplog.text.count("not what a job says of itself") == 2


def test_jobs_of_a_sweep_that_was_stopped_are_not_called_dead_of_themselves(folder):
    out = io.StringIO()
    sweep.finish(folder, Console(file=out, width=160), stopped=True)
    assert "job 3 died: workload=w lumos.lambda=3: the sweep was stopped before it ended" in out.getvalue()


def test_no_jobs_no_summary(tmp_path):
    assert sweep.finish(tmp_path) == 0
    assert not list(tmp_path.iterdir())


def test_a_job_that_fails_says_so_and_the_sweep_goes_on(tmp_path):
    """None, not NaN: a sweeper that looks for the best must not take it for a value."""
    overrides = ["workload=synthetic", "lumos.lambda=-1", f"paths.results={tmp_path}"]
    cfg = compose(overrides)
    assert run.job(cfg, tmp_path / "3", 3, overrides) is None
    (job,) = sweep.jobs(tmp_path)
    assert job["status"] == "failed"
    assert job["error"] == "lumos.lambda=-1.0: expected a number >= 0"


def fake(folder, name, text):
    """Put a program of that name on the path, which says a text."""
    program = folder / name
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    program.chmod(0o755)


def test_the_status_of_jobs_is_what_slurm_says(tmp_path, monkeypatch):
    """One at work, one waiting after it was queued again, one cancelled, and one whose memory was too little."""
    folder, programs = tmp_path / "sweep", tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    fake(programs, "sacct", "7_0|RUNNING\n7_1|PENDING\n7_2|CANCELLED by 0\n7_3|OUT_OF_MEMORY")
    for number in range(4):
        sweep.note(folder / str(number), job=number, overrides=["workload=w"], status="running", slurm=f"7_{number}",
                   host="far", pid=1)  # fmt: skip
    out = io.StringIO()
    assert sweep.status(folder, Console(file=out, width=160)) == 2
    assert [job["status"] for job in sweep.jobs(folder)] == ["running", "running", "cancelled", "died"]
    assert "job 2 cancelled: workload=w: Slurm says CANCELLED" in out.getvalue()
    assert "job 3 died: workload=w: Slurm says OUT_OF_MEMORY" in out.getvalue()
    assert "2 of 4 at work" in out.getvalue()
    # Without accounting the controller is asked.
    fake(programs, "sacct", "Slurm accounting storage is disabled")
    fake(programs, "squeue", "7_0|RUNNING\n7_1|PENDING\n7_2|CANCELLED\n7_3|NODE_FAIL")
    assert [job["status"] for job in sweep.jobs(folder)] == ["running", "running", "cancelled", "died"]


def test_a_job_of_this_machine_is_at_work_while_its_process_is(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    for number, pid in enumerate((os.getpid(), ended.pid)):
        sweep.note(tmp_path / str(number), job=number, overrides=[], status="running", **sweep.place() | {"pid": pid})
    assert [job["status"] for job in sweep.jobs(tmp_path, ended=False)] == ["running", "died"]
    assert [job["status"] for job in sweep.jobs(tmp_path)] == ["died", "died"]


def test_a_folder_of_no_sweep_is_said(tmp_path):
    with pytest.raises(RecordError, match="no job of a sweep has left a word there; expected the folder of one"):
        sweep.status(tmp_path)


def test_after_a_failure_no_other_job_begins_where_that_is_asked_for(tmp_path):
    sweep.note(tmp_path / "0", job=0, overrides=[], status="failed", error="bad")
    cfg = OmegaConf.create({"stop_at_failure": True})
    assert run.job(cfg, tmp_path / "1", 1, ["lumos.tau=1"]) is None
    assert run.job(cfg, tmp_path / "2", 2, ["lumos.tau=2"]) is None
    found = sweep.jobs(tmp_path)
    assert [(job["status"], job["error"]) for job in found[1:]] == [("skipped", "job 0 failed")] * 2
    out = io.StringIO()
    assert sweep.finish(tmp_path, Console(file=out, width=160)) == 1
    assert "2 of 3 did not begin, since another one failed (stop_at_failure=true)" in out.getvalue()
