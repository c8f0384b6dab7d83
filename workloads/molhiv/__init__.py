"""Molhiv: does a molecule, a graph of atoms and bonds, have a property? (OGB's ogbg-molhiv, or structural alerts)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from lumos.suite.workload import DataError, DataSource, Loaders, Metric, Recipe
from lumos.workloads.common.graph_libraries import AtomEncoder, Batch, BondEncoder, Evaluator
from lumos.workloads.common.graph_models import GraphNet, check_network
from lumos.workloads.common.graphs import Graph, GraphSet, collate, inputs, label_entropy, predictions
from lumos.workloads.common.ogb_layout import find_dataset, read_dataset
from lumos.workloads.common.tabular import as_source
from lumos.workloads.molhiv.data import (
    ATOM_FEATURES,
    BOND_FEATURES,
    LAYOUT,
    Molecules,
    csv_molecules,
    key_of,
    nci_molecules,
    write_molecules,
)

EXAMPLE_GRAPHS = 32


@dataclass(frozen=True)
class Molhiv:
    """Graph classification of molecules; ``README.md`` has sources and numbers.

    With ``data.source=generated`` the molecules are real (NCI's, from RDKit) and the label says whether they have a
    structural alert: this is not HIV. ``smiles`` names a table with the columns smiles and HIV_active instead, and
    ``public`` reads ``ogbg_molhiv`` under ``data.root``. Train, valid and test have no scaffold in common. Raises
    DataError for settings or files that cannot be used.
    """

    data: DataSource | Mapping[str, object] = field(default_factory=DataSource)
    seed: int = 0
    smiles: str | Path | None = None
    molecules: int | None = None
    label_noise: float = 0.1
    conv: str = "gin"
    width: int = 64
    layers: int = 3
    dropout: float = 0.2
    virtual_node: bool = False
    residual: bool = False
    knowledge: str = "last"
    batch_size: int = 64
    epochs: int = 30
    learning_rate: float = 1e-3
    weight_decay: float = 0.0

    name = "molhiv"

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_source(self.data))
        check_network(
            conv=self.conv, width=self.width, layers=self.layers, dropout=self.dropout, knowledge=self.knowledge
        )
        if self.batch_size < 1:
            raise DataError(f"workload.batch_size={self.batch_size}: expected at least 1")
        if self.molecules is not None and self.molecules < 20:
            raise DataError(f"workload.molecules={self.molecules}: expected 20 or more, or null for all")
        if not 0 <= self.label_noise <= 1:
            raise DataError(f"workload.label_noise={self.label_noise}: expected a share from 0 to 1")
        if self.smiles is not None and self._source.source == "public":
            raise DataError("workload.smiles and data=public both name the molecules; give one of them")

    @property
    def _source(self) -> DataSource:
        return as_source(self.data)

    @property
    def metric(self) -> Metric:
        """Area under the ROC curve. The goal is OGB's published GIN where the data are HIV, else the project's own."""
        is_hiv = self.smiles is not None or self._source.source == "public"
        return Metric("ROC-AUC", target=0.7558 if is_hiv else 0.80)

    @property
    def recipe(self) -> Recipe:
        """How the network is trained."""
        return Recipe(epochs=self.epochs, learning_rate=self.learning_rate, weight_decay=self.weight_decay)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        held = "tested on scaffolds not trained on"
        if self._source.source == "public":
            return f"ogbg-molhiv; {held}"
        if self.smiles is not None:
            return f"molecules of {Path(self.smiles).name}; {held}"
        return f"a structural-alert task on real molecules (NCI's, from RDKit), not HIV; {held}"

    @cached_property
    def graphs(self) -> GraphSet:
        """All molecules, read, or made at the first call and then read from the cache."""
        cache = self._source.cache / self.name
        if self._source.source == "public":
            return read_dataset(find_dataset(self._source.public_root(), LAYOUT), LAYOUT, cache)
        molecules = self._molecules()
        folder = write_molecules(molecules, cache / key_of(molecules), self._source.on_error)
        return read_dataset(folder, LAYOUT, cache)

    def _molecules(self) -> Molecules:
        if self.smiles is not None:
            return csv_molecules(Path(self.smiles).expanduser())
        return nci_molecules(self.label_noise, self.seed, self.molecules)

    @cached_property
    def entropy(self) -> float:
        """Of the training labels, nats."""
        return label_entropy(self.graphs.labels[self.graphs.splits["train"]])

    def model(self) -> nn.Module:
        """A fresh network, from ``x, edge_index, edge_attr, batch, ptr`` to a logit for each molecule."""
        return GraphNet(
            self.conv,  # type: ignore[arg-type]
            AtomEncoder(self.width),
            partial(BondEncoder, self.width),
            1,
            width=self.width,
            layers=self.layers,
            dropout=self.dropout,
            virtual_node=self.virtual_node,
            residual=self.residual,
            knowledge=self.knowledge,  # type: ignore[arg-type]
        )

    def loaders(self) -> Loaders:
        """PyG batches of molecules; ``y`` is (molecules, 1), 0 or 1."""
        return self._loaders

    @cached_property
    def _loaders(self) -> Loaders:
        return self.graphs.loaders(self.batch_size, self.seed, self._source, _collate)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Binary cross entropy in units of the training labels' entropy: 1 for the best constant guess."""
        return F.binary_cross_entropy_with_logits(model(*inputs(batch)), batch["y"]) / self.entropy

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """ROC-AUC by OGB's evaluator. Raises DataError where a split has one class only."""
        logits, labels = predictions(model, batches)
        return self._auc(labels.numpy(), logits[:, 0].numpy())

    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """ROC-AUC, accuracy at one half (which the paper reports) and average precision."""
        logits, labels = predictions(model, batches)
        truth, guess = labels.numpy(), logits[:, 0].numpy()
        return {
            "ROC-AUC": self._auc(truth, guess),
            "accuracy": float(((guess > 0) == truth).mean()),
            "average_precision": float(average_precision_score(truth, guess)),
        }

    def _auc(self, truth: np.ndarray, guess: np.ndarray) -> float:
        if truth.min() == truth.max():
            raise DataError("all molecules of a split have one label, so that ROC-AUC is undefined; use more molecules")
        return float(Evaluator("ogbg-molhiv").eval({"y_true": truth[:, None], "y_pred": guess[:, None]})["rocauc"])

    def baselines(self) -> dict[str, float]:
        """ROC-AUC on the test split of a constant, the number of atoms, and a logistic regression on composition.

        Composition: which share of a molecule's atoms, and of its bonds, has each value of each feature.
        """
        (x, y), (held, truth) = (_composition(self.graphs.of(split)) for split in ("train", "test"))
        linear = LogisticRegression(max_iter=2000).fit(x, y)
        atoms = np.array([len(g.x) for g in self.graphs.of("test")], np.float64)
        return {
            "constant": 0.5,
            "number_of_atoms": self._auc(truth, atoms),
            "logistic_on_composition": self._auc(truth, linear.decision_function(held)),
        }

    def example(self) -> tuple[Tensor, ...]:
        """The inputs for a batch of training molecules."""
        return inputs(_collate(self.graphs.of("train", EXAMPLE_GRAPHS)))

    def features(self) -> Sequence[str]:
        """Names of the columns of ``x`` and then of ``edge_attr``: each is an embedding table."""
        return (*ATOM_FEATURES, *BOND_FEATURES)

    def tiny(self) -> Molhiv:
        """At most 300 molecules, a narrow network of two layers."""
        return replace(self, molecules=300, width=8, layers=2, batch_size=20, epochs=2, learning_rate=3e-3)


def _collate(graphs: list[Graph]) -> Batch:
    return collate(graphs, edge_dtype=torch.int64, label_dtype=torch.float32)


def _composition(graphs: list[Graph]) -> tuple[np.ndarray, np.ndarray]:
    rows = []
    for graph in graphs:
        tables = [(graph.x, LAYOUT.node_values), (graph.edge_attr, LAYOUT.edge_values)]
        shares = [
            np.bincount(values[:, column], minlength=count) / max(1, len(values))
            for values, counts in tables
            for column, count in enumerate(counts)
        ]
        rows.append(np.concatenate(shares))
    return np.stack(rows), np.array([graph.label for graph in graphs], np.int64)


__all__ = ["ATOM_FEATURES", "BOND_FEATURES", "Molhiv"]
