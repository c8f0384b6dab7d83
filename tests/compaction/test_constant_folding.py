"""Layers with units gone compute what torch's own compute with those units at zero."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lumos
from lumos.compaction.layers import convert_layers
from lumos.compaction.probe import trace_and_probe
from lumos.tracing.options import StructureOptions
from tests.families import FAMILIES, Net, PlainViT


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("cross", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_attention_is_torchs(batch_first, need_weights, cross, packed):
    sizes = {} if packed else {"kdim": 6, "vdim": 5}
    if not (packed or cross):
        pytest.skip("keys of another width are not the queries")
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


def closed(gated, *names):
    with torch.no_grad():
        gated.gates.log_alpha.fill_(3.0)
        for name in names:
            gated.gates.log_alpha[gated.structure.group(name).gates] = -8.0
    return gated


def test_a_residual_branch_with_nothing_left_is_a_constant(tmp_path):
    """Convolutions and norms of the branch go; what their biases added stays, to the last bit that float64 shows."""
    model, inputs = FAMILIES["CNN 2D, BN, residual, flatten"]()
    gated = closed(lumos.gate(model, inputs), "4.a")
    assert lumos.verify(gated, inputs).max_rel_diff <= 1e-14
    small = lumos.compact(gated)
    left = {name for name, _ in small.model.named_parameters() if name.startswith("4.")}
    assert left == {"4.a.value", "4.na.value", "4.b.value", "4.nb.value"}
    assert small.model.get_submodule("4.b")(torch.randn(2, 3, 5, 5)).shape == (2, 8, 5, 5)
    small.save(tmp_path / "compact.pt")
    back = lumos.load(tmp_path / "compact.pt", FAMILIES["CNN 2D, BN, residual, flatten"]()[0])
    other = torch.randn(5, 3, *inputs[0].shape[2:])
    assert torch.equal(back.eval()(other), small.eval()(other))


def test_a_block_of_a_transformer_goes_as_a_whole():
    model, inputs = vit()
    gated = closed(lumos.gate(model, inputs), "blocks.0.1.qkv", "blocks.1.3")
    lumos.verify(gated, inputs)
    small = lumos.compact(gated)
    assert {path for path in small.layers if path.count(".") == 2} == {
        "blocks.0.0", "blocks.0.1", "blocks.1.2", "blocks.1.3", "blocks.1.4"
    }  # fmt: skip
    assert [n for n, _ in small.model.get_submodule("blocks.0.1").named_parameters()] == ["value"]


def test_a_branch_whose_parameter_others_read_stays():
    """A constant in its place would not have the parameter."""

    def forward(m, x):
        h = m.first(x)
        return m.last(h + m.b(torch.relu(m.a(h))) * m.b.scale)

    branch = nn.Linear(5, 4)
    branch.register_parameter("scale", nn.Parameter(torch.randn(4)))
    model = Net(forward, first=nn.Linear(3, 4), a=nn.Linear(4, 5), b=branch, last=nn.Linear(4, 2))
    gated = closed(lumos.gate(model, torch.randn(3, 3)), "a")
    lumos.verify(gated, (torch.randn(4, 3),))
    assert type(lumos.compact(gated).model.get_submodule("b")) is nn.Linear


def test_a_convolution_with_nothing_left_in_a_group_that_is_open_holds_a_place():
    """Its channels are of one group with the image's, by the skip after the concatenation."""

    def forward(m, x):
        h = torch.cat([m.a(x), x], 1)
        return m.last(h + m.b(h)).mean((2, 3))

    model = Net(forward, a=nn.Conv2d(3, 2, 3, padding=1), b=nn.Conv2d(5, 5, 3, padding=1), last=nn.Conv2d(5, 4, 1))
    x = torch.randn(2, 3, 6, 6)
    gated = lumos.gate(model, x)
    units = gated.structure.maps["a.weight", 0] - 1
    (group,) = [g for g in gated.structure.groups if g.start <= int(units[0]) < g.stop]
    assert group.size > len(units)
    with torch.no_grad():
        gated.gates.log_alpha[units] = -8.0
    lumos.verify(gated, (x,))
    assert lumos.compact(gated).model.get_submodule("a").weight.shape[0] == 1


def test_what_the_network_cannot_do_without_is_protected():
    """Each of two parallel branches may go, both may not; in a chain nothing may."""
    chain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    assert not any(g.optional for g in trace_and_probe(chain, torch.randn(2, 3)).groups)
    two = Net(
        lambda m, x: m.c(torch.relu(m.a(x))) + m.d(torch.relu(m.b(x))),
        a=nn.Linear(3, 4), b=nn.Linear(3, 4), c=nn.Linear(4, 1), d=nn.Linear(4, 1),
    )  # fmt: skip
    gated = lumos.gate(two, torch.randn(2, 3))
    assert {g.name for g in gated.structure.groups if g.optional} == {"a", "b"}
    closed(gated, "a").project()
    assert not gated.gates.is_open()[gated.structure.group("a").gates].any()
    closed(gated, "a", "b").project()
    assert gated.structure.dataflow.outputs_depend_on_inputs(gated.structure.closed_axes(gated.gates.is_open()))
    lumos.verify(gated, (torch.randn(4, 3),))


def test_kept_widths_are_rounded_up_where_asked_for():
    gated = lumos.gate(nn.Sequential(nn.Linear(5, 20), nn.ReLU(), nn.Linear(20, 1)), torch.randn(2, 5))
    with torch.no_grad():
        gated.gates.log_alpha.fill_(-8.0)
        gated.gates.log_alpha[[0, 1, 7, 11, 19]] = 3.0
        gated.gates.log_alpha[9] = -3.0
    gated.align(4)
    is_open = gated.gates.is_open()
    hidden = gated.structure.group("0").gates
    assert int(is_open[hidden].sum()) == 4
    assert bool(is_open[9])
    assert is_open[gated.structure.group("input").gates].tolist() == [True, True, False, False, False]


class Tables(nn.Module):
    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, 8) for n in (5, 6, 7))
        self.a, self.b = nn.Linear(8, 9), nn.Linear(9, 2)

    def forward(self, x):
        return self.b(torch.relu(self.a(sum(table(x[:, i]) for i, table in enumerate(self.tables)))))


def test_a_whole_table_is_a_feature(tmp_path):
    """The column that indexes a closed table is not read; the model takes full columns or only those that are left."""
    x = torch.stack([torch.randint(n, (10,)) for n in (5, 6, 7)], 1)
    gated = lumos.gate(Tables(), x, features=["kind", "charge", "ring"]).eval()
    assert gated.structure.group("input").size == 3
    with torch.no_grad():
        gated.gates.log_alpha.fill_(3.0)
        gated.gates.log_alpha[[0, 2]] = -8.0
    lumos.verify(gated, (x,))
    small = lumos.compact(gated)
    assert small.features == ["charge"]
    assert [t.weight.shape[0] for t in small.model.tables] == [1, 6, 1]
    other = x.clone()
    other[:, [0, 2]] = 0
    with torch.no_grad():
        assert torch.equal(small(x), small(other))
        assert torch.equal(lumos.compact(gated, select=False)(x[:, 1:2]), small(x))
        small.save(tmp_path / "compact.pt")
        assert torch.equal(lumos.load(tmp_path / "compact.pt", Tables())(x), small(x))


def test_whole_numbers_that_are_values_are_no_features():
    model = Net(lambda m, x: m.b(torch.relu(m.a(x.float()))), a=nn.Linear(3, 4), b=nn.Linear(4, 1))
    structure = trace_and_probe(model, torch.randint(5, (6, 3)))
    assert [g.kind for g in structure.groups] == ["hidden"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_features_of_a_graph_object():
    from torch_geometric.data import Batch, Data

    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.nodes, self.a, self.b = Tables().tables, nn.Linear(4, 8), nn.Linear(8, 1)

        def forward(self, data):
            h = sum(table(data.x[:, i]) for i, table in enumerate(self.nodes))
            message = torch.relu(h[data.edge_index[0]] + self.a(data.edge_attr))
            return self.b(h + torch.zeros_like(h).index_add(0, data.edge_index[1], message))

    x = torch.stack([torch.randint(n, (10,)) for n in (5, 6, 7)], 1)
    data = Batch.from_data_list([Data(x=x, edge_index=torch.randint(10, (2, 20)), edge_attr=torch.randn(20, 4))] * 2)
    gated = lumos.gate(Graph(), data).eval()
    paths = {s.path: len(s.units.unique()) for s in gated.structure.inputs}
    assert paths == {(0, "x"): 3, (0, "edge_attr"): 4}
    closed_units = torch.cat([s.units[:2] for s in gated.structure.inputs]) - 1
    with torch.no_grad():
        gated.gates.log_alpha.fill_(3.0)
        gated.gates.log_alpha[closed_units] = -8.0
    lumos.verify(gated, (data,))
    assert len(lumos.compact(gated).features) == 3
    assert data.x.equal(torch.cat([x, x]))
