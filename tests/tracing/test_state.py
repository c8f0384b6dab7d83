"""A trace leaves nothing on anyone: the model, its tensors, its classes and the inputs are as they were."""

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lumos
from lumos.errors import StructureError
from lumos.tracing.multihead_attention import PrunedAttention, decompose_attention
from lumos.tracing.protection import TensorProtection
from lumos.tracing.tensor_table import TensorTable
from lumos.tracing.trace_structure import trace_structure
from tests.families import FAMILIES, Net
from tests.structures import Snapshot, assert_same_structure

quiet = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

FEW = (
    "MLP + BN + skip", "GCN, virtual node, JK cat", "TransformerEncoder (torch)", "shared weights, dict out, in place",
)  # fmt: skip
KINDS = [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]


class Raises(nn.Module):
    """A model that runs, stores what it found, and raises."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args):
        self.kept = self.inner(*args)
        self.inner.found = self.kept
        self.eval()
        raise RuntimeError("after all")


@quiet
@pytest.mark.parametrize("name", KINDS)
def test_every_family_is_left_as_it_was_and_gated_twice_alike(name):
    model, inputs = FAMILIES[name]()
    before = Snapshot(model, inputs)
    text = lumos.explain(model, inputs)
    before.assert_unchanged()
    first = lumos.gate(model, inputs).structure
    before.assert_unchanged()
    assert_same_structure(first, lumos.gate(model, inputs).structure)
    assert lumos.explain(model, inputs) == text
    before.assert_unchanged()


@quiet
@pytest.mark.parametrize("name", KINDS)
def test_a_forward_that_raises_leaves_every_family_as_it_was(name):
    inner, inputs = FAMILIES[name]()
    model = Raises(inner).train()
    before = Snapshot(model, inputs)
    with pytest.raises(StructureError, match="the model does not run on the example: RuntimeError: after all"):
        lumos.gate(model, inputs)
    before.assert_unchanged()
    assert_same_structure(lumos.gate(inner, inputs).structure, lumos.gate(FAMILIES[name]()[0], inputs).structure)


class Returned(nn.Module):
    """Calls that return the parameter itself: what one trace knows of it is nothing to the next one."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.a, self.b, self.out = nn.Linear(10, 16), nn.Linear(16, 16), nn.Linear(16, 2)
        self.scale = nn.Parameter(torch.randn(16))

    def forward(self, x):
        scale = {
            "float": lambda: self.scale.float(),
            "to": lambda: self.scale.to(x.dtype),
            "contiguous": lambda: self.scale.contiguous(),
            "itself": lambda: self.scale,
        }[self.how]()
        return self.out(torch.relu(self.b(torch.relu(self.a(x)) * scale)))


@pytest.mark.parametrize("shape", [(4, 10), (4, 7, 10)])
@pytest.mark.parametrize("how", ["float", "to", "contiguous", "itself"])
def test_calls_that_return_a_parameter_itself(how, shape):
    """With three dimensions the model is traced twice: features along dimension 1, or along the last one."""
    model, x = Returned(how), torch.randn(shape)
    before = Snapshot(model, (x,))
    for _ in range(3):
        structure = lumos.gate(model, x).structure
        assert {g.name: g.size for g in structure.groups} == {"input": 10, "a": 16, "b": 16}
        assert [f.name for f in structure.fixed] == ["out"]
        before.assert_unchanged()


WRITES = {
    "attribute": (lambda m, h: setattr(m, "kept", h), set()),
    "list": (lambda m, h: m.history.append(h), set()),
    "buffer": (lambda m, h: setattr(m, "known", h[0].detach()), set()),
    "in place": (lambda m, h: m.known.copy_(h[0]), {"known"}),
    "view": (lambda m, h: m.known.view(3, 4)[1:].add_(1), {"known"}),
    "item": (lambda m, h: m.known.__setitem__(2, 7.0), {"known"}),
    "out": (lambda m, h: torch.add(h[0], h[0], out=m.known), {"known"}),
    "data": (lambda m, h: setattr(m.known, "data", h[0]), {"known"}),
    "inplace=True": (lambda m, h: F.relu(m.known, inplace=True), {"known"}),
    "statistics": (lambda m, h: F.batch_norm(h, m.mean, m.var, training=True), {"mean", "var"}),
    "parameter": (lambda m, h: m.b.weight.mul_(2), {"b.weight"}),
    "flag": (lambda m, h: m.b.weight.requires_grad_(False), {"b.weight"}),
    "max_norm": (lambda m, h: h.add_(m.a(m.table(torch.arange(1)))), {"table.weight"}),
    "eval": (None, {"a.weight"}),
    "nothing": (None, set()),
}
"""What a model does with its first layer's output or before, and the names of the tensors that it writes into."""


class Writes(nn.Module):
    """A model that writes into what it has while it runs, or when it goes to eval mode."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 2)
        self.table = nn.Embedding(4, 6, max_norm=0.1 if how == "max_norm" else None)
        self.history = []
        for name in ("known", "mean", "var"):
            self.register_buffer(name, torch.rand(12) + 1)

    def train(self, mode=True):
        super().train(mode)
        if self.how == "eval" and not mode:
            self.a.weight.data += 1
        return self

    def forward(self, x):
        h = self.a(x)
        write = WRITES[self.how][0]
        if write is not None:
            write(self, h)
        return self.b(torch.relu(h))


@pytest.mark.parametrize("how", WRITES)
def test_what_a_model_writes_while_it_is_traced_is_taken_back(how):
    model, x = Writes(how), torch.randn(5, 6)
    before = Snapshot(model, (x,))
    structure = trace_structure(model, (x,))
    before.assert_unchanged()
    assert structure.written == WRITES[how][1]
    assert {g.name: g.size for g in structure.groups}["a"] == 12
    lumos.explain(model, x)  # the probe runs the model, too
    before.assert_unchanged()


def test_a_model_that_writes_into_its_input_is_traced_on_a_copy():
    x = torch.randn(5, 6)
    before = Snapshot(nn.Identity(), (x,))
    assert trace_structure(Net(lambda m, x: m.a(x.mul_(2)), a=nn.Linear(6, 3)), (x,)).units == 6
    before.assert_unchanged()


def test_a_model_that_kept_an_activation_of_a_training_step_is_traced():
    model, x = Writes("attribute"), torch.randn(5, 6)
    model(x).sum().backward()
    kept = model.kept
    assert trace_structure(model, (x,)).group("a").size == 12
    assert model.kept is kept


def test_what_cannot_be_copied_is_an_error_of_one_line():
    model = Net(lambda m, x: m.a(x), a=nn.Linear(3, 2))
    model.open = (i for i in range(3))
    with pytest.raises(StructureError, match=r"Net cannot be copied \(TypeError"):
        trace_structure(model, (torch.randn(4, 3),))


def test_parameters_without_a_size_are_an_error_of_one_line():
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    with pytest.raises(StructureError, match=r"0.weight has no size yet; run the model once"):
        lumos.gate(model, torch.randn(3, 5))
    assert type(model[0]) is nn.LazyLinear


def test_decomposed_attention_is_torchs_own():
    inner = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    want = inner(x, x, x)[0]
    model = nn.ModuleList([inner])
    assert decompose_attention(model) == ["0"]
    assert type(inner) is PrunedAttention
    torch.testing.assert_close(inner(x, x, x)[0], want)


def test_a_tensor_table_holds_no_tensor_alive_and_takes_no_equal_for_the_same():
    table, x = TensorTable(), torch.zeros(3)
    table.set(x, 1)
    assert table.get(torch.zeros(3)) is None
    assert table.get(x.relu_()) == 1
    assert x.view(3) not in table
    table.set(x, 2)
    assert (table.get(x), len(table)) == (2, 1)
    del x
    gc.collect()
    assert len(table) == 0


def test_protection_gives_back_shared_storage_gradients_and_flags():
    base = torch.arange(6.0)
    first, second = nn.Parameter(base[:3]), base[3:]
    first.grad = torch.ones(3)
    protection = TensorProtection([first, second])
    with protection, torch.no_grad():
        first.mul_(5)
        first.requires_grad_(False)
        first.grad = None
        int(second[0])
    protection.restore()
    assert first in protection
    assert base.tolist() == [0, 1, 2, 3, 4, 5]
    assert first.requires_grad
    assert first.grad is not None
