"""What a step of a workload's training costs."""

import pytest
import torch

import lumos
from lumos import measure
from lumos.suite.step_cost import step_cost
from lumos.workloads.synthetic import Synthetic
from tests.suite.training.test_loop import CPU, GATES


def test_a_step_of_a_workload(monkeypatch):
    monkeypatch.setattr("lumos.measure.step.SECONDS", 0.02)
    workload = Synthetic().tiny()
    dense = workload.model()
    gated = lumos.gate(dense, workload.example()).eval()
    small = lumos.compact(gated)
    before = {name: t.clone() for name, t in small.state_dict().items()}
    batch, state = next(iter(workload.loaders().train)), torch.get_rng_state()
    out = step_cost(workload, small, batch, GATES, CPU)
    assert {"dense", "gated", "compact", "overhead", "share"} == set(out)
    assert out["share"] == pytest.approx(gated.structure.units / measure.parameters(dense))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in small.state_dict().items())
