"""What has to work on a cluster: a sweep over both nodes, one run on two of them, time limits, and a node that dies."""

import csv
import json
import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from lumos.compaction import compact_file
from lumos.suite.paths import PROJECT

pytestmark = pytest.mark.slow

TINY = ("scale=tiny", "trainer.threads=1", "trainer.device=cpu")


def records(cluster, workload="*"):
    return {p.parent.name: json.loads(p.read_text())
            for p in (cluster.home / "results" / "runs").glob(f"{workload}/*/record.json")}  # fmt: skip


def newest_sweep(cluster):
    return max((cluster.home / "results" / "sweeps").iterdir())


def until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what}")


def ended(cluster, number, seconds):
    """The state in which a job ended; sbatch --wait would look at intervals of up to half a minute."""

    def state():
        told = cluster.call("scontrol", "--oneliner", "show", "job", number).stdout
        found = re.search(r"JobState=(\w+)", told)
        return found and found[1] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING") and found[1]

    return until(state, seconds, f"the end of job {number}")


def test_a_sweep_over_both_nodes(cluster):
    command = cluster.sweep(
        "+experiment=sweep", "workload=synthetic,cfd", "lumos.lambda=1e-4,1e-3,1e-2", "lumos.tau=0.5",
        "trainer.max_steps=20", *TINY,
    )  # fmt: skip
    done = cluster.call(*command)
    assert done.returncode == 0, done.stdout
    found = records(cluster)
    assert len(found) == 6
    assert {r["status"] for r in found.values()} == {"finished"}
    jobs = [json.loads(p.read_text()) for p in newest_sweep(cluster).glob("*/job.json")]
    assert {job["node"] for job in jobs} == {"n1", "n2"}
    rows = list(csv.DictReader((newest_sweep(cluster) / "summary.csv").read_text().splitlines()))
    assert len(rows) == 6
    assert {row["workload"] for row in rows if row["front"] == "yes"} == {"synthetic", "cfd"}
    # one dense network for each workload, whichever job came first
    assert len(list((cluster.home / "results" / "baselines").glob("*/*/dense.pt"))) == 2


def test_what_failed_is_listed_and_only_that_runs_again(cluster):
    keys = ("workload=synthetic", "trainer.max_steps=20", *TINY)
    done = cluster.call(*cluster.sweep("lumos.lambda=1e-4,-1", "lumos.tau=0.5", *keys))
    assert done.returncode == 1, done.stdout
    assert "lumos.lambda=-1.0: expected a number >= 0" in done.stdout
    log = next(line for line in done.stdout.splitlines() if line.strip().startswith("log: ")).split("log: ")[1]
    assert "expected a number >= 0" in Path(log).read_text()
    assert "1 of 2 failed" in done.stdout
    assert "finished before" in "".join(p.read_text() for p in newest_sweep(cluster).glob(".submitit/*/*_log.out"))


def test_one_run_on_two_nodes(cluster):
    script = str(PROJECT / "slurm" / "ddp.sbatch")
    keys = ("workload=synthetic", "trainer.max_steps=20", "lumos.lambda=2e-3", *TINY)
    submit = ("sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", "--output=ddp.log", script, *keys)
    number = cluster.call(*submit).stdout.strip()
    assert ended(cluster, number, 300) == "COMPLETED", (cluster.home / "ddp.log").read_text()
    together = next(r for r in records(cluster, "synthetic").values() if r["config"]["lumos"]["lambda"] == 2e-3)
    assert together["status"] == "finished"
    assert together["config"]["trainer"]["nodes"] == 2
    # the same dense network as one process trained it, so the same score
    other = next(r for r in records(cluster, "synthetic").values() if r["config"]["lumos"]["lambda"] == 1e-3)
    assert together["dense"]["score"] == pytest.approx(other["dense"]["score"], rel=1e-6)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.mark.parametrize(
    ("program", "keys"),
    [
        (TORCHRUN, ("trainer.devices=2",)),
        ((), ("trainer.devices=2",)),
        ((), ("-m", "hydra/launcher=local", "trainer.devices=2")),
        ((), ("-m", "hydra/launcher=slurm", "trainer.nodes=2")),
    ],
    ids=["torchrun", "itself", "local", "slurm"],
)
def test_the_same_command_in_two_processes(cluster, tmp_path, program, keys):
    """However the two processes are started, the run is the one of one process, up to the order of sums."""
    same = ("workload=synthetic", "trainer.max_steps=20", "lumos.lambda=1e-3", "lumos.tau=0.5", *TINY)
    call = (sys.executable, *program, str(PROJECT / "run.py"), *keys, *same, f"paths.results={tmp_path}")
    done = cluster.call(*call)
    assert done.returncode == 0, done.stdout
    (path,) = tmp_path.glob("runs/synthetic/*/record.json")
    two, one = json.loads(path.read_text()), records(cluster, "synthetic")[path.parent.name]
    assert two["status"] == "finished"
    for side in ("dense", "compact"):
        assert two[side]["score"] == pytest.approx(one[side]["score"], rel=1e-6)
    assert two["gates"]["features_kept"] == one["gates"]["features_kept"]


def test_a_sweep_from_inside_the_cluster(cluster):
    """driver.sbatch is a job that starts jobs: one that is finished before, and one that fails."""
    script = str(PROJECT / "slurm" / "driver.sbatch")
    keys = ("workload=synthetic", "lumos.lambda=1e-4,-1", "lumos.tau=0.5", "trainer.max_steps=20", *TINY)
    number = cluster.call("sbatch", "--parsable", "--output=driver.log", script, *keys).stdout.strip()
    assert ended(cluster, number, 120) == "FAILED"
    said = (cluster.home / "driver.log").read_text()
    assert "2 jobs" in said
    assert "lumos.lambda=-1.0: expected a number >= 0" in said
    assert "1 of 2 failed" in said


def test_out_of_time_it_is_queued_again_and_goes_on(cluster):
    """SIGUSR1, as before a time limit: the state is kept, the job queued again, and the numbers are the same."""
    script = str(PROJECT / "slurm" / "suite.sbatch")
    names = sorted(p.stem for p in (PROJECT / "conf" / "workload").glob("*.yaml"))
    keys = ("lumos.lambda=1.5e-3", "workload.epochs=60", "trainer.checkpoint_steps=20", *TINY)
    submit = ("sbatch", "--parsable", f"--array={names.index('synthetic')}", "--output=suite.log", script, *keys)
    number = cluster.call(*submit).stdout.strip()
    whole = cluster.home / "whole"
    other = cluster.start(
        sys.executable, str(PROJECT / "run.py"), "workload=synthetic", f"paths.results={whole}", *keys
    )
    try:
        runs = cluster.home / "results" / "runs" / "synthetic"
        until(lambda: list(runs.glob("*/gated.ckpt")), 240, "a checkpoint of the gated training")
        cluster.call("scancel", "--batch", "--signal=USR1", number)
        log = cluster.home / "suite.log"
        until(lambda: log.exists() and "out of time; queued again" in log.read_text(), 120, "queued again")

        def finished():
            return [r for r in records(cluster, "synthetic").values()
                    if r["config"]["lumos"]["lambda"] == 1.5e-3 and r["status"] == "finished"]  # fmt: skip

        (entry,) = until(finished, 300, "finished")
        said, _ = other.communicate(timeout=300)
    finally:
        other.kill()
        other.communicate()
    assert other.returncode == 0, said
    folder = runs / entry["run_id"]
    assert "gated: going on from step" in (folder / "train.log").read_text()
    (undisturbed,) = whole.glob("runs/*/*")
    assert undisturbed.name == entry["run_id"]
    assert json.loads((undisturbed / "record.json").read_text())["compact"]["score"] == entry["compact"]["score"]
    first, second = (compact_file.read(p / "compact.pt").state for p in (folder, undisturbed))
    assert all(torch.equal(t, second[name]) for name, t in first.items())


def test_a_job_of_a_sweep_that_is_out_of_time_goes_on(cluster):
    """SIGUSR2, which the launcher asks for before a time limit: submitit queues the job again, and the sweep waits."""
    driver = cluster.start(*cluster.sweep("workload=synthetic", "lumos.lambda=1.7e-3", "workload.epochs=60",
                                          "trainer.checkpoint_steps=20", *TINY))  # fmt: skip
    try:
        runs = cluster.home / "results" / "runs" / "synthetic"
        (checkpoint,) = until(lambda: list(runs.glob("*/gated.ckpt")), 240, "a checkpoint of the gated training")
        (number,) = cluster.call("squeue", "--noheader", "--array", "--format=%i").stdout.split()
        cluster.call("scancel", "--signal=USR2", number)
        out, _ = driver.communicate(timeout=300)
    finally:
        driver.kill()
        driver.communicate()
    assert driver.returncode == 0, out
    entry = records(cluster, "synthetic")[checkpoint.parent.name]
    assert (entry["status"], entry["config"]["lumos"]["lambda"]) == ("finished", 1.7e-3)
    assert "gated: going on from step" in (checkpoint.parent / "train.log").read_text()


def test_what_the_scheduler_refuses_is_one_line(cluster):
    """A partition that is not there, and more memory than a node has: nothing is begun, nothing hangs."""

    def queued():
        return cluster.call("squeue", "--noheader").stdout.strip()

    # A driver ends as soon as its jobs' results are there: their processes may still be on their way out.
    until(lambda: not queued(), 120, "the end of the jobs of the tests before")
    for refused in ("hydra.launcher.partition=nowhere", "hydra.launcher.mem_gb=4000"):
        done = cluster.call(*cluster.sweep("workload=synthetic", "lumos.lambda=5e-3", refused, *TINY), timeout=120)
        assert done.returncode == 1, done.stdout
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("lumos: ")]
        assert "the scheduler does not take the jobs" in line
        assert "Traceback" not in done.stdout
        assert not queued()


def test_a_job_that_is_cancelled_is_said_and_the_others_go_on(cluster):
    driver = cluster.start(
        *cluster.sweep("workload=synthetic", "lumos.lambda=0.006,0.007", "workload.epochs=60", *TINY)
    )
    try:
        jobs = until(lambda: started(cluster, "lumos.lambda=0.006"), 240, "a job at work")
        cluster.call("scancel", jobs["slurm"])
        out, _ = driver.communicate(timeout=300)
    finally:
        driver.kill()
        driver.communicate()
    assert driver.returncode == 1, out
    assert "job 0 cancelled" in out or "job 0 stopped" in out, out
    assert "1 of 2 failed" in out
    assert "Traceback" not in out
    until(lambda: any(r["config"]["lumos"]["lambda"] == 7e-3 and r["status"] == "finished"
                      for r in records(cluster, "synthetic").values()), 240, "the other job's end")  # fmt: skip


def test_jobs_outlive_the_driver_and_the_status_tells(cluster):
    """SIGTERM ends the driver with a table; the jobs go on, and ``lumos sweep status`` has their results."""
    command = cluster.sweep("workload=synthetic", "lumos.lambda=0.008,0.009", "workload.epochs=60", *TINY)
    driver = cluster.start(*command)
    try:
        until(lambda: started(cluster, "lumos.lambda=0.009"), 240, "both jobs at work")
        driver.terminate()
        out, _ = driver.communicate(timeout=60)
    finally:
        driver.kill()
        driver.communicate()
    assert driver.returncode == 143, out
    assert "Traceback" not in out
    assert "at work" in out, out
    folder = newest_sweep(cluster)
    assert (folder / "summary.csv").exists()
    look = (sys.executable, "-m", "lumos", "sweep", "status", str(folder))
    told = until(lambda: (said := cluster.call(*look).stdout).count("finished") >= 2 and said, 300, "both finished")
    assert "at work" not in told


def started(cluster, override):
    """What the job of this override in the newest sweep says of itself, once it is at work."""
    sweeps = cluster.home / "results" / "sweeps"
    found = [json.loads(p.read_text()) for p in newest_sweep(cluster).glob("*/job.json")] if sweeps.exists() else []
    return next((j for j in found if override in j["overrides"] and j["status"] == "running"), None)


def test_a_node_that_dies_in_a_sweep(cluster):
    """Its slurmd and its job are killed by their ids; Slurm queues the job again on the node that is left."""
    command = cluster.sweep("workload=synthetic", "lumos.lambda=3e-3,4e-3", "workload.epochs=100",
                            "trainer.checkpoint_steps=20", *TINY)  # fmt: skip
    driver = cluster.start(*command)
    try:
        runs = cluster.home / "results" / "runs" / "synthetic"
        sweeps = cluster.home / "results" / "sweeps"

        def on_n2():
            found = [json.loads(p.read_text()) for p in sweeps.glob("*/*/job.json")]
            found = [j for j in found if j["node"] == "n2" and j["status"] == "running"]
            return found and list(runs.glob("*/*.ckpt")) + list(
                runs.parent.parent.glob("baselines/synthetic/*/dense.ckpt")
            )

        until(on_n2, 240, "a job at work on n2")
        os.kill(int((cluster.folder / "pids" / "slurmd-n2").read_text()), signal.SIGKILL)
        for pid in processes_of("n2"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        out, _ = driver.communicate(timeout=900)
    finally:
        driver.kill()
        driver.communicate()
    assert driver.returncode == 0, out
    finished = [r for r in records(cluster, "synthetic").values() if r["config"]["lumos"]["lambda"] in (3e-3, 4e-3)]
    assert [r["status"] for r in finished] == ["finished", "finished"]
    jobs = [json.loads(p.read_text()) for p in newest_sweep(cluster).glob("*/job.json")]
    assert {job["node"] for job in jobs} == {"n1"}
    assert "down" in cluster.call("sinfo", "--noheader", "--node=n2", "--format=%T").stdout


def processes_of(node):
    """Job and step processes of a node; those that would tell the controller come first."""
    jobs, steps = [], []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"SLURMD_NODENAME={node}".encode() not in Path(f"/proc/{name}/environ").read_bytes():
                continue
            parent = int(Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1])
            if b"slurmstepd" in Path(f"/proc/{parent}/cmdline").read_bytes():
                steps.append(parent)
            jobs.append(int(name))
        except OSError:
            continue
    return list(dict.fromkeys([*steps, *jobs]))
