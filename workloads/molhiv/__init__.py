"""Molhiv: does a molecule, a graph of atoms and bonds, have a property? (OGB's ogbg-molhiv, or structural alerts)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from lumos.errors import DataError
from lumos.suite.dependence import TrueDependence
from lumos.suite.workload import Metric
from lumos.workloads.common.graph_workload import GraphWorkload
from lumos.workloads.common.graphs import Graph, collate, inputs, predictions
from lumos.workloads.common.pyg import Batch
from lumos.workloads.common.score_terms import auc_terms
from lumos.workloads.molhiv.data import (
    HIV,
    HIV_FILE,
    LAYOUT,
    MOLECULE_BYTES,
    NCI_MOLECULES,
    Molecules,
    cache_key,
    csv_molecules,
    nci_molecules,
    write_molecules,
)
from lumos.workloads.molhiv.dependence import ALERT_COLUMNS
from lumos.workloads.molhiv.features import ATOM_FEATURES, BOND_FEATURES
from lumos.workloads.molhiv.model import AtomEncoder, BondEncoder


@dataclass(frozen=True)
class Molhiv(GraphWorkload):
    """Graph classification of molecules; ``README.md`` has sources and numbers.

    With ``data.source=generated`` the molecules are real (NCI's, from RDKit) and the label says whether they have a
    structural alert: this is not HIV. ``smiles`` names a table with a column of SMILES and one called ``label``, and
    ``public`` reads ``ogbg_molhiv`` under ``data.root``, or MoleculeNet's ``HIV.csv``, which is that file or lies in
    that folder. Train, valid and test have no scaffold in common. ``y`` of a
    batch is (molecules, 1), 0 or 1. Raises DataError for settings or files that cannot be used.
    """

    smiles: str | Path | None = None
    label: str | None = None
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
    core_seconds_per_gb = 20000
    layout = LAYOUT
    collate = staticmethod(partial(collate, edge_dtype=torch.int64, label_dtype=torch.float32))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.smiles is not None and self.source.source == "public":
            raise DataError("workload.smiles and data=public both name the molecules; give one of them")
        if self.label is not None and self.smiles is None:
            raise DataError(f"workload.label={self.label}: expected workload.smiles=FILE, the table with that column")
        if self.smiles is not None:  # a file is never called generated
            object.__setattr__(self, "data", replace(self.source, source="file"))
        if self.molecules is not None and self.molecules < 20:
            raise DataError(f"workload.molecules={self.molecules}: expected 20 or more, or null for all")
        if not 0 <= self.label_noise <= 1:
            raise DataError(f"workload.label_noise={self.label_noise}: expected a share from 0 to 1")

    @property
    def smiles_file(self) -> Path | None:
        """The table of molecules: ``smiles``, or MoleculeNet's at ``data.root``; None where there is none."""
        if self.smiles is not None:
            return Path(self.smiles).expanduser()
        root = self.source.root if self.source.source == "public" else None
        return None if root is None else next((p for p in (root, root / HIV_FILE) if p.is_file()), None)

    @property
    def metric(self) -> Metric:
        """Area under the ROC curve.

        The goal is OGB's published GIN where the label is HIV's, the project's own where it is made up, and none for a
        label of one's own.
        """
        if self.label not in (None, HIV):
            return Metric("ROC-AUC")
        return Metric("ROC-AUC", target=0.80 if self.generated else 0.7558)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        held = "tested on scaffolds not trained on"
        if self.smiles_file is not None:
            what = "" if self.label in (None, HIV) else f"{self.label} of the "
            return f"{what}molecules of {self.smiles_file.name}; {held}"
        if not self.generated:
            return f"ogbg-molhiv; {held}"
        return f"a structural-alert task on real molecules (NCI's, from RDKit), not HIV; {held}"

    @property
    def outputs(self) -> int:
        """One: the logit of having the property."""
        return 1

    @property
    def makes_dataset(self) -> bool:
        """Whether :meth:`generate` writes the data set; else it is read as it was published."""
        return self.generated or self.smiles_file is not None

    def files(self) -> list[Path]:
        """Return the table of molecules, or the folder of the data set, that the samples are read from."""
        return super().files() if self.smiles_file is None else [self.smiles_file]

    def generate(self) -> Path:
        """Write the molecules in OGB's layout where they are not in the cache yet; returns the data set's folder."""
        molecules = self._molecules()
        return write_molecules(molecules, self.cache / cache_key(molecules), self.source.on_error)

    def split_bytes(self) -> dict[str, int]:
        """Count the bytes of each split: atoms and bonds of molecules of average size."""
        total = min(self.molecules or NCI_MOLECULES, NCI_MOLECULES) * MOLECULE_BYTES
        return {"train": total * 8 // 10, "valid": total // 10, "test": total // 10}

    def _molecules(self) -> Molecules:
        if self.smiles_file is not None:
            return csv_molecules(self.smiles_file, self.label or HIV)
        return nci_molecules(self.label_noise, self.seed, self.molecules)

    def node_encoder(self) -> AtomEncoder:
        """Make the embedding tables of the atoms' features."""
        return AtomEncoder(self.width)

    def edge_encoder(self) -> BondEncoder:
        """Make the embedding tables of the bonds' features."""
        return BondEncoder(self.width)

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Compute the binary cross entropy over the training labels' entropy: 1 for the best constant guess."""
        return functional.binary_cross_entropy_with_logits(model(*inputs(batch)), batch["y"]) / self.entropy

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Compute ROC-AUC, as OGB's evaluator does. Raises DataError where a split has one class only."""
        logits, labels = predictions(model, batches)
        return _auc(labels.numpy(), logits[:, 0].numpy())

    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute ROC-AUC, accuracy at one half (which the paper reports) and average precision."""
        logits, labels = predictions(model, batches)
        truth, guess = labels.numpy(), logits[:, 0].numpy()
        return {
            "ROC-AUC": _auc(truth, guess),
            "accuracy": float(((guess > 0) == truth).mean()),
            "average_precision": float(average_precision_score(truth, guess)),
        }

    def score_terms(self, model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
        """Compute what each molecule adds to ROC-AUC, by its rank among those of the other label."""
        logits, labels = predictions(model, batches)
        return auc_terms(labels.numpy(), logits[:, 0].numpy())

    def baselines(self) -> dict[str, float]:
        """Compute ROC-AUC on the test split of a constant, the number of atoms, and a regression on composition.

        It is a logistic regression on which share of a molecule's atoms, and of its bonds, has each value of each
        feature.
        """
        (x, y), (held, truth) = (_composition(self.graphs.of(split)) for split in ("train", "test"))
        linear = LogisticRegression(max_iter=2000).fit(x, y)
        atoms = np.array([len(g.x) for g in self.graphs.of("test")], np.float64)
        return {
            "constant": 0.5,
            "number_of_atoms": _auc(truth, atoms),
            "logistic_on_composition": _auc(truth, linear.decision_function(held)),
        }

    def features(self) -> Sequence[str]:
        """Name the columns of ``x`` and then of ``edge_attr``: each is an embedding table."""
        return (*ATOM_FEATURES, *BOND_FEATURES)

    def true_dependence(self) -> TrueDependence | None:
        """Say which columns the structural alerts need; None for a table of one's own and for the public labels."""
        return ALERT_COLUMNS if self.generated else None

    def tiny(self) -> Molhiv:
        """Shrink it to at most 300 molecules and a narrow network of two layers."""
        return replace(self, molecules=300, width=8, layers=2, batch_size=20, epochs=2, learning_rate=3e-3)


def _auc(truth: np.ndarray, guess: np.ndarray) -> float:
    if truth.min() == truth.max():
        raise DataError("all molecules of a split have one label, so that ROC-AUC is undefined; use more molecules")
    return float(roc_auc_score(truth, guess))


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
