"""Layers with units gone compute what torch's own compute with those units at zero."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lumos
from lumos.compaction.layers import convert_layers
from lumos.compaction.probe import trace_and_probe
from lumos.tracing.options import StructureOptions
from tests.families import Net, PlainViT


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(("cross", "sizes"), [(False, {}), (True, {}), (True, {"kdim": 6, "vdim": 5})])
def test_attention_is_torchs(batch_first, need_weights, cross, sizes):
    attention = nn.MultiheadAttention(8, 4, batch_first=batch_first, **sizes).double().eval()
    query = torch.randn(3, 5, 8).double()
    key = torch.randn(3, 7, sizes.get("kdim", 8)).double() if cross else query
    value = torch.randn(3, 7, sizes.get("vdim", 8)).double() if cross else query
    padding = torch.zeros(3, key.shape[1]).double()
    padding[1, -2:] = -torch.inf
    mask = torch.randn(5, key.shape[1]).double()
    args = [t if batch_first else t.transpose(0, 1) for t in (query, key, value)]
    if not cross:
        args = [args[0]] * 3
    options = {"key_padding_mask": padding, "attn_mask": mask, "need_weights": need_weights}
    want, want_weights = attention(*args, **options)
    convert_layers(attention, {"": {"kind": "attention"}})
    got, weights = attention(*args, **options)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert (weights is None) == (want_weights is None)
    if weights is not None:
        torch.testing.assert_close(weights, want_weights, rtol=1e-12, atol=1e-12)


def test_unbatched_attention_and_a_mask_for_each_head():
    attention = nn.MultiheadAttention(8, 4).double().eval()
    x, mask = torch.randn(5, 8).double(), torch.rand(4, 5, 5) < 0.3
    mask[:, :, 0] = False
    want = attention(x, x, x, attn_mask=mask, average_attn_weights=False)
    convert_layers(attention, {"": {"kind": "attention"}})
    for a, b in zip(attention(x, x, x, attn_mask=mask, average_attn_weights=False), want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_stream_norm_is_the_norm_of_zeros_and_gates():
    """Of eight channels three are gone and one is half open: the norm of the full stream with zeros in their place."""
    norm = nn.LayerNorm(8).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    gates = torch.tensor([1, 0, 0.5, 1, 0, 1, 0, 1]).double()
    kept = gates.nonzero().squeeze(1)
    x = torch.randn(4, 3, 8).double()
    want = F.layer_norm(x * gates, (8,), norm.weight, norm.bias)[..., kept]
    weight, bias = norm.weight.detach()[kept], norm.bias.detach()[kept]
    convert_layers(norm, {"": {"kind": "norm", "width": 8}})
    norm.weight, norm.bias, norm.scale = nn.Parameter(weight), nn.Parameter(bias), gates[kept]
    torch.testing.assert_close(norm(x[..., kept]), want, rtol=1e-12, atol=1e-12)


def vit():
    return PlainViT(True), (torch.randn(2, 1, 8, 8),)


def test_streams_are_removable_where_asked_for():
    model, inputs = vit()
    plain = trace_and_probe(model, inputs)
    assert any("layer_norm" in f.reason for f in plain.fixed)
    streams = trace_and_probe(model, inputs, options=StructureOptions(streams=True))
    assert streams.group("patch").size == 16
    # the stream, and nothing else, is new
    assert streams.units == plain.units + 16


def test_each_linear_layer_gets_gates_of_its_own_where_asked_for():
    """Equation 11: queries, keys and values read the stream through gates of their own."""

    class Separate(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.q, self.k, self.v = nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.out = nn.Linear(6, 2)

        def forward(self, x):
            h = self.norm(x)
            a = F.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h))
            return self.out(a)

    gated = lumos.gate(Separate(), (torch.randn(2, 5, 6),), options=StructureOptions(private=True))
    sizes = {g.name: g.size for g in gated.structure.groups}
    assert sizes | {"q.input": 6, "k.input": 6, "v.input": 6} == sizes
    with torch.no_grad():
        gated.gates.log_alpha.fill_(3.0)
        gated.gates.log_alpha[gated.structure.group("k.input").gates][:4] = -8.0
    lumos.verify(gated, (torch.randn(3, 4, 6),))
    small = lumos.compact(gated)
    assert [small.model.get_submodule(n).weight.shape[1] for n in "qkv"] == [6, 2, 6]


class Fused(nn.Module):
    """An attention with queries, keys and values in one layer, behind a norm, on (batch, tokens, features)."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.qkv, self.out = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 2)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(self.embed(x))).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_features_of_tokens_are_selected_beside_gates_of_a_layers_own():
    private = StructureOptions(private=True)
    gated = lumos.gate(Fused(), torch.randn(4, 7, 6), options=private)
    assert {g.name: g.size for g in gated.structure.groups} == {"input": 6, "qkv": 2, "qkv.input": 8}
    gated.gates.log_alpha.data[[1, 4, -2]] = -8.0
    lumos.verify(gated.eval(), torch.randn(3, 5, 6))
    assert gated.kept_features() == ["x0", "x2", "x3", "x5"]


def test_an_input_that_can_have_no_gates_of_its_own_is_named():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.Linear(6, 8), layer, nn.Linear(8, 2))
    gated = lumos.gate(model, torch.randn(4, 7, 6), options=StructureOptions(private=True))
    assert gated.structure.group("input").size == 6
    (held,) = (f for f in gated.structure.fixed if f.name == "1.self_attn.in_proj_weight.input")
    assert "more than a linear layer's own product" in held.reason


def test_heads_of_torchs_attention_go_and_come_back_from_a_file(tmp_path):
    def build():
        return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 8, batch_first=True), 2).eval()

    torch.manual_seed(0)
    model, x = build(), torch.randn(2, 5, 16)
    model = Net(lambda m, x: m.head(m.encoder(x)), encoder=model, head=nn.Linear(16, 2))
    gated = lumos.gate(model, x).eval()
    heads = gated.structure.group("encoder.layers.0.self_attn")
    assert heads.size == 4
    with torch.no_grad():
        gated.gates.log_alpha.fill_(2.0)
        gated.gates.log_alpha[heads.gates][1:] = -8.0
    lumos.verify(gated, (x,))
    small = lumos.compact(gated)
    first = small.model.get_submodule("encoder.layers.0.self_attn")
    assert first.in_proj_weight.shape == (12, 16)
    assert first.num_heads == 1
    # what did not shrink is torch's own still
    assert type(small.model.get_submodule("encoder.layers.1.self_attn")) is nn.MultiheadAttention
    small.save(tmp_path / "compact.pt")
    back = lumos.load(tmp_path / "compact.pt", model).eval()
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        assert torch.equal(back(x), small(x))
        masked = back.model.encoder(x, src_key_padding_mask=padding)
    torch.testing.assert_close(masked[1, :3], back.model.encoder(x[1:, :3])[0])
