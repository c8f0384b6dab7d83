"""Sizes against hand counts; timings and memory against what must be so."""

import pytest
import torch
from torch import nn

from lumos import measure

CPU = torch.device("cpu")


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(20, 784), nn.ReLU(), nn.Linear(784, 5)).eval()


def test_parameters_and_macs_by_hand(model):
    assert measure.parameters(model) == 20 * 784 + 784 + 784 * 5 + 5
    assert measure.macs(model, (torch.randn(3, 20),)) == 20 * 784 + 784 * 5


def test_bytes_are_those_of_the_saved_file(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "m.pt")
    assert abs(measure.size_bytes(model) - (tmp_path / "m.pt").stat().st_size) < 1000


def test_resized():
    x = torch.arange(6.0).view(3, 2)
    assert measure.resized((x,), 1)[0].tolist() == [[0, 1]]
    assert measure.resized((x,), 4)[0].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]
    assert measure.batch_of((x, torch.zeros(2))) is None
    assert measure.resized((x, "graph"), 4) == (x, "graph")


def test_peak_memory_is_the_allocators(model):
    """One layer of 1000 x 784 floats, its ReLU beside it, and little else."""
    x = torch.randn(1000, 20)
    with torch.inference_mode():
        peak = measure.peak_bytes(lambda: model(x), CPU)
    layer = 1000 * 784 * 4
    assert 2 * layer <= peak < 2.2 * layer


def test_compare_has_every_figure(model, monkeypatch):
    monkeypatch.setattr(measure, "LATENCY_SECONDS", 0.02)
    small = nn.Linear(20, 5)
    figures = measure.compare({"dense": model, "compact": small}, (torch.randn(4, 20),), CPU)
    for side in figures.values():
        assert side["latency_ms"]["p50"] > 0
        assert side["latency_ms"]["p95"] >= side["latency_ms"]["p50"]
        assert side["throughput"] > 0
        assert side["energy_j"] is None
    assert figures["compact"]["peak_mb"] < figures["dense"]["peak_mb"]
