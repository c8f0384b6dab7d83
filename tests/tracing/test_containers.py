"""What models take and return: objects of any class that hold tensors."""

import dataclasses
from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lumos
from lumos.errors import StructureError
from lumos.tracing.containers import map_tensors, tensors_in
from lumos.tracing.inputs import input_tensors


def graph(**values):
    from torch_geometric.data import Data  # it warns when it is imported

    return Data(**values)


@dataclasses.dataclass(frozen=True)
class Frozen:
    y: torch.Tensor


class Own:
    def __init__(self, y):
        self.y, self.me = y, self


Named = namedtuple("Named", "y")
WRAPS = {
    "dataclass": lambda y: Frozen(y),
    "namespace": lambda y: SimpleNamespace(y=y),
    "own class": Own,
    "named tuple": Named,
    "graph": lambda y: graph(y=y),
    "nested": lambda y: {"out": [(Frozen(y),)]},
    "ordered dict": lambda y: OrderedDict(y=y),
}


class Net(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.hidden, self.head, self.wrap = nn.Linear(6, 16), nn.Linear(16, 4), wrap

    def forward(self, x):
        return self.wrap(self.head(torch.relu(self.hidden(x))))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", WRAPS)
def test_tensors_in_what_a_model_returns_are_outputs(name):
    x = torch.randn(8, 6)
    gated = lumos.gate(Net(WRAPS[name]), x)
    assert [g.name for g in gated.structure.groups] == ["input", "hidden"]
    gated.gates.log_alpha.data[::2] = -8.0
    lumos.verify(gated.eval(), x)
    (out,) = tensors_in(lumos.compact(gated)(x))
    assert out.shape == (8, 4)


def test_a_model_that_returns_no_tensor_is_refused():
    with pytest.raises(StructureError, match=r"the model returns no tensor \(str\) for the example"):
        lumos.gate(Net(lambda y: "done"), torch.randn(8, 6))


class FromRecord(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.hidden, self.head, self.read = nn.Linear(6, 16), nn.Linear(16, 4), read

    def forward(self, batch):
        return self.head(torch.relu(self.hidden(self.read(batch))))


def hetero(x):
    from torch_geometric.data import HeteroData

    found = HeteroData()
    found["cell"].x = x
    found["cell"].y = torch.randn(8, 3)
    found.unused = torch.randn(8, 2)
    return found


@dataclasses.dataclass
class Batch:
    x: torch.Tensor
    label: torch.Tensor


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize(
    ("make", "read"),
    [
        (lambda x: Batch(x, torch.randn(8, 3)), lambda b: b.x),
        (lambda x: SimpleNamespace(x=x, label=torch.randn(8, 3)), lambda b: b.x),
        (lambda x: {"label": torch.randn(8, 3), "x": x}, lambda b: b["x"]),
        (lambda x: graph(x=x, y=torch.randn(8, 3)), lambda b: b.x),
        (hetero, lambda b: b["cell"].x),
    ],
)
def test_only_tensors_that_the_model_reads_are_inputs(make, read, tmp_path):
    batch = make(torch.randn(8, 6))
    before = {path: t.clone() for path, t in input_tensors((batch,)).items()}
    model = FromRecord(read)
    gated = lumos.gate(model, batch, features=list("abcdef"))
    assert [g.size for g in gated.structure.groups if g.kind == "feature"] == [6]
    assert not [f for f in gated.structure.fixed if f.name.startswith("input")]
    gated.gates.log_alpha.data[1:3] = -8.0
    lumos.verify(gated.eval(), batch)
    small = lumos.compact(gated)
    assert small.features == ["a", "d", "e", "f"]
    small.save(tmp_path / "small")
    assert torch.equal(lumos.load(tmp_path / "small", model).eval()(batch), small(batch))
    assert all(torch.equal(t, before[path]) for path, t in input_tensors((batch,)).items())


def test_what_does_not_change_is_not_copied():
    value = (Frozen(torch.zeros(1)), SimpleNamespace(a=3), "text", None)
    assert map_tensors(value, lambda _, t: t) is value
    changed = map_tensors(value, lambda _, t: t + 1)
    assert changed[1] is value[1]
    assert float(changed[0].y) == 1.0
    assert float(value[0].y) == 0.0
