"""Exported files: any number of samples, the same numbers, names inside, and clear refusals."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import lumos
from lumos.errors import ExportError
from lumos.exporting import METADATA, exportable
from lumos.exporting.checks import check, other_sizes
from lumos.exporting.program import input_names, sample_axis, trace_program
from tests.families import FAMILIES
from tests.networks import random_gates

NAMES = ["rho", "mx", "my", "mz", "E"]
PROJECT = Path(__file__).parents[2]
needs_compiler = pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler here")
# What onnxscript and onnx do when they are imported is theirs.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:`torch.jit.script` is deprecated")


@pytest.fixture(scope="module")
def small() -> lumos.CompactModel:
    """Five features of which three stay; ReLU alone, so that onnxruntime has all of it in float64."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    gated = lumos.gate(model, torch.randn(4, 5), features=NAMES)
    random_gates(gated, random.Random(2))
    gated.gates.log_alpha.data[:5] = torch.tensor([8.0, -8.0, 8.0, -8.0, 8.0])
    return lumos.compact(gated.eval())


def onnx_session(path: Path):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.slow
def test_pt2_in_a_process_without_lumos(small, tmp_path):
    done = lumos.export(small, torch.randn(4, 5), tmp_path / "small.pt2")
    assert (done.format, done.features, done.max_rel_diff) == ("pt2", ("rho", "my", "E"), 0.0)
    assert done.dynamic_axes == {"input": {0: "batch"}, "output": {0: "batch"}}
    x = torch.randn(37, 5)
    torch.save((x, small(x).detach()), tmp_path / "pair.pt")
    code = f"""
import json, sys, torch
sys.modules["lumos"] = None
described = {{{METADATA!r}: ""}}
function = torch.export.load("small.pt2", extra_files=described).module()
x, y = torch.load("pair.pt", weights_only=True)
assert all(torch.allclose(function(x[:n]), y[:n], rtol=1e-5, atol=1e-6) for n in (1, 2, 37))
print(described[{METADATA!r}])
"""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    described = json.loads(ran.stdout)
    assert (described["features"], described["takes"]) == (["rho", "my", "E"], "full inputs")
    assert described["inputs"] == [{"name": "input", "shape": ["batch", 5], "dtype": "float32"}]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pair.pt", "small.pt2"]


@pytest.mark.slow
def test_no_sample_of_the_example_is_in_the_file(small, tmp_path):
    """The archive holds the weights and no inputs: one example row more or less changes nothing."""
    sizes = []
    for rows in (2, 5000):
        lumos.export(small, torch.randn(rows, 5), tmp_path / "small.pt2")
        sizes.append((tmp_path / "small.pt2").stat().st_size)
    assert sizes[1] < sizes[0] + 1000


def test_onnx_with_names_and_both_precisions(small, tmp_path):
    x = torch.randn(37, 5)
    done = lumos.export(small, x[:4], tmp_path / "small.onnx")
    assert (done.inputs, done.outputs) == ({"input": ("batch", 5)}, {"output": ("batch", 2)})
    assert done.max_rel_diff < 1e-6
    assert done.max_rel_diff_float64 is not None
    assert done.max_rel_diff_float64 < 1e-14
    session = onnx_session(tmp_path / "small.onnx")
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("input", ["batch", 5])]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("output", ["batch", 2])]
    got = session.run(None, {"input": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(got), small(x).detach(), rtol=1e-5, atol=1e-6)
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["features"]) == ["rho", "my", "E"]
    assert json.loads(properties["lumos"])["takes"] == "full inputs"


def test_reduced_inputs_are_what_the_model_takes(small):
    x = torch.randn(3, 5)
    (less,) = small.reduced(x)
    assert torch.equal(less, x[:, [0, 2, 4]])
    model = lumos.CompactModel(small.model, small._inputs, small.features, select=False)
    assert torch.equal(model(less), small(x))


class Pooled(nn.Module):
    """As many graphs as the data says, read twice, as the virtual nodes of OGB's examples do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x, edge_index, batch):
        heard = torch.zeros(len(x), 3).index_add(0, edge_index[1], x[edge_index[0]])
        virtual = torch.zeros(int(batch[-1]) + 1, 4)
        pooled = x.new_zeros(int(batch.max()) + 1, 4).index_add(0, batch, self.inner(x + heard))
        return self.head(virtual + pooled)


def test_graphs_of_any_size(tmp_path):
    """Nodes, edges and, read out of the data, graphs: three axes with names, all free."""
    model = Pooled()
    inputs = torch.randn(10, 3), torch.randint(10, (2, 30)), torch.tensor([0] * 5 + [1] * 5)
    done = lumos.export(model, inputs, tmp_path / "pooled.pt2")
    assert done.inputs == {"x": ("nodes", 3), "edge_index": (2, "edges"), "batch": ("nodes",)}
    assert done.outputs == {"output": ("graphs", 2)}
    function = torch.export.load(tmp_path / "pooled.pt2").module()
    graphs = torch.tensor([0] * 2 + [1] * 4 + [2] + [3] * 5)
    other = torch.randn(12, 3), torch.randint(12, (2, 17)), graphs
    torch.testing.assert_close(function(*other), model(*other))
    assert function(*other).shape == (4, 2)


def test_dicts_tuples_and_names(tmp_path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, state, weights):
            y = self.a(state["u"]) * weights[0]
            return {"flux": y, "both": (y + state["v"], y.sum(1))}

    inputs = ({"u": torch.randn(4, 3), "v": torch.randn(4, 2)}, (torch.rand(4, 2),))
    done = lumos.export(Two(), inputs, tmp_path / "two.pt2", features=["u0", "u1", "u2"])
    assert done.inputs == {"state_u": ("batch", 3), "state_v": ("batch", 2), "weights_0": ("batch", 2)}
    assert done.outputs == {"output_flux": ("batch", 2), "output_both_0": ("batch", 2), "output_both_1": ("batch",)}
    assert done.features == ("u0", "u1", "u2")


@pytest.mark.parametrize(
    ("name", "shapes", "axis"),
    [
        ("x", [(4, 3)], 0),
        ("edge_index", [(2, 9)], 1),
        ("pairs", [(2, 9), (5, 3)], 1),  # an edge list beside five nodes
        ("tokens", [(2, 9)], 0),  # two samples of nine tokens
        ("columns", [(2, 9), (2, 3)], 0),
        ("scale", [()], None),
    ],
)
def test_the_axis_that_counts_samples(name, shapes, axis):
    kinds = [torch.randint(2, shapes[0]) if name not in ("x", "scale") else torch.rand(shapes[0])]
    inputs = [*kinds, *(torch.rand(s) for s in shapes[1:])]
    assert sample_axis(name, inputs[0], inputs) == axis


def test_names_of_inputs():
    class Net(nn.Module):
        def forward(self, x, *more):
            return x

    assert input_names(Net(), [(0,), (1,), (2, "edge_attr")]) == ("x", "input_1", "input_2_edge_attr")
    assert input_names(nn.ReLU(), [(0,)]) == ("input",)


class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x


class Constant(nn.Module):
    def forward(self, x):
        return x * torch.arange(float(x.shape[0].__index__()))[:, None].expand(4, 3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Branch(), r"Branch cannot be exported: .*at test_export.py:\d+ \(if x.sum\(\) > 0:\)"),
        (Constant(), r"Constant cannot be exported: x has a constant number of samples"),
        (nn.Linear(7, 2), r"Linear does not run on the example inputs: .*4x3 and 7x2"),
    ],
)
def test_what_cannot_be_exported(model, message, tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"an older file")
    with pytest.raises(ExportError, match=message) as caught:
        lumos.export(model, torch.randn(4, 3), tmp_path / "model.pt2")
    assert "\n" not in str(caught.value)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"an older file"]


def test_wrong_calls(small, tmp_path, monkeypatch):
    x = torch.randn(4, 5)
    with pytest.raises(ExportError, match=r"expected a file name that ends in \.pt2 or \.onnx"):
        lumos.export(small, x, tmp_path / "small.bin")
    with pytest.raises(ExportError, match=r"expected a file name that ends in \.pt2"):
        lumos.export(small, x, tmp_path / "small.onnx", format="aoti")
    with pytest.raises(ExportError, match=r"export lumos.compact\(gated\)"):
        lumos.export(lumos.gate(nn.Linear(5, 2), x), x, tmp_path / "small.pt2")
    with pytest.raises(ExportError, match="the example inputs have no tensor"):
        lumos.export(small, (), tmp_path / "small.pt2")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"ONNX files need onnxruntime: pip install 'lumos-sciml\[export\]'"):
        lumos.export(small, x, tmp_path / "small.onnx")
    assert exportable(small, x, "pt2") == "yes"
    assert exportable(Branch(), x, "pt2").startswith("Branch cannot be exported")
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_is_found_out(small):
    program = trace_program(small, torch.randn(4, 5))
    assert check(program, lambda inputs: [small(*inputs)]) == 0.0
    with pytest.raises(ExportError, match=r"with batch=1 .* differs from the model by 1.0e-0\d \(allowed 1e-04\)"):
        check(program, lambda inputs: [small(*inputs) * 1.001])
    with pytest.raises(ExportError, match=r"with batch=1 .* give the shapes \[\(2,\)\] and \[\(1, 2\)\]"):
        check(program, lambda inputs: [small(*inputs)[0]])
    with pytest.raises(ExportError, match=r"does not run with batch=1: no"):
        check(program, lambda inputs: (_ for _ in ()).throw(RuntimeError("no")))


def test_checked_sizes_are_not_the_examples():
    assert other_sizes({"batch": 4}) == [{"batch": 1}, {"batch": 9}]
    assert other_sizes({"nodes": 10, "edges": 30}) == [{"nodes": 21, "edges": 61}, {"nodes": 32, "edges": 92}]


@pytest.mark.slow
@needs_compiler
def test_a_compiled_package(small, tmp_path):
    done = lumos.export(small, torch.randn(4, 5), tmp_path / "small.pt2", format="aoti")
    assert done.format == "aoti"
    package = torch._inductor.aoti_load_package(str(tmp_path / "small.pt2"))
    assert json.loads(package.get_metadata()["features"]) == ["rho", "my", "E"]
    x = torch.randn(37, 5)
    torch.testing.assert_close(package(x), small(x).detach(), rtol=1e-5, atol=1e-6)


UNABLE: dict[tuple[str, str], str] = {}
"""Families that cannot be exported, by name and format, and why; all can."""

EVERY_FAMILY = """
import json, random, sys, lumos
from lumos.exporting import exportable
from tests.families import FAMILIES
from tests.networks import random_gates

found = {}
for name, build in FAMILIES.items():
    model, inputs = build()
    gated = lumos.gate(model, inputs).eval()
    random_gates(gated, random.Random(0))
    found[name] = exportable(lumos.compact(gated), inputs, sys.argv[1])
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_every_family(format):
    """In a process of its own: torch cannot read the code that executes annotations while these tests run."""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", EVERY_FAMILY, format], cwd=PROJECT,
                         capture_output=True, text=True)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {name: UNABLE.get((name, format), "yes") for name in FAMILIES}
