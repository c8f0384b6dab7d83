"""No step of a training waits for a GPU: the GPU's own paths, taken on the CPU, read no number of a tensor."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lumos.gating import gates
from lumos.pruning import controllers, pruner
from lumos.suite.config import read
from lumos.suite.training import evaluation, step
from lumos.suite.training.loading import Reader, pinned
from lumos.suite.training.loop import _lumos_method
from lumos.suite.training.state import TrainState
from lumos.suite.workload import tensor_loader
from lumos.suite.workload_class import build_workload
from tests.configurations import composed

WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "unique_dim")
"""What reads a number, or the size of its result, from a tensor."""


class Waits(TorchDispatchMode):
    """Counts calls that would wait for a GPU; the counters of optimizers are on the CPU whatever trains."""

    def __init__(self, state: TrainState) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        optimizers = [state.optimizer, *([state.method.pruner._adam] if state.method else [])]  # pyright: ignore
        self.counters = {id(s["step"]) for o in optimizers for s in o.state.values() if "step" in s}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name in WAITS and id(args[0]) not in self.counters:
            self.found[name] += 1
        if any(getattr(mask, "dtype", None) is torch.bool for mask in masks):  # how many are set has to be counted
            self.found[f"{name} with a mask"] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Take the paths of a GPU."""
    for module in (gates, controllers, pruner, step):
        monkeypatch.setattr(module, "read_at_once", lambda tensor: False)


def training(tmp_path: Path, workload: str, *words: str) -> tuple[TrainState, Reader, int]:
    """A training of a tiny workload, in its third step."""
    places = [f"paths.results={tmp_path}", f"paths.cache={tmp_path}"]
    cfg = composed([f"workload={workload}", "scale=tiny", *places, *words])
    made, config, total = build_workload(cfg), read(cfg), 1000
    state = TrainState(made, config, torch.device("cpu"), gated=True)
    loaders = made.loaders()
    state.method = _lumos_method(state, loaders, None, total, None)
    reader = Reader(loaders.train)
    state.model.train()
    for _ in range(3):
        take_step(state, reader, total)
    return state, reader, total


def take_step(state: TrainState, reader: Reader, total: int) -> None:
    step.train_step(state, next(iter(reader.open(0))), reader, total)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("words", [("lumos.lambda=1e-3",), ("lumos.target.params=0.5",), ("lumos.target.features=5",),
                                   ("lumos.target.macs=0.5", "trainer.ema=0.99", "trainer.clip_norm=1")])  # fmt: skip
def test_a_gated_step_waits_for_nothing(tmp_path, words):
    state, reader, total = training(tmp_path, "synthetic", *words)
    batch = next(iter(reader.open(0)))
    with Waits(state) as waits:
        step.train_step(state, batch, reader, total)
    assert not waits.found


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("workload", ["slstr", pytest.param("molhiv", marks=pytest.mark.slow)])
def test_nor_does_one_of_a_network_with_its_own_kind_of_layers(tmp_path, workload):
    state, reader, total = training(tmp_path, workload, "lumos.target.params=0.5")
    batch = next(iter(reader.open(0)))
    with Waits(state) as waits:
        step.train_step(state, batch, reader, total)
    assert not waits.found


def test_the_counter_sees_a_wait(tmp_path):
    state, reader, total = training(tmp_path, "synthetic", "lumos.target.params=0.5")
    batch = next(iter(reader.open(0)))
    with Waits(state) as waits:
        step.train_step(state, batch, reader, total)
    assert waits.found["_local_scalar_dense"] >= 2  # on a CPU the size and the loss are read in each step


@pytest.mark.slow
def test_a_target_finds_the_same_lambda_by_either_path(tmp_path, monkeypatch):
    found = []
    for number in range(2):
        if number:
            for module in (gates, controllers, pruner, step):
                monkeypatch.setattr(module, "read_at_once", lambda tensor: False)
        state, reader, total = training(tmp_path, "synthetic", "lumos.target.params=0.5")
        for _ in range(40):
            take_step(state, reader, total)
        kept = state.state_dict()["phase"]["controller"]
        found.append((kept["log_lambda"], kept["excess"]))
        assert all(type(value) is float for value in found[-1])  # a checkpoint has numbers, whatever trained
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_batches_for_a_gpu_are_page_locked():
    loader = tensor_loader(torch.zeros(8, 2), batch_size=4)
    assert not pinned(loader, torch.device("cpu")).pin_memory  # pyright: ignore[reportAttributeAccessIssue]
    assert pinned(loader, torch.device("cuda")).pin_memory  # pyright: ignore[reportAttributeAccessIssue]
    plain = [torch.zeros(1)]
    assert pinned(plain, torch.device("cuda")) is plain
    assert [b.tolist() for b in evaluation.on_device(plain, torch.device("cpu"))] == [[0.0]]
