"""Products with buffers, and weights that are computed from others."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm

import lumos
from lumos.tracing import trace_structure
from tests.networks import random_gates


def buffered(forward, buffers, **layers):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for name, shape in buffers.items():
                self.register_buffer(name, torch.randn(shape))
            for name, layer in layers.items():
                setattr(self, name, layer)

        def forward(self, *x):
            return forward(self, *x)

    return Net()


def fourier(m, x):
    phase = x @ m.B
    return m.o(torch.relu(m.a(torch.cat([phase.sin(), phase.cos()], -1))))


def graph(m, x):
    return m.o(torch.relu(m.A @ m.v(torch.relu(torch.einsum("nm,bmc->bnc", m.A, m.w(x))))))


BUFFERED = {
    "Fourier features": (
        lambda: buffered(fourier, {"B": (3, 16)}, a=nn.Linear(32, 8), o=nn.Linear(8, 2)),
        (8, 3),
        {"input": 3, "B": 16, "a": 8},
    ),
    "fixed filters": (
        lambda: buffered(
            lambda m, x: m.o(torch.relu(m.c(F.conv2d(x, m.k)))),
            {"k": (4, 3, 3, 3)},
            c=nn.Conv2d(4, 8, 3),
            o=nn.Conv2d(8, 1, 1),
        ),
        (2, 3, 9, 9),
        {"input": 3, "k": 4, "c": 8},
    ),
    "fixed graph": (
        lambda: buffered(graph, {"A": (7, 7)}, w=nn.Linear(10, 16), v=nn.Linear(16, 8), o=nn.Linear(8, 2)),
        (4, 7, 10),
        {"input": 10, "w": 16, "v": 8},
    ),
    "frozen weight beside a low rank": (
        lambda: buffered(
            lambda m, x: m.o(torch.relu(F.linear(x, m.W) + m.b(m.a(x)))),
            {"W": (16, 10)},
            a=nn.Linear(10, 4, bias=False),
            b=nn.Linear(4, 16, bias=False),
            o=nn.Linear(16, 2),
        ),
        (8, 10),
        {"input": 10, "W": 16, "a": 4},
    ),
}


def check(gated, x):
    for seed in range(3):
        random_gates(gated, random.Random(seed))
        gated.train()(x).sum().backward()
        for rows in (1, len(x)):
            lumos.verify(gated.eval(), x[:rows])


@pytest.mark.parametrize("name", BUFFERED)
def test_products_with_buffers_are_followed(name):
    build, shape, groups = BUFFERED[name]
    x = torch.randn(shape)
    model = build()
    gated = lumos.gate(model, x)
    assert {g.name: g.size for g in gated.structure.groups} == groups
    assert gated.structure.dense_sizes[0] == sum(p.numel() for p in model.parameters())
    check(gated, x)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", (torch.rand(12, 16) > 0.5).float())

    def forward(self, weight):
        return weight * self.mask


class Standardised(nn.Module):
    """A weight of mean zero and variance one in each row, with a gain."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(12, 1))

    def forward(self, weight):
        return self.gain * (weight - weight.mean(1, keepdim=True)) / weight.std(1, keepdim=True)


ALL = ["input", "0", "2"]
CHANGES = {
    "weight_norm": (parametrizations.weight_norm, ALL),
    "mask": (lambda layer: parametrize.register_parametrization(layer, "weight", Masked()), ALL),
    "pruned": (lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5), ALL),
    "pruned rows": (lambda layer: prune.ln_structured(layer, "weight", amount=0.5, n=2, dim=0), ALL),
    "standardised": (
        lambda layer: parametrize.register_parametrization(layer, "weight", Standardised()),
        ["input", "2"],
    ),
    "spectral_norm": (parametrizations.spectral_norm, ["input"]),
    "spectral_norm by a hook": (spectral_norm, ["input"]),
    "orthogonal": (parametrizations.orthogonal, ["input"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_computed_weights_are_followed_or_held_with_a_reason(name):
    change, groups = CHANGES[name]
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 2))
    change(model[2])
    x = torch.randn(8, 6)
    gated = lumos.gate(model, x)
    assert [g.name for g in gated.structure.groups] == groups
    assert all(f.reason for f in gated.structure.fixed)
    check(gated, x)


class StandardisedConv(nn.Conv2d):
    """A convolution with a weight of mean zero and variance one for each output, as NFNets have it."""

    def __init__(self, *args):
        super().__init__(*args)
        self.gain = nn.Parameter(1 + 0.1 * torch.randn(self.out_channels, 1, 1, 1))

    def forward(self, x):
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, weight=(self.gain * 0.3).view(-1), training=True)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


def test_outputs_of_a_standardised_convolution_go_and_what_it_reads_stays_without_a_trial():
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), StandardisedConv(8, 12, 3), nn.ReLU(), nn.Conv2d(12, 2, 1)
    x = torch.randn(2, 3, 9, 9)
    gated = lumos.gate(nn.Sequential(*layers), x)
    assert {g.name: g.size for g in gated.structure.groups} == {"input": 3, "2": 12}
    (held,) = (f for f in gated.structure.fixed if f.name == "0")
    assert held.size == 8
    assert held.reason.startswith("the weight that reads it is mixed by batch_norm in 2")
    check(gated, x)


def test_an_image_whose_channels_a_convolution_reads_is_traced_once(monkeypatch):
    runs = []
    run_tracer = trace_structure.run_tracer
    monkeypatch.setattr(trace_structure, "run_tracer", lambda *a, **k: runs.append(a[2]) or run_tracer(*a, **k))
    layers = StandardisedConv(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)  # its channels are held
    gated = lumos.gate(nn.Sequential(*layers), torch.randn(2, 3, 9, 9))
    assert [g.name for g in gated.structure.groups] == ["0"]
    assert len(runs) == 1


class Tied(nn.Module):
    """A decoder that is the transposed encoder, and a penalty on a weight."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(20, 16), nn.Linear(16, 8)

    def forward(self, x):
        z = torch.tanh(self.two(torch.tanh(self.one(x))))
        out = F.linear(torch.tanh(F.linear(z, self.two.weight.t())), self.one.weight.t())
        return out, self.two.weight.square().sum(1)


def test_a_weight_with_a_second_reader_is_one_function_at_every_batch_size():
    x = torch.randn(64, 20, dtype=torch.float64)
    gated = lumos.gate(Tied().double(), x[:8]).eval()
    gated.gates.log_alpha.data.uniform_(-0.8, 1.5)
    small = lumos.compact(gated)
    for rows in (1, 4, 64):
        for a, b in zip(gated(x[:rows]), small(x[:rows]), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
