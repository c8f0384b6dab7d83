"""Checkpoints: whole, verified, refused where they are not ours; a training goes on from one to the same numbers."""

import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from lumos.compaction.model import CompactModel
from lumos.errors import RecordError, TrainingError
from lumos.suite.settings import TargetConfig
from lumos.suite.training import checkpoint
from lumos.suite.training.checkpoint import Store
from lumos.suite.training.loop import train
from lumos.suite.training.signals import StoppedError, ending_by_exception, stop_requests
from lumos.suite.training.state import TrainState
from lumos.workloads.synthetic import Synthetic
from tests.suite.training.test_loop import CPU, run_config

IDENTITY = {"run": "abc", "data": "f00", "phase": "gated"}


class WithStatistics(Synthetic):
    """The same problem with a network that has batch statistics and dropout."""

    def model(self):
        return nn.Sequential(
            nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.05), nn.Linear(16, 1), Scale(8.0)
        )


class Scale(nn.Module):
    """Brings a fresh network's output near the size of the target."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x * self.by


@pytest.fixture(scope="module")
def tiny():
    return replace(Synthetic(relevant_features=4).tiny(), train_rows=600, valid_rows=200, epochs=4, learning_rate=0.01)


class Killed(BaseException):
    """What a kill -9 is to a test in one process: nothing catches it."""


def dies_at(step: int, monkeypatch):
    """The training dies right after this step and before it could keep anything."""
    real = TrainState.__init__
    monkeypatch.setattr(TrainState, "__setattr__", killer(step), raising=False)
    return real


def killer(step):
    def setter(self, name, value):
        object.__setattr__(self, name, value)
        if name == "step" and value == step:
            raise Killed

    return setter


def outcome(trained):
    """All numbers of a training: weights, scores, gates, curve; not the seconds."""
    curve = [{k: v for k, v in row.items() if k != "seconds"} for row in trained.curve]
    return dict(trained.model.state_dict()), {
        "valid": trained.valid_score, "steps": trained.steps, "curve": curve, "gates": trained.gates,
        "equivalence": trained.equivalence, "steering": trained.steering, "features": trained.features,
    }  # fmt: skip


def assert_same(first, second):
    for (name, a), (other, b) in zip(first[0].items(), second[0].items(), strict=True):
        assert name == other
        assert torch.equal(a, b), name
    assert repr(first[1]) == repr(second[1])


@pytest.mark.parametrize(
    ("settings", "deaths"),
    [
        pytest.param({"lambda_": 0.02}, (7, 11, 12, 13, 23), marks=pytest.mark.slow),
        ({"lambda_": None, "target": TargetConfig(params=0.5)}, (5, 14)),
        pytest.param({"lambda_": None, "tolerance": 0.3}, (9, 17), marks=pytest.mark.slow),
    ],
    ids=["lambda", "budget", "tolerance"],
)
def test_a_training_that_dies_ends_in_the_same_numbers(tiny, tmp_path, monkeypatch, settings, deaths):
    config = run_config(**settings)
    loaders = tiny.loaders()
    dense = train(tiny, loaders, config, CPU, gated=False)
    whole = outcome(train(tiny, loaders, config, CPU, gated=True, dense=dense))
    store = lambda: Store(tmp_path, "gated", IDENTITY, None, 3)  # noqa: E731
    for step in deaths:
        with monkeypatch.context() as patch:
            dies_at(step, patch)
            with pytest.raises(Killed):
                train(tiny, loaders, config, CPU, gated=True, dense=dense, store=store())
    assert_same(outcome(train(tiny, loaders, config, CPU, gated=True, dense=dense, store=store())), whole)


def test_batch_statistics_and_dropout_go_on_too(tiny, tmp_path, monkeypatch):
    tiny = WithStatistics(relevant_features=4).tiny()
    workload = replace(tiny, train_rows=600, valid_rows=200, epochs=4, learning_rate=0.03)
    config, loaders = run_config(lambda_=1e-3), workload.loaders()
    for gated in (False, True):
        whole = outcome(train(workload, loaders, config, CPU, gated=gated))
        store = lambda: Store(tmp_path, f"{gated}", IDENTITY, None, 2)  # noqa: B023, E731
        for step in (5, 15, 21):
            with monkeypatch.context() as patch:
                dies_at(step, patch)
                with pytest.raises(Killed):
                    train(workload, loaders, config, CPU, gated=gated, store=store())
        assert_same(outcome(train(workload, loaders, config, CPU, gated=gated, store=store())), whole)


def test_the_one_before_serves_where_the_newest_is_damaged(tmp_path, caplog):
    store = Store(tmp_path, "gated", IDENTITY)
    store.save({"n": 1, "t": torch.ones(2)}, 1)
    store.save({"n": 2, "t": torch.zeros(2)}, 2)
    assert [state["n"] for _, state in store.candidates()] == [2, 1]
    whole = store.path.read_bytes()
    for damaged in (whole[:-10], whole[:20], b"", b"PK\x03\x04", whole[:200] + b"x" + whole[201:]):
        store.path.write_bytes(damaged)
        assert [state["n"] for _, state in store.candidates()] == [1]
    store.previous.unlink()
    assert list(store.candidates()) == []


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"something else\n", "not a checkpoint that LUMOS wrote"),
        (b"lumos-checkpoint-1 00\nbody", "its checksum does not match"),
    ],
)
def test_a_bad_file_is_refused_with_a_line(tmp_path, content, line):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(RecordError, match=line):
        checkpoint.read(tmp_path / "x.ckpt")


def test_pickles_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    path = tmp_path / "x.ckpt"
    checkpoint.write(path, tmp_path / "y", {"identity": IDENTITY, "state": Evil()})
    with pytest.raises(RecordError, match="cannot be read by this torch"):
        checkpoint.read(path)


def test_a_checkpoint_of_another_training_is_refused(tmp_path, caplog):
    Store(tmp_path, "gated", IDENTITY).save({}, 1)
    assert list(Store(tmp_path, "gated", {**IDENTITY, "data": "other"}).candidates()) == []
    assert "checkpoint of another training, data f00, expected other; passed over" in caplog.text


def test_a_checkpoint_that_does_not_fit_starts_anew(tiny, tmp_path):
    store = Store(tmp_path, "gated", IDENTITY)
    store.save({"model": {"nonsense": torch.ones(1)}}, 1)
    config, loaders = run_config(), tiny.loaders()
    first = train(tiny, loaders, config, CPU, gated=True, store=store)
    assert_same(outcome(first), outcome(train(tiny, loaders, config, CPU, gated=True)))


def test_a_full_disk_does_not_stop_the_training(tiny, tmp_path, monkeypatch, caplog):

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lumos.suite.training.checkpoint.write", full)
    trained = train(tiny, tiny.loaders(), run_config(), CPU, gated=True, store=Store(tmp_path, "x", IDENTITY, None, 10))
    assert isinstance(trained.model, CompactModel)
    assert "no checkpoint could be written (No space left on device); going on without" in caplog.text


@pytest.fixture
def not_ignored(number):
    """What a shell starts in the background ignores SIGINT, what nohup starts SIGHUP, and so would a training in it."""
    before = signal.signal(number, signal.SIG_DFL)
    yield
    signal.signal(number, before)


@pytest.mark.usefixtures("not_ignored")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_keeps_the_step_and_stops(tiny, tmp_path, number):
    class Signalled(Synthetic):
        def loss(self, model, batch):
            if model.training and next(steps) == 8:
                os.kill(os.getpid(), number)
            return super().loss(model, batch)

    steps = iter(range(10_000))
    workload = replace(
        Signalled(relevant_features=4).tiny(), train_rows=600, valid_rows=200, epochs=4, learning_rate=0.01
    )
    config, loaders = run_config(), workload.loaders()
    store = Store(tmp_path, "gated", IDENTITY)
    with pytest.raises(StoppedError, match=r"by SIG\w+, at step 9, which is kept; the same call goes on") as stop:
        train(workload, loaders, config, CPU, gated=True, store=store)
    assert stop.value.code == 128 + number
    assert checkpoint.read(store.path)["state"]["place"]["step"] == 9
    after = train(workload, loaders, config, CPU, gated=True, store=store)
    assert_same(outcome(after), outcome(train(tiny, loaders, config, CPU, gated=True)))


def test_a_handler_that_was_there_gets_the_signal_once_the_state_is_kept():
    told = []
    before = signal.signal(signal.SIGUSR2, lambda number, _frame: told.append(number))
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert bool(stop)
            assert not told
            stop.stop("saved")
            assert told == [signal.SIGUSR2]
            assert not stop
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_loss_that_is_not_finite_names_the_batch_and_keeps_the_last_good_weights(tiny, tmp_path):
    class Broken(Synthetic):
        def loss(self, model, batch):
            loss = super().loss(model, batch)
            return loss * math.nan if model.training and next(steps) == 8 else loss

    steps = iter(range(10_000))
    workload = replace(Broken(relevant_features=4).tiny(), train_rows=600, valid_rows=200, epochs=4, learning_rate=0.01)
    store = Store(tmp_path, "dense", IDENTITY, None, 5)
    loaders = workload.loaders()
    with pytest.raises(TrainingError) as stop:
        train(workload, loaders, run_config(), CPU, gated=False, store=store)
    loaders.train.sampler.sampler.set_epoch(1)
    samples = list(loaders.train.sampler)[2][:8]
    line = f"not finite from batch 2 of epoch 2 on (step 8, samples {', '.join(map(str, samples))}…); the last good"
    assert line in str(stop.value)
    assert checkpoint.read(store.path)["state"]["place"]["step"] == 5
    weights = torch.load(tmp_path / "last_good.pt", weights_only=True)
    assert all(torch.isfinite(t).all() for t in weights.values())
    workload.model().load_state_dict(weights)


@pytest.mark.usefixtures("not_ignored")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_outside_training_raises_what_a_stop_in_it_does(number):
    line = f"stopped by {number.name}; the same call goes on"
    with pytest.raises(StoppedError, match=line) as stopped, ending_by_exception():
        os.kill(os.getpid(), number)
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.usefixtures("not_ignored")
@pytest.mark.parametrize("number", [signal.SIGHUP])
def test_in_a_training_the_state_is_kept_first(number):
    with ending_by_exception(), stop_requests() as stop:
        os.kill(os.getpid(), number)
        assert stop
        with pytest.raises(StoppedError, match="stopped by SIGHUP, at step 3; the same call"):
            stop.stop("at step 3")


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_by_exception(), stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_child_dies_of_the_signal_as_by_default():
    with ending_by_exception():
        pid = os.fork()
        if not pid:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
