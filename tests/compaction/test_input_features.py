"""Input features other than columns of floats: tables that a column indexes, and graph objects."""

import pytest
import torch
from torch import nn

import lumos
from lumos.compaction.probe import trace_and_probe
from tests.families import Net


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
