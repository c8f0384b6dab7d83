"""Samples of Add_dBond_to_Forces: its inner loop over neighbours, and its force on a bond's own two atoms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumos.errors import DataError
from lumos.workloads.puremd.bond_order import Box
from lumos.workloads.puremd.files import read_data, read_pdb
from lumos.workloads.puremd.forcefield import ForceField, published, read_forcefield
from lumos.workloads.puremd.forces import (
    Molecules,
    analyse,
    bond_forces,
    neighbour_coefficients,
    neighbour_rows,
    self_terms,
)
from lumos.workloads.puremd.molecules import build_box, jittered

VERSION = "1"
"""Part of the cache's key: changed whenever equal settings would give other samples."""

Variant = Literal["inner", "bond"]
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


def _vector(name: str) -> tuple[str, str, str]:
    return f"{name}_x", f"{name}_y", f"{name}_z"


INPUTS: Mapping[Variant, tuple[str, ...]] = {
    "inner": ("c_dbo", "c_ddelta", "c_dbopi", "c_dbopi2", *_vector("dbop_k"), *_vector("temp")),
    "bond": (
        *("C1dbo", "C2dbo", "C3dbo", "C1dbopi", "C2dbopi", "C3dbopi", "C4dbopi"),
        *("C1dbopi2", "C2dbopi2", "C3dbopi2", "C4dbopi2"),
        *("Cdbo", "Cdbopi", "Cdbopi2", "CdDelta_i", "CdDelta_j"),
        *(*_vector("dBOp"), *_vector("dln_pi"), *_vector("dln_pi2")),
        *(*_vector("dDeltap_self_i"), *_vector("dDeltap_self_j")),
    ),
}
"""``inner``: four coefficients (kcal/mol), the neighbour's dBOp (1/Å), temp before (kcal/mol/Å). ``bond``: C.. no
unit, Cd.. kcal/mol, derivatives 1/Å."""

OUTPUTS: Mapping[Variant, tuple[str, ...]] = {
    "inner": _vector("new_temp"),
    "bond": (*_vector("f_i"), *_vector("f_j")),
}
"""kcal/mol/Å; a force is +dE/dx, as in the kernel."""


def inner_samples(m: Molecules) -> tuple[Float[Tensor, "rows 10"], Float[Tensor, "rows 3"]]:
    """Sample every turn of the loop over neighbours k of a bond's atom: new temp = -(sum of the coefficients) dBOp_ik.

    ``temp`` before is what the turn before left there, zero at the first; the kernel overwrites it.
    """
    edge, k = neighbour_rows(m.bonds, len(m.box.types))
    coefficients, d = neighbour_coefficients(m)[edge], m.bonds.d_order[k]
    new = -coefficients.sum(1, keepdim=True) * d
    before = torch.cat([torch.zeros_like(new[:1]), new[:-1]])
    return torch.cat([coefficients, d, before], dim=1), new


def bond_samples(m: Molecules) -> tuple[Float[Tensor, "bonds 31"], Float[Tensor, "bonds 6"]]:
    """Sample every bond i < j: what describes it, and the force on its own atoms, without the neighbours' part."""
    bonds, o, demand = m.bonds, m.orders, m.demand
    once = torch.nonzero(bonds.i < bonds.j)[:, 0]
    i, j = bonds.i[once], bonds.j[once]
    scalars = [
        *(o.c1dbo, o.c2dbo, o.c3dbo, o.c1dbopi, o.c2dbopi, o.c3dbopi, o.c4dbopi),
        *(o.c1dbopi2, o.c2dbopi2, o.c3dbopi2, o.c4dbopi2, demand.cb, demand.cp, demand.cq),
    ]
    own = self_terms(bonds, len(m.box.types))
    described = torch.cat(
        [
            torch.stack([value[once] for value in scalars] + [demand.cd[i], demand.cd[j]], dim=1),
            *(bonds.d_order[once], bonds.d_pi[once], bonds.d_pi2[once], own[i], own[j]),
        ],
        dim=1,
    )
    force = bond_forces(m)
    return described, torch.cat([force[once], force[bonds.reverse[once]]], dim=1)


SAMPLES = {"inner": inner_samples, "bond": bond_samples}


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch on one thread while replicas run side by side: boxes are small, its own threads would only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


Part = tuple[Split, int, int]
"""A replica's split, its number and the rows drawn from it."""


def replica_parts(replicas: int, rows: int) -> list[Part]:
    """Share ``rows`` equally among the replicas: 80% of them train, the rest, at least one each, are valid and test."""
    held = max(1, round(0.1 * replicas))
    counts: dict[Split, int] = {"train": replicas - 2 * held, "valid": held, "test": held}
    parts: list[Part] = []
    for split in SPLITS:
        count = counts[split]
        mine = round(rows * count / replicas)
        parts.extend((split, n, mine * (n + 1) // count - mine * n // count) for n in range(count))
    return parts


def systems(root: Path, force_field: str | None = None) -> list[tuple[Path, Path]]:
    """Find files of atoms, each with its force field.

    Atoms are ``root`` itself, or all ``*.pdb``, ``*.data*`` and ``data.*`` in it. The force field (``*ffield*``) lies
    beside them; where there are several, it is the one that is named after the first word of the atoms' file
    (``water_300.pdb``: ``ffield.water``), or the only one with this word in its name.

    Args:
        root: A file of atoms or a folder of them.
        force_field: The name of the force field beside the atoms, in place of the one that is found.

    Raises:
        DataError: there are no such files, or no force field, or several to choose from.
    """
    folder = root if root.is_dir() else root.parent
    fields = sorted(folder.glob("*ffield*"))
    patterns = ("*.pdb", "*.data*", "data.*")
    found = sorted({file for pattern in patterns for file in folder.glob(pattern)}) if root.is_dir() else [root]
    if not found:
        raise DataError(f"data.root={root}: no file of atoms there; expected *.pdb, *.data* or data.*, and an *ffield*")
    return [(file, _force_field(file, fields, force_field)) for file in found]


def _force_field(atoms: Path, fields: Sequence[Path], name: str | None) -> Path:
    """The force field of a file of atoms, among those beside it."""
    if name is not None:
        if not (atoms.parent / name).is_file():
            names = ", ".join(field.name for field in fields) or "none"
            raise DataError(f"workload.force_field={name}: not beside {atoms}, where there is {names}")
        return atoms.parent / name
    if not fields:
        raise DataError(f"{atoms}: no force field beside it; expected a file *ffield*, or workload.force_field=NAME")
    word = re.split(r"[._-]", atoms.name)[0].lower()
    close = [field for field in fields if word in field.name.lower()]
    exact = [field for field in close if re.split(r"[._-]", field.name.lower()) == ["ffield", word]]
    for choice in (fields, exact, close):
        if len(choice) == 1:
            return choice[0]
    names = ", ".join(field.name for field in fields)
    raise DataError(f"{atoms}: {len(fields)} force fields beside it ({names}), and none is its own by its name; "
                    "choose one: workload.force_field=NAME")  # fmt: skip


def read_system(atoms: Path, forcefield: Path) -> tuple[Box, ForceField]:
    """Read a box of atoms from a PDB or LAMMPS data file, and its force field."""
    ff = read_forcefield(forcefield)
    return (read_pdb if atoms.suffix.lower() == ".pdb" else read_data)(atoms, ff), ff


@dataclass(frozen=True)
class Replicas:
    """What one replica is made from: the variant of the kernel, and temperatures (K) between which it draws its own.

    ``molecules`` and ``volume`` (Å3 a molecule) describe the project's own boxes.
    """

    variant: Variant
    kelvin: tuple[float, float]
    molecules: Mapping[str, int]
    volume: float

    def make(self, source: tuple[Path, Path] | None, rows: int, split: Split, seed: list[int]) -> dict[str, np.ndarray]:
        """Draw ``rows`` samples without repetition from one replica: ``{split}_{inputs,outputs}``, float32.

        A replica is a box built anew, or, with ``source``, a file's atoms moved by thermal jitter.

        Raises:
            DataError: the replica has fewer samples than asked for.
        """
        rng = np.random.default_rng(seed)
        kelvin = float(rng.uniform(*self.kelvin))
        if source is None:
            ff = published()
            box = build_box(self.molecules, self.volume, kelvin, ff, rng)
        else:
            box, ff = read_system(*source)
            box = replace(box, positions=jittered(box.positions, ff.atom["mass"][box.types], kelvin, rng))
        inputs, outputs = SAMPLES[self.variant](analyse(box, ff))
        if source is not None and not bool(outputs.any()):
            raise DataError(
                f"{source[1]}: every output of workload.variant={self.variant} is zero for the atoms of {source[0]}: "
                "none of its bonds has corrections; expected another force field (workload.force_field=NAME)"
            )
        if rows > len(inputs):
            raise DataError(
                f"workload.rows: {rows} rows of one replica, which has {len(inputs)}; lower workload.rows or raise "
                "workload.replicas"
            )
        chosen = np.sort(rng.choice(len(inputs), rows, replace=False))
        return {
            f"{split}_inputs": inputs.numpy()[chosen].astype(np.float32),
            f"{split}_outputs": outputs.numpy()[chosen].astype(np.float32),
        }
