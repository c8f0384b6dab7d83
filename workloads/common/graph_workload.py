"""The workloads whose samples are graphs in OGB's layout: Molhiv and PPA."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from lumos.suite.workload import Loaders
from lumos.workloads.common.base import BaseWorkload
from lumos.workloads.common.graph_models import GraphNet, check_network
from lumos.workloads.common.graphs import Graph, GraphSet, inputs, label_entropy
from lumos.workloads.common.ogb_layout import Layout, find_dataset, random_chain, read_dataset
from lumos.workloads.common.pyg import Batch

EXAMPLE_GRAPHS = 32


class GraphWorkload(BaseWorkload):
    """Classification of whole graphs by OGB's networks; what is generated is written in OGB's layout and read back.

    Batches are PyG's. A subclass has ``layout``, ``generate()``, the encoders, ``outputs``, the loss and the score.
    """

    conv: str
    width: int
    layers: int
    dropout: float
    virtual_node: bool
    residual: bool
    knowledge: str

    layout: ClassVar[Layout]
    """What the data set holds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_network(
            conv=self.conv, width=self.width, layers=self.layers, dropout=self.dropout, knowledge=self.knowledge
        )

    def generate(self) -> Path:
        """Write the data set where it is not in the cache yet; returns its folder."""
        raise NotImplementedError

    @property
    def makes_dataset(self) -> bool:
        """Whether :meth:`generate` writes the data set; else it is read as it was published."""
        return self.generated

    @property
    def outputs(self) -> int:
        """Logits of a graph."""
        raise NotImplementedError

    def node_encoder(self) -> nn.Module:
        """Make the layer from a node's features to ``width`` numbers."""
        raise NotImplementedError

    def edge_encoder(self) -> nn.Module:
        """Make the layer from an edge's features to ``width`` numbers; each convolution has one."""
        raise NotImplementedError

    @staticmethod
    def collate(graphs: list[Graph]) -> Batch:
        """Make a batch of graphs. It is static, so that worker processes get it without the workload."""
        raise NotImplementedError

    @cached_property
    def graphs(self) -> GraphSet:
        """All graphs, made or read at the first call, then mapped from the cache."""
        self.check_size()
        folder = self.generate() if self.makes_dataset else find_dataset(self.source.public_root(), self.layout)
        return read_dataset(folder, self.layout, self.cache)

    @cached_property
    def entropy(self) -> float:
        """Of the training labels, nats."""
        return label_entropy(self.graphs.labels[self.graphs.splits["train"]])

    def make_loaders(self) -> Loaders:
        """Make loaders of PyG batches; training graphs come in an order that follows seed and epoch."""
        return self.graphs.loaders(self.batch_size, self.seed, self.source, self.collate)

    def model(self) -> nn.Module:
        """Build a fresh network, from ``x, edge_index, edge_attr, batch, ptr`` to the logits of each graph."""
        return GraphNet(
            self.conv,  # type: ignore[arg-type]
            self.node_encoder(),
            self.edge_encoder,
            self.outputs,
            width=self.width,
            layers=self.layers,
            dropout=self.dropout,
            virtual_node=self.virtual_node,
            residual=self.residual,
            knowledge=self.knowledge,  # type: ignore[arg-type]
        )

    def outline(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Build the network and the inputs of a batch of random chains."""
        rng = np.random.default_rng(0)
        return self.model(), inputs(self.collate([random_chain(self.layout, rng) for _ in range(EXAMPLE_GRAPHS)]))

    def example(self) -> tuple[Tensor, ...]:
        """Return the inputs of a batch of training graphs."""
        return inputs(self.collate(self.graphs.of("train", EXAMPLE_GRAPHS)))
