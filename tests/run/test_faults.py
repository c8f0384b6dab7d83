"""What breaks on real machines: killed runs, full disks, read-only folders, damaged caches, dead workers."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from lumos import measure
from lumos.compaction import compact_file
from lumos.errors import DataError, RecordError
from lumos.suite import measurements, record, runner
from lumos.suite.paths import PROJECT
from lumos.suite.training.loading import readable_worker_errors
from lumos.workloads.common.streaming import sample_loader
from tests.run.forked import child, described, ended, not_measured, wait_until_ready


@pytest.fixture(autouse=True, scope="module")
def _only_training():
    """Measurements take their time and are tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "inference_cost", not_measured)
        patch.setattr(measurements, "step_cost", lambda *_, **__: None)
        patch.setattr(runner.report, "print_run", lambda *_: None)
        yield


def log_of(home) -> str:
    """The log of the one run below a folder."""
    (path,) = (home / "results" / "runs").glob("*/*/train.log")
    return path.read_text()


def result(home):
    """All numbers of the one finished run below a folder, timings left out."""
    (path,) = (home / "results" / "runs").glob("*/*/record.json")
    entry = json.loads(path.read_text())
    assert entry["status"] == "finished", entry["error"]
    state = compact_file.read(path.parent / "compact.pt").state
    curve = [line.split(",") for line in (path.parent / "curve.csv").read_text().splitlines()]
    seconds = curve[0].index("seconds")
    sides = {side: [entry[side][k] for k in ("score", "valid_score", "steps")] for side in ("dense", "compact")}
    features = (path.parent / "features.csv").read_text()
    return state, (sides, entry["gates"], entry["steering"], features, [r[:seconds] + r[seconds + 1 :] for r in curve])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, _only_training):
    """A run that nothing disturbs, and its seconds."""
    home = tmp_path_factory.mktemp("whole")
    wait_until_ready()
    began = time.monotonic()
    assert ended(child(home)) == 0, (home / "said").read_text()
    return home, time.monotonic() - began


def killed_again_and_again(whole, home, kills, seed):
    """Start the run and kill it after a random time, so often; then let it end, and compare every number."""
    draws = random.Random(seed)
    for _ in range(kills):
        process = child(home)
        time.sleep(draws.uniform(0.05, 0.6) * whole[1])
        process.kill()
        ended(process)
    assert ended(child(home)) == 0, (home / "said").read_text()
    first, second = result(whole[0]), result(home)
    assert first[1] == second[1]
    assert all(torch.equal(tensor, second[0][name]) for name, tensor in first[0].items())
    assert not list(home.glob("results/**/*.ckpt"))


def test_a_run_that_is_killed_ends_in_the_same_numbers(whole, tmp_path):
    killed_again_and_again(whole, tmp_path, 1, seed=1)


@pytest.mark.slow
def test_thirty_random_moments(whole, tmp_path):
    for batch in range(6):
        (tmp_path / str(batch)).mkdir()
        killed_again_and_again(whole, tmp_path / str(batch), 5, seed=100 + batch)


@pytest.mark.slow
def test_checkpoints_that_a_killed_process_left_beside_what_is_finished_go(tmp_path):
    assert ended(child(tmp_path)) == 0
    (kept,) = tmp_path.glob("results/runs/*/*/record.json")
    (baseline,) = tmp_path.glob("results/baselines/*/*/dense.pt")
    left = [kept.parent / "gated.ckpt", baseline.parent / "dense.ckpt"]
    for path in left:
        path.write_bytes(b"left")
    assert ended(child(tmp_path)) == 0  # finished before
    assert [path.exists() for path in left] == [False, True]
    assert ended(child(tmp_path, "lumos.lambda=0.02")) == 0  # the same baseline
    assert not left[1].exists()


@pytest.mark.slow
def test_what_is_finished_stays_until_it_is_done_anew(whole, tmp_path):
    """A run by force that is killed leaves the old results; the same call goes on, with the dense network trained."""
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob("results/runs/*/*/record.json")
    (dense,) = tmp_path.glob("results/baselines/*/*/dense.pt")
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    dense_before, made = dense.read_bytes(), dense.stat().st_mtime_ns
    process = child(tmp_path, "force=true")
    deadline = time.monotonic() + 120
    while not list(path.parent.glob("anew/gated.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    ended(process)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()} == before
    assert (dense.read_bytes(), dense.stat().st_mtime_ns) == (dense_before, made)
    assert ended(child(tmp_path, "force=true")) == 0
    said = log_of(tmp_path)
    assert "dense: trained before" in said
    assert "gated: going on from step" in said
    assert result(tmp_path)[1] == result(whole[0])[1]
    assert (dense.read_bytes(), dense.stat().st_mtime_ns > made) == (dense_before, True)
    assert not (path.parent / "anew").exists()
    assert not list(tmp_path.glob("results/**/*.ckpt"))


def test_killed_while_new_results_take_the_place_of_old_ones(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob("results/runs/*/*/record.json")
    anew = path.parent / "anew"
    anew.mkdir()
    entry = json.loads(path.read_text())
    (anew / "record.json").write_text(json.dumps(entry | {"note": "the new one"}))
    (anew / "features.csv").write_text("new\n")
    assert ended(child(tmp_path)) == 0
    assert json.loads(path.read_text())["note"] == "the new one"
    assert (path.parent / "features.csv").read_text() == "new\n"
    assert not anew.exists()


def test_asked_to_stop_it_says_where_it_goes_on(whole, tmp_path):
    process = child(tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("results/**/*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.terminate()
    assert ended(process) == 128 + signal.SIGTERM
    said = " ".join((tmp_path / "said").read_text().split())
    assert "lumos: stopped by SIGTERM, at step" in said
    assert "which is kept; the same call goes on from there" in said
    (path,) = tmp_path.glob("results/runs/*/*/record.json")
    assert json.loads(path.read_text())["status"] == "stopped"
    assert ended(child(tmp_path)) == 0
    assert "going on from step" in log_of(tmp_path)
    assert result(tmp_path)[1] == result(whole[0])[1]


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_leaves_nothing_half_written(whole, tmp_path):
    """A limit on the size of files stands for the disk: what is larger cannot be written."""
    code = ended(child(tmp_path, "trainer.checkpoint_steps=100", most_bytes=10_000))
    said = (tmp_path / "said").read_text()
    assert code == 1, said
    assert "Traceback" not in said
    assert "no checkpoint could be written (File too large); going on without" in log_of(tmp_path)
    assert sum(line.startswith("lumos: ") for line in said.splitlines()) == 1
    assert "cannot be written (" in said
    assert not list(tmp_path.glob("results/**/*.tmp"))
    assert not list(tmp_path.glob("results/**/*.pt"))
    assert ended(child(tmp_path)) == 0
    assert result(tmp_path)[1] == result(whole[0])[1]


def test_a_results_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "results").mkdir(mode=0o555)
    folder = tmp_path / "results" / "runs" / "w" / "id"
    root = os.geteuid() == 0  # whom no mode stops
    if root and any(not parent.stat().st_mode & 0o001 for parent in tmp_path.parents):
        for parent in (tmp_path, *list(tmp_path.parents)[:2]):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    if root:
        os.seteuid(65534)
    try:
        line = r"cannot be written \(Permission denied\); make room or set paths.results"
        with pytest.raises(RecordError, match=line), record.locked(folder):
            pass
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.slow
def test_two_at_the_same_run_one_works_and_one_says_so(tmp_path):
    process = child(tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("results/**/*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    line = "another process is at this very run; wait for it, or change a key"
    with pytest.raises(RecordError, match=line):
        runner.run(*described(tmp_path))
    assert ended(process) == 0


def test_in_a_batch_system_the_second_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "POLL", 0.05)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom lumos.suite import record\n"
        "with record.locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(1)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "held"
    with record.locked(tmp_path, wait=True):
        assert holder.wait(timeout=10) == 0
    holder.stdout.close()


@pytest.mark.slow
def test_files_that_changed_are_trained_on_anew(tmp_path):
    """The same command, other data: never the score of the old ones."""
    table = tmp_path / "mine.csv"
    small = ("workload=molhiv", f"workload.smiles={table}", "workload.epochs=1", "trainer.max_steps=4")

    def made(seconds):
        described_run = described(tmp_path, *small)
        done = runner.run(*described_run)
        assert done["provenance"]["seconds"] != seconds
        return done

    rows = [f"{'C' * (i // 32)}C1{'C' * (1 + i % 8)}{'CNOS'[i // 8 % 4]}C1,{i % 2}\n" for i in range(128)]
    table.write_text("smiles,HIV_active\n" + "".join(rows))
    first = made(None)
    assert runner.run(*described(tmp_path, *small))["provenance"] == first["provenance"]
    os.utime(table, (1, 1))  # another time, the same content
    assert runner.run(*described(tmp_path, *small))["provenance"] == first["provenance"]
    table.write_text("smiles,HIV_active\n" + "".join(rows[:100]))
    second = made(first["provenance"]["seconds"])
    assert second["run_id"] == first["run_id"]
    assert second["data"]["sha256"] != first["data"]["sha256"]
    table.unlink()
    with pytest.raises(DataError, match=r"mine\.csv"):
        runner.run(*described(tmp_path, *small))


@pytest.mark.slow
def test_a_damaged_cache_is_made_again(tmp_path):
    """Also where a single bit of it is another: the run is the one of sound data."""
    arguments = ("workload=cfd", "workload.epochs=1", "trainer.max_steps=4")
    sound = described(tmp_path, *arguments)[1].loaders().sha256
    array = sorted((tmp_path / "data").rglob("*.npy"))[0]
    content = bytearray(array.read_bytes())
    content[-100] ^= 1
    array.write_bytes(content)
    entry = runner.run(*described(tmp_path, *arguments))
    assert (entry["status"], entry["data"]["sha256"]) == ("finished", sound)
    assert f"{array.parent}: damaged (the checksum of {array.name} does not match); made again" in log_of(tmp_path)


class Deadly:
    """Samples of which one kills the process that reads it, and one is damaged."""

    def __init__(self, deadly=None, damaged=None):
        self.deadly, self.damaged = deadly, damaged

    def __len__(self):
        return 12

    def read(self, index, epoch):
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self.damaged:
            raise DataError(f"sample{index}.h5: damaged; delete it")
        return torch.tensor(float(index))


def test_a_worker_that_dies_ends_in_one_line():
    loader = sample_loader(Deadly(deadly=5), batch_size=4, workers=1)
    with (
        pytest.raises(DataError, match=r"a process that reads samples died .* try fewer data.workers"),
        readable_worker_errors(),
    ):
        list(loader)


def test_what_a_worker_raises_is_one_line_too():
    loader = sample_loader(Deadly(damaged=5), batch_size=4, workers=1)
    with pytest.raises(DataError, match=r"^sample5\.h5: damaged; delete it$"), readable_worker_errors():
        list(loader)


@pytest.mark.slow
def test_scores_beyond_the_metric_are_recorded():
    from lumos.suite.training.trained import Trained
    from lumos.workloads.synthetic import Synthetic

    class More(Synthetic):
        def scores(self, model, batches):
            return {"batches": sum(1 for _ in batches)}

    tiny = replace(More().tiny(), test_rows=250)
    trained = Trained(tiny.model(), 0.0, 0.0, 0, [])
    found = measurements.scored(tiny, trained, tiny.loaders(), torch.device("cpu"))
    assert found["scores"] == {"batches": 3.0}
    assert set(measurements.scored(Synthetic().tiny(), trained, tiny.loaders(), torch.device("cpu"))) == {"score"}
