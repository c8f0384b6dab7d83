"""Molecules as graphs: SMILES in, OGB's raw layout out, with a split by scaffold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem, RDConfig
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.rdBase import BlockLogs

from lumos.errors import DataError, reads
from lumos.workloads.common.damaged import skip_or_raise
from lumos.workloads.common.graphs import Graph, Graphs
from lumos.workloads.common.ogb_layout import Layout, write_dataset
from lumos.workloads.molhiv.alerts import alerts
from lumos.workloads.molhiv.features import (
    ATOM_FEATURES,
    ATOM_VALUES,
    BOND_FEATURES,
    BOND_VALUES,
    atom_features,
    bond_features,
)

VERSION = 1
PART_ROWS = 2000
NCI_FILE = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"

HIV = "HIV_active"
"""The label of MoleculeNet's HIV.csv and of ogbg-molhiv."""

HIV_FILE = "HIV.csv"
"""MoleculeNet's table."""

NCI_MOLECULES = 5000
"""Lines of the file, at most as many molecules."""
MOLECULE_BYTES = 370
"""Of an average molecule: 17 atoms of nine numbers, 18 bonds of three numbers and two int32."""

LAYOUT = Layout(
    name="ogbg_molhiv",
    split="scaffold",
    classes=2,
    node_values=ATOM_VALUES,
    edge_values=BOND_VALUES,
)


@dataclass(frozen=True)
class Molecules:
    """SMILES and 0/1 labels, a row each, where they come from (for messages), and what the label is called."""

    smiles: Sequence[str]
    labels: np.ndarray
    source: str
    label: str = HIV


# ---- where molecules come from --------------------------------------------------------------------------------------


def nci_molecules(label_noise: float, seed: int, limit: int | None = None) -> Molecules:
    """Read the molecules of NCI's first_5K.smi, which RDKit ships, each once, labelled by :func:`alerts`.

    Lines that RDKit cannot read and single atoms are left out. A share ``label_noise`` of the molecules, drawn by the
    seed, have their labels shuffled among them, so that the number of positives stays. ``limit`` keeps that many
    molecules, also drawn.
    """
    smiles, labels = _nci()
    if limit is not None and limit < len(smiles):
        kept = np.sort(np.random.default_rng([seed, 0]).permutation(len(smiles))[:limit])
        smiles, labels = [smiles[k] for k in kept.tolist()], labels[kept]
    labels = labels.copy()
    rng = np.random.default_rng([seed, 1])
    shuffled = np.flatnonzero(rng.random(len(labels)) < label_noise)
    labels[shuffled] = labels[rng.permutation(shuffled)]
    return Molecules(smiles, labels, str(NCI_FILE))


@cache
def _nci() -> tuple[list[str], np.ndarray]:
    try:
        lines = NCI_FILE.read_text().splitlines()
    except OSError as error:
        raise DataError(f"{NCI_FILE}: cannot be read ({error}); install rdkit from its wheel, which has it") from error
    found: dict[str, bool] = {}
    with BlockLogs():
        for line in lines:
            molecule = Chem.MolFromSmiles(line.split()[0]) if line.strip() else None
            if molecule is not None and molecule.GetNumAtoms() > 1:
                smiles = Chem.MolToSmiles(molecule)
                if smiles not in found:
                    found[smiles] = bool(alerts(molecule))
    return list(found), np.array(list(found.values()), np.int64)


@reads("expected a table in CSV", lambda file, *_, **__: f"workload.smiles={file}")
def csv_molecules(file: Path, label: str = HIV) -> Molecules:
    """Read a table with a column of SMILES and one of labels, as MoleculeNet's HIV.csv.

    Args:
        file: The table, in CSV. Its SMILES are in the column of that name, in capitals or not.
        label: The column of the labels: 0 and 1, or two words, of which the later one in the alphabet is the positive.

    Raises:
        DataError: The file or a column is missing, or a row has no label, or there are not two of them.
    """
    table = pd.read_csv(file)
    named = {str(name).lower(): name for name in reversed(table.columns)}
    missing = [name for name in ("smiles",) if name not in named] + [name for name in (label,) if name not in table]
    if missing:
        raise DataError(
            f"workload.smiles={file}: no column {' and no '.join(missing)}, but {', '.join(map(str, table.columns))}; "
            f"expected smiles and {label}" + ("" if label != HIV else ", or workload.label=COLUMN")
        )
    if not len(table):
        raise DataError(f"workload.smiles={file}: no rows; expected a molecule in each")
    smiles, labels = table[named["smiles"]], _two_classes(table[label], file)
    bad = np.flatnonzero(smiles.isna().to_numpy() | (labels < 0))
    if len(bad):
        a, expected = "an" if label == HIV else "a", "0 or 1" if table[label].dtype.kind in "biuf" else "there"
        raise DataError(
            f"workload.smiles={file}: row {bad[0] + 1} has no SMILES, or {a} {label} that is not {expected}"
        )
    return Molecules(smiles.astype(str).tolist(), labels, str(file), label)


def _two_classes(column: Any, file: Path) -> np.ndarray:
    """0 and 1 for the two values of a column, -1 for what is missing or neither."""
    if column.dtype.kind in "biuf":
        return np.where(column.isin([0, 1]), column, -1).astype(np.int64)
    values = sorted(column.dropna().astype(str).unique())
    if len(values) != 2:
        raise DataError(
            f"workload.smiles={file}: {column.name} has {len(values)} values; expected 0 and 1, or two words"
        )
    return column.astype(object).map(lambda v: values.index(str(v)) if isinstance(v, str) else -1).to_numpy(np.int64)


# ---- molecules to graphs --------------------------------------------------------------------------------------------


def parse(smiles: str) -> Chem.Mol | None:
    """Parse a molecule; one that fails sanitisation (a metal's valence, say) as far as it goes; None if unreadable."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is not None:
        return molecule
    for left_out in (Chem.SANITIZE_PROPERTIES, Chem.SANITIZE_PROPERTIES | Chem.SANITIZE_KEKULIZE):
        molecule = Chem.MolFromSmiles(smiles, sanitize=False)
        if molecule is None:
            return None
        try:
            molecule.UpdatePropertyCache(strict=False)
            Chem.SanitizeMol(molecule, Chem.SANITIZE_ALL ^ left_out)
        except (ValueError, RuntimeError):
            continue
        return molecule
    return None


def molecule_graph(molecule: Chem.Mol, label: int) -> Graph:
    """Make the graph that ``ogb.utils.mol.smiles2graph`` makes, each bond once."""
    bonds = list(molecule.GetBonds())
    x = np.array([atom_features(atom) for atom in molecule.GetAtoms()], np.uint8)
    pairs = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in bonds], np.int64).reshape(-1, 2)
    attr = np.array([bond_features(b) for b in bonds], np.uint8).reshape(-1, len(BOND_FEATURES))
    return Graph(x.reshape(-1, len(ATOM_FEATURES)), pairs, attr, label)


def empty_graph(label: int) -> Graph:
    """Make what keeps the place of a molecule that cannot be read, so that later rows keep their numbers."""
    x, attr = (np.zeros((0, len(names)), np.uint8) for names in (ATOM_FEATURES, BOND_FEATURES))
    return Graph(x, np.zeros((0, 2), np.int64), attr, label)


def scaffold(smiles: str) -> str | None:
    """Find the Murcko scaffold, as SMILES without chirality: rings and what links them; None if unreadable."""
    molecule = parse(smiles)
    if molecule is None:
        return None
    try:
        return MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=False)
    except (ValueError, RuntimeError):
        return ""


def scaffold_split(scaffolds: Sequence[str | None]) -> dict[str, np.ndarray]:
    """Split molecules, by number, into train (80%), valid (10%) and test; no scaffold stands in two of them.

    The largest sets of one scaffold come first and fill train, then valid, so that test holds the rare ones: the split
    of MoleculeNet (Z. Wu et al., Chem. Sci. 9, 513, 2018) and OGB. Molecules without a scaffold entry (None) are in
    none.
    """
    sets: dict[str, list[int]] = {}
    for number, key in enumerate(scaffolds):
        if key is not None:
            sets.setdefault(key, []).append(number)
    total = len(scaffolds)
    splits: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    for numbers in sorted(sets.values(), key=lambda s: (len(s), s[0]), reverse=True):
        if len(splits["train"]) + len(numbers) <= 0.8 * total:
            splits["train"] += numbers
        elif len(splits["train"]) + len(splits["valid"]) + len(numbers) <= 0.9 * total:
            splits["valid"] += numbers
        else:
            splits["test"] += numbers
    if not all(splits.values()):
        raise DataError(f"{total} molecules with {len(sets)} scaffolds do not fill three splits; expected more of both")
    return {split: np.array(sorted(numbers), np.int64) for split, numbers in splits.items()}


# ---- the tree -------------------------------------------------------------------------------------------------------


def cache_key(molecules: Molecules) -> str:
    """Compute a digest of the rows, in hex."""
    state = hashlib.sha256(f"{VERSION}\n".encode())
    state.update("\n".join(molecules.smiles).encode())
    state.update(molecules.labels.astype(np.int64).tobytes())
    return state.hexdigest()[:16]


def write_molecules(molecules: Molecules, folder: Path, on_error: str) -> Path:
    """Write ``folder/ogbg_molhiv`` in OGB's raw layout, row by row: row k of the table is graph k.

    Raises:
        DataError: rows cannot be read; the message names them. With ``on_error="skip"`` they are named in the log and
            left out of the splits; their place stays, as a graph without nodes.
    """
    rows = len(molecules.smiles)

    def make(part: int) -> Graphs:
        here = range(part * PART_ROWS, min((part + 1) * PART_ROWS, rows))
        graphs, bad = [], []
        for row in here:
            molecule, label = parse(molecules.smiles[row]), int(molecules.labels[row])
            if molecule is None or not molecule.GetNumAtoms():
                bad.append(row)
            graphs.append(molecule_graph(molecule, label) if molecule else empty_graph(label))
        if bad:
            said = ", ".join(f"{row + 1} ({molecules.smiles[row]})" for row in bad[:5])
            error = DataError(f"{molecules.source}: RDKit cannot read the SMILES of row {said}; mend it, or set "
                              "data.on_error=skip to leave such rows out")  # fmt: skip
            skip_or_raise(error, on_error)
        return Graphs.stack(graphs)

    def finish(draft: Path) -> dict[str, np.ndarray]:
        (draft / "mapping").mkdir()
        table = pd.DataFrame({molecules.label: molecules.labels, "smiles": list(molecules.smiles)})
        as_ever = {"method": "gzip", "mtime": 0}  # the same bytes whenever it is made
        table.to_csv(draft / "mapping" / "mol.csv.gz", index_label="row", compression=as_ever)
        return scaffold_split([scaffold(smiles) for smiles in molecules.smiles])

    with BlockLogs():
        return write_dataset(folder, LAYOUT, -(-rows // PART_ROWS), make, finish, "reading molecules")
