"""Dimensions of queries and keys within heads: what is cut, and that scores keep their scale."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lumos
from lumos.compaction.probe import trace_and_probe
from lumos.tracing.options import StructureOptions
from tests.families import FAMILIES, Net, SeparateAttention, separate_vit

ON = StructureOptions(query_key=True)


def closed(gated, seed=0, share=0.5):
    """Gates with a share of each group closed, and the others open by different amounts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for group in gated.structure.groups:
            values = torch.rand(group.size, generator=generator) * 4 - 0.5
            values[torch.randperm(group.size, generator=generator)[: int(share * group.size)]] = -8.0
            gated.gates.log_alpha[group.gates] = values
    return gated.eval()


def sizes(structure):
    return {g.name: g.size for g in structure.groups}


@pytest.mark.parametrize(
    ("scale", "heads"),
    [
        *(
            pytest.param(s, 4, marks=[] if s in ("number", "fused") else pytest.mark.slow)
            for s in SeparateAttention.SCALES
        ),
        pytest.param("fused", 2, marks=pytest.mark.slow),
        pytest.param("shape", 2, marks=pytest.mark.slow),
    ],
)
def test_queries_and_keys_lose_dimensions_and_scores_keep_their_scale(scale, heads, tmp_path):
    """However the model's code writes the scale: as a number, by its own attributes, by the queries' shape, in the
    fused call; and however it writes the sizes of its views."""
    torch.manual_seed(0)
    model, inputs = separate_vit(scale, heads=heads)
    gated = lumos.gate(model, inputs, options=ON)
    found = sizes(gated.structure)
    assert found["blocks.0.1.q.dims"] == 16 // heads
    assert found["blocks.0.1.v"] == heads
    for seed, share in enumerate((0.3, 0.8)):
        lumos.verify(closed(gated, seed, share), inputs)
    small = lumos.compact(closed(gated))
    layer = small.model.get_submodule("blocks.0.1")
    left = heads // 2 * (16 // heads // 2)
    assert layer.q.weight.shape == layer.k.weight.shape == (left, 16)
    assert layer.v.weight.shape == (8, 16)
    small.save(tmp_path / "compact.pt")
    back = lumos.load(tmp_path / "compact.pt", separate_vit(scale, heads=heads)[0]).eval()
    torch.testing.assert_close(back(*inputs), small(*inputs))


@pytest.mark.parametrize(
    "name", [pytest.param("ViT, matmul attention", marks=pytest.mark.slow), "ViT, fused attention", "ViT (timm)"]
)
def test_values_of_a_fused_layer_lose_the_same_dimensions(name):
    torch.manual_seed(0)
    model, inputs = FAMILIES[name]()
    gated = lumos.gate(model, inputs, options=ON)
    qkv = next(n for n, m in model.named_modules() if n.endswith("qkv"))
    width, heads = model.get_submodule(qkv).weight.shape[1], 4
    found = sizes(gated.structure)
    assert found[f"{qkv}.dims"] == width // heads
    assert found[f"{qkv.removesuffix('.qkv')}.heads"] == heads
    for seed, share in enumerate((0.3, 0.8)):
        lumos.verify(closed(gated, seed, share), inputs)
    small = lumos.compact(closed(gated))
    assert small.model.get_submodule(qkv).weight.shape == (3 * 2 * (width // heads // 2), width)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("cross", [True, False])
def test_torchs_attention_loses_dimensions_of_queries_and_keys_alone(need_weights, cross, tmp_path):
    def forward(m, x, y):
        x, y = m.a(x), m.b(y)
        y = y if cross else x
        return m.head(m.attention(x, y, y, need_weights=need_weights)[0])

    def build():
        layers = {"a": nn.Linear(5, 16), "b": nn.Linear(6, 16), "head": nn.Linear(16, 2)}
        return Net(forward, attention=nn.MultiheadAttention(16, 2, batch_first=True), **layers).eval()

    torch.manual_seed(0)
    model, inputs = build(), (torch.randn(2, 7, 5), torch.randn(2, 4, 6))
    gated = lumos.gate(model, inputs, options=ON)
    found = [g for g in gated.structure.groups if g.name.removesuffix(".dims") == "attention"]
    assert sorted((g.name.endswith(".dims"), g.size) for g in found) == [(False, 2), (True, 8)]
    assert "_width" not in vars(model.attention)
    for seed, share in enumerate((0.3, 0.8)):
        lumos.verify(closed(gated, seed, share), inputs)
    small = lumos.compact(closed(gated))
    assert len(small.model.get_submodule("attention").in_proj_weight) == 4 + 4 + 8
    small.save(tmp_path / "compact.pt")
    back = lumos.load(tmp_path / "compact.pt", build()).eval()
    torch.testing.assert_close(back(*inputs), small(*inputs))


@pytest.mark.slow
def test_a_gate_multiplies_scores_once():
    """Half-open dimensions: the scores of the model whose queries alone are multiplied."""
    torch.manual_seed(0)
    model, inputs = separate_vit("number")
    gated = lumos.gate(model, inputs, options=ON).eval()
    group = gated.structure.group("blocks.0.1.q.dims")
    with torch.no_grad():
        gated.gates.log_alpha.fill_(8.0)
        gated.gates.log_alpha[group.start] = 0.0  # a half
        want = gated(*inputs)
        layer = model.get_submodule("blocks.0.1.q")
        layer.weight[::4] *= 0.5
        layer.bias[::4] *= 0.5
        gated.gates.log_alpha.fill_(8.0)
        torch.testing.assert_close(gated(*inputs), want)


def test_costs_are_those_of_what_is_left():
    """A row that makes queries is there where its head and its dimension both are."""
    model, inputs = separate_vit("number")
    gated = closed(lumos.gate(model, inputs, options=ON))
    is_open = gated.gates.is_open().double()
    expected = gated.structure.expected_sizes(is_open)
    assert int(expected[0]) == sum(p.numel() for p in lumos.compact(gated).model.parameters())
    # and it is one product, to be differentiated by both
    p, q = torch.tensor(0.3), torch.tensor(0.6)
    gates = torch.ones(gated.structure.units)
    dims, heads = (gated.structure.group(f"blocks.0.1.{name}") for name in ("q.dims", "v"))
    dense = gated.structure.expected_sizes(gates)[0]
    gates[dims.start], gates[heads.start] = p, q
    rows = (3 + p) * (3 + q)
    gone = 2 * 17 * (16 - rows) + (17 + 16) * 4 * (1 - q)
    assert float(dense - gated.structure.expected_sizes(gates)[0]) == pytest.approx(float(gone), rel=1e-5)


def test_all_dimensions_or_all_heads_may_close():
    torch.manual_seed(0)
    for model, inputs in (separate_vit("fused"), FAMILIES["ViT, fused attention"]()):
        gated = lumos.gate(model, inputs, options=ON).eval()
        groups = [g for g in gated.structure.groups if g.name.startswith("blocks.0.1")]
        assert len(groups) == 2
        for some in (groups[:1], groups[1:], groups):
            with torch.no_grad():
                gated.gates.log_alpha.fill_(3.0)
                for group in some:
                    if group.optional:
                        gated.gates.log_alpha[group.gates] = -8.0
                    else:
                        gated.gates.log_alpha[group.start : group.stop - 1] = -8.0
            lumos.verify(gated, inputs)


def test_what_normalises_queries_holds_their_dimensions():
    class Normed(SeparateAttention):
        def __init__(self, dim, heads):
            super().__init__(dim, heads, "number")
            self.norm = nn.LayerNorm(dim // heads)

        def scores(self, q, k):
            return super().scores(self.norm(q), k)

    model, inputs = separate_vit("number")
    model.get_submodule("blocks.0")[1] = Normed(16, 4)  # type: ignore[index]
    structure = trace_and_probe(model, inputs, options=ON)
    reasons = {f.name: f.reason for f in structure.fixed}
    assert "ties the dimensions of each head, before matmul in blocks.0.1" in reasons["blocks.0.1.dims"]
    assert sizes(structure)["blocks.0.1.q"] == 4
    assert sizes(structure)["blocks.1.1.q.dims"] == 4


def test_shared_layers_and_single_heads():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            return F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))

    torch.manual_seed(0)
    x = torch.randn(2, 5, 6)
    shared = SeparateAttention(6, 2, "fused")
    twice = Net(lambda m, x: m.out(m.a(x + m.a(x))), a=shared, out=nn.Linear(6, 2))
    for model, names in (
        (Net(lambda m, x: m.out(m.a(x)), a=Once(), out=nn.Linear(6, 2)), {"a.q": 6, "a.v": 6}),
        (twice, {"a.q.dims": 3, "a.v": 2}),
    ):
        gated = lumos.gate(model, (x,), options=ON)
        found = sizes(gated.structure)
        assert found | names == found
        for seed in range(3):
            lumos.verify(closed(gated, seed), (x,))


def test_without_the_option_dimensions_go_with_their_head():
    structure = trace_and_probe(*separate_vit("number"))
    assert sizes(structure)["blocks.0.1.q"] == 4
    assert not len(structure.pairs)
    assert not structure.scales


@pytest.mark.slow
def test_training_reaches_both():
    torch.manual_seed(0)
    model, inputs = separate_vit("fused")
    gated = lumos.gate(model, inputs, options=ON).train()
    gated.penalty("params").backward()
    slope = gated.gates.log_alpha.grad
    assert slope is not None
    assert bool((slope > 0).all())
    assert math.isfinite(float(slope.sum()))
