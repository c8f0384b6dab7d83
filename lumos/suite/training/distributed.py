"""Several processes that train one model together, and what has to be the same on all of them.

Each process holds the whole model and reads its share of every batch, so that ``workload.batch_size`` is that of all
together. Gradients are averaged by torch's DistributedDataParallel. Whatever decides something (a score, a loss, a
request to stop) is first made the same everywhere, so that gates, budgets and the cut stay in step.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import logging
import os
import random
import re
import signal
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import (  # torch documents them, and does not list them
    DistStoreError,  # pyright: ignore[reportPrivateImportUsage]
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    Store,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)
from torch.nn.parallel import DistributedDataParallel

from lumos.errors import ConfigError, JoinError, LostProcessError, OtherProcessError
from lumos.suite.child import LAUNCHED_HERE, MODULE, environment
from lumos.suite.settings import TrainerConfig
from lumos.suite.training.signals import SIGNALS, stopped_by

TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others, once they are together: one may be generating data or scoring a large
split for all. That one is gone is seen at once."""

PLACES = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher tells each process beside its RANK."""
GLANCE = timedelta(seconds=1)
"""How long one look for the first process's store may take."""
CONNECT = timedelta(seconds=30)
"""How long connections may take between processes that are all there."""
_GROUPS = itertools.count()
"""Numbers the groups that this process joins, so that their keys in one store differ."""

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's place among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0


ALONE = World()


def world() -> World:
    """Return this process's place; alone where no group was started."""
    if not dist.is_available() or not dist.is_initialized():
        return ALONE
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


def launched() -> bool:
    """Tell whether torchrun or a Slurm or submitit task with several processes started this one."""
    return "RANK" in os.environ or "SUBMITIT_EXECUTOR" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


@contextmanager
def group(trainer: TrainerConfig) -> Iterator[World]:
    """Join the group of ``trainer.devices`` times ``trainer.nodes`` processes; with one process nothing happens.

    The places come from torchrun's environment, or from submitit's or Slurm's. Raises ConfigError where there is
    neither, or where they started another number of processes, and JoinError where not all of them come within
    ``trainer.join_seconds``.
    """
    if trainer.processes == 1:
        yield ALONE
        return
    asked = f"trainer.devices={trainer.devices} trainer.nodes={trainer.nodes}"
    _export_places(asked)
    started = int(os.environ.get("WORLD_SIZE", trainer.processes))
    if started != trainer.processes:
        raise ConfigError(f"{asked}: {trainer.processes} processes are asked for, but {started} were started")
    if lacking := [name for name in PLACES if not os.environ.get(name)]:
        raise ConfigError(
            f"{asked}: RANK is set, but {', '.join(lacking)} not; start all processes with torchrun, or unset RANK"
        )
    on_gpus = trainer.device != "cpu" and torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    _join("cpu:gloo,cuda:nccl" if on_gpus else "gloo", trainer.join_seconds)
    try:
        yield world()
    finally:
        leave()


def _join(backend: str, seconds: float) -> None:
    """Wait for the other processes for so long; once all are there, a call of theirs may take far longer."""
    deadline = time.monotonic() + seconds
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    at = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        with _pages_kept_back():
            store = _meet(rank, size, deadline)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=CONNECT)
            store.set_timeout(TIMEOUT)  # NCCL connects at the first call of all, for which one may generate data first
    except RuntimeError as error:  # whatever the store or the transport calls it
        raise JoinError(
            f"process {rank} of {size} did not find the others at {at} within "
            f"trainer.join_seconds={seconds:g}: one was killed before it got there, was not started, or cannot reach "
            "that address; start all of them again"
        ) from error
    set_timeout(TIMEOUT)


def _meet(rank: int, size: int, deadline: float) -> Store:
    """Return the store of the first process, once all have reached it.

    The waiting is done here and not in torch's C++ code, which answers no signal for as long as it waits.

    Raises:
        RuntimeError: The store, or one of the others, was not there in time.
    """
    # torchrun has a store of its own at this address
    hosts = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    found: Store | None = None
    while found is None:
        try:
            found = TCPStore(
                host, port, size, is_master=hosts, timeout=GLANCE, wait_for_workers=False, multi_tenant=True
            )
        except RuntimeError:
            if hosts or time.monotonic() > deadline:
                raise
    found.set_timeout(CONNECT)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = PrefixStore(f"lumos/{attempt}/{next(_GROUPS)}", found)
    there = store.add("there", 1)
    while there < size:
        if time.monotonic() > deadline:
            raise DistStoreError(f"{there} of {size} processes")
        time.sleep(0.05)
        there = store.add("there", 0)
    return store


@contextmanager
def _pages_kept_back() -> Iterator[None]:
    """Show what torch's C++ code writes to stderr only at the end, and not where an exception says it too."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
            held.seek(0)
            os.write(stderr, held.read())
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def set_timeout(timeout: timedelta) -> None:
    """Set how long a call of all processes may take; torch has had a public name for it since 2.12 or so."""
    known = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    known(timeout)


@contextmanager
def readable_process_errors() -> Iterator[None]:
    """Turn what a collective call ends in when another process is gone into one line, a LostProcessError."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or re.search(r"\bgloo\b|NCCL", str(error))
        if world().size == 1 or not lost:
            raise
        raise LostProcessError(
            f"process {world().rank} of {world().size} has lost another one, which was killed or out of memory, or its "
            "machine went down; the same call goes on from the last checkpoint"
        ) from error


def leave() -> None:
    """Leave the group: from here on this process is alone, whatever the others do."""
    if world().size > 1:
        dist.destroy_process_group()


def start(processes: int, words: Sequence[str]) -> NoReturn:
    """Do the run of these words in as many processes on this machine, as torchrun does; end with their exit code."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes speak for themselves
    handled = ",".join(signal.Signals(number).name for number in SIGNALS)
    os.environ.update(environment() | {LAUNCHED_HERE: "1"})
    launch = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=uuid.uuid4().hex, rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, signals_to_handle=handled,
    )  # fmt: skip
    try:
        elastic_launch(launch, sys.executable)(*MODULE, *words)
    except SignalException as error:  # handed on to the processes, which have saved their state
        _say(stopped_by(error.sigval))
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, code = first_to_end({rank: (f.exitcode, f.timestamp) for rank, f in error.failures.items()})
        if code < 0:
            _say(
                f"process {rank} of {processes} was killed by {signal.Signals(-code).name}, by somebody or for want of "
                "memory; the same call goes on from the last checkpoint"
            )
        elif code - 128 in SIGNALS:
            _say(stopped_by(code - 128))
        sys.exit(code if code > 0 else 128 - code)
    sys.exit(0)


def _say(line: str) -> None:
    print(f"lumos: {line}", file=sys.stderr)  # noqa: T201


def first_to_end(failures: Mapping[int, tuple[int, float]]) -> tuple[int, int]:
    """Tell which of several processes made the others end.

    One that was killed did: the others' calls fail because of it, and may have ended before it was looked at. Then one
    that failed. What SIGTERM ended, torch told to end because of another.

    Args:
        failures: By rank: the exit code, or minus the signal that killed it, and when that was seen, in seconds.

    Returns:
        Its rank and its exit code.
    """

    def order(failure: tuple[int, tuple[int, float]]) -> tuple[int, float]:
        code, seen = failure[1]
        return 2 if code == -signal.SIGTERM else int(code >= 0), seen

    rank, (code, _) = min(failures.items(), key=order)
    return rank, code


def _export_places(asked: str) -> None:
    """Set torch's variables (RANK, WORLD_SIZE, MASTER_ADDR…) where a launcher other than torchrun knows them."""
    if "RANK" in os.environ:
        return
    from submitit import JobEnvironment
    from submitit.slurm.slurm import SlurmJobEnvironment

    try:
        # Tasks that srun starts without submitit have the same variables.
        here = SlurmJobEnvironment() if "SLURM_PROCID" in os.environ else JobEnvironment()
        places = {"RANK": here.global_rank, "WORLD_SIZE": here.num_tasks, "LOCAL_RANK": here.local_rank,
                  "LOCAL_WORLD_SIZE": here.num_tasks // here.num_nodes}  # fmt: skip
    except (RuntimeError, KeyError):
        raise ConfigError(
            f"{asked}: start it with torchrun --nproc-per-node N -m lumos run …, with hydra/launcher=slurm or by sbatch"
        ) from None
    os.environ.setdefault("MASTER_ADDR", here.hostnames[0])
    os.environ.setdefault("MASTER_PORT", str(random.Random(here.job_id).randint(20_000, 60_000)))
    os.environ.update({name: str(value) for name, value in places.items()})


# ---- what has to be the same everywhere -----------------------------------------------------------------------------


def from_main(make: Callable[[], T]) -> T:
    """Return what ``make`` returns on the first process, on all of them. Its error is raised on all."""
    here = world()
    if here.size == 1:
        return make()
    payload: list[Any] = [None, None]
    failure: BaseException | None = None
    if here.main:
        try:
            payload[0] = make()
        except BaseException as error:
            failure = error
            payload[1] = f"{type(error).__name__}: {error}"
    dist.broadcast_object_list(payload, src=0)
    if failure is not None:
        raise failure
    if payload[1] is not None:
        raise OtherProcessError(payload[1])
    return payload[0]


def drawn_by_main(make: Callable[[], T], device: torch.device) -> T:
    """As :func:`from_main`; whatever random numbers it draws there, the generators are in step afterwards."""
    if world().size == 1:
        return make()
    made, states = from_main(lambda: (make(), noise_state(device)))
    set_noise_state(states, device)
    return made


def one_after_another(make: Callable[[], T]) -> T:
    """Return what ``make`` returns here: first on the first process, then on the first of each node, then on the rest.

    So samples are generated once where the nodes share the cache, and once on each node where they do not.
    """
    here, result = world(), None
    turn = 0 if here.main else 1 if here.local_rank == 0 else 2
    for now in range(3 if here.size > 1 else 1):
        if now == turn:
            result = make()
        if here.size > 1:
            dist.barrier()
    return result  # type: ignore[return-value]


def any_of(flag: bool) -> bool:
    """Tell whether the flag is set on any process."""
    if world().size == 1:
        return flag
    found = torch.tensor([float(flag)])
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found)


# ---- the model and its noise ----------------------------------------------------------------------------------------


def replicated(model: nn.Module, trial: Callable[[nn.Module], Tensor], *, statistics: bool) -> nn.Module:
    """Wrap the model as DistributedDataParallel; as it is where one process trains.

    ``trial`` is a loss of a copy of the model: parameters that it does not reach need a search in every step.
    ``statistics`` says whether the model has running batch statistics, which then follow the first process.
    """
    if world().size == 1:
        return model
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        copied = copy.deepcopy(model).train()
        trial(copied).backward()
    unused = any(p.requires_grad and p.grad is None for p in copied.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how gradients are laid out in memory
        return DistributedDataParallel(model, broadcast_buffers=statistics, find_unused_parameters=unused)


class Noise:
    """Random numbers where several processes train: the gates' are shared, the model's own (dropout) are private.

    The global generator is the shared one. Inside :meth:`private` it draws this process's own numbers, a function of
    seed, step and rank, so that a checkpoint needs to hold the shared state only.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        self.kept: list[Tensor] | None = None

    def share(self, gates: nn.Module) -> None:
        """Let a module's calls draw shared numbers, wherever they happen."""
        if world().size > 1:
            gates.register_forward_pre_hook(self._swap)
            gates.register_forward_hook(self._swap)

    def _swap(self, *_: Any) -> None:
        if self.kept is not None:
            now = noise_state(self.device)
            set_noise_state(self.kept, self.device)
            self.kept = now

    @contextmanager
    def private(self, step: int) -> Iterator[None]:
        """Draw this process's own numbers."""
        here = world()
        if here.size == 1:
            yield
            return
        self.kept = noise_state(self.device)
        torch.manual_seed(int(hashlib.sha256(f"{self.seed} {step} {here.rank}".encode()).hexdigest()[:15], 16))
        try:
            yield
        finally:
            set_noise_state(self.kept, self.device)
            self.kept = None


def noise_state(device: torch.device) -> list[Tensor]:
    """Return the states of torch's generators that a training on this device draws from."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_noise_state(states: list[Tensor], device: torch.device) -> None:
    """Set the states that :func:`noise_state` returned."""
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1].cpu(), device)
