"""Batch statistics are those of the network that is scored, and not of the noise that it was trained with."""

from collections import deque

import pytest
import torch
from torch import nn

import lumos
from lumos.pruning.batch_statistics import has_statistics
from lumos.pruning.pruner import Pruner
from lumos.suite.training.evaluation import recalibrate
from lumos.suite.training.lumos_method import LumosMethod
from lumos.suite.training.method import CutContext
from lumos.suite.training.optimizer import make_optimizer
from lumos.workloads.synthetic import Synthetic


class Normalised(Synthetic):
    def model(self):
        return nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


@pytest.fixture(scope="module")
def workload():
    return Normalised(relevant_features=4).tiny()


@pytest.fixture(scope="module")
def batches(workload):
    return deque(list(workload.loaders().train)[:4])


def normalised(workload):
    torch.manual_seed(1)
    return workload.model()


def test_statistics_become_those_of_the_batches(workload, batches):
    model = normalised(workload)
    recalibrate(workload, model, batches)
    inner = model[0](torch.cat([x for x, _ in batches]))
    torch.testing.assert_close(model[1].running_mean, inner.mean(0).detach())
    assert model[1].momentum == 0.1
    assert model.training


def test_the_cut_recalibrates(workload, batches):
    """Half open input gates: sampled, they spread the activations; the compact model has the statistics of its own."""
    gated = lumos.gate(normalised(workload), *workload.example()).train()
    with torch.no_grad():
        gated.gates.log_alpha[gated.structure.group("input").gates] = -1.0
        for x, _ in batches:
            gated(x)
    optimizer = make_optimizer(gated, workload)
    pruner = Pruner(gated, optimizer, 10, cut="call", recalibrate=lambda model: recalibrate(workload, model, batches))
    small, _ = LumosMethod(pruner).prune(CutContext(optimizer, workload))
    inner = torch.stack([small.model[0](small.selected(x)[0]).detach().var(0) for x, _ in batches]).mean(0)
    torch.testing.assert_close(small.model[1].running_var, inner)


def test_the_random_state_stays(workload, batches):
    model = nn.Sequential(nn.BatchNorm1d(20), nn.Dropout(), nn.Linear(20, 1))
    before = torch.get_rng_state()
    recalibrate(workload, model, batches)
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_happens_without_statistics(workload, batches):
    model = nn.Linear(3, 1)  # the batches would not fit
    assert not has_statistics(model)
    recalibrate(workload, model, batches)
