"""Calls as CUDA graphs and compiled: on the CPU what can be, on a GPU where there is one."""

import pytest
import torch
from torch import nn

import lumos
from lumos.measure import execution, timing
from lumos.measure.execution import ModeError, cuda_graph, mode_cost
from lumos.measure.inference import moved
from tests.families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
BATCHES = {"latency": {"dense": 1, "small": 1}, "throughput": {"dense": 4, "small": 8},
           "dynamic": {"dense": 8, "small": 16}}  # fmt: skip


@pytest.fixture
def models():
    return {"dense": nn.Linear(20, 5).eval(), "small": nn.Linear(20, 2).eval()}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(timing, "SECONDS", 0.01)


@pytest.mark.usefixtures("quick")
def test_every_kind_of_call_is_timed_with_its_batch_and_the_speed_up_is_in_samples(models):
    found = mode_cost("eager", models, (torch.rand(4, 20),), BATCHES, CPU)
    for name, kinds in found.items():
        assert {kind: figures["batch"] for kind, figures in kinds.items()} == {k: b[name] for k, b in BATCHES.items()}
        for figures in kinds.values():
            assert figures["samples_per_second"] == pytest.approx(1e3 * figures["batch"] / figures["p50"], rel=1e-6)
    assert all("speedup" not in figures for figures in found["dense"].values())
    assert all(figures["speedup"] > 0 for figures in found["small"].values())
    dynamic = [found[name]["dynamic"]["samples_per_second"] for name in ("small", "dense")]
    assert found["small"]["dynamic"]["speedup"] == pytest.approx(dynamic[0] / dynamic[1])


def test_calls_of_one_batch_are_made_once(models, monkeypatch):
    made = []
    monkeypatch.setitem(execution.MODES, "eager", lambda model, inputs: made.append(len(inputs[0])) or (lambda: None))
    batches = {"throughput": {"dense": 4, "small": 4}, "dynamic": {"dense": 4, "small": 8}}
    calls = execution.calls_of("eager", models, (torch.rand(2, 20),), batches)
    assert sorted(made) == [4, 4, 8]
    assert calls["throughput"]["dense"] is calls["dynamic"]["dense"]


def test_a_way_that_fails_says_so_and_the_others_go_on(models, monkeypatch):
    def refuses(model, inputs):
        raise ModeError("cuda_graph: the call cannot be recorded (it waits)")

    monkeypatch.setitem(execution.MODES, "cuda_graph", refuses)
    found = mode_cost("cuda_graph", models, (torch.rand(4, 20),), BATCHES, CPU)
    assert found["small"]["latency"] == {"error": "cuda_graph: the call cannot be recorded (it waits)"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_there_is_no_graph(models):
    with pytest.raises(ModeError, match="torch sees no GPU here"):
        cuda_graph(models["dense"], (torch.rand(4, 20),))


def test_what_torch_cannot_compile_is_one_line(models, monkeypatch):
    def broken(model, dynamic):
        raise_it = RuntimeError("no compiler\nat line 3")

        def call(*_):
            raise raise_it

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ModeError, match=r"^compiled: torch cannot compile it \(no compiler"):
        execution.compiled(models["dense"], (torch.rand(4, 20),))


@needs_gpu
@pytest.mark.parametrize("name", ["CNN 2D, BN, residual, flatten", "ViT, matmul attention", "embedding + FC"])
def test_a_compact_model_is_recorded_and_replays_its_own_function(name):
    model, inputs = FAMILIES[name]()
    small = lumos.compact(lumos.gate(model.eval(), inputs).eval()).to(GPU).eval()
    inputs = moved(inputs, GPU)
    call = cuda_graph(small, inputs)
    with torch.inference_mode():
        expected = small(*inputs)
    found = call()
    torch.cuda.synchronize()
    torch.testing.assert_close(found, expected)


@needs_gpu
def test_a_graph_is_timed_on_a_gpu(models):
    models = {name: model.to(GPU) for name, model in models.items()}
    found = mode_cost("cuda_graph", models, (torch.rand(4, 20, device=GPU),), BATCHES, GPU)
    assert found["small"]["dynamic"]["speedup"] > 0
