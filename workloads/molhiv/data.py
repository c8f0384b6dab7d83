"""Molecules as graphs: SMILES in, OGB's raw layout out, with a split by scaffold."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit import Chem, RDConfig
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.rdBase import BlockLogs

from lumos.suite.workload import DataError
from lumos.workloads.common.graph_libraries import (
    atom_to_feature_vector,
    bond_to_feature_vector,
    get_atom_feature_dims,
    get_bond_feature_dims,
)
from lumos.workloads.common.graphs import Graph, Graphs
from lumos.workloads.common.ogb_layout import Layout, write_dataset
from lumos.workloads.molhiv.alerts import alerts

logger = logging.getLogger(__name__)

VERSION = 1
PART_ROWS = 2000
NCI_FILE = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"

ATOM_FEATURES = (
    "atomic_num",
    "chirality",
    "degree",
    "formal_charge",
    "num_hydrogens",
    "num_radical_electrons",
    "hybridization",
    "is_aromatic",
    "is_in_ring",
)
BOND_FEATURES = ("bond_type", "bond_stereo", "is_conjugated")

LAYOUT = Layout(
    name="ogbg_molhiv",
    split="scaffold",
    classes=2,
    node_values=tuple(get_atom_feature_dims()),
    edge_values=tuple(get_bond_feature_dims()),
)


@dataclass(frozen=True)
class Molecules:
    """SMILES and 0/1 labels, a row each, and where they come from (for messages)."""

    smiles: Sequence[str]
    labels: np.ndarray
    source: str


# ---- where molecules come from --------------------------------------------------------------------------------------


def nci_molecules(label_noise: float, seed: int, limit: int | None = None) -> Molecules:
    """The molecules of NCI's first_5K.smi, which RDKit ships, each once, labelled by :func:`alerts`.

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


def csv_molecules(file: Path) -> Molecules:
    """A table with the columns ``smiles`` and ``HIV_active`` (0 or 1), as MoleculeNet's HIV.csv.

    Raises DataError for a missing file or column, or a row without a label.
    """
    try:
        table = pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise DataError(f"workload.smiles={file}: cannot be read ({error}); expected a table in CSV") from error
    missing = [name for name in ("smiles", "HIV_active") if name not in table.columns]
    if missing:
        raise DataError(
            f"workload.smiles={file}: no column {' and no '.join(missing)}, but {', '.join(map(str, table.columns))}; "
            "expected smiles and HIV_active"
        )
    bad = np.flatnonzero(table["smiles"].isna().to_numpy() | ~table["HIV_active"].isin([0, 1]).to_numpy())
    if len(bad):
        raise DataError(f"workload.smiles={file}: row {bad[0] + 1} has no SMILES, or an HIV_active that is not 0 or 1")
    if not len(table):
        raise DataError(f"workload.smiles={file}: no rows; expected a molecule in each")
    return Molecules(table["smiles"].astype(str).tolist(), table["HIV_active"].to_numpy(np.int64), str(file))


# ---- molecules to graphs --------------------------------------------------------------------------------------------


def parse(smiles: str) -> Chem.Mol | None:
    """The molecule; one that fails sanitisation (a metal's valence, say) only as far as it goes; None if unreadable."""
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
    """The graph that ``ogb.utils.mol.smiles2graph`` makes, each bond once."""
    bonds = list(molecule.GetBonds())
    x = np.array([atom_to_feature_vector(atom) for atom in molecule.GetAtoms()], np.uint8)
    pairs = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in bonds], np.int64).reshape(-1, 2)
    attr = np.array([bond_to_feature_vector(b) for b in bonds], np.uint8).reshape(-1, len(BOND_FEATURES))
    return Graph(x.reshape(-1, len(ATOM_FEATURES)), pairs, attr, label)


def unreadable(label: int) -> Graph:
    """What keeps the place of a molecule that cannot be read, so that later rows keep their numbers."""
    return Graph(np.zeros((0, 9), np.uint8), np.zeros((0, 2), np.int64), np.zeros((0, 3), np.uint8), label)


def scaffold(smiles: str) -> str | None:
    """The Murcko scaffold's SMILES, without chirality: rings and what links them; None for an unreadable molecule."""
    molecule = parse(smiles)
    if molecule is None:
        return None
    try:
        return MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=False)
    except (ValueError, RuntimeError):
        return ""


def scaffold_split(scaffolds: Sequence[str | None]) -> dict[str, np.ndarray]:
    """Numbers of the molecules in train (80%), valid (10%) and test; no scaffold stands in two of them.

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


def key_of(molecules: Molecules) -> str:
    """A digest of the rows, in hex."""
    state = hashlib.sha256(f"{VERSION}\n".encode())
    state.update("\n".join(molecules.smiles).encode())
    state.update(molecules.labels.astype(np.int64).tobytes())
    return state.hexdigest()[:16]


def write_molecules(molecules: Molecules, folder: Path, on_error: str) -> Path:
    """Write ``folder/ogbg_molhiv`` in OGB's raw layout, row by row: row k of the table is graph k.

    Raises DataError naming the rows that cannot be read, or, with ``on_error="skip"``, logs them and leaves them out of
    the splits; their place stays, as a graph without nodes.
    """
    rows = len(molecules.smiles)

    def make(part: int) -> Graphs:
        here = range(part * PART_ROWS, min((part + 1) * PART_ROWS, rows))
        graphs, bad = [], []
        for row in here:
            molecule, label = parse(molecules.smiles[row]), int(molecules.labels[row])
            if molecule is None or not molecule.GetNumAtoms():
                bad.append(row)
            graphs.append(molecule_graph(molecule, label) if molecule else unreadable(label))
        if bad:
            said = ", ".join(f"{row + 1} ({molecules.smiles[row]})" for row in bad[:5])
            if on_error != "skip":
                raise DataError(f"{molecules.source}: RDKit cannot read the SMILES of row {said}; mend it, or set "
                                "data.on_error=skip to leave such rows out")  # fmt: skip
            logger.warning("left out (data.on_error=skip): %s, row %s: not a SMILES", molecules.source, said)
        return Graphs.stack(graphs)

    def finish(draft: Path) -> dict[str, np.ndarray]:
        (draft / "mapping").mkdir()
        table = pd.DataFrame({"HIV_active": molecules.labels, "smiles": list(molecules.smiles)})
        table.to_csv(draft / "mapping" / "mol.csv.gz", index_label="row")
        return scaffold_split([scaffold(smiles) for smiles in molecules.smiles])

    with BlockLogs():
        return write_dataset(folder, LAYOUT, -(-rows // PART_ROWS), make, finish, "reading molecules")
