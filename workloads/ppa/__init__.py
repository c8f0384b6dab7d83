"""PPA: from which taxon comes a neighbourhood of a protein association network? (OGB's ogbg-ppa)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional

from lumos.suite.workload import Metric
from lumos.workloads.common.graph_workload import GraphWorkload
from lumos.workloads.common.graphs import Graph, collate, inputs, predictions
from lumos.workloads.common.pyg import Batch
from lumos.workloads.ppa.data import (
    CHANNELS,
    GRAPH_BYTES,
    LAYOUT,
    SIGNAL,
    VERSION,
    Size,
    mean_channels,
    species_numbers,
    write_associations,
)

TABLE_GRAPHS = 20_000
"""Training graphs, evenly spaced, that trivial predictors and the table of features are made from, at most."""


@dataclass(frozen=True)
class PPA(GraphWorkload):
    """Graph classification of association networks; ``README.md`` has sources and numbers.

    With ``data.source=generated`` the graphs are the project's own, of ``taxa`` times ``species`` times ``graphs``;
    ``public`` reads ``ogbg_ppa`` under ``data.root`` through shards of a bounded size. Train, valid and test have no
    species in common. ``edge_attr`` of a batch is (edges, 7) float32, ``y`` (graphs,) the taxon. Raises DataError for
    settings or files that cannot be used.
    """

    taxa: int = 12
    species: int = 15
    valid_species: int | None = None
    test_species: int | None = None
    graphs_each: int = 16
    held_out_graphs_each: int | None = None
    conv: str = "gcn"
    width: int = 64
    layers: int = 3
    dropout: float = 0.2
    virtual_node: bool = False
    residual: bool = False
    knowledge: str = "last"
    batch_size: int = 32
    epochs: int = 20
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4

    name = "ppa"
    core_seconds_per_gb = 500
    layout = LAYOUT
    collate = staticmethod(partial(collate, edge_dtype=torch.float32, label_dtype=torch.int64))

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.size

    @property
    def size(self) -> Size:
        """How many taxa, species and graphs are generated."""
        return Size(
            self.taxa, self.species, self.graphs_each, self.valid_species, self.test_species, self.held_out_graphs_each
        )

    @property
    def outputs(self) -> int:
        """How many taxa the network tells apart."""
        return self.taxa if self.generated else LAYOUT.classes

    @property
    def metric(self) -> Metric:
        """Share of graphs of which the taxon is right; OGB's published GCN has 0.6839 on its data."""
        return Metric("accuracy", target=None if self.generated else 0.6839)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        if not self.generated:
            return "ogbg-ppa; tested on species not trained on"
        return f"generated association graphs of {self.taxa} taxa; tested on species not trained on"

    def generate(self) -> Path:
        """Write the graphs in OGB's layout where they are not in the cache yet; returns the data set's folder."""
        size = {name: value for name, value in asdict(self.size).items() if value is not None}
        key = json.dumps({"version": VERSION, "seed": self.seed, **size})
        place = self.cache / hashlib.sha256(key.encode()).hexdigest()[:16]
        return write_associations(place, self.size, self.seed)

    def split_bytes(self) -> dict[str, int]:
        """Count the bytes of each split: the associations of graphs of average size."""
        graphs = self.size.graphs_of
        return {split: self.taxa * n * graphs[split] * GRAPH_BYTES for split, n in self.size.split.items()}

    def node_encoder(self) -> nn.Embedding:
        """Make the one vector that every protein starts from: nodes have no features."""
        return nn.Embedding(1, self.width)

    def edge_encoder(self) -> nn.Linear:
        """Make the layer that reads an association's channels."""
        return nn.Linear(len(CHANNELS), self.width)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Compute the cross entropy over the training labels' entropy: 1 for the best constant guess."""
        return functional.cross_entropy(model(*inputs(batch)), batch["y"]) / self.entropy

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Compute the accuracy, as OGB's evaluator does."""
        logits, labels = predictions(model, batches)
        return _accuracy(labels.numpy(), logits.argmax(1).numpy())

    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute accuracy, and macro F1."""
        logits, labels = predictions(model, batches)
        truth, guess = labels.numpy(), logits.argmax(1).numpy()
        return {
            "accuracy": _accuracy(truth, guess),
            "macro_f1": float(f1_score(truth, guess, average="macro", zero_division=0.0)),  # pyright: ignore[reportArgumentType] -- typed as a word only
        }

    def score_terms(self, model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
        """Compute what each graph adds to the accuracy: 1 or 0."""
        logits, labels = predictions(model, batches)
        return (logits.argmax(1) == labels).numpy().astype(np.float64)

    def test_groups(self) -> np.ndarray | None:
        """Number the species of each test graph: they share what is the species' own. Published graphs do not say."""
        return species_numbers(self.size)[self.graphs.splits["test"]] if self.generated else None

    def baselines(self) -> dict[str, float]:
        """Compute accuracy on the test split of the commonest taxon, and of logistic regressions.

        One sees the mean score of each channel over a graph's edges, and one the numbers of proteins and of
        associations besides.
        """
        fitted, held = self.graphs.of("train", TABLE_GRAPHS), self.graphs.of("test")
        y, truth = (np.array([g.label for g in graphs], np.int64) for graphs in (fitted, held))
        found = {"majority": _accuracy(truth, np.full(len(truth), np.bincount(y).argmax()))}
        for name, sizes in (("logistic_on_mean_channels", False), ("logistic_with_size", True)):
            linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            linear.fit(_summary(fitted, sizes), y)
            found[name] = _accuracy(truth, linear.predict(_summary(held, sizes)))
        return found

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Return, of the training graphs, the mean of each channel (graphs, 7), and the taxon as columns of 0 and 1."""
        graphs = self.graphs.of("train", TABLE_GRAPHS)
        labels = np.array([int(g.label) for g in graphs])
        return mean_channels(graphs), np.eye(self.outputs)[labels]

    def features(self) -> Sequence[str]:
        """Name the channels."""
        return CHANNELS

    def true_features(self) -> Sequence[str]:
        """Name the channels that follow the taxon, of generated data; none for the public data: nobody knows."""
        return SIGNAL if self.generated else []

    def tiny(self) -> PPA:
        """Shrink it to four taxa of few species and a narrow network of two layers."""
        return replace(
            self, taxa=4, species=5, valid_species=None, test_species=None, graphs_each=4, held_out_graphs_each=None,
            width=8, layers=2, batch_size=8, epochs=2, learning_rate=3e-3,
        )  # fmt: skip


def _accuracy(truth: np.ndarray, guess: np.ndarray) -> float:
    return float(accuracy_score(truth, guess))


def _summary(graphs: list[Graph], sizes: bool) -> np.ndarray:
    means = mean_channels(graphs)
    return np.column_stack([means, [[len(g.x), len(g.edges)] for g in graphs]]) if sizes else means


__all__ = ["CHANNELS", "PPA"]
