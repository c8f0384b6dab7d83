"""GIN and GCN for whole graphs: the reference's sizes, its equations by hand, and what must not change a prediction."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lumos
from lumos.errors import DataError
from lumos.workloads.common.graph_models import GCNConv, GINConv, GraphNet, check_network
from lumos.workloads.molhiv.model import AtomEncoder, BondEncoder


def ppa(conv, classes=37, width=300, layers=5, **options):
    return GraphNet(
        conv, nn.Embedding(1, width), partial(nn.Linear, 7, width), classes, width=width, layers=layers, **options
    )


def mol(conv, width=300, layers=5, **options):
    return GraphNet(conv, AtomEncoder(width), partial(BondEncoder, width), 1, width=width, layers=layers, **options)


@pytest.mark.parametrize(
    ("build", "conv", "virtual_node", "parameters"),
    [
        (ppa, "gcn", False, 479_437),
        (ppa, "gcn", True, 1_930_537),
        (ppa, "gin", False, 1_836_942),
        (ppa, "gin", True, 3_288_042),
        (mol, "gcn", False, 528_001),
        (mol, "gcn", True, 1_979_101),
        (mol, "gin", False, 1_885_506),
        (mol, "gin", True, 3_336_606),
    ],
)
def test_parameter_counts_are_the_reference_ones(build, conv, virtual_node, parameters):
    assert sum(p.numel() for p in build(conv, virtual_node=virtual_node).parameters()) == parameters


def some_inputs(graphs=3, seed=0):
    """Graphs of 4 to 6 nodes, a ring and a chord each, both directions."""
    g = torch.Generator().manual_seed(seed)
    pairs, sizes = [], [4 + k % 3 for k in range(graphs)]
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    for start, size in zip(ptr.tolist(), sizes, strict=False):
        pairs += [(start + k, start + (k + 1) % size) for k in range(size)] + [(start, start + 2)]
    edges = torch.tensor([edge for a, b in pairs for edge in ((a, b), (b, a))]).T
    attr = torch.rand(len(pairs), 7, generator=g).repeat_interleave(2, 0)
    batch = torch.arange(graphs).repeat_interleave(torch.tensor(sizes))
    return torch.zeros(len(batch), dtype=torch.long), edges, attr, batch, ptr


def test_gin_by_hand():
    """A path 0 - 1 - 2: the MLP is the identity on positive numbers."""
    conv = GINConv(1, nn.Linear(1, 1, bias=False))
    conv.mlp = nn.Sequential(nn.Identity())
    with torch.no_grad():
        conv.eps.fill_(0.5)
        conv.edge_encoder.weight.fill_(2.0)
    x = torch.tensor([[1.0], [-3.0], [4.0]])
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    attr = torch.tensor([[0.5], [0.5], [1.0], [1.0]])  # encoded: 1, 1, 2, 2
    # 0: 1.5 * 1 + relu(-3 + 1); 1: 1.5 * -3 + relu(1 + 1) + relu(4 + 2); 2: 1.5 * 4 + relu(-3 + 2)
    torch.testing.assert_close(conv(x, edges, attr), torch.tensor([[1.5], [3.5], [6.0]]))


def test_gcn_by_hand():
    """The same path; degrees and one are 2, 3, 2."""
    conv = GCNConv(1, nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        conv.linear.weight.fill_(1.0)
        conv.linear.bias.fill_(1.0)
        conv.root.weight.fill_(0.5)
        conv.edge_encoder.weight.fill_(2.0)
    x = torch.tensor([[0.0], [-4.0], [3.0]])  # z: 1, -3, 4
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    attr = torch.tensor([[0.5], [0.5], [2.0], [2.0]])  # encoded: 1, 1, 4, 4
    expected = [1.5 / 2, (2 + 8) / 6**0.5, 1 / 6**0.5 + 4.5 / 2]
    torch.testing.assert_close(conv(x, edges, attr)[:, 0], torch.tensor(expected))


OPTIONS = {
    "virtual_node": st.booleans(),
    "residual": st.booleans(),
    "knowledge": st.sampled_from(["last", "sum"]),
    "conv": st.sampled_from(["gin", "gcn"]),
}


@settings(max_examples=20, deadline=None)
@given(**OPTIONS, seed=st.integers(0, 100))
def test_neither_order_nor_company_changes_a_prediction(conv, virtual_node, residual, knowledge, seed):
    torch.manual_seed(seed)
    model = ppa(conv, 3, 6, 3, virtual_node=virtual_node, residual=residual, knowledge=knowledge).double().eval()
    x, edges, attr, batch, ptr = some_inputs(seed=seed)
    attr = attr.double()
    together = model(x, edges, attr, batch, ptr)
    order = torch.randperm(edges.shape[1])
    torch.testing.assert_close(model(x, edges[:, order], attr[order], batch, ptr), together)
    for k in range(3):
        nodes = batch == k
        inside = nodes[edges[0]]
        size = int(nodes.sum())
        alone = model(x[nodes], edges[:, inside] - ptr[k], attr[inside], batch[:size] * 0, torch.tensor([0, size]))
        torch.testing.assert_close(alone[0], together[k])


def test_the_virtual_node_carries_what_no_edge_does():
    """Two unlinked triangles in one graph: only a virtual node lets the edges of one reach the nodes of the other."""
    torch.manual_seed(0)
    triangle = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
    edges = torch.cat([triangle, triangle + 3], 1)
    batch, ptr = torch.zeros(6, dtype=torch.long), torch.tensor([0, 6])
    attr = torch.rand(12, 7)
    changed = attr.clone()
    changed[6:] += 1

    def states(model, edge_attr):
        kept = []
        hook = model.norms[-1].register_forward_hook(lambda _m, _i, out: kept.append(out))
        model(batch, edges, edge_attr, batch, ptr)
        hook.remove()
        return kept[0][:3]  # nodes of the first triangle

    plain, virtual = (ppa("gin", 2, 8, 3, virtual_node=v).eval() for v in (False, True))
    assert torch.equal(states(plain, attr), states(plain, changed))
    assert not torch.allclose(states(virtual, attr), states(virtual, changed))


def test_the_virtual_node_starts_from_zero():
    assert not ppa("gin", virtual_node=True, width=8).virtual.weight.any()


def test_jumping_knowledge_sums_the_encoder_and_every_layer():
    torch.manual_seed(0)
    model = ppa("gcn", 2, 8, 3, knowledge="sum").eval()
    x, edges, attr, batch, ptr = some_inputs()
    states = [model.node_encoder(x)]
    for k, (conv, norm) in enumerate(zip(model.convs, model.norms, strict=True)):
        y = norm(conv(states[-1], edges, attr))
        states.append(y.relu() if k < 2 else y)
    mean = torch.stack([sum(states)[batch == k].mean(0) for k in range(3)])
    torch.testing.assert_close(model(x, edges, attr, batch, ptr), model.head(mean))


@pytest.mark.parametrize("conv", ["gin", "gcn"])
def test_each_layer_has_gates_of_its_own(conv):
    inputs = some_inputs()
    gated = lumos.gate(ppa(conv, 3, 8, 3), inputs)
    hidden = [g.size for g in gated.structure.groups if g.kind == "hidden"]
    assert hidden == ([8, 16, 8, 16, 8, 16, 8] if conv == "gin" else [8, 8, 8, 8])
    assert [f.name for f in gated.structure.fixed] == ["head"]
    tied = lumos.gate(ppa(conv, 3, 8, 3, residual=True), inputs)
    assert [g.size for g in tied.structure.groups if g.kind == "hidden"].count(8) == 1


@pytest.mark.slow
def test_exports_with_any_number_of_graphs_nodes_and_edges():
    model = ppa("gin", 2, 8, 2, virtual_node=True).eval()
    n, e = torch.export.Dim("nodes", min=2), torch.export.Dim("edges", min=2)
    shapes = ({0: n}, {1: e}, {0: e}, {0: n}, {0: torch.export.Dim("graphs_and_one", min=3)})
    program = torch.export.export(model, some_inputs(3), dynamic_shapes=shapes)
    other = some_inputs(5, seed=1)
    torch.testing.assert_close(program.module()(*other), model(*other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv": "gat"}, "workload.conv=gat: expected gin or gcn"),
        ({"knowledge": "cat"}, "workload.knowledge=cat: expected last or sum"),
        ({"layers": 0}, "workload.layers=0: expected at least 1"),
        ({"width": 0}, "workload.width=0"),
        ({"dropout": 1.0}, "workload.dropout=1.0: expected"),
    ],
)
def test_settings_that_cannot_be_used(change, message):
    with pytest.raises(DataError, match=message):
        check_network(**{"conv": "gin", "width": 8, "layers": 2, "dropout": 0.1, "knowledge": "last", **change})
