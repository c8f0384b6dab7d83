"""The engine and a run on the machine's device: a GPU where torch sees one, else the CPU."""

import random

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils import _pytree as pytree

import lumos
from lumos.suite import runner
from lumos.suite.config import read
from lumos.suite.workload_class import build_workload
from tests.configurations import composed
from tests.families import FAMILIES, each_family
from tests.networks import random_gates

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
quiet = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


def there(value):
    return pytree.tree_map_only(torch.Tensor, lambda t: t.to(DEVICE), value)


@quiet
@pytest.mark.parametrize(
    "name",
    [n if DEVICE.type == "cuda" or n == "ViT, fused attention" else pytest.param(n, marks=pytest.mark.slow)
     for n in FAMILIES if n in each_family()],
)  # fmt: skip
def test_gated_equals_compact_there(name):
    model, inputs = FAMILIES[name]()
    gated, inputs = lumos.gate(model.to(DEVICE), there(inputs)).eval(), there(inputs)
    random_gates(gated, random.Random(0))
    assert lumos.verify(gated, inputs).max_rel_diff < 1e-10
    small = lumos.compact(gated)
    assert {p.device.type for p in [*small.parameters(), *small.buffers()]} <= {DEVICE.type}
    for a, b in zip(pytree.tree_leaves(small(*inputs)), pytree.tree_leaves(gated(*inputs)), strict=True):
        assert a.device.type == b.device.type == DEVICE.type


def problem():
    torch.manual_seed(0)
    x = torch.rand(64, 6)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    return model.to(DEVICE), x.to(DEVICE), (x[:, :1] - 2 * x[:, 3:4]).to(DEVICE)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_loop_of_ones_own_ends_in_a_smaller_model_there(precision):
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3)
    pruner = lumos.Pruner(gated, optimizer, 30, lumos.Target(params=0.5))
    for _ in range(30):
        with torch.autocast(DEVICE.type, precision, enabled=precision is not None):
            loss = mse_loss(gated(x).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    small = pruner.finish()
    assert sum(p.numel() for p in small.parameters()) <= 0.5 * sum(p.numel() for p in model.parameters())
    assert small(x).device.type == DEVICE.type
    assert lumos.compare(model, small, x) is not None


def test_fit_measures_and_moves_there():
    model, x, y = problem()
    found = lumos.fit(model, (x.cpu(), y.cpu()), (x.cpu(), y.cpu()), mse_loss, lumos.Target(params=0.5), epochs=4,
                      batch_size=16, device=DEVICE)  # fmt: skip
    assert next(found.model.parameters()).device.type == DEVICE.type


@pytest.mark.slow
def test_a_run_takes_the_device_that_is_there(tmp_path):
    words = ["workload=synthetic", "scale=tiny", "trainer.device=auto", "lumos.target.params=0.5",
             "trainer.max_steps=12",
             f"paths.results={tmp_path}", f"paths.cache={tmp_path}"]  # fmt: skip
    config = read(composed(words))
    entry = runner.run(config, build_workload(composed(words)))
    assert entry["status"] == "finished", entry["error"]
    assert entry["compact"]["params"] <= 0.5 * entry["dense"]["params"]
