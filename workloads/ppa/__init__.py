"""PPA: from which taxon comes a neighbourhood of a protein association network? (OGB's ogbg-ppa)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from lumos.suite.workload import DataError, DataSource, Loaders, Metric, Recipe
from lumos.workloads.common.graph_libraries import Batch, Evaluator
from lumos.workloads.common.graph_models import GraphNet, check_network
from lumos.workloads.common.graphs import Graph, GraphSet, collate, inputs, label_entropy, predictions
from lumos.workloads.common.ogb_layout import find_dataset, read_dataset
from lumos.workloads.common.tabular import as_source
from lumos.workloads.ppa.data import CHANNELS, LAYOUT, SIGNAL, VERSION, Size, mean_channels, write_associations

EXAMPLE_GRAPHS = 32
TABLE_GRAPHS = 20_000
"""Training graphs, evenly spaced, that trivial predictors and the table of features are made from, at most."""


@dataclass(frozen=True)
class PPA:
    """Graph classification of association networks; ``README.md`` has sources and numbers.

    With ``data.source=generated`` the graphs are the project's own, of ``taxa`` times ``species`` times ``graphs``;
    ``public`` reads ``ogbg_ppa`` under ``data.root`` through shards of a bounded size. Train, valid and test have no
    species in common. Raises DataError for settings or files that cannot be used.
    """

    data: DataSource | Mapping[str, object] = field(default_factory=DataSource)
    seed: int = 0
    taxa: int = 12
    species: int = 15
    graphs_each: int = 16
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_source(self.data))
        check_network(
            conv=self.conv, width=self.width, layers=self.layers, dropout=self.dropout, knowledge=self.knowledge
        )
        if self.batch_size < 1:
            raise DataError(f"workload.batch_size={self.batch_size}: expected at least 1")
        _ = self.size

    @property
    def _source(self) -> DataSource:
        return as_source(self.data)

    @property
    def size(self) -> Size:
        """How many taxa, species and graphs are generated."""
        return Size(self.taxa, self.species, self.graphs_each)

    @property
    def classes(self) -> int:
        """How many taxa the network tells apart."""
        return LAYOUT.classes if self._source.source == "public" else self.taxa

    @property
    def metric(self) -> Metric:
        """Share of graphs of which the taxon is right; OGB's published GCN has 0.6839 on its data."""
        return Metric("accuracy", target=0.6839 if self._source.source == "public" else None)

    @property
    def recipe(self) -> Recipe:
        """How the network is trained."""
        return Recipe(epochs=self.epochs, learning_rate=self.learning_rate, weight_decay=self.weight_decay)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        if self._source.source == "public":
            return "ogbg-ppa; tested on species not trained on"
        return f"generated association graphs of {self.taxa} taxa; tested on species not trained on"

    @cached_property
    def graphs(self) -> GraphSet:
        """All graphs, made or read at the first call, then mapped from the cache."""
        cache = self._source.cache / self.name
        if self._source.source == "public":
            return read_dataset(find_dataset(self._source.public_root(), LAYOUT), LAYOUT, cache)
        key = json.dumps({"version": VERSION, "seed": self.seed, **asdict(self.size)})
        place = cache / hashlib.sha256(key.encode()).hexdigest()[:16]
        return read_dataset(write_associations(place, self.size, self.seed), LAYOUT, cache)

    @cached_property
    def entropy(self) -> float:
        """Of the training labels, nats."""
        return label_entropy(self.graphs.labels[self.graphs.splits["train"]])

    def model(self) -> nn.Module:
        """A fresh network, from ``x, edge_index, edge_attr, batch, ptr`` to a logit for each graph and taxon."""
        return GraphNet(
            self.conv,  # type: ignore[arg-type]
            nn.Embedding(1, self.width),
            partial(nn.Linear, len(CHANNELS), self.width),
            self.classes,
            width=self.width,
            layers=self.layers,
            dropout=self.dropout,
            virtual_node=self.virtual_node,
            residual=self.residual,
            knowledge=self.knowledge,  # type: ignore[arg-type]
        )

    def loaders(self) -> Loaders:
        """PyG batches of graphs; ``edge_attr`` is (edges, 7) float32, ``y`` (graphs,) the taxon."""
        return self._loaders

    @cached_property
    def _loaders(self) -> Loaders:
        return self.graphs.loaders(self.batch_size, self.seed, self._source, _collate)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Cross entropy in units of the training labels' entropy: 1 for the best constant guess."""
        return F.cross_entropy(model(*inputs(batch)), batch["y"]) / self.entropy

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Accuracy by OGB's evaluator."""
        logits, labels = predictions(model, batches)
        return _accuracy(labels.numpy(), logits.argmax(1).numpy())

    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Accuracy, and macro F1."""
        logits, labels = predictions(model, batches)
        truth, guess = labels.numpy(), logits.argmax(1).numpy()
        return {
            "accuracy": _accuracy(truth, guess),
            "macro_f1": float(f1_score(truth, guess, average="macro", zero_division=0.0)),  # pyright: ignore[reportArgumentType] -- typed as a word only
        }

    def baselines(self) -> dict[str, float]:
        """Accuracy on the test split of the commonest taxon, and of logistic regressions.

        One on the mean score of each channel over a graph's edges, and one on those with the numbers of proteins and of
        associations.
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
        """Of the training graphs: the mean of each channel (graphs, 7), and the taxon as columns of 0 and 1."""
        graphs = self.graphs.of("train", TABLE_GRAPHS)
        labels = np.array([int(g.label) for g in graphs])
        return mean_channels(graphs), np.eye(self.classes)[labels]

    def example(self) -> tuple[Tensor, ...]:
        """The inputs for a batch of training graphs."""
        return inputs(_collate(self.graphs.of("train", EXAMPLE_GRAPHS)))

    def features(self) -> Sequence[str]:
        """Names of the channels."""
        return CHANNELS

    def true_features(self) -> Sequence[str]:
        """Channels that follow the taxon, of generated data; empty for the public data, where nobody knows."""
        return [] if self._source.source == "public" else SIGNAL

    def tiny(self) -> PPA:
        """Four taxa of few species, a narrow network of two layers."""
        return replace(
            self, taxa=4, species=5, graphs_each=4, width=8, layers=2, batch_size=8, epochs=2, learning_rate=3e-3
        )


def _collate(graphs: list[Graph]) -> Batch:
    return collate(graphs, edge_dtype=torch.float32, label_dtype=torch.int64)


def _accuracy(truth: np.ndarray, guess: np.ndarray) -> float:
    return float(Evaluator("ogbg-ppa").eval({"y_true": truth[:, None], "y_pred": guess[:, None]})["acc"])


def _summary(graphs: list[Graph], sizes: bool) -> np.ndarray:
    means = mean_channels(graphs)
    return np.column_stack([means, [[len(g.x), len(g.edges)] for g in graphs]]) if sizes else means


__all__ = ["CHANNELS", "PPA"]
