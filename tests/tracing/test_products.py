"""Products written with letters, stacked weights, and other layers that multiply: what goes, and that it is exact."""

import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lumos
from lumos.tracing.rules.products import Letters
from tests.families import Net
from tests.networks import random_gates
from tests.tracing.test_forms_of_attention import assert_exact


def mlp(n, out):
    return nn.Sequential(nn.Linear(n, 9), nn.Tanh(), nn.Linear(9, out))


def deeponet(equation):
    return Net(lambda m, x: torch.einsum(equation, m.b(x), m.t(x)), b=mlp(6, 8), t=mlp(6, 8))


def weight(*shape):
    return nn.Parameter(torch.randn(*shape) / shape[-1] ** 0.5)


class Weights(Net):
    """Layers, and parameters without a module."""

    def __init__(self, run, weights, **layers):
        super().__init__(run, **layers)
        for name, value in weights.items():
            setattr(self, name, value)


def attention(m, x):
    q, k, v = (layer(x).unflatten(-1, (4, 3)) for layer in (m.q, m.k, m.v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
    return m.o(torch.einsum("bhqk,bkhd->bqhd", scores, v).flatten(2))


def linear_attention(m, x):
    q, k, v = (layer(x).unflatten(-1, (4, 3)) for layer in (m.q, m.k, m.v))
    memory = torch.einsum("bnhd,bnhe->bhde", k.sigmoid(), v)
    return m.o(torch.einsum("bnhd,bhde->bnhe", q.sigmoid(), memory).reshape(*x.shape[:2], -1))


def heads():
    return {"q": nn.Linear(6, 12), "k": nn.Linear(6, 12), "v": nn.Linear(6, 12), "o": nn.Linear(12, 2)}


def additive(m, x):
    """Bahdanau's: a vector of parameters times what a layer makes, summed."""
    scores = (m.w * m.a(x).tanh()).sum(-1, keepdim=True).softmax(1)
    return m.o((scores * m.v(x)).sum(1))


def shifted(m, x):
    spectrum = torch.fft.fftshift(torch.fft.fft2(m.a(x)), dim=(-2, -1))
    return m.o(torch.fft.ifft2(torch.fft.ifftshift(2 * spectrum, dim=(-2, -1))).real)


def experts(m, x):
    """A mixture of three experts: stacked weights, and a router whose choice stays whole."""
    h = torch.einsum("nd,edh->neh", m.a(x), m.w1).relu()
    each = torch.einsum("neh,eho->neo", h, m.w2)
    return (m.router(x).softmax(-1).unsqueeze(-1) * each).sum(1)


def spline(m, x):
    basis = torch.stack([x, x.sin(), x.square()], -1)
    hidden = torch.einsum("bif,oif->bo", basis, m.w1)
    return torch.einsum("bif,oif->bo", torch.stack([hidden, hidden.sin()], -1), m.w2)


def own_places(m, x):
    """A stack of layers, each of which reads a part of what comes before."""
    h = torch.einsum("...ij,...j->...i", m.w1, m.a(x).view(-1, 3, 5)).tanh()
    return torch.einsum("...ij,...j->...i", m.w2, h).sum(1)


X, TOKENS, IMAGE = (5, 6), (3, 5, 6), (3, 6, 4, 4)
MODELS = {
    "branch and trunk": (lambda: deeponet("bp,np->bn"), X, {"b.2": 8}),
    "branch and trunk, dots": (lambda: deeponet("...p,...p->..."), X, {"b.2": 8}),
    "branch and trunk, implicit": (lambda: deeponet("bp, bp"), X, {}),
    "branch and trunk, tensordot": (
        lambda: Net(lambda m, x: torch.tensordot(m.b(x), m.t(x), dims=([1], [1])), b=mlp(6, 8), t=mlp(6, 8)), X,
        {"b.2": 8},
    ),
    "attention": (lambda: Net(attention, **heads()), TOKENS, {"q": 4, "input": 6}),
    "linear attention": (lambda: Net(linear_attention, **heads()), TOKENS, {"input": 6}),
    "mixture of experts": (
        lambda: Weights(experts, {"w1": weight(3, 7, 8), "w2": weight(3, 8, 2)}, a=nn.Linear(6, 7),
                        router=nn.Linear(6, 3)), X, {"a": 7, "w1": 8},
    ),
    "splines": (lambda: Weights(spline, {"w1": weight(8, 6, 3), "w2": weight(2, 8, 2)}), X, {"input": 6, "w1": 8}),
    "a weight by tensordot": (
        lambda: Weights(lambda m, x: m.o(torch.tensordot(x, m.w, 1).relu()), {"w": weight(6, 8)}, o=nn.Linear(8, 2)), X,
        {"input": 6, "w": 8},
    ),
    "scores of heads by a vector": (
        lambda: Weights(lambda m, x: m.o(torch.einsum("nhd,hd->nh", m.a(x).unflatten(-1, (4, 3)), m.w)),
                        {"w": weight(4, 3)}, a=nn.Linear(6, 12), o=nn.Linear(4, 2)), X, {"a": 4},
    ),
    "additive attention": (
        lambda: Weights(additive, {"w": weight(8)}, a=nn.Linear(6, 8), v=nn.Linear(6, 7), o=nn.Linear(7, 2)), TOKENS,
        {"input": 6, "a": 8, "v": 7},
    ),
    "scores by a row": (
        lambda: Weights(lambda m, x: m.o((m.a(x).tanh() @ m.w.t()).sigmoid() * m.v(x)), {"w": weight(1, 8)},
                        a=nn.Linear(6, 8), v=nn.Linear(6, 7), o=nn.Linear(7, 2)), X, {"a": 8, "v": 7},
    ),
    "a stack of matrices": (
        lambda: Weights(lambda m, x: torch.matmul(torch.matmul(x, m.w1).relu(), m.w2).mean(0),
                        {"w1": weight(3, 6, 8), "w2": weight(3, 8, 2)}), X, {"input": 6, "w1": 8},
    ),
    "a stack that reads units of its own": (
        lambda: Weights(own_places, {"w1": weight(3, 8, 5), "w2": weight(3, 2, 8)}, a=nn.Linear(6, 15)), X,
        {"input": 6, "a": 5, "w1": 8},
    ),
    "a product that is added": (
        lambda: Net(lambda m, x: m.o(torch.baddbmm(m.a(x), m.w(x).softmax(-1), m.v(x)).relu()), a=nn.Linear(6, 8),
                    v=nn.Linear(6, 8), w=nn.Linear(6, 5), o=nn.Linear(8, 2)), TOKENS, {"input": 6, "a": 8},
    ),
    "patches": (
        lambda: Net(lambda m, x: m.o(F.fold(F.unfold(m.a(x), 2, stride=2).relu(), (4, 4), 2, stride=2)),
                    a=nn.Conv2d(6, 8, 1), o=nn.Conv2d(8, 2, 1)), IMAGE, {"a": 8},
    ),
    "a shifted spectrum": (lambda: Net(shifted, a=nn.Conv2d(6, 8, 1), o=nn.Conv2d(8, 2, 1)), IMAGE, {"a": 8}),
    "nothing is written": (
        lambda: Net(lambda m, x: m.o(m.a(x).relu().index_copy(0, torch.zeros(0, dtype=torch.int64), m.b(x[:0]))),
                    a=nn.Linear(6, 8), b=nn.Linear(6, 8), o=nn.Linear(8, 2)), X, {"a": 8},
    ),
    "glu": (lambda: Net(lambda m, x: m.o(F.glu(m.a(x))), a=nn.Linear(6, 16), o=nn.Linear(8, 2)), X, {"a": 8}),
    "glu of channels": (
        lambda: Net(lambda m, x: m.o(m.g(m.a(x))), a=nn.Conv2d(6, 16, 1), g=nn.GLU(1), o=nn.Conv2d(8, 2, 1)), IMAGE,
        {"a": 8},
    ),
    "depthwise transposed": (
        lambda: nn.Sequential(nn.Conv2d(6, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 16, 2, 2, groups=8), nn.ReLU(),
                              nn.Conv2d(16, 2, 1)), IMAGE, {"0": 8},
    ),
    "grouped transposed": (
        lambda: nn.Sequential(nn.Conv2d(6, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 12, 2, 2, groups=2), nn.ReLU(),
                              nn.Conv2d(12, 2, 1)), IMAGE, {"0": 4, "2": 6},
    ),
}  # fmt: skip


def made(name):
    torch.manual_seed(0)
    model, shape, groups = MODELS[name]
    return model().double(), torch.randn(shape).double(), groups


@pytest.mark.parametrize("name", MODELS)
def test_what_goes_and_that_it_is_exact(name):
    model, x, groups = made(name)
    gated = lumos.gate(model, x)
    sizes = {g.name: g.size for g in gated.structure.groups}
    assert sizes | groups == sizes
    for seed in (1, 3, 7, 9):  # an eighth to a half of the gates
        random_gates(gated, random.Random(seed))
        gated.eval()
        whole = gated(x)
        assert whole.abs().max() > 1e-5
        torch.testing.assert_close(lumos.compact(gated)(x), whole, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("branch")])
def test_a_product_keeps_what_it_sums_over(name):
    """Without any of it nothing of the input would be left."""
    model, x, _ = made(name)
    gated = lumos.gate(model, x)
    assert not gated.structure.group("b.2").optional
    gated.gates.log_alpha.data.copy_(torch.linspace(-4, -3, gated.structure.units))
    gated.project()
    assert int(gated.gates.is_open()[gated.structure.group("b.2").gates].sum()) == 1


@pytest.mark.parametrize("name", MODELS)
def test_costs_are_those_that_torch_counts(name):
    """Before and after, the structure's multiply-accumulates and those of torch's own counter are the same."""
    model, x, _ = made(name)
    gated = lumos.gate(model, x)
    structure = gated.structure
    assert structure.dense_sizes[1] == pytest.approx(counted(model, x))
    with torch.no_grad():
        gated.gates.log_alpha.copy_(torch.where(torch.arange(structure.units) % 2 == 0, -9.0, 9.0))
    gated.project()
    sizes = structure.expected_sizes(structure.with_placeholders(gated.gates.is_open()).double())
    small = lumos.compact(gated.eval())
    assert float(sizes[0]) == sum(p.numel() for p in small.model.parameters())
    assert float(sizes[1]) == pytest.approx(counted(small, x))


def counted(model, x):
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() / 2


def test_both_sides_of_a_bilinear_layer_lose_units():
    torch.manual_seed(0)
    model = Net(lambda m, x: m.o(m.w(m.a(x).tanh(), m.b(x).tanh())), a=nn.Linear(6, 8), b=nn.Linear(6, 7),
                w=nn.Bilinear(8, 7, 9), o=nn.Linear(9, 2))  # fmt: skip
    gated = lumos.gate(model, torch.randn(5, 6))
    assert {g.name: g.size for g in gated.structure.groups} == {"input": 6, "a": 8, "b": 7, "w": 9}
    assert gated.structure.dense_sizes[1] == 5 * (6 * 8 + 6 * 7 + 8 * 7 * 9 + 9 * 2)
    assert_exact(gated, torch.randn(5, 6))


class FlagMasked(nn.Linear):
    """A layer of a flow that is written by flags: which outputs may read which inputs."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.rand(outputs, inputs) > 0.4)

    def forward(self, x):
        return F.linear(x, self.mask * self.weight, self.bias)


def test_flags_that_mask_a_weight_are_cut_with_it():
    torch.manual_seed(0)
    model = nn.Sequential(FlagMasked(6, 9), nn.Tanh(), FlagMasked(9, 8), nn.Tanh(), nn.Linear(8, 2))
    gated = lumos.gate(model, torch.randn(5, 6))
    assert {g.name: g.size for g in gated.structure.groups} == {"input": 6, "0": 9, "2": 8}
    assert_exact(gated, torch.randn(5, 6))


def test_a_bag_of_words_loses_columns():
    torch.manual_seed(0)
    model = Net(lambda m, x: m.o(m.e(x).relu()), e=nn.EmbeddingBag(20, 16), o=nn.Linear(16, 2)).double()
    x = torch.randint(0, 20, (5, 7))
    gated = lumos.gate(model, x)
    assert {g.name: g.size for g in gated.structure.groups} == {"e": 16}
    gated.gates.log_alpha.data[::2] = -9.0
    small = lumos.compact(gated.eval())
    assert small.model.e.weight.shape == (20, 8)
    torch.testing.assert_close(small(x), gated(x), rtol=0, atol=1e-12)


@settings(max_examples=60)
@given(st.data())
def test_letters_say_what_torch_computes(data):
    """An equation with dots or without a result, and the one with a letter for each dimension, are one product."""
    sizes = {c: data.draw(st.integers(1, 3), label=c) for c in "abcd"}
    dots = [data.draw(st.integers(1, 3)) for _ in range(data.draw(st.integers(0, 2)))]
    of = ["".join(data.draw(st.permutations("abcd"))[: data.draw(st.integers(1, 3))]) for _ in range(2)]
    with_dots = [data.draw(st.booleans()) for _ in of]
    operands, parts = [], []
    for letters, dotted in zip(of, with_dots, strict=True):
        shape = [*(dots if dotted else []), *(sizes[c] for c in letters)]
        operands.append(torch.randn(shape, dtype=torch.float64))
        parts.append("..." * dotted + letters)
    out = "".join(data.draw(st.permutations(sorted(set(of[0] + of[1])))))[: data.draw(st.integers(0, 3))]
    equation = ",".join(parts) + (f"->{'...' * any(with_dots)}{out}" if data.draw(st.booleans()) else "")
    found = Letters.of(equation, operands)
    assert found is not None
    plain = f"{','.join(found.operands)}->{found.out}"
    torch.testing.assert_close(torch.einsum(plain, *operands), torch.einsum(equation, *operands))


def test_a_sparse_matrix_is_an_input_without_features():
    model = Net(lambda m, x, a: a @ m.o((a @ m.a(x)).relu()), a=nn.Linear(6, 8), o=nn.Linear(8, 2)).double()
    x, a = torch.randn(5, 6).double(), (torch.rand(5, 5) < 0.5).double().to_sparse()
    gated = lumos.gate(model, (x, a))
    assert {g.name: g.size for g in gated.structure.groups} == {"input": 6, "a": 8}
    gated.gates.log_alpha.data[::2] = -9.0
    torch.testing.assert_close(lumos.compact(gated.eval())(x, a), gated(x, a), rtol=0, atol=1e-12)


def test_columns_of_a_dense_graph_are_places():
    """They stay, and nothing else does: the layers lose their units."""
    model = Net(lambda m, x, a: a @ m.o((a @ m.a(x)).relu()), a=nn.Linear(6, 8), o=nn.Linear(8, 2)).double()
    x, a = torch.randn(5, 6).double(), (torch.rand(5, 5) < 0.5).double()
    gated = lumos.gate(model, (x, a))
    assert {g.name: g.size for g in gated.structure.groups} == {"input0": 6, "a": 8}
    assert [f.reason[:19] for f in gated.structure.fixed if f.name == "input1"] == ["meets places: matmul"[:19]]
    gated.gates.log_alpha.data[::2] = -9.0
    torch.testing.assert_close(lumos.compact(gated.eval())(x, a), gated(x, a), rtol=0, atol=1e-12)


def test_a_diagonal_is_held_with_the_reason():
    model = Net(lambda m, x: m.o(torch.einsum("bii->bi", m.a(x).unflatten(-1, (3, 3)))), a=nn.Linear(6, 9),
                o=nn.Linear(3, 2))  # fmt: skip
    structure = lumos.gate(model, torch.randn(5, 6)).structure
    assert {g.name for g in structure.groups} == {"input"}
    assert any("there is no rule for einsum" in f.reason for f in structure.fixed)
