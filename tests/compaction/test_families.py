"""Every family traces, gates, trains, compacts, matches to 1e-10 and reads back, with nothing written per model."""

import random
from functools import cache

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

import lumos
from lumos.tracing.costs import countable
from tests.families import FAMILIES, each_family
from tests.networks import random_gates

GROUPS = {
    "MLP + BN + skip": {"input": 7, "a": 12},
    "MLP + LayerNorm": {"input": 7, "3": 9},
    "CNN 2D, BN, residual, flatten": {"input": 3, "0": 8, "4.a": 16, "5": 6},
    "CNN 1D, BN, residual, flatten": {"input": 3, "0": 8, "4.a": 16, "5": 6},
    "CNN 3D, BN, residual, flatten": {"input": 3, "0": 8, "4.a": 16, "5": 6},
    "CNN 1D, GroupNorm": {"input": 3, "0": 4, "4.a": 4, "5": 6},
    "CNN 3D, GroupNorm": {"input": 3, "0": 4, "4.a": 4, "5": 6},
    # blocks of two channels for GroupNorm(4, 8), of four for GroupNorm(4, 16)
    "CNN, GroupNorm": {"input": 3, "0": 4, "4.a": 4, "5": 6},
    "DenseNet": {"input": 3, "a": 8, "b": 4, "c": 4},
    "squeeze-excite, depthwise": {"input": 3, "a": 8, "down": 4},
    # four groups lose the same places
    "grouped convolution": {"input": 3, "0": 2, "2": 3, "5": 5},
    "VGG, flatten": {"input": 3, "0": 6, "3": 8, "8": 16},
    "UNet, bilinear and transposed": {"input": 2, "a.0": 4, "a.3": 4, "b.0": 8, "b.3": 8, "c.0": 12, "c.3": 12, "up": 6,
                                      "d.0": 8, "d.3": 8, "e.0": 4, "e.3": 4},
    # 96 numbers are 6 channels of 4 x 4
    "autoencoder, Linear -> view(-1) -> convT": {"input": 1, "conv": 4, "encode": 8, "decode": 6},
    "embedding + FC": {"input": 3, "table": 6, "a": 8},
    "GIN, virtual node, JK last": {"input": 5, "atoms": 8, "convs.0.mlp.0": 16, "vn.0": 16, "convs.1.mlp.0": 16},
    "GCN, virtual node, JK cat": {"input": 5, "atoms": 8, "vn.0": 16},
    "SAGE (PyG)": {"input0": 6, "a.lin_l": 8, "b.lin_l": 8},
    "GAT (PyG)": {"input0": 6, "a.lin": 4, "b.lin": 8},
    # heads are units, also where there are as many heads as dimensions in a head
    "ViT, matmul attention": {"input": 1, "blocks.0.1.qkv": 4, "blocks.0.3": 24, "blocks.1.1.qkv": 4, "blocks.1.3": 24},
    "ViT, fused attention": {"input": 1, "blocks.0.1.qkv": 4, "blocks.0.3": 24, "blocks.1.1.qkv": 4, "blocks.1.3": 24},
    "ViT (timm)": {"input": 1, "blocks.0.attn.qkv": 4, "blocks.0.mlp.fc1": 96, "blocks.1.attn.qkv": 4,
                   "blocks.1.mlp.fc1": 96},
    "TransformerEncoder (torch)": {"input": 5, "encoder.layers.0.self_attn": 4, "encoder.layers.0.linear1": 32,
                                   "encoder.layers.1.self_attn": 4, "encoder.layers.1.linear1": 32},
    "LSTM between linear layers": {"input": 4, "a": 10, "b": 6, "lstm": 8, "c": 10},
    "autoencoder, Linear -> view(6, 4, 4) -> convT": {"input": 1, "conv": 4, "encode": 8, "decode": 6},
    "GRU between linear layers": {"input": 4, "a": 10, "b": 6, "gru": 8, "c": 10},
    "dict and tuple in, tuple out, unwrapped parameters": {"input0.x": 4, "input1.0": 2, "input1.1": 3, "a": 8, "w": 6},
    "MultiheadAttention (torch), across two inputs": {"input0": 3, "input1": 5, "x": 12, "attention": 3, "mlp": 7},
    "FNO 2D": {"input": 2, "lift": 8, "spectral": 8, "down": 12},
    "FNO 1D": {"input": 2, "lift": 8, "spectral.0": 8, "spectral.1": 8, "down": 12},
    "shared weights, dict out, in place": {"input0": 4, "a": 9},
}  # fmt: skip


@cache
def gated_family(name):
    """A family's model, its inputs, and the gated one, for tests that only read or set its gates."""
    model, inputs = FAMILIES[name]()
    return model.eval(), inputs, lumos.gate(model, inputs)


quiet = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


@quiet
@pytest.mark.parametrize("name", GROUPS)
def test_units_are_what_they_should_be(name):
    _, _, gated = gated_family(name)
    assert {g.name: g.size for g in gated.structure.groups} == GROUPS[name]


@quiet
@pytest.mark.parametrize("name", each_family())
def test_gated_equals_compact(name, tmp_path):
    model, inputs = FAMILIES[name]()
    gated = lumos.gate(model, inputs)
    optimizer = torch.optim.Adam(gated.parameters(), lr=0.01)
    for _ in range(3):
        outputs = [t for t in pytree.tree_leaves(gated.train()(*inputs)) if t.is_floating_point()]
        loss = sum(t.square().mean() for t in outputs) + 1e-3 * gated.penalty("params")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gated.project()
    for seed in range(3):
        random_gates(gated, random.Random(seed))
        lumos.verify(gated, inputs)
    small = lumos.compact(gated.eval())
    small.save(tmp_path / "compact.pt")
    back = lumos.load(tmp_path / "compact.pt", FAMILIES[name]()[0]).eval()
    with torch.no_grad():
        for a, b in zip(pytree.tree_leaves(small(*inputs)), pytree.tree_leaves(back(*inputs)), strict=True):
            assert torch.equal(a, b)


@quiet
@pytest.mark.parametrize("name", each_family())
def test_costs_are_exact(name):
    """The expected parameters and MACs of a closed-or-open network are those of the compact one."""
    model, inputs, gated = gated_family(name)
    gated.eval()
    assert gated.structure.dense_sizes[0] == sum(p.numel() for p in model.parameters())
    random_gates(gated, random.Random(7))
    with torch.no_grad():
        # A group that closed altogether costs nothing; its place in the shapes, or the constant it leaves, costs a few.
        gated.gates.log_alpha[[g.start for g in gated.structure.closed_groups(gated.gates.is_open())]] = 1.0
    parameters, macs = gated.structure.expected_sizes(gated.gates.is_open().double())
    small = lumos.compact(gated)
    assert int(parameters) == sum(p.numel() for p in small.parameters())
    with torch.no_grad(), countable(), FlopCounterMode(display=False) as counter:
        small(*inputs)
    assert float(macs) == pytest.approx(counter.get_total_flops() / 2, rel=0.01)


@quiet
@pytest.mark.parametrize("name", each_family())
def test_macs_are_those_that_torch_counts(name):
    """Products with weights and with one another, fused and recurrent ones."""
    model, inputs, gated = gated_family(name)
    with torch.no_grad(), countable(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    assert gated.structure.dense_sizes[1] == pytest.approx(counter.get_total_flops() / 2, rel=0.01)


@quiet
@pytest.mark.parametrize(
    "name",
    [n if n in ("UNet, bilinear and transposed", "autoencoder, Linear -> view(6, 4, 4) -> convT")
     else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES if n != "GAT (PyG)"],
)  # fmt: skip
def test_a_compact_model_is_cut_again(name, tmp_path):
    """What the first cut wrote in place of a size is the size that the second one finds."""
    model, inputs = FAMILIES[name]()
    for seed in range(3):
        gated = lumos.gate(model, inputs).eval()
        random_gates(gated, random.Random(seed))
        small = lumos.compact(gated)
        again = lumos.gate(small, inputs).eval()
        random_gates(again, random.Random(seed + 50))
        lumos.verify(again, inputs)
        smaller = lumos.compact(again).eval()
        smaller.save(tmp_path / "smaller.pt")
        back = lumos.load(tmp_path / "smaller.pt", small).eval()
        with torch.no_grad():
            for a, b in zip(pytree.tree_leaves(smaller(*inputs)), pytree.tree_leaves(back(*inputs)), strict=True):
                assert torch.equal(a, b)
