"""Attention as people write it: how heads are made of an axis, what is added to scores, what turns or norms queries."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lumos
from lumos.tracing.options import StructureOptions
from lumos.tracing.trace_structure import trace_structure
from tests.networks import random_gates

HEADS, SIZE, WIDTH, ROWS = 4, 6, 24, 7


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * angles.cos() + torch.cat([-b, a], -1) * angles.sin()


class RMSNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Attention(nn.Module):
    """One fused layer for queries, keys and values; ``how`` says in which way the rest is written."""

    bias: Tensor
    table: Tensor
    index: Tensor

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.num_heads, self.head_dim = how, HEADS, SIZE
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH, bias=how != "cat bias"), nn.Linear(WIDTH, WIDTH)
        self.extra()

    def extra(self) -> None:
        if self.how in ("mask", "mask added"):
            self.bias = nn.Parameter(torch.randn(HEADS, ROWS, ROWS))
        if self.how == "table":
            self.table = nn.Parameter(torch.randn(2 * ROWS - 1, HEADS))
            places = torch.arange(ROWS)
            self.register_buffer("index", places[:, None] - places + ROWS - 1, persistent=False)
        if self.how == "cat bias":
            self.q_bias, self.v_bias = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.randn(WIDTH))
            self.register_buffer("k_bias", torch.zeros(WIDTH), persistent=False)
        if self.how == "rotary":
            self.register_buffer("inv_freq", 10.0 ** -(torch.arange(SIZE // 2) / 3))
        if self.how == "rotary table":
            self.register_buffer("angles", torch.randn(ROWS, SIZE))
        if self.how in ("RMSNorm", "LayerNorm", "written RMSNorm"):
            norm = {"RMSNorm": nn.RMSNorm, "LayerNorm": nn.LayerNorm, "written RMSNorm": RMSNorm}[self.how]
            self.q_norm, self.k_norm = norm(SIZE), norm(SIZE)
        if self.how == "scale a head":
            self.scale = nn.Parameter(torch.rand(HEADS, 1, 1))
        if self.how == "talking":
            self.mix, self.mix_after = nn.Linear(HEADS, HEADS), nn.Linear(HEADS, HEADS)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        b, n, c = x.shape
        bias = torch.cat([self.q_bias, self.k_bias, self.v_bias]) if self.how == "cat bias" else self.qkv.bias
        qkv = F.linear(x, self.qkv.weight, bias) if self.how == "cat bias" else self.qkv(x)
        if self.how == "heads first":
            return qkv.view(b, n, self.num_heads, 3 * self.head_dim).transpose(1, 2).chunk(3, -1)
        size = c // self.num_heads if self.how == "by width" else self.head_dim
        return qkv.reshape(b, n, 3, self.num_heads, size).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        if self.how == "rotary":
            t = torch.arange(x.shape[1], dtype=x.dtype)
            angles = torch.outer(t, self.inv_freq)
            angles = torch.cat([angles, angles], -1)
            q, k = rotate(q, angles), rotate(k, angles)
        if self.how == "rotary table":
            q, k = rotate(q, self.angles), rotate(k, self.angles)
        if "Norm" in self.how:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.how == "normalize":
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        out = self.attend(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
        if self.how == "mask":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        if self.how == "table":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.table[self.index].permute(2, 0, 1))
        if self.how == "mask added":
            scores = scores + self.bias
        if self.how == "scale a head":
            scores = scores * self.scale
        if self.how == "talking":
            scores = self.mix(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
            return self.mix_after(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) @ v
        if self.how == "einsum":
            scores = torch.einsum("bhqd,bhkd->bhqk", q, k)
            return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)
        if self.how == "einsum ...":
            scores = torch.einsum("...qd,...kd->...qk", q, k)
            return torch.einsum("...qk,...kd->...qd", scores.softmax(-1), v)
        return scores.softmax(-1) @ v if self.how == "matmul" else F.scaled_dot_product_attention(q, k, v)


class Residual(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x + self.attention(self.norm(x)))


def assert_exact(gated, *inputs, trials=4):
    """Gated and compact agree for random closings of unequal shares, in eval mode."""
    for seed in range(trials):
        random_gates(gated, random.Random(seed))
        lumos.verify(gated.eval(), inputs)


def hidden(structure):
    return {g.name: g.size for g in structure.groups if g.kind == "hidden"}


FORMS = (
    "attributes", "by width", "heads first", "matmul", "mask", "mask added", "table", "cat bias", "rotary",
    "rotary table", "RMSNorm", "LayerNorm", "written RMSNorm", "normalize", "scale a head", "talking",
    "einsum", "einsum ...",
)  # fmt: skip


@pytest.mark.parametrize("how", FORMS)
def test_whole_heads_can_go(how):
    torch.manual_seed(0)
    x = torch.randn(2, ROWS, 5)
    gated = lumos.gate(Residual(Attention(how)), x)
    found = hidden(gated.structure)
    assert found["attention" if how == "cat bias" else "attention.qkv"] == HEADS
    assert_exact(gated, x)
    gated.gates.log_alpha.data.fill_(8.0)
    gated.gates.log_alpha.data[gated.structure.group(next(iter(found))).start] = -8.0
    small = lumos.compact(gated).model.get_parameter("attention.qkv.weight")
    assert small.shape == (3 * (WIDTH - SIZE), WIDTH)


@pytest.mark.parametrize(
    "outer", [torch.outer, lambda t, f: torch.einsum("i,j->ij", t, f), lambda t, f: t[:, None] * f]
)
def test_rotary_embeddings_of_a_single_frequency(outer):
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(WIDTH, 3 * 8), nn.Linear(8, WIDTH)
            self.register_buffer("inv_freq", torch.tensor([0.3]))

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(-1, (3, 4, 2)).permute(2, 0, 3, 1, 4).unbind(0)
            angles = outer(torch.arange(x.shape[1], dtype=x.dtype), self.inv_freq)
            angles = torch.cat([angles, angles], -1)
            out = F.scaled_dot_product_attention(rotate(q, angles), rotate(k, angles), v)
            return self.proj(out.transpose(1, 2).flatten(2))

    torch.manual_seed(0)
    x = torch.randn(2, ROWS, 5)
    gated = lumos.gate(Residual(Turned()), x)
    assert hidden(gated.structure) == {"attention.qkv": 4}
    assert_exact(gated, x)


@pytest.mark.parametrize("how", ["attributes", "heads first", "matmul", "mask", "rotary", "einsum"])
def test_dimensions_of_queries_and_keys_go_with_both_dimensions_that_are_turned(how):
    torch.manual_seed(0)
    x = torch.randn(2, ROWS, 5)
    gated = lumos.gate(Residual(Attention(how)), x, options=StructureOptions(query_key=True))
    found = hidden(gated.structure)
    assert found["attention.qkv.dims"] == (SIZE // 2 if how == "rotary" else SIZE)
    assert found["attention.heads"] == HEADS
    assert_exact(gated, x)


class Grouped(nn.Module):
    """Fewer heads of keys and values than of queries."""

    def __init__(self, how: str, few: int) -> None:
        super().__init__()
        self.how, self.few = how, few
        self.q, self.k, self.v = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, few * SIZE), nn.Linear(WIDTH, few * SIZE)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.groups = HEADS // few

    def more(self, x: Tensor) -> Tensor:
        if self.how == "repeat":
            return x.repeat_interleave(self.groups, 1)
        if self.how == "expand":
            return x[:, :, None].expand(-1, -1, self.groups, -1, -1).flatten(1, 2)
        return x

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (-1, SIZE)).transpose(1, 2) for m in (self.q, self.k, self.v))
        k, v = self.more(k), self.more(v)
        if self.how == "broadcast":
            out = (q @ k.transpose(-2, -1) / SIZE**0.5).softmax(-1) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.how == "fused")
        return self.proj(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("how", "few", "units"),
    [("fused", 2, 2), ("repeat", 2, 2), ("expand", 2, 2), ("fused", 1, 4), ("broadcast", 1, 4)],
)
def test_queries_go_with_the_keys_that_they_share(how, few, units):
    torch.manual_seed(0)
    x = torch.randn(2, ROWS, 5)
    gated = lumos.gate(Residual(Grouped(how, few)), x)
    assert hidden(gated.structure)["attention.q"] == units
    held = {f.name: f.reason for f in gated.structure.fixed if f.name in ("attention.k", "attention.v")}
    assert all(("all heads share it" in reason) == (few == 1) for reason in held.values())
    assert len(held) == (2 if few == 1 else 0)
    assert_exact(gated, x)


def test_a_bias_that_layers_share_ties_their_heads():
    class Shared(nn.Module):
        def __init__(self, bias):
            super().__init__()
            self.layers = nn.ModuleList([Attention("mask"), Attention("mask")])
            self.bias = nn.Parameter(torch.randn(HEADS, ROWS, ROWS)) if bias else None

        def forward(self, x):
            bias = torch.zeros(HEADS, ROWS, ROWS) if self.bias is None else self.bias
            for layer in self.layers:
                q, k, v = layer.heads(x)
                out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
                x = x + layer.proj(out.transpose(1, 2).flatten(2))
            return x

    for bias in (True, False):
        torch.manual_seed(0)
        model = Shared(bias)
        for layer in model.layers:
            del layer.bias
        x = torch.randn(2, ROWS, WIDTH)
        structure = trace_structure(model, (x,))
        units = [structure.maps[f"layers.{n}.proj.weight", 1] for n in (0, 1)]
        assert torch.equal(*units)


def test_what_computes_a_bias_in_a_way_that_is_not_followed_holds_its_layer():
    class Odd(Attention):
        def heads(self, x):
            qkv = F.linear(x, self.qkv.weight, torch.cumsum(self.qkv.bias, 0).sort()[0])
            return qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    structure = lumos.gate(Residual(Odd("plain")), torch.randn(2, ROWS, 5)).structure
    held = {f.name: f for f in structure.fixed}
    assert held["attention"].size == 3 * WIDTH
    assert "there is no rule for linear in attention (Odd" in held["attention"].reason


@pytest.mark.parametrize("fused", [True, False])
def test_dimensions_of_one_head_go_with_it(fused):
    """Queries, keys and values of one size, in a layer of one head: what weights read of them is not all that counts
    them."""

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            q, k, v = self.qkv(x).chunk(3, -1)
            if fused:
                return self.proj(F.scaled_dot_product_attention(q, k, v))
            return self.proj((q @ k.transpose(-2, -1) / WIDTH**0.5).softmax(-1) @ v)

    torch.manual_seed(0)
    x = torch.randn(2, ROWS, 5)
    gated = lumos.gate(Residual(One()), x)
    assert hidden(gated.structure) == {"attention.qkv": 1}
    assert_exact(gated, x)
