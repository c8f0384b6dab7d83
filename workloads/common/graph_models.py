"""GIN and GCN for whole graphs, as OGB's reference examples define them.

W. Hu et al.: Open Graph Benchmark, NeurIPS 2020. GIN: K. Xu et al., ICLR 2019, with edge features inside the ReLU. GCN:
T. Kipf and M. Welling, ICLR 2017, with edge features and a learnt root. Virtual node: J. Gilmer et al., ICML 2017.
Jumping knowledge: K. Xu et al., ICML 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lumos.errors import DataError
from lumos.workloads.common.pyg import MessagePassing, degree, global_add_pool, global_mean_pool

Conv = Literal["gin", "gcn"]
Knowledge = Literal["last", "sum"]


class GINConv(MessagePassing):
    """MLP((1 + eps) x_i + sum over neighbours j of relu(x_j + e_ij)); eps is learnt, from 0."""

    def __init__(self, width: int, edge_encoder: nn.Module) -> None:
        super().__init__(aggr="add")
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.BatchNorm1d(2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )
        self.eps = nn.Parameter(torch.zeros(1))
        self.edge_encoder = edge_encoder

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Update nodes ``x`` (nodes, width) from their neighbours along edges (2, edges) with features."""
        neighbours = self.propagate(edge_index, x=x, edge=self.edge_encoder(edge_attr))
        return self.mlp((1 + self.eps) * x + neighbours)

    def message(self, x_j: Tensor, edge: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compute what a neighbour sends along an edge."""
        return F.relu(x_j + edge)


class GCNConv(MessagePassing):
    """sum over neighbours j of relu(z_j + e_ij) / sqrt(d_i d_j) + relu(z_i + root) / d_i.

    z = W x + b, d = degree + 1.
    """

    def __init__(self, width: int, edge_encoder: nn.Module) -> None:
        super().__init__(aggr="add")
        self.linear = nn.Linear(width, width)
        self.root = nn.Embedding(1, width)
        self.edge_encoder = edge_encoder

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Update nodes ``x`` (nodes, width) from their neighbours along edges (2, edges) with features."""
        x = self.linear(x)
        row, column = edge_index[0], edge_index[1]
        d = degree(row, x.size(0), dtype=x.dtype) + 1
        norm = d[row].rsqrt() * d[column].rsqrt()
        neighbours = self.propagate(edge_index, x=x, edge=self.edge_encoder(edge_attr), norm=norm)
        return neighbours + F.relu(x + self.root.weight) / d.view(-1, 1)

    def message(self, x_j: Tensor, edge: Tensor, norm: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compute what a neighbour sends along an edge."""
        return norm.view(-1, 1) * F.relu(x_j + edge)


CONVS: dict[str, type[GINConv] | type[GCNConv]] = {"gin": GINConv, "gcn": GCNConv}


class GraphNet(nn.Module):
    """Layers of convolution, batch norm, ReLU (not after the last) and dropout; mean over each graph; a linear head.

    ``virtual_node`` adds one node a graph that hears from all nodes and speaks to all; ``residual`` adds a layer's
    input to its output; ``knowledge`` pools the last layer's nodes, or the sum over all layers and the encoder.
    """

    def __init__(
        self,
        conv: Conv,
        node_encoder: nn.Module,
        edge_encoder: Callable[[], nn.Module],
        outputs: int,
        *,
        width: int = 300,
        layers: int = 5,
        dropout: float = 0.5,
        virtual_node: bool = False,
        residual: bool = False,
        knowledge: Knowledge = "last",
    ) -> None:
        super().__init__()
        self.node_encoder = node_encoder
        self.convs = nn.ModuleList(CONVS[conv](width, edge_encoder()) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))
        self.virtual = nn.Embedding(1, width) if virtual_node else None
        self.virtual_mlps = nn.ModuleList(_virtual_mlp(width) for _ in range(layers - 1 if virtual_node else 0))
        if self.virtual is not None:
            nn.init.zeros_(self.virtual.weight)
        self.head = nn.Linear(width, outputs)
        self.dropout = nn.Dropout(dropout)
        self.residual, self.knowledge = residual, knowledge

    def forward(
        self,
        x: Int[Tensor, " nodes *features"],
        edge_index: Int[Tensor, "2 edges"],
        edge_attr: Tensor,
        batch: Int[Tensor, " nodes"],
        ptr: Int[Tensor, " graphs_and_one"],
    ) -> Float[Tensor, "graphs outputs"]:
        """Compute the logits of each graph.

        ``batch`` is each node's graph, and graph g has the nodes ``ptr[g]`` to ``ptr[g + 1]``, as in a PyG ``Batch``:
        how many graphs there are is the length of a tensor, and not read from the data.
        """
        graphs = ptr.shape[0] - 1
        h = self.node_encoder(x)
        virtual = None if self.virtual is None else self.virtual(ptr.new_zeros(graphs))
        layer_inputs = []
        last = len(self.convs) - 1
        for layer, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if virtual is not None:
                h = h + virtual[batch]
            y = norm(conv(h, edge_index, edge_attr))
            y = self.dropout(F.relu(y) if layer < last else y)
            if self.residual:
                y = y + h
            if virtual is not None and layer < last:
                heard = self.dropout(self.virtual_mlps[layer](global_add_pool(h, batch, graphs) + virtual))
                virtual = virtual + heard if self.residual else heard
            layer_inputs.append(h)
            h = y
        nodes = sum(layer_inputs, h) if self.knowledge == "sum" else h
        return self.head(global_mean_pool(nodes, batch, graphs))


def _virtual_mlp(width: int) -> nn.Sequential:
    wide = 2 * width
    inner = nn.Sequential(nn.Linear(width, wide), nn.BatchNorm1d(wide), nn.ReLU(), nn.Linear(wide, width))
    return nn.Sequential(*inner, nn.BatchNorm1d(width), nn.ReLU())


def check_network(*, conv: str, width: int, layers: int, dropout: float, knowledge: str) -> None:
    """Check the settings of a GraphNet. Raises DataError for those that it cannot be built with."""
    if conv not in CONVS:
        raise DataError(f"workload.conv={conv}: expected gin or gcn")
    if knowledge not in ("last", "sum"):
        raise DataError(f"workload.knowledge={knowledge}: expected last or sum")
    if width < 1 or layers < 1:
        raise DataError(f"workload.width={width}, workload.layers={layers}: expected at least 1 of each")
    if not 0 <= dropout < 1:
        raise DataError(f"workload.dropout={dropout}: expected a number from 0 on, below 1")
