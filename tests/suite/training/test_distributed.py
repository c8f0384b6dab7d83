"""Two processes with gloo: in step with one another, and with one process up to the order of sums."""

import json
import os
import subprocess
import sys
import time
from collections import deque
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lumos.errors import ConfigError, LostProcessError, OtherProcessError
from lumos.pruning import processes
from lumos.suite.child import LAUNCHED_HERE
from lumos.suite.exit_codes import exit_on_error
from lumos.suite.settings import TargetConfig, TrainerConfig
from lumos.suite.training import distributed
from lumos.suite.training.checkpoint import Store
from lumos.suite.training.distributed import World
from lumos.suite.training.evaluation import recalibrate
from lumos.suite.training.loading import Reader, iterate
from lumos.suite.training.loop import train
from lumos.suite.workload import tensor_loader
from lumos.workloads.common.streaming import sample_loader
from lumos.workloads.synthetic import Synthetic
from tests.suite.training.test_loop import CPU, run_config
from tests.two_processes import free_port

TRAINER = TrainerConfig(device="cpu", threads=1, devices=2)
IDENTITY = {"run": "abc"}


class Noisy(Synthetic):
    """Batch statistics, dropout and a parameter that no loss reaches."""

    def model(self):
        model = nn.Sequential(
            nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1), nn.Linear(1, 1)
        )
        model[5].unused = nn.Parameter(torch.ones(3))
        return model


def workload(kind, batch_size=101):
    """Batches of 101 samples: 51 for one process and 50 for the other."""
    tiny = replace(kind(relevant_features=4).tiny(), train_rows=610, valid_rows=200, epochs=4, batch_size=batch_size)
    return replace(tiny, learning_rate=0.01)


def plain(trained):
    curve = [{k: v for k, v in row.items() if k != "seconds"} for row in trained.curve]
    state = {k: v.clone() for k, v in trained.model.state_dict().items()}
    return {"state": state, "curve": curve, "gates": trained.gates, "steering": trained.steering}


BUDGET = {"lambda_": None, "target": TargetConfig(params=0.5)}
TOLERANCE = {"lambda_": None, "tolerance": 0.3}
AVERAGED = replace(run_config(**BUDGET), trainer=run_config().trainer.model_copy(update={"ema": 0.9}))


def two(rank, folder, port):
    """What each of two processes does."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    found = {}
    with distributed.group(TRAINER) as here:
        assert here == World(rank, 2, rank)
        for name, kind, config in (
            ("budget", Synthetic, run_config(**BUDGET)),
            ("averaged", Noisy, AVERAGED),
            ("noisy", Noisy, run_config()),
            ("line", Synthetic, run_config(**TOLERANCE)),
        ):
            w = workload(kind)
            dense = train(w, w.loaders(), config, CPU, gated=False)
            found[name + " dense"] = plain(dense)
            store = Store(folder, name, IDENTITY, None, 20)
            found[name] = plain(train(w, w.loaders(), config, CPU, gated=True, dense=dense, store=store))
        # the checkpoint of the last training, at step 20 of 24
        found["again"] = plain(train(w, w.loaders(), config, CPU, gated=True, dense=dense, store=store))
        found["told"] = distributed.from_main(lambda: f"rank {rank}")
        try:
            distributed.from_main(fails)
        except (OtherProcessError, ValueError) as error:
            found["error"] = f"{type(error).__name__}: {error}"
        found["any"] = distributed.any_of(rank == 1), distributed.any_of(False)
        found["mean"] = float(processes.mean(torch.tensor(float(rank))))
        # each process has half of the rows: their mean is the mean over all
        model = nn.Sequential(nn.BatchNorm1d(1))
        half = torch.arange(8.0).reshape(8, 1)[4 * rank : 4 * rank + 4]
        recalibrate(Scored(), model, deque([half]))
        found["statistics"] = model[0].running_mean.item()
    torch.save(found, folder / f"{rank}.pt")


class Scored(Synthetic):
    def loss(self, model, batch):
        return model(batch).sum()


def fails():
    raise ValueError("only here")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    port = str(free_port())
    # From a process that has never trained: one whose autograd has started threads cannot be forked to train.
    torch.multiprocessing.start_processes(two, (folder, port), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["budget", "averaged", "noisy", "line"])
def test_both_processes_end_in_the_very_same_network(both, name):
    for which in (name, f"{name} dense"):
        first, second = both[0][which], both[1][which]
        assert first["curve"] == second["curve"]
        assert first["gates"] == second["gates"]
        assert repr(first["steering"]) == repr(second["steering"])
        for key, tensor in first["state"].items():
            assert torch.equal(tensor, second["state"][key]), key


def test_the_average_is_what_both_score(both):
    first = {name: both[0][name]["curve"][0] for name in ("noisy dense", "averaged dense")}
    assert first["noisy dense"]["loss"] == first["averaged dense"]["loss"]
    assert first["noisy dense"]["valid"] != first["averaged dense"]["valid"]


@pytest.mark.parametrize(("name", "settings"), [("budget", BUDGET), ("line", TOLERANCE)])
def test_the_same_global_batch_gives_the_result_of_one_process(both, name, settings):
    w = workload(Synthetic)
    dense = train(w, w.loaders(), run_config(**settings), CPU, gated=False)
    alone = plain(train(w, w.loaders(), run_config(**settings), CPU, gated=True, dense=dense))
    for mine, theirs in ((plain(dense), both[0][f"{name} dense"]), (alone, both[0][name])):
        for row, other in zip(mine["curve"], theirs["curve"], strict=True):
            assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
            assert row["valid"] == pytest.approx(other["valid"], rel=1e-3, abs=1e-4)
        assert mine["gates"] == theirs["gates"]


def test_a_checkpoint_serves_both(both):
    for rank in (0, 1):
        assert both[rank]["again"]["curve"] == both[rank]["line"]["curve"]
        for key, tensor in both[rank]["line"]["state"].items():
            assert torch.equal(tensor, both[rank]["again"]["state"][key])


def test_what_one_decides_all_do(both):
    assert [b["told"] for b in both] == ["rank 0", "rank 0"]
    assert [b["error"] for b in both] == ["ValueError: only here", "OtherProcessError: ValueError: only here"]
    assert [b["any"] for b in both] == [(True, False)] * 2
    assert [b["mean"] for b in both] == [0.5, 0.5]
    assert [b["statistics"] for b in both] == [3.5, 3.5]


# ---- reading shares of batches --------------------------------------------------------------------------------------


def indices(batches):
    return [tuple(batch[0].flatten().tolist()) for batch in batches]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_add_up_to_the_batches_of_one_process(size):
    rows = torch.arange(50).reshape(50, 1)
    loader = tensor_loader(rows, batch_size=11, seed=3)
    whole = indices(Reader(loader).open(2))
    shares = [Reader(loader, World(rank, size)) for rank in range(size)]
    parts = [indices(share.open(2)) for share in shares]
    for number, batch in enumerate(whole):
        assert sorted(batch) == sorted(i for part in parts for i in part[number])
        weights = [share.weighted(torch.ones(()), number).item() for share in shares]
        assert sum(weights) == pytest.approx(size)
        assert weights == pytest.approx([len(part[number]) * size / len(batch) for part in parts])


@pytest.mark.parametrize(("size", "workers"), [(1, 0), (2, 0), (2, 2), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_reading_from_a_batch_on(size, workers):
    loader = sample_loader(Numbers(), batch_size=4, seed=1, workers=workers)
    reader = Reader(loader, World(0, size))
    for epoch in (0, 1):
        whole = [tuple(b.tolist()) for b in reader.open(epoch)]
        assert [tuple(b.tolist()) for b in reader.open(epoch, 2)] == whole[2:]
    last = [tuple(b.tolist()) for e in (0, 1) for b in reader.open(e)]
    per = reader.batches
    assert [tuple(b.tolist()) for b in reader.latest(1, 1, 4)] == last[: per + 1][-4:]
    assert [tuple(b.tolist()) for b in reader.latest(0, 2, 4)] == last[:2]
    assert reader.sample_numbers(1, 2) == list(whole[2]) if size == 1 else len(reader.sample_numbers(1, 2)) == 4


class Numbers:
    def __len__(self):
        return 21

    def read(self, index, epoch):
        return index


def test_draws_do_not_depend_on_the_number_of_workers():
    states = []
    for workers in (0, 1):
        torch.manual_seed(0)
        own = sample_loader(Numbers(), batch_size=4, seed=1, workers=workers)
        without = DataLoader(range(8), batch_size=4, num_workers=workers, persistent_workers=workers > 0)
        for _ in range(2):
            list(iterate(own))
            list(iterate(without))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_what_cannot_be_shared_out_says_so():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from torch.arange(4)

        def __len__(self):
            return 4

    with pytest.raises(ConfigError, match="batches cannot be shared out"):
        Reader(DataLoader(Stream(), batch_size=2), World(0, 2))
    small = Reader(tensor_loader(torch.arange(2), batch_size=2, seed=0), World(0, 3))
    with pytest.raises(ConfigError, match="a batch of 2 samples for 3 processes"):
        list(small.open(0))


def test_a_wrong_number_of_processes_says_so(monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="2 processes are asked for, but 4 were started"), distributed.group(TRAINER):
        pass
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    said = "RANK is set, but WORLD_SIZE, MASTER_ADDR, MASTER_PORT not; start all processes with torchrun, or unset RANK"
    with pytest.raises(ConfigError, match=said), distributed.group(TRAINER):
        pass
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ConfigError, match="start it with torchrun"), distributed.group(TRAINER):
        pass


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees fewer than two GPUs here")
def test_two_gpus_train_together_by_nccl(tmp_path):
    words = ["workload=synthetic", "scale=tiny", "lumos.target.params=0.5", "trainer.device=cuda", "trainer.devices=2",
             f"paths.results={tmp_path}", f"paths.cache={tmp_path}"]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "lumos", "run", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("runs/*/*/record.json")
    entry = json.loads(path.read_text())
    assert entry["status"] == "finished"
    assert entry["compact"]["params"] <= 0.5 * entry["dense"]["params"]


@pytest.mark.parametrize(
    ("failures", "rank", "code"),
    [
        ({0: (1, 2.0), 1: (-9, 3.0)}, 1, -9),  # the killed one is seen last
        ({0: (-15, 1.0), 1: (-9, 1.0)}, 1, -9),
        ({0: (-15, 1.0), 1: (2, 3.0)}, 1, 2),  # one that failed, and one that torch ended because of it
        ({0: (1, 4.0), 1: (2, 3.0)}, 1, 2),
        ({0: (-15, 4.0), 1: (-15, 3.0)}, 1, -15),
    ],
)
def test_what_made_the_others_end_is_named(failures, rank, code):
    assert distributed.first_to_end(failures) == (rank, code)


@pytest.mark.parametrize(
    "error",
    [
        dist.DistBackendError("NCCL error: remote process exited"),
        RuntimeError("[gloo/transport/tcp/pair.cc:545] Connection reset by peer"),
    ],
)
def test_a_call_that_another_process_left_is_one_line(error, monkeypatch, capsys):
    """What the first process says where another launcher started them; without a group nothing is taken for it."""
    with pytest.raises(type(error)), distributed.readable_process_errors():
        raise error
    monkeypatch.setattr(distributed, "world", lambda: World(0, 2, 0))
    for launched, said in (({}, "lumos: process 0 of 2 has lost another one, "), ({LAUNCHED_HERE: "1"}, "")):
        with monkeypatch.context() as patch:
            for name, value in launched.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended, exit_on_error(), distributed.readable_process_errors():
                raise error
        assert ended.value.code == 1
        line = capsys.readouterr().err
        assert line.startswith(said)
        assert line.count("\n") == bool(said)
    with pytest.raises(RuntimeError, match="of its own"), distributed.readable_process_errors():
        raise RuntimeError("of its own")


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "there"), [(0, None), (1, None), (0, "killed")])
def test_who_is_killed_while_they_join_is_not_waited_for(rank, there, tmp_path):
    """It never came, or it found the others' store and was killed before they were connected."""
    port = free_port()
    env = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": str(port)}  # fmt: skip
    begun = subprocess.Popen([sys.executable, "-c", JOINS], env=env, stderr=subprocess.PIPE, text=True)
    if there:
        subprocess.run([sys.executable, "-c", KILLED.format(port)], check=False)
    _, said = begun.communicate(timeout=60)
    assert begun.returncode == 1
    assert said.startswith(
        f"lumos: process {rank} of 2 did not find the others at 127.0.0.1:{port} within trainer.join_"
    )
    assert said.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_who_waits_for_the_others_answers_a_signal(rank):
    env = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": str(free_port())}  # fmt: skip
    waits = JOINS.replace("join_seconds=6", "join_seconds=600")
    begun = subprocess.Popen([sys.executable, "-c", HANDLES + waits], env=env, stdout=subprocess.PIPE)
    begun.stdout.readline()
    time.sleep(2)
    begun.terminate()
    begun.wait(timeout=30)
    assert begun.returncode == 3
    begun.stdout.close()


HANDLES = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
print(flush=True)
"""

JOINS = """
from lumos.suite.exit_codes import exit_on_error
from lumos.suite.settings import TrainerConfig
from lumos.suite.training import distributed
with exit_on_error(), distributed.group(TrainerConfig(device="cpu", devices=2, join_seconds=6)):
    pass
"""
KILLED = """
import datetime, os, signal
import torch.distributed as dist
dist.TCPStore("127.0.0.1", {}, 2, False, timeout=datetime.timedelta(seconds=30))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_together_they_may_take_longer_than_to_join():
    torch.multiprocessing.spawn(slow_call, (free_port(),), nprocs=2)


def slow_call(rank, port):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port))  # fmt: skip
    with distributed.group(TrainerConfig(device="cpu", threads=1, devices=2, join_seconds=30)):
        assert dist.distributed_c10d._get_default_store().timeout == distributed.TIMEOUT
        distributed.set_timeout(timedelta(seconds=1))  # gloo heeds it: the call below ends in an error
        with pytest.raises(RuntimeError):
            distributed.from_main(lambda: time.sleep(3))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "1"}, True),
        ({"RANK": "1", "TORCHELASTIC_RUN_ID": "x"}, False),
        ({"RANK": "0", "SLURM_PROCID": "0"}, True),
    ],
)
def test_where_no_launcher_says_who_is_gone_each_process_does(variables, said, monkeypatch, capsys):
    for name in ("SLURM_PROCID", "TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit), exit_on_error():
        raise LostProcessError("lost")
    assert (capsys.readouterr().err == "lumos: lost\n") == said
