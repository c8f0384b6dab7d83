"""OGB's encoders of atoms and bonds: for each feature a table of embeddings, which are added up."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lumos.workloads.molhiv.features import ATOM_VALUES, BOND_VALUES


class AtomEncoder(nn.Module):
    """Features of atoms (atoms, 9) to vectors (atoms, width); its parameters have the names of ogb's AtomEncoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.atom_embedding_list = _tables(ATOM_VALUES, width)

    def forward(self, x: Int[Tensor, "atoms features"]) -> Float[Tensor, "atoms width"]:
        """Add up the embeddings of each atom's features."""
        return _sum(self.atom_embedding_list, x)


class BondEncoder(nn.Module):
    """Features of bonds (bonds, 3) to vectors (bonds, width); its parameters have the names of ogb's BondEncoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bond_embedding_list = _tables(BOND_VALUES, width)

    def forward(self, edge_attr: Int[Tensor, "bonds features"]) -> Float[Tensor, "bonds width"]:
        """Add up the embeddings of each bond's features."""
        return _sum(self.bond_embedding_list, edge_attr)


def _tables(values: Sequence[int], width: int) -> nn.ModuleList:
    tables = nn.ModuleList()
    for count in values:
        table = nn.Embedding(count, width)
        nn.init.xavier_uniform_(table.weight)
        tables.append(table)
    return tables


def _sum(tables: nn.ModuleList, features: Tensor) -> Tensor:
    return functools.reduce(torch.add, [table(features[:, column]) for column, table in enumerate(tables)])
