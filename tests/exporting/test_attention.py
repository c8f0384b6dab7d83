"""Attention whose dimensions are cut, and code that writes sizes as literals, as files for other programs."""

import subprocess
import sys

import pytest
import torch

import lumos
from lumos.compaction.layers import Resized
from tests.dependencies import PROJECT
from tests.families import separate_vit
from tests.tracing.test_attention import ON, closed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("file", [pytest.param("vit.pt2", marks=pytest.mark.slow), "vit.onnx"])
def test_cut_dimensions_are_exported_with_any_number_of_samples(file, tmp_path):
    """The model's code has ``len(h)``, and views whose literals the cut has exchanged: a trace must follow both."""
    torch.manual_seed(0)
    model, inputs = separate_vit("literal")
    small = lumos.compact(closed(lumos.gate(model, inputs, options=ON)))
    assert sum(isinstance(m, Resized) for m in small.modules()) == 2
    done = lumos.export(small, inputs, tmp_path / file)
    assert "len" not in vars(sys.modules[type(model).__module__])
    assert (done.inputs, done.outputs) == ({"x": ("batch", 1, 8, 8)}, {"output": ("batch", 3)})
    x = torch.randn(7, 1, 8, 8)
    if file == "vit.pt2":
        got = torch.export.load(tmp_path / file).module()(x)
    else:
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(tmp_path / file, providers=["CPUExecutionProvider"])
        got = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    torch.testing.assert_close(got, small(x).detach(), rtol=1e-5, atol=1e-6)


COUNTED = """
import sys, torch, lumos
from torch import nn

class Inner(nn.Module):
    def forward(self, x):
        return x.view(-1, 6, 4).flatten(1)

class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.inner, self.down, self.out = nn.Linear(4, 24), Inner(), nn.Conv1d(6, 5, 4), nn.Linear(5, 2)

    def forward(self, x, batch):
        h = self.inner(torch.relu(self.up(x))).view(-1, 6, 4)
        h = torch.relu(self.down(h)).squeeze(-1)
        return self.out(x.new_zeros(int(batch.max()) + 1, 5).index_add(0, batch, h))

model, inputs = Counted(), (torch.randn(10, 4), torch.tensor([0] * 5 + [1] * 5))
gated = lumos.gate(model, inputs).eval()
gated.gates.log_alpha.data[[g.start for g in gated.structure.groups if g.size == 6]] = -8.0
small = lumos.compact(gated)
print(sum(type(m).__name__.startswith("Resized") for m in small.modules()))
print(max(lumos.export(small, inputs, f"{sys.argv[1]}/counted.{kind}").max_rel_diff for kind in ("pt2", "onnx")) < 1e-5)
"""


@pytest.mark.slow
def test_counts_that_the_code_reads_beside_literals_are_exported(tmp_path):
    """``int(batch.max())`` needs torch's reading of bytecode, in a process without these tests' checks of annotations;
    the inner module's own views are exchanged in their turn."""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", COUNTED, str(tmp_path)], cwd=PROJECT,
                         capture_output=True, text=True)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["2", "True"]
