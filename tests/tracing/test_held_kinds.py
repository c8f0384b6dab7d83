"""Layers whose units are held: gate() names them with the true reason, and what is left can be cut."""

import random
import warnings

import pytest
import torch
from timm.models.volo import OutlookAttention
from torch import nn

import lumos
from tests.networks import random_gates

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns when it is imported
    from torch_geometric.nn import MFConv, RGCNConv, Set2Set, TopKPooling, global_add_pool

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 3, 5], [1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 0, 2, 4]])
GRAPHS = torch.tensor([0] * 4 + [1] * 4 + [2] * 4)
KINDS = torch.tensor([0, 1, 2] * 5)


class Between(nn.Module):
    """A layer, the one in question, and a head."""

    def __init__(self, inner: nn.Module, width: int = 8, out: int = 8) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(6, width), inner, nn.Linear(out, 2)


class Attentive(Between):
    def forward(self, x, graphs):
        return self.last(self.inner(torch.relu(self.first(x)), graphs))


class Pooled(Between):
    def forward(self, x, edges, graphs):
        h, _, _, kept, _, _ = self.inner(torch.relu(self.first(x)), edges, None, graphs)
        return self.last(global_add_pool(h, kept))


class Convolved(Between):
    def forward(self, x, *edges):
        return self.last(torch.relu(self.inner(torch.relu(self.first(x)), *edges)))


class Image(Between):
    def forward(self, x):
        return self.last(self.inner(torch.relu(self.first(x))).mean((1, 2)))


HELD = {
    "Set2Set": (lambda: Attentive(Set2Set(8, 2), out=16), (GRAPHS,), {"first": "mixed by sum", "inner.lstm": "by sum"}),
    "TopKPooling": (lambda: Pooled(TopKPooling(8, 0.5)), (EDGES, GRAPHS), {"first": "mixed by norm"}),
    "MFConv": (lambda: Convolved(MFConv(8, 8, max_degree=3)), (EDGES,), {"first": "index_select"}),
    "RGCN with bases": (
        lambda: Convolved(RGCNConv(8, 8, 3, num_bases=2)), (EDGES, KINDS),
        {"first": "meets a value of fixed size", "inner": "part of a parameter is used by matmul"},
    ),
    "outlook attention": (
        lambda: Image(OutlookAttention(12, 2), 12, 12), None,
        {"inner.v": "meets a value of fixed size", "first": "the probe could not cut it"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HELD)
def test_what_is_held_says_why_and_the_rest_is_cut(kind):
    torch.manual_seed(0)
    make, more, expected = HELD[kind]
    inputs = (torch.randn(2, 4, 4, 6),) if more is None else (torch.randn(12, 6), *more)
    gated = lumos.gate(make(), inputs).eval()
    reasons: dict[str, str] = {}
    for fixed in gated.structure.fixed:
        reasons[fixed.name] = f"{reasons.get(fixed.name, '')} {fixed.reason}"
    for name, words in expected.items():
        assert words in reasons[name], name
    assert "input" in [group.name for group in gated.structure.groups]
    for number in range(3):
        random_gates(gated, random.Random(number))
        lumos.verify(gated, inputs)
