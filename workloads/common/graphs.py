"""Data sets of many small graphs: stored flat, read one by one, put together in PyG batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lumos.errors import DataError
from lumos.suite.workload import DataSource, Loaders
from lumos.workloads.common.arrays import digest, open_arrays
from lumos.workloads.common.pyg import Batch
from lumos.workloads.common.streaming import stream_splits

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Graph:
    """One undirected graph: ``edges`` (edges, 2) stored once each, ``edge_attr`` (edges, k), ``label`` a number.

    ``x`` has the nodes' features (nodes, k); with k = 0 a node is only a place in the graph.
    """

    x: np.ndarray
    edges: np.ndarray
    edge_attr: np.ndarray
    label: float


@dataclass(frozen=True)
class Graphs:
    """Graphs one after another in flat arrays, in memory or mapped from disk, and their ``digest`` (SHA-256, hex).

    ``nodes`` and ``edges`` count those of each graph; ``pairs`` (all edges, 2) numbers nodes from 0 in each graph.
    """

    nodes: np.ndarray
    edges: np.ndarray
    labels: np.ndarray
    x: np.ndarray
    pairs: np.ndarray
    edge_attr: np.ndarray
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def _node_starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.nodes)])

    @cached_property
    def _edge_starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.edges)])

    def __getitem__(self, index: int) -> Graph:
        node, edge = self._node_starts[index : index + 2], self._edge_starts[index : index + 2]
        x = self.x[node[0] : node[1]] if self.x.shape[1] else np.zeros((node[1] - node[0], 0), self.x.dtype)
        here = slice(edge[0], edge[1])
        return Graph(x, self.pairs[here], self.edge_attr[here], float(self.labels[index]))

    @classmethod
    def open(cls, folder: Path) -> Graphs:
        """Map the graphs of a folder with a ``.npy`` file for each array. Raises DataError if it is damaged."""
        try:
            return cls.from_arrays(open_arrays(folder, "graphs"))
        except (KeyError, TypeError) as error:
            raise DataError(f"{folder}: cannot read the cached graphs ({error}); delete that folder") from error

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Graphs:
        """Take the fields from arrays by name; that of ``sha256`` has its bytes."""
        return cls(**{**arrays, "sha256": bytes(arrays["sha256"]).hex()})

    def __reduce__(self) -> tuple[Callable[..., Graphs], tuple[Any, ...]]:
        # A worker process opens the files itself: copying what is mapped would read all of it.
        file = getattr(self.pairs, "filename", None)
        if file is not None:
            return Graphs.open, (Path(file).parent,)
        return Graphs, (self.nodes, self.edges, self.labels, self.x, self.pairs, self.edge_attr, self.sha256)

    @classmethod
    def stack(cls, graphs: Sequence[Graph]) -> Graphs:
        """Put many graphs into one set."""
        if not graphs:
            raise DataError("there are no graphs to put together; ask for more data")
        return cls(
            nodes=np.array([len(g.x) for g in graphs], np.int64),
            edges=np.array([len(g.edges) for g in graphs], np.int64),
            labels=np.array([g.label for g in graphs], np.float64),
            x=np.concatenate([g.x for g in graphs]),
            pairs=np.concatenate([g.edges for g in graphs]),
            edge_attr=np.concatenate([g.edge_attr for g in graphs]),
        )


@dataclass(frozen=True)
class GraphSet:
    """A data set: its graphs, numbered through one shard after another, and the numbers in each split."""

    shards: Sequence[Graphs]
    splits: Mapping[str, np.ndarray]

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum([len(shard) for shard in self.shards])])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Graph:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.shards[shard][index - int(self._starts[shard])]

    @cached_property
    def labels(self) -> np.ndarray:
        """The labels of all graphs."""
        return np.concatenate([shard.labels for shard in self.shards])

    def of(self, split: str, limit: int | None = None) -> list[Graph]:
        """Return the graphs of a split, in order; with a ``limit``, that many of them at most, evenly spaced."""
        numbers = self.splits[split]
        if limit is not None and limit < len(numbers):
            numbers = numbers[np.linspace(0, len(numbers) - 1, limit).astype(int)]
        return [self[int(k)] for k in numbers]

    def loaders(self, batch_size: int, seed: int, source: DataSource, collate: Callable[[list[Graph]], Any]) -> Loaders:
        """Make loaders of PyG batches, read as they are needed; training graphs in an order of seed and epoch."""
        sha256 = digest(
            *(np.frombuffer(bytes.fromhex(shard.sha256), np.uint8) for shard in self.shards),
            *(np.asarray(self.splits[split], np.int64) for split in SPLITS),
        )
        samples = {split: _Split(self, self.splits[split]) for split in SPLITS}
        return stream_splits(samples, batch_size=batch_size, seed=seed, source=source, sha256=sha256, collate=collate)


@dataclass(frozen=True)
class _Split:
    """The graphs of one split as samples by number."""

    graphs: GraphSet
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int, epoch: int) -> Graph:
        del epoch  # nothing about a graph is random
        return self.graphs[int(self.numbers[index])]


def collate(graphs: Sequence[Graph], *, edge_dtype: torch.dtype, label_dtype: torch.dtype) -> Batch:
    """Make a PyG batch of graphs.

    Returns:
        ``x`` (nodes, k) int64, a zero for each node where nodes have no features; ``edge_index`` (2, edges) with both
        directions of every edge beside each other, as OGB has them; ``edge_attr`` (edges, k); ``y`` (graphs,) where
        ``label_dtype`` is an integer type, else (graphs, 1); ``batch`` and ``ptr``.
    """
    sizes = np.array([len(g.x) for g in graphs])
    ptr = np.concatenate([[0], np.cumsum(sizes)])
    edges = np.array([len(g.edges) for g in graphs])
    pairs = np.concatenate([g.edges for g in graphs]).astype(np.int64) + np.repeat(ptr[:-1], edges)[:, None]
    both = np.stack([pairs, pairs[:, ::-1]], 1).reshape(-1, 2)
    attr = np.concatenate([g.edge_attr for g in graphs]).repeat(2, axis=0)
    x = np.concatenate([g.x for g in graphs]) if graphs[0].x.shape[1] else np.zeros(int(ptr[-1]), np.int64)
    y = torch.tensor([g.label for g in graphs], dtype=label_dtype)
    return Batch(
        x=torch.from_numpy(x.astype(np.int64)),
        edge_index=torch.from_numpy(np.ascontiguousarray(both.T)),
        edge_attr=torch.from_numpy(attr).to(edge_dtype),
        y=y.view(-1, 1) if label_dtype.is_floating_point else y,
        batch=torch.from_numpy(np.repeat(np.arange(len(graphs)), sizes)),
        ptr=torch.from_numpy(ptr),
    )


def inputs(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Take the positional inputs of a graph network from a batch: ``x, edge_index, edge_attr, batch, ptr``."""
    return batch["x"], batch["edge_index"], batch["edge_attr"], batch["batch"], batch["ptr"]


@torch.no_grad()
def predictions(
    model: nn.Module, batches: Iterable[Batch]
) -> tuple[Float[Tensor, "graphs outputs"], Int[Tensor, " graphs"]]:
    """Compute logits and labels of all graphs of a split, on the CPU. Raises DataError where there are none."""
    logits, labels = [], []
    for batch in batches:
        logits.append(model(*inputs(batch)).float().cpu())
        labels.append(batch["y"].view(-1).long().cpu())
    if not logits:
        raise DataError("a split has no graphs to score; ask for more data")
    return torch.cat(logits), torch.cat(labels)


def label_entropy(labels: np.ndarray) -> float:
    """Compute the entropy of the labels' frequencies, nats: the cross entropy of the best constant guess.

    It is never below 1e-3, so that a loss can be divided by it.
    """
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return max(float(-(shares * np.log(shares)).sum()), 1e-3)
