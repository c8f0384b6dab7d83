"""Compact models in use: saved, pickled, called by name, in another memory format."""

import pickle
import random

import pytest
import torch
from torch import nn

import lumos
from lumos.errors import StructureError
from tests.networks import random_gates


class Buffers(nn.Module):
    """A buffer that is not saved, along an axis of units, and one that the constructor would make anew."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 16), nn.Linear(16, 2)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 16), persistent=False)
        self.register_buffer("shift", torch.zeros(6), persistent=False)
        self.register_buffer("projection", torch.randn(6, 6), persistent=False)

    def forward(self, x):
        return self.head(torch.relu(self.hidden((x - self.shift) @ self.projection)) * self.scale)


class Fold(nn.Module):
    """Writes sizes and columns as literals."""

    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(6, 16 * 4), nn.Conv1d(16, 2, 1)

    def forward(self, x, *, shift=None):
        h = torch.relu(self.a(x)).view(-1, 16, 4)
        return self.c(h if shift is None else h + shift) * x[:, 5:6, None].sum().item()


class Conditioned(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.c, self.b = nn.Linear(6, 16), nn.Linear(3, 16), nn.Linear(16, 2)

    def forward(self, x, cond=None):
        return self.b(torch.relu(self.a(x) + (0 if cond is None else self.c(cond))))


def half_closed(model, *inputs):
    gated = lumos.gate(model, inputs)
    random_gates(gated, random.Random(3))
    gated.gates.log_alpha.data[:3] = -8.0
    return gated.eval()


def test_buffers_that_the_state_leaves_out_are_saved(tmp_path):
    model, x = Buffers(), torch.randn(8, 6)
    model.shift += 3.0
    small = lumos.compact(half_closed(model, x))
    assert len(small.model.scale) < 16
    small.save(tmp_path / "small")
    assert torch.equal(lumos.load(tmp_path / "small", Buffers()).eval()(x), small(x))


@pytest.mark.parametrize("build", [Buffers, Fold, Conditioned])
def test_compact_models_can_be_pickled(build):
    x = torch.randn(8, 6)
    small = lumos.compact(half_closed(build(), x))
    assert torch.equal(pickle.loads(pickle.dumps(small))(x), small(x))


def test_inputs_may_be_given_by_name():
    x, cond = torch.randn(8, 6), torch.randn(8, 3)
    gated = half_closed(Conditioned(), x, cond)
    small = lumos.compact(gated)
    for args, kwargs in (((x, cond), {}), ((x,), {"cond": cond}), ((), {"cond": cond, "x": x}), ((x,), {})):
        torch.testing.assert_close(small(*args, **kwargs), gated(*args, **kwargs))
    folded = lumos.compact(half_closed(Fold(), x))
    assert torch.equal(folded(x=x), folded(x))


def test_gate_takes_inputs_by_name():
    x, cond = torch.randn(8, 6), torch.randn(8, 3)
    names = [g.name for g in lumos.gate(Conditioned(), (x, cond)).structure.groups]
    assert [g.name for g in lumos.gate(Conditioned(), x, kwargs={"cond": cond}).structure.groups] == names
    gated = lumos.gate(Conditioned(), kwargs={"cond": cond, "x": x})
    assert [g.name for g in gated.structure.groups] == names
    assert [g.name for g in lumos.gate(Conditioned(), args=(x, cond)).structure.groups] == names
    for kwargs, message in (
        ({"x": x, "other": x}, "does not take these inputs: .*other"),
        ({"x": x, "shift": x}, "takes shift by name alone"),
        ({}, "there is no example"),
    ):
        with pytest.raises(StructureError, match=message):
            lumos.gate(Fold(), kwargs=kwargs)


def test_channels_last_stays():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).to(memory_format=torch.channels_last)
    small = lumos.compact(half_closed(model, torch.randn(2, 3, 8, 8)))
    weight = small.model[2].weight
    assert weight.shape[1] < 8
    assert weight.is_contiguous(memory_format=torch.channels_last)
