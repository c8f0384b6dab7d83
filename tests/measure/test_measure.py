"""Sizes against hand counts; timings, memory and energy against what must be so."""

import itertools
import sys
import types

import pytest
import torch
from torch import nn

import lumos
from lumos import measure
from lumos.errors import ConfigError
from lumos.measure import batches, energy, timing
from lumos.measure.memory import peak_bytes
from tests.families import FAMILIES

# torch-geometric scripts some of its functions.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(20, 784), nn.ReLU(), nn.Linear(784, 5)).eval()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(timing, "SECONDS", 0.01)
    monkeypatch.setattr(batches, "LARGEST", 64)


# ---- sizes ----------------------------------------------------------------------------------------------------------


def test_parameters_and_macs_by_hand(model):
    assert measure.parameters(model) == 20 * 784 + 784 + 784 * 5 + 5
    assert measure.macs(model, (torch.randn(3, 20),)) == 20 * 784 + 784 * 5


def test_bytes_are_those_of_the_saved_file(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "m.pt")
    assert abs(measure.size_bytes(model) - (tmp_path / "m.pt").stat().st_size) < 1000


@pytest.mark.parametrize("name", ["CNN 2D, BN, residual, flatten", "GIN, virtual node, JK last", "embedding + FC"])
def test_the_trace_counts_what_torch_counts(name):
    model, inputs = FAMILIES[name]()
    small = lumos.compact(lumos.gate(model.eval(), inputs).eval())
    for m in (model.eval(), small):
        assert measure.traced_macs(m, inputs) == measure.macs(m, inputs) > 0


def test_attention_counts():
    model, inputs = FAMILIES["ViT, matmul attention"]()
    assert measure.traced_macs(model.eval(), inputs) == measure.macs(model, inputs) > 0


# ---- batches --------------------------------------------------------------------------------------------------------


def test_resized():
    x = torch.arange(6.0).view(3, 2)
    assert measure.resized((x,), 1)[0].tolist() == [[0, 1]]
    assert measure.resized((x,), 4)[0].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]
    assert measure.batch_of((x, torch.zeros(2))) is None
    assert measure.resized((x, "graph"), 4) == (x, "graph")


def test_a_graph_is_not_repeated_and_its_samples_are_those_of_the_output():
    nodes, edges, owner = torch.randn(6, 3), torch.zeros(2, 6, dtype=torch.int64), torch.zeros(6, dtype=torch.int64)
    inputs = (nodes, edges, owner)
    assert measure.batch_of(inputs) is None
    assert measure.resized(inputs, 9) is inputs
    assert measure.samples_of(inputs, torch.zeros(2, 1)) == 2
    assert measure.samples_of((nodes,), torch.zeros(2, 1)) == 6


def search_with(monkeypatch, seconds, sample_bytes, bound=10_000):
    """A search on a machine of which the time of a call and the bytes of a sample are given."""
    seen = []

    def resized(inputs, n):
        seen.append(n)
        return inputs

    monkeypatch.setattr(batches, "resized", resized)
    monkeypatch.setattr(batches, "once", lambda call, device: seconds(seen[-1]))
    monkeypatch.setattr(batches, "held_bytes", lambda m, inputs, d: sample_bytes * seen[-1] + 100)
    return batches.search(nn.Identity(), (torch.zeros(4, 1),), CPU, bound)


def test_the_search_stops_at_memory_time_and_size(monkeypatch):
    # Throughput n / (1 + n / 8) ms grows with n: the largest batch is the best one.
    found = search_with(monkeypatch, lambda n: 1e-3 * (1 + n / 8), 1000)
    assert found == batches.Batches(8, 8, "memory")
    # From 16 samples on the cache overflows.
    found = search_with(monkeypatch, lambda n: 1e-3 * (1 + n / 8) * (2 if n > 16 else 1), 1)
    assert found.optimal == 16
    assert found.limit == "time"
    assert found.dynamic is not None
    assert 1e-3 * (1 + found.dynamic / 8) * 2 <= batches.CALL_SECONDS
    found = search_with(monkeypatch, lambda n: 1e-9, 0, bound=10**9)
    assert (found.dynamic, found.limit) == (batches.LARGEST, "size")


def test_an_example_that_cannot_be_repeated(model):
    assert batches.search(model, ("graph",), CPU, 10) == batches.Batches(None, None, "example")


# ---- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("names", "turns"), [("ab", "abbaabbaab"), ("abc", "abcbcacababcbca")])
def test_calls_take_turns_and_each_is_as_often_first(names, turns):
    order = []
    calls = {name: lambda name=name: order.append(name) for name in names}
    seconds = timing.latencies(calls, CPU, seconds=0)
    assert "".join(order) == names * timing.WARM_UP + turns
    assert [len(v) for v in seconds.values()] == [timing.FEWEST_CALLS] * len(names)


def test_the_ratio_is_taken_round_by_round():
    """The machine is ten times slower for a while: medians of the two would say anything, the ratio stays."""
    noise = [1, 1, 10, 10, 10]
    assert timing.ratio([3.0 * n for n in noise], [1.0 * n for n in noise]) == {"p50": 3, "p25": 3, "p75": 3}
    assert timing.summary([0.001] * 19 + [0.1])["p50"] == pytest.approx(1)


def test_a_gpu_is_timed_by_its_events(monkeypatch):
    class Event:
        clock = itertools.count(step=2)

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = next(self.clock)

        def elapsed_time(self, end):
            return end.at - self.at

    waits = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    assert timing.once(lambda: None, GPU) == pytest.approx(2e-3)
    assert len(waits) == 2


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_peak_memory_is_the_allocators(model):
    """One layer of 1000 x 784 floats, its ReLU beside it, and little else."""
    x = torch.randn(1000, 20)
    with torch.inference_mode():
        peak = peak_bytes(lambda: model(x), CPU)
    layer = 1000 * 784 * 4
    assert 2 * layer <= peak < 2.2 * layer


# ---- energy ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def powercap(tmp_path):
    for name, value in (("intel-rapl:0", 900), ("intel-rapl:1", 50), ("intel-rapl:0:0", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000\n")
    return tmp_path


def test_rapl_adds_packages_and_sees_a_counter_start_again(powercap):
    meter = energy.Rapl(powercap)
    assert meter.joules() == 0
    (powercap / "intel-rapl:0" / "energy_uj").write_text("100")
    (powercap / "intel-rapl:1" / "energy_uj").write_text("80")
    assert meter.joules() == pytest.approx((200 + 30) / 1e6)
    (powercap / "intel-rapl:0" / "energy_uj").write_text("150")
    assert meter.joules() == pytest.approx((250 + 30) / 1e6)


def test_no_meter_no_number(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert energy.meter(CPU) is None
    assert energy.joules_per_1000(lambda: None, 1, CPU, None) is None
    with pytest.raises(FileNotFoundError, match="no intel-rapl package"):
        energy.Rapl(tmp_path)


def test_nvml_reads_the_counter_of_the_gpu_that_torch_means(monkeypatch):
    readings = iter([5_000, 7_500])
    nvml = types.SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(readings) if handle == "GPU-abc" else 0,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(uuid="abc"))
    assert energy.Nvml(GPU).joules() == 2.5


def test_energy_of_1000_samples(monkeypatch):
    monkeypatch.setattr(energy, "SECONDS", 0.0)
    meter = types.SimpleNamespace(name="test", joules=iter([1.0, 3.0]).__next__)
    # One call of four samples took two joules.
    assert energy.joules_per_1000(lambda: None, 4, CPU, meter) == pytest.approx(500)
    still = types.SimpleNamespace(name="test", joules=lambda: 1.0)
    assert energy.joules_per_1000(lambda: None, 4, CPU, still) is None


# ---- all of it ------------------------------------------------------------------------------------------------------


def test_compare_has_every_figure(model, quick):
    small = nn.Linear(20, 5)
    figures = measure.inference_cost({"dense": model, "compact": small}, (torch.randn(4, 20),), CPU)
    for side in figures.values():
        assert side["latency_ms"]["p95"] >= side["latency_ms"]["p50"] > 0
        assert side["latency_ms"]["batch"] == 1
        assert side["throughput"] > 0
        assert side["macs"] == side["macs_traced"]
        assert side["dynamic"]["memory_mb"] <= side["dynamic"]["bound_mb"]
        assert side["energy_meter"] is not None or side["energy_j"] is None
    dense, compact = figures["dense"], figures["compact"]
    assert compact["peak_mb"] < dense["peak_mb"]
    assert compact["peak_batch"] == dense["peak_batch"]
    assert "speedup" not in dense
    for spread in compact["speedup"].values():
        assert 0 < spread["p25"] <= spread["p50"] <= spread["p75"]


def test_a_graph_model_is_measured_on_its_example(quick):
    model, inputs = FAMILIES["GIN, virtual node, JK last"]()
    figures = measure.inference_cost({"dense": model}, inputs, CPU)["dense"]
    with torch.no_grad():
        graphs = model.eval()(*inputs).shape[0]
    assert figures["throughput_batch"] == figures["latency_ms"]["batch"] == figures["dynamic"]["batch"] == graphs
    assert figures["dynamic"]["limit"] == "example"


def test_a_training_step(monkeypatch):
    monkeypatch.setattr("lumos.measure.step.SECONDS", 0.02)
    dense, x = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 1)), torch.randn(8, 6)
    gated = lumos.gate(dense, x)
    small = lumos.compact(gated)
    models = {"dense": dense, "gated": gated, "compact": small}
    before = {key: {n: t.clone() for n, t in m.state_dict().items()} for key, m in models.items()}
    state, trained = torch.get_rng_state(), []

    def make_step(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        trained.append(model)

        def step():
            (model(x) + torch.rand(1)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    out = measure.training_step(dense, gated, small, make_step, CPU)
    for name in models:
        assert out[name]["step_ms"]["p50"] > 0
        assert out[name]["peak_mb"] > 0
    assert out["share"] == pytest.approx((6 + 9) / (6 * 9 + 9 + 2 * 9 + 9 + 1))
    assert out["overhead"]["p25"] <= out["overhead"]["p50"] <= out["overhead"]["p75"]
    assert torch.equal(torch.get_rng_state(), state)
    for key, model in models.items():
        assert all(torch.equal(t, before[key][n]) for n, t in model.state_dict().items())
    assert not {id(m) for m in trained} & {id(m) for m in models.values()}


def test_a_comparison_prints_as_a_table_and_leaves_the_models():
    dense = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2)).train()
    small = nn.Sequential(nn.Linear(20, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    found = measure.compare(dense, small, torch.rand(8, 20), batches=(1, 16))
    assert (found.dense["params"], found.small["params"]) == (738, 94)
    assert (found.dense["macs"], found.small["macs"]) == (704, 88)
    assert set(found.seconds) == {1, 16}
    assert found.largest > 0
    lines = str(found).splitlines()
    assert lines[0].split() == ["cpu", "dense", "small", "change"]
    assert lines[2].split() == ["parameters", "738", "94", "-87.3%"]
    assert "call with 16 samples [ms]" in str(found)
    assert (dense.training, small.training) == (True, False)
    same = measure.compare(dense, dense, torch.rand(8, 20), batches=())
    assert (same.largest, same.typical) == (0.0, 0.0)


def test_a_comparison_says_what_is_equal_and_what_is_not():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1)), torch.rand(8, 6)
    gated = lumos.gate(model, x).eval()
    with torch.no_grad():
        gated.gates.log_alpha[8:24] = -9.0
    small = lumos.compact(gated)
    found = measure.compare(gated, small, x, batches=(1,))
    assert found.largest < 1e-6
    assert (found.note, found.dense["params"], str(found).split()[1]) == ("", 257, "gated")
    stale = measure.compare(model, small, x, batches=(1,))
    assert stale.typical > 0.1
    assert "note: these are two functions" in str(stale).splitlines()[-1]
    gated.become(small.model, small.selected)
    with pytest.raises(ConfigError, match="dense: this gated model is cut, and is the compact one; expected a dense"):
        measure.compare(gated, small, x)


class Slope(nn.Module):
    """A model that differentiates in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 1))

    def forward(self, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.inner(x).sum(), x, create_graph=True)[0]


def test_a_model_that_differentiates_in_its_forward_is_measured(quick):
    x = torch.rand(8, 5)
    gated = lumos.gate(Slope(), x).eval()
    with torch.no_grad():
        gated.gates.log_alpha[6:10] = -9.0
    found = measure.compare(Slope(), lumos.compact(gated), x, batches=(1, 16))
    assert found.dense["macs"] == 108  # 54 to the energy; back over both layers, as many
    assert found.small["params"] < found.dense["params"]
    cost = measure.inference_cost({"dense": Slope()}, (x,), CPU)["dense"]
    assert (cost["macs"], cost["params"]) == (108, 64)
