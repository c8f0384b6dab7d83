"""The program as a person starts it: in its own process, from any folder."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lumos
from lumos.compaction import compact_file
from lumos.suite.config import quoted
from lumos.suite.paths import PROJECT
from lumos.suite.sweep import claim

RUN_PY = (str(PROJECT / "run.py"),)
LUMOS_RUN = ("-m", "lumos", "run")


def start(*arguments: str, home, extra_path: str = "", cwd=None, program=RUN_PY) -> subprocess.CompletedProcess:
    env = {
        **os.environ,
        "LUMOS_RESULTS": str(home / "results"),
        "LUMOS_CACHE": str(home / "data"),
        "PYTHONPATH": extra_path,
        "COLUMNS": "160",
    }
    command = [sys.executable, *program, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=env, cwd=cwd or home, check=False, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def finished(home):
    done = start("workload=cfd", "lumos.lambda=1e-3", "scale=tiny", "trainer.threads=1", home=home)
    assert done.returncode == 0, done.stderr
    return done


def test_main_job_prints_the_table(finished):
    for word in (
        "test R2",
        "parameters",
        "MACs a sample",
        "latency p50",
        "peak memory",
        "features kept",
        "training time",
    ):
        assert word in finished.stdout
    assert "Traceback" not in finished.stderr


def test_a_run_leaves_its_record_curve_log_and_model(finished, home):
    (folder,) = (home / "results" / "runs" / "cfd").iterdir()
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["config"]["lumos"]["lambda"] == 1e-3
    assert set(record) >= {
        "schema",
        "run_id",
        "status",
        "error",
        "workload",
        "method",
        "scale",
        "seed",
        "config",
        "provenance",
        "data",
        "metric",
        "baselines",
        "dense",
        "compact",
        "gates",
        "equivalence",
    }
    for side in ("dense", "compact"):
        assert set(record[side]) >= {
            "score",
            "params",
            "macs",
            "bytes",
            "latency_ms",
            "throughput",
            "peak_mb",
            "energy_j",
            "train_seconds",
            "steps",
        }
    assert record["dense"]["steps"] == record["compact"]["steps"]
    assert record["equivalence"]["max_rel_diff"] < 1e-10
    lines = (folder / "curve.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * record["config"]["workload"]["epochs"]
    assert "cut at step" in (folder / "train.log").read_text()
    saved = compact_file.read(folder / "compact.pt")
    assert saved.features == record["gates"]["features_kept"]
    kept = sum(t.numel() for n, t in saved.state.items() if n.endswith(("weight", "bias")))
    assert kept == record["compact"]["params"]


def test_the_second_call_finds_the_run(finished, home):
    again = start("workload=cfd", "lumos.lambda=1e-3", "scale=tiny", home=home, cwd="/")
    assert again.returncode == 0
    assert "This run is finished" in again.stdout
    assert len(list((home / "results" / "runs" / "cfd").iterdir())) == 1


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers(finished, home, tmp_path):
    again = start("workload=cfd", "lumos.lambda=1e-3", "scale=tiny", home=tmp_path)
    assert again.returncode == 0, again.stderr
    first, second = (
        json.loads(next((h / "results/runs/cfd").glob("*/record.json")).read_text()) for h in (home, tmp_path)
    )
    assert first["run_id"] == second["run_id"]
    assert first["data"] == second["data"]
    assert first["gates"] == second["gates"]
    for side in ("dense", "compact"):
        assert first[side]["score"] == second[side]["score"]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the processes are found in /proc")
@pytest.mark.parametrize(
    ("rank", "number", "line"),
    [
        (0, signal.SIGKILL, "process 0 of 2 was killed by SIGKILL, by somebody or for want of memory; the same call "),
        (1, signal.SIGKILL, "process 1 of 2 was killed by SIGKILL, by somebody or for want of memory; the same call "),
        (1, signal.SIGTERM, "stopped by SIGTERM; the same call goes on from there"),
        (None, signal.SIGTERM, "stopped by SIGTERM; the same call goes on from there"),
        (None, signal.SIGUSR1, "stopped by SIGUSR1; the same call goes on from there"),
    ],
)
def test_one_of_two_processes_or_both_are_ended(rank, number, line, tmp_path):
    """One line says what happened, no traceback, and the same call goes on."""
    words = ("workload=synthetic", "scale=tiny", "workload.epochs=60", "trainer.devices=2", "trainer.device=cpu")
    env = {**os.environ, "LUMOS_RESULTS": str(tmp_path / "results"), "LUMOS_CACHE": str(tmp_path / "data")}
    command = [sys.executable, *RUN_PY, *words, "trainer.threads=1", "trainer.checkpoint_steps=5"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=env, cwd=tmp_path, text=True, **pipes) as run:
        until = time.monotonic() + 120
        while not list(tmp_path.glob("results/**/*.ckpt")):
            assert run.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        (target,) = [run.pid] if rank is None else [process for process, place in ranked(run.pid) if place == rank]
        os.kill(target, number)
        _, said = run.communicate(timeout=120)
    (told,) = [told for told in said.splitlines() if told.startswith("lumos: ")]
    assert told.startswith(f"lumos: {line}")
    assert "Traceback" not in said
    assert run.returncode == 128 + number
    again = start(*words, "trainer.threads=1", "trainer.checkpoint_steps=5", home=tmp_path)
    assert again.returncode == 0, again.stderr
    (log,) = tmp_path.glob("results/runs/*/*/train.log")
    assert ": going on from step" in log.read_text()


def ranked(parent: int) -> list[tuple[int, int]]:
    """The processes that a run of several began: their numbers, and their ranks."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it may have ended by now
                of = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                rank = re.search(rb"(?:^|\0)RANK=(\d+)", (folder / "environ").read_bytes())
                if of == parent and rank:
                    found.append((int(folder.name), int(rank[1])))
    return found


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("workload=cdf", "lumos: workload=cdf: there is no such workload; expected one of braintumor, cfd,"),
        ("lumos.lamda=1", "lumos: lumos.lamda: there is no such key (did you mean lambda?)"),
        ("scale=huge", "lumos: scale=huge: expected one of tiny, small, paper"),
    ],
)
def test_a_wrong_word_ends_in_one_clear_line(argument, line, home):
    done = start(argument, home=home)
    assert done.returncode != 0
    assert done.stderr.strip().startswith(line)
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout


@pytest.mark.slow
def test_a_workload_of_ones_own(tmp_path):
    """As docs/how-to/workloads.md shows it: a package and a search path, nothing in the project changes."""
    example = PROJECT / "docs" / "examples" / "heat"
    done = start(f"hydra.searchpath=[file://{example}/conf]", "workload=heat", home=tmp_path, extra_path=str(example))
    assert done.returncode == 0, done.stderr
    record = json.loads(next((tmp_path / "results/runs/heat").glob("*/record.json")).read_text())
    # exp(-pi^2 k^2 / 20) is .61, .14, .012, .0004 for k = 1, 2, 3, 4: two modes matter, and a third a little.
    assert {"a1", "a2"} <= set(record["gates"]["features_kept"]) <= {"a1", "a2", "a3"}
    assert record["compact"]["score"] > 0.99


def test_that_workload_conforms(monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "docs" / "examples" / "heat"))
    from heat import Heat  # pyright: ignore[reportMissingImports]

    from lumos.suite.conformance import check_workload

    check_workload(Heat())


@pytest.mark.slow
def test_a_sweep(tmp_path):
    words = ("-m", "workload=synthetic", "scale=tiny", "lumos.lambda=1e-3,1e-2")
    done = start(*words, home=tmp_path, extra_path=str(PROJECT), program=LUMOS_RUN)
    assert done.returncode == 0, done.stderr
    records = [json.loads(p.read_text()) for p in (tmp_path / "results/runs/synthetic").glob("*/record.json")]
    assert sorted(r["config"]["lumos"]["lambda"] for r in records) == [1e-3, 1e-2]
    assert len(list((tmp_path / "results/baselines/synthetic").iterdir())) == 1
    assert records[0]["dense"]["score"] == records[1]["dense"]["score"]


def test_jobs_of_a_sweep_go_to_the_folder_that_it_took(tmp_path):
    """Another sweep is at work in the one that was wished for: begun in the same second, say."""
    wished, lock = claim(tmp_path / "it's a, sweep")
    places = (f"hydra.sweep.dir={quoted(str(wished))}", f"paths.results={tmp_path}/results")
    words = ("-m", "workload=synthetic", "scale=tiny", "lumos.lambda=-1,-2", *places)
    done = start(*words, home=tmp_path, extra_path=str(PROJECT), program=LUMOS_RUN)
    lock.release()
    assert done.returncode == 1
    assert "2 of 2 failed" in done.stdout
    assert [p.name for p in wished.iterdir()] == [".lock"]
    taken = wished.with_name(f"{wished.name}-2")
    assert sorted(p.parent.name for p in taken.glob("*/job.json")) == ["0", "1"]


def test_a_scheduler_that_takes_no_jobs_is_one_line(tmp_path):
    """And a sweep is one array of jobs, of which it gets so many at a time."""
    programs = tmp_path / "bin"
    programs.mkdir()
    refuse = f"""for last; do :; done
        cp "$last" {tmp_path}/script
        echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1"""
    for name, code in (("sbatch", refuse), ("srun", "")):
        (programs / name).write_text(f"#!/bin/sh\n{code}\n")
        (programs / name).chmod(0o755)
    words = [
        "-m",
        "workload=synthetic",
        "scale=tiny",
        "seed=range(3)",
        "hydra.launcher.array_parallelism=2",
        "hydra/launcher=slurm",
    ]
    done = subprocess.run(
        [sys.executable, str(PROJECT / "run.py"), *words, f"paths.results={tmp_path}/results"], cwd=tmp_path, text=True,
        capture_output=True, env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (
        "lumos: the scheduler does not take the jobs: sbatch: error: invalid partition specified: nope; expected"
        in (done.stderr)
    )
    assert "#SBATCH --array=0-2%2" in (tmp_path / "script").read_text()


@pytest.mark.slow
def test_asked_to_stop_a_sweep_begins_no_other_job(tmp_path):
    changes = ("workload.epochs=100000", "trainer.checkpoint_steps=50")
    command = [sys.executable, str(PROJECT / "run.py"), "-m", "workload=synthetic", "scale=tiny", "seed=0,1", *changes]
    places = [f"paths.results={tmp_path}/results", f"paths.cache={tmp_path}/cache", f"hydra.sweep.dir={tmp_path}/sweep"]
    with (tmp_path / "said").open("w") as said:
        sweep = subprocess.Popen([*command, *places], stdout=said, stderr=said, cwd=tmp_path)
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("results/**/*.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.05)
        sweep.send_signal(signal.SIGTERM)
        assert sweep.wait(timeout=120) == 128 + signal.SIGTERM, (tmp_path / "said").read_text()
    assert "lumos: stopped by SIGTERM, at step" in (tmp_path / "said").read_text()
    (record,) = tmp_path.glob("results/runs/*/*/record.json")
    assert json.loads(record.read_text())["status"] == "stopped"


@pytest.mark.slow
def test_a_signal_while_it_measures_is_one_line_and_the_next_call_measures(tmp_path):
    command = [sys.executable, str(PROJECT / "run.py"), "workload=synthetic", "scale=tiny", "trainer.max_steps=20"]
    places = [f"paths.results={tmp_path}/results", f"paths.cache={tmp_path}/cache", f"hydra.run.dir={tmp_path}/hydra"]
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)):
        with subprocess.Popen(
            [*command, *places], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup ignores it
        ) as run:  # fmt: skip
            assert run.stderr
            assert any("measuring both" in line for line in run.stderr)
            time.sleep(0.5)
            run.send_signal(number)
            said = run.stderr.read()
            assert run.wait(timeout=60) == code, said
        assert "Traceback" not in said
        assert sum(line.startswith("lumos: ") for line in said.splitlines()) == 1, said
        (record,) = tmp_path.glob("results/runs/*/*/record.json")
        assert json.loads(record.read_text())["status"] == "stopped"
    done = subprocess.run([*command, *places], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(record.read_text())["status"] == "finished"


def test_a_compact_model_of_a_run_loads(finished, home):
    from lumos.suite.config import compose
    from lumos.suite.workload_class import build_workload

    (folder,) = (home / "results" / "runs" / "cfd").iterdir()
    cfg = compose(["workload=cfd", "scale=tiny", f"paths.cache={home / 'data'}"])
    workload = build_workload(cfg)
    small = lumos.load(folder / "compact.pt", workload.model()).eval()
    record = json.loads((folder / "record.json").read_text())
    assert workload.score(small, workload.loaders().test) == pytest.approx(record["compact"]["score"], abs=1e-6)


@pytest.mark.slow
def test_a_damaged_baseline_is_trained_again(tmp_path):
    arguments = ("workload=synthetic", "scale=tiny", "trainer.max_steps=20")
    assert start(*arguments, home=tmp_path).returncode == 0
    (weights,) = (tmp_path / "results/baselines/synthetic").glob("*/dense.pt")
    weights.write_bytes(weights.read_bytes()[:100])
    done = start(*arguments, "lumos.lambda=2e-3", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cannot be read" in done.stderr
    assert "training it again" in done.stderr
