"""The probe: what closes can be cut, whatever closes beside it."""

import math
import random
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lumos
from lumos.compaction.closings import closings, part_draws
from lumos.compaction.difference import difference, gap_between
from lumos.compaction.noise import EqualNoise
from lumos.compaction.trial import with_distinct_features, with_telling_weights
from lumos.errors import CompactionError, StructureError
from lumos.tracing.trace_structure import trace_structure
from tests.networks import random_gates


def closed(gated: lumos.GatedModel, **kept: int) -> lumos.GatedModel:
    """Keep so many units of the named groups, and all of the others."""
    gated.gates.log_alpha.data.fill_(8.0)
    for name, number in kept.items():
        group = gated.structure.group(name)
        gated.gates.log_alpha.data[group.start : group.stop - number] = -8.0
    return gated.eval()


class Counted(nn.Module):
    """Two layers whose blocks are counted by one attribute."""

    def __init__(self, blocks=8):
        super().__init__()
        self.blocks = blocks
        self.a, self.b = nn.Linear(5, 4 * blocks), nn.Linear(5, 4 * blocks)
        self.c, self.d = nn.Linear(4 * blocks, 3), nn.Linear(4 * blocks, 3)

    def forward(self, x):
        u = self.a(x).view(len(x), self.blocks, -1).softmax(-1).flatten(1)
        v = self.b(x).view(len(x), self.blocks, -1).softmax(-1).flatten(1)
        return self.c(u) + self.d(v)


@pytest.mark.parametrize(("a", "b"), [(4, 4), (4, 8), (8, 4), (7, 8), (2, 6)])
def test_groups_that_one_attribute_counts(a, b):
    x = torch.randn(16, 5)
    lumos.verify(closed(lumos.gate(Counted(), x), a=a, b=b), x)


class Biases(nn.Module):
    """A number for each two places and each head, whose shape is in a tuple; its caller asks a method for it."""

    def __init__(self, places, heads):
        super().__init__()
        self.shape = (places, places, heads)
        self.table = nn.Parameter(torch.randn(2 * places, heads))
        self.register_buffer("index", torch.randint(2 * places, (places * places,)))

    def get(self):
        return self.table[self.index].view(self.shape).permute(2, 0, 1)


class Biased(nn.Module):
    """Attention over a row of numbers whose scores have biases of heads."""

    def __init__(self, heads=4, size=3):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(1, 3 * heads * size), nn.Linear(heads * size, 1)
        self.biases = Biases(5, heads)

    def forward(self, x):
        q, k, v = self.qkv(x[..., None]).view(len(x), 5, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) + self.biases.get()).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))[..., 0]


class Blocks(nn.Module):
    """Blocks that are alike."""

    runs = 0

    def __init__(self, make, number):
        super().__init__()
        self.blocks = nn.ModuleList(make() for _ in range(number))
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        Blocks.runs += 1
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


@pytest.mark.parametrize(
    "make", [lambda: nn.Sequential(nn.Linear(5, 5), Counted(), nn.Linear(3, 5)), Biased], ids=["counted", "biased"]
)
def test_blocks_that_are_alike_are_probed_together(make):
    def found(number):
        Blocks.runs = 0
        structure = lumos.gate(Blocks(make, number), torch.randn(16, 5)).structure
        return Blocks.runs, sum(g.name.startswith("blocks.") for g in structure.groups)

    (few, groups), (many, more) = found(2), found(6)
    # One by one, each block would take ten to twenty more; the optional groups of six are closed in more turns.
    assert few < 40
    assert many <= few + 12
    assert more == 3 * groups > 0


def test_one_attribute_for_two_sizes_is_an_error_of_the_cut():
    x = torch.randn(16, 5)
    gated = lumos.gate(Counted(), x)
    sizes = tuple(replace(s, attributes=("blocks",), literal=False) for s in gated.structure.sizes)
    gated.structure = replace(gated.structure, sizes=sizes)
    with pytest.raises(CompactionError, match=r"blocks of the model stands for two sizes .* 4 and 6"):
        lumos.compact(closed(gated, a=4, b=6))


class CutInParts(nn.Module):
    """Layers whose outputs are put together and cut apart again, by sizes that the code writes in some way."""

    def __init__(self, how):
        super().__init__()
        self.how, self.widths = how, [8, 6]
        self.a, self.b = nn.Linear(5, 8), nn.Linear(5, 8 if how in ("half", "number") else 6)
        self.c, self.d = nn.Linear(8, 3), nn.Linear(self.b.out_features, 3)

    def forward(self, x):
        h = torch.cat([self.a(x), self.b(x)], 1).relu()
        if self.how == "half":
            u, v = h.split(h.shape[1] // 2, 1)
        elif self.how == "number":
            u, v = torch.split(h, 8, dim=1)
        elif self.how == "sizes":
            u, v = torch.split(h, [8, 6], 1)
        else:
            u, v = h.split(self.widths, dim=-1)
        return self.c(u) + self.d(v)


@pytest.mark.parametrize("how", ["half", "number", "sizes", "attribute"])
def test_parts_of_a_split_lose_unequal_shares(how, tmp_path):
    x = torch.randn(16, 5)
    gated = lumos.gate(CutInParts(how), x)
    assert [g.name for g in gated.structure.groups] == ["input", "a", "b"]
    for seed in range(6):
        random_gates(gated, random.Random(seed))
        lumos.verify(gated.eval(), x)
    small = lumos.compact(closed(gated, a=3, b=5))
    small.save(tmp_path / "small.safetensors")
    back = lumos.load(tmp_path / "small.safetensors", CutInParts(how))
    torch.testing.assert_close(back(x), small(x))
    assert (small.model.c.in_features, small.model.d.in_features) == (3, 5)


class OneWidth(nn.Module):
    """Attention over places whose stream and whose heads have one width, kept in one attribute."""

    def __init__(self):
        super().__init__()
        self.heads, self.inner_dim = 4, 16
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1)
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
        self.out = nn.Linear(16, 16)

    def forward(self, x):
        h = self.first(x)
        b, c, *places = h.shape
        y = h.view(b, c, -1).transpose(1, 2)
        q, k, v = (f(y).view(b, -1, self.heads, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, -1, self.heads * 4)
        return self.last((h + self.out(y).transpose(1, 2).reshape(b, c, *places)).relu())


def test_groups_of_units_of_other_sizes_get_unequal_shares():
    """Two heads of four dimensions are as many as eight channels: that hid which one an attribute counts."""
    x = torch.randn(2, 3, 4, 4)
    structure = trace_structure(OneWidth(), (x,))
    stream, heads = (next(g for g in structure.groups if g.size == size) for size in (16, 4))
    for draw in part_draws(structure):
        assert draw[stream.name] != 4 * draw[heads.name]
    gated = lumos.gate(OneWidth(), x)
    assert {g.size for g in gated.structure.groups} >= {16, 4}
    for kept in ({stream.name: 7}, {heads.name: 1}, {stream.name: 5, heads.name: 3}):
        lumos.verify(closed(gated, **kept), x)


def test_groups_that_meet_get_unequal_numbers():
    structure = trace_structure(CutInParts("half"), (torch.randn(4, 5),))
    draws = part_draws(structure)
    assert any(draw["a"] != draw["b"] for draw in draws)
    assert all(any(draw[g.name] < g.size for draw in draws) for g in structure.groups)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.i, self.t, self.o = nn.Linear(5, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)

    def forward(self, x):
        return self.o(self.t(self.i(x)))


class Shifted(nn.Module):
    """An attention that has an attribute of the name that a constant once used for its own."""

    def __init__(self, dim):
        super().__init__()
        self.dim, self.heads = dim, 2
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Windows(nn.Module):
    def __init__(self):
        super().__init__()
        self.i, self.o = nn.Linear(5, 2), nn.Linear(2, 3)
        self.norm, self.attn = nn.LayerNorm(2), Shifted(2)

    def forward(self, x):
        x = self.i(x)
        return self.o(x + self.attn(self.norm(x)))


@pytest.mark.parametrize("build", [Encoder, Windows])
def test_each_optional_group_can_be_closed_alone_and_with_others(build):
    x = torch.randn(4, 6, 5)
    gated = lumos.gate(build(), x)
    optional = [g.name for g in gated.structure.groups if g.optional]
    assert optional
    for names in [*([name] for name in optional), optional]:
        lumos.verify(closed(gated, **dict.fromkeys(names, 0)), x)


def test_every_optional_group_is_closed_while_its_neighbours_are_not():
    structure = lumos.gate(Encoder(), torch.randn(4, 6, 5)).structure
    optional = [g.name for g in structure.groups if g.optional]
    trials = closings(structure)
    for name, beside in zip(optional, optional[1:], strict=False):
        assert any(name in t.whole and beside in t.parts for t in trials)
        assert any(beside in t.whole and name in t.parts for t in trials)


class PastTheGates(nn.Module):
    """Reads a weight without asking its module for it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(x))) + torch.relu(self.a(x)) @ self.b._parameters["weight"].t()


def test_weights_read_past_the_gates_hold_their_units():
    structure = lumos.gate(PastTheGates(), torch.randn(8, 5)).structure
    assert [g.name for g in structure.groups] == ["input"]


class Variational(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.mu, self.dec, self.out = nn.Linear(6, 16), nn.Linear(16, 4), nn.Linear(4, 16), nn.Linear(16, 6)

    def forward(self, x):
        mu = self.mu(F.dropout(torch.relu(self.enc(x)), 0.2, training=True))
        z = mu + torch.randn_like(mu) + torch.normal(0.0, 1.0, mu.shape) + torch.empty_like(mu).uniform_(-1, 1)
        return self.out(torch.relu(self.dec(z)))


def test_noise_in_eval_mode_is_drawn_equally():
    x = torch.randn(8, 6)
    gated = lumos.gate(Variational(), x)
    assert {g.name: g.size for g in gated.structure.groups} == {"input": 6, "enc": 16, "mu": 4, "dec": 16}
    random_gates(gated, random.Random(1))
    lumos.verify(gated.eval(), x)


def test_equal_noise_is_noise():
    with EqualNoise():
        draws = [torch.randn(3), torch.randn(2), torch.rand(2), torch.zeros(2).normal_(5.0, 0.1)]
        kept = F.dropout(torch.ones(3), 0.5)
    assert all(len(d.unique()) == 1 for d in draws)
    assert len({float(d[0]) for d in draws}) == 4
    assert 4 < float(draws[3][0]) < 6
    assert torch.equal(kept, torch.ones(3))


class Overwrites(nn.Module):
    """Writes into what it is given."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 2)

    def forward(self, batch):
        batch["x"].mul_(2.0).add_(1.0)
        batch["more"] = batch["x"]
        return self.b(torch.relu(self.a(batch["x"])))


def test_inputs_that_the_model_writes_into_stay():
    batch = {"x": torch.randn(8, 6)}
    before = batch["x"].clone()
    gated = lumos.gate(Overwrites(), batch)
    lumos.verify(gated.eval(), batch)
    assert [g.size for g in gated.structure.groups] == [6, 16]
    assert torch.equal(batch["x"], before)
    assert list(batch) == ["x"]


@pytest.mark.parametrize(
    "x", [torch.zeros(8, 3), torch.ones(8, 3), torch.linspace(0.1, 1, 8)[:, None].expand(8, 3), torch.ones(1, 3)]
)
def test_examples_that_show_nothing_are_changed(x):
    model = nn.Linear(3, 2)
    structure = trace_structure(model, (x,))
    (changed,) = with_distinct_features((x,), structure)
    assert len(torch.unique(changed.T, dim=0)) == 3
    distinct = torch.randn(8, 3)
    assert with_distinct_features((distinct,), structure)[0] is distinct


class Nothing(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x):
        return self.a(x)[:0]


def test_an_example_without_output_is_refused():
    with pytest.raises(StructureError, match="returns tensors without any value for the example"):
        lumos.gate(Nothing(), torch.randn(4, 3))


def test_difference_sees_shapes_and_infinities():
    assert difference(torch.ones(2), torch.ones(3))[1] == math.inf
    assert difference(torch.ones(2), torch.tensor([1.0, math.nan]))[1] == math.inf
    assert difference(torch.tensor([1.0, math.inf]), torch.tensor([1.0, -math.inf]))[1] == math.inf
    odd = torch.tensor([1.0, math.nan, math.inf])
    assert difference(odd, odd.clone()) == (0.0, 0.0)
    assert difference(torch.tensor([4.0, 2.0]), torch.tensor([4.0, 1.0])) == (1.0, 0.25)


def test_difference_judges_columns_and_compares_other_tensors_as_they_are():
    big = torch.tensor([[1e6, 4.0], [2e6, 3.0]], dtype=torch.float64)
    off = big + torch.tensor([0.0, 1.0])
    assert difference(big, off)[1] == pytest.approx(1 / (2e6 * 1e-4))
    assert difference(big[:, 1:], off[:, 1:])[1] == 0.25
    assert difference(torch.tensor([True, False]), torch.tensor([True, True]))[1] == math.inf
    assert difference(torch.tensor([1, 2]), torch.tensor([1, 2]))[1] == 0.0
    assert difference({"a": torch.ones(1)}, {"b": torch.ones(1)})[1] == math.inf
    assert difference((), ())[1] == math.inf


def test_small_columns_do_not_hide_in_low_precision():
    x = torch.tensor([[1e6, 1.0], [2e6, 2.0]])
    assert gap_between(x, x + torch.tensor([0.0, 0.5])).hides
    assert not gap_between(x, x.clone()).hides


class AsManyHeadsAsDimensions(nn.Module):
    """Four heads of four dimensions each: what the code divides by is a number that might be either."""

    def __init__(self, scale: float, beside: bool) -> None:
        super().__init__()
        self.num_heads = self.head_dim = 4
        self.beside = beside
        self.embed, self.qkv, self.out, self.head = (nn.Linear(*s) for s in ((6, 16), (16, 48), (16, 16), (16, 2)))
        self.positions = nn.Parameter(torch.randn(5, 16))
        with torch.no_grad():
            for layer in (self.embed, self.qkv, self.out, self.head):
                layer.weight.normal_(std=scale)

    def forward(self, x):
        mean, x = x.mean(dim=(1, 2), keepdim=True), self.embed(x) + self.positions
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k, v = (t.view(*t.shape[:2], -1, self.head_dim).transpose(1, 2) for t in (q, k, v))
        scores = (q @ k.transpose(-2, -1) * 0.5).softmax(-1)
        out = self.head(x + self.out((scores @ v).transpose(1, 2).reshape(*x.shape[:2], -1)))
        return out + mean if self.beside else out


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("scale", [0.3, 0.02, 0.002])
def test_what_hardly_counts_at_first_is_tried(scale, beside):
    """With small weights scores are all but equal, whichever way heads are read; a training makes them differ.

    What passes ``beside`` the network lets all that it makes of its input go: then no head says anything of another.
    """
    torch.manual_seed(0)
    x = torch.randn(3, 5, 6)
    gated = lumos.gate(AsManyHeadsAsDimensions(scale, beside), x)
    assert gated.structure.group("embed").optional == beside
    with torch.no_grad():
        gated.model.qkv.weight.normal_()
        gated.gates.log_alpha[gated.structure.group("qkv").start] = -8.0
    small = lumos.compact(gated.eval())
    assert small.model.head_dim == 4
    lumos.verify(gated, (x,))


def test_weights_are_made_telling_unless_that_ends_in_infinity():
    torch.manual_seed(0)
    x = torch.randn(4, 3)
    plain, small = nn.Linear(3, 3), nn.Linear(3, 3)
    small.weight.data.mul_(1e-3)
    for model, factor in ((nn.Sequential(plain), 1.0), (nn.Sequential(small), None), (Explosive(small), 1.0)):
        told = with_telling_weights(model, trace_structure(model, (x,)), (x,))
        ratio = (next(told.parameters()) / next(model.parameters())).detach()
        assert float(ratio.min()) == pytest.approx(float(ratio.max()))
        if factor is None:
            assert next(told.parameters()).square().mean().item() == pytest.approx(1 / 3)  # values of size one stay so
        else:
            assert float(ratio.max()) == factor


class Explosive(nn.Module):
    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return (300 * self.layer(x)).exp()


class SinglePrecisionOnly(nn.Module):
    """Has an operator that refuses float64, as grouped products of experts do."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, x):
        if x.dtype == torch.float64:
            raise RuntimeError("Expected Float32")
        return self.last(self.first(x).relu())


def test_models_that_run_in_single_precision_alone_are_compared_in_it():
    x = torch.randn(16, 5)
    gated = closed(lumos.gate(SinglePrecisionOnly(), x), first=3)
    assert lumos.verify(gated, x).dtype == "float32"
    with pytest.raises(CompactionError, match=r"does not run on these inputs: RuntimeError: .*mat1"):
        lumos.verify(gated, torch.randn(16, 4))


class Chain(nn.Module):
    """Branches in a chain: what closes behind one may hide what closes in it."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 4)) for _ in range(6))

    def forward(self, x):
        for part in self.parts:
            x = x + part(x)
        return x


def test_few_optional_groups_are_each_closed_alone():
    structure = lumos.gate(Chain(), torch.randn(8, 4)).structure
    optional = {g.name for g in structure.groups if g.optional}
    assert len(optional) == 6
    assert {c.whole for c in closings(structure) if c.whole} == {frozenset([name]) for name in optional}


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::DeprecationWarning")
def test_parts_that_take_no_hooks_do_not_hide_where_models_differ():
    x = torch.randn(16, 5)
    model = nn.Sequential(nn.Linear(5, 6), torch.jit.script(nn.ReLU()), nn.Linear(6, 2))
    with pytest.raises(CompactionError, match="gated and compact differ"):
        lumos.verify(lumos.gate(model, x), x, tolerance=-1.0)
