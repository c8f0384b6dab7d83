"""Curves and results in other people's trackers: the real library where it is installed, its calls where it is not."""

import sys
import time
import types
from dataclasses import replace
from typing import ClassVar

import pytest

from lumos.errors import ConfigError
from lumos.suite import runner
from lumos.suite.training.trackers import tracking
from lumos.workloads.synthetic import Synthetic
from tests.suite.methods.test_methods import configured


@pytest.fixture(scope="module")
def tiny():
    return replace(Synthetic(relevant_features=4).tiny(), epochs=3)


@pytest.mark.slow
def test_tensorboard_has_the_curve_and_the_results(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = configured(tmp_path, "lumos.lambda=1e-2", "trainer.log=tensorboard")
    entry = runner.run(config, tiny)
    found = {}
    for part in ("dense", "gated", "results"):
        events = EventAccumulator(str(config.folder("synthetic") / "tensorboard" / part))
        events.Reload()
        found[part] = {tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert len(found["gated"]["loss"]) == len(found["dense"]["valid"]) == 3
    assert found["results"]["compact/params"] == [entry["compact"]["params"]]
    plain = configured(tmp_path, "lumos.lambda=1e-2")
    assert config.run_id == plain.run_id


class FakeClient:
    """What is called of ``mlflow.MlflowClient``, with its signatures."""

    calls: ClassVar[list] = []

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return "1"

    def create_run(self, experiment_id, run_name=None, tags=None):
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r"))

    def log_param(self, run_id, key, value):
        self.calls.append(("param", key, value))

    def log_metric(self, run_id, key, value, timestamp=None, step=None):
        self.calls.append(("metric", key, value, step))

    def set_terminated(self, run_id):
        self.calls.append(("end",))


class FakeError(Exception):
    """In the place of ``mlflow.MlflowException``."""


def fake_mlflow(client):
    return types.SimpleNamespace(MlflowClient=client, MlflowException=FakeError)


def log_a_point(config, part):
    with tracking(config, "synthetic", part) as tracker:
        tracker.log({"loss": 0.5, "dense/score": 1.0}, 3)


def test_mlflow_is_told_settings_and_points(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", fake_mlflow(FakeClient))
    log_a_point(configured(tmp_path, "trainer.log=mlflow"), "gated")
    assert ("param", "lumos.lambda", 1e-3) in FakeClient.calls
    assert FakeClient.calls[-3:] == [("metric", "loss", 0.5, 3), ("metric", "dense/score", 1.0, 3), ("end",)]


def test_a_place_that_mlflow_cannot_write_to_is_said_in_a_line(tmp_path, monkeypatch):
    class Refuses(FakeClient):
        def __init__(self):
            raise FakeError("The backend is in maintenance mode.\nPlease migrate. See elsewhere")

    monkeypatch.setitem(sys.modules, "mlflow", fake_mlflow(Refuses))
    said = r"trainer\.log=mlflow: The backend is in maintenance mode; MLFLOW_TRACKING_URI says where to$"
    with pytest.raises(ConfigError, match=said):
        log_a_point(configured(tmp_path, "trainer.log=mlflow"), "gated")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_mlflow_has_the_points(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    config = configured(tmp_path, "trainer.log=mlflow")
    for part in ("dense", "gated"):
        log_a_point(config, part)
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("synthetic").experiment_id])
    assert {run.info.run_name for run in runs} == {f"{config.run_id}-{part}" for part in ("dense", "gated")}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert runs[0].data.params["lumos.lambda"] == "0.001"
    assert [(m.step, m.value) for m in client.get_metric_history(runs[0].info.run_id, "loss")] == [(3, 0.5)]
    assert runs[0].data.metrics["dense/score"] == 1.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_wandb_has_the_points(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config = configured(tmp_path, "trainer.log=wandb")
    config.folder("synthetic").mkdir(parents=True)
    for part in ("dense", "gated"):
        log_a_point(config, part)
    files = list(config.folder("synthetic").glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    words = ("lumos.lambda", "synthetic", config.run_id, "loss", "dense/score")
    # W&B's own process writes them; it may still do so when the run has ended.
    until = time.monotonic() + 60
    while time.monotonic() < until and not all(w.encode() in file.read_bytes() for w in words for file in files):
        time.sleep(0.1)
    for word in words:
        assert all(word.encode() in file.read_bytes() for file in files), word


def test_wandb_is_offline_unless_told_otherwise(tmp_path, monkeypatch):
    told, made = [], {}
    run = types.SimpleNamespace(log=lambda values, step: told.append((values, step)), finish=lambda: told.append("end"))
    monkeypatch.setitem(
        sys.modules, "wandb", types.SimpleNamespace(init=lambda **options: (made.update(options), run)[1])
    )
    monkeypatch.delenv("WANDB_MODE", raising=False)
    log_a_point(configured(tmp_path, "trainer.log=wandb"), "dense")
    assert told == [({"loss": 0.5, "dense/score": 1.0}, 3), "end"]
    assert made["mode"] == "offline"
    assert made["config"]["lumos.lambda"] == 1e-3


def test_a_tracker_that_is_not_installed_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"trainer.log=mlflow: mlflow is not installed; pip install mlflow$"):
        log_a_point(configured(tmp_path, "trainer.log=mlflow"), "gated")
    with pytest.raises(ConfigError, match=r"trainer\.log"):
        configured(tmp_path, "trainer.log=elsewhere")
