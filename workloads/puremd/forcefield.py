"""ReaxFF parameters as tensors by atom type, from the built-in published table or from a force field file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lumos.errors import DataError, reads
from lumos.workloads.puremd import parameters

RADII = ("r_s", "r_p", "r_pp")

# Where each value stands among the numbers of an element's four lines, and of a bond's two, in a force field file.
_ATOM_PLACE = dict(zip(parameters.ATOM_COLUMNS, (0, 1, 2, 6, 7, 10, 11, 16, 17, 19, 20, 21, 24, 27), strict=True))
_BOND_PLACE = dict(zip(parameters.BOND_COLUMNS, (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14), strict=True))
_GENERAL_NEEDED = 33


@dataclass(frozen=True)
class ForceField:
    """Parameters in double precision; ``atom[name][type]`` and ``pair[name][type, type]``; Å, kcal/mol, g/mol.

    ``pair`` also holds the mixed radii and the corrections boc3, boc4 and boc5. ``known`` marks the pairs of types
    that have a bond entry; others never bond.
    """

    elements: tuple[str, ...]
    general: Float[Tensor, " general"]
    atom: Mapping[str, Float[Tensor, " types"]]
    pair: Mapping[str, Float[Tensor, "types types"]]
    known: Bool[Tensor, "types types"]

    @property
    def cutoff(self) -> float:
        """The smallest bond order that counts as a bond."""
        return 0.01 * float(self.general[29])

    def types(self, symbols: Sequence[str], where: str) -> Tensor:
        """Look up the type of each atom by its element. Raises DataError naming an element without parameters."""
        number = {name: i for i, name in enumerate(self.elements)}
        missing = sorted(set(symbols) - set(number))
        if missing:
            raise DataError(
                f"{where}: no parameters for {', '.join(missing)}; the force field has {', '.join(self.elements)}"
            )
        return torch.tensor([number[s] for s in symbols])


def published() -> ForceField:
    """Build the C/H/O parameters of Chenoweth, van Duin and Goddard (2008); see ``parameters.py``."""
    general = [parameters.GENERAL.get(i, 0.0) for i in range(_GENERAL_NEEDED)]
    elements = tuple(parameters.ATOMS)
    number = {name: i for i, name in enumerate(elements)}
    return _build(
        elements,
        general,
        [dict(zip(parameters.ATOM_COLUMNS, map(float, row), strict=True)) for row in parameters.ATOMS.values()],
        {
            (number[a], number[b]): dict(zip(parameters.BOND_COLUMNS, map(float, row), strict=True))
            for (a, b), row in parameters.BONDS.items()
        },
        {(number[a], number[b]): [float(r) for r in row] for (a, b), row in parameters.RADII.items()},
    )


def _build(
    elements: tuple[str, ...],
    general: Sequence[float],
    atoms: Sequence[Mapping[str, float]],
    bonds: Mapping[tuple[int, int], Mapping[str, float]],
    radii: Mapping[tuple[int, int], Sequence[float]],
) -> ForceField:
    double = torch.float64
    atom = {name: torch.tensor([float(a[name]) for a in atoms], dtype=double) for name in parameters.ATOM_COLUMNS}
    # Light atoms use one valence for both corrections (as in the published code and in LAMMPS).
    atom["val_val"] = torch.where(atom["mass"] < 21.0, atom["val_boc"], atom["val_val"])
    # 1 is a value at which no formula divides by zero; `known` keeps such pairs from bonding.
    pair = {name: torch.ones(len(atoms), len(atoms), dtype=double) for name in parameters.BOND_COLUMNS}
    known = torch.zeros(len(atoms), len(atoms), dtype=torch.bool)
    for (i, j), values in bonds.items():
        known[i, j] = known[j, i] = True
        for name in parameters.BOND_COLUMNS:
            pair[name][i, j] = pair[name][j, i] = float(values[name])
    for column, name in enumerate(RADII):
        # A bond of this order needs a positive radius on both atoms, whatever the off-diagonal entry says.
        both = (atom[name][:, None] > 0) & (atom[name] > 0)
        pair[name] = torch.where(both, (atom[name][:, None] + atom[name]) / 2, 0.0)
        for (i, j), row in radii.items():
            if row[column] > 0 and both[i, j]:
                pair[name][i, j] = pair[name][j, i] = float(row[column])
    for name, source in (("boc3", "b132"), ("boc4", "b131"), ("boc5", "b133")):
        pair[name] = (atom[source][:, None] * atom[source]).clamp(min=0).sqrt()
    return ForceField(elements, torch.tensor([float(g) for g in general], dtype=double), atom, pair, known)


class _Lines:
    """The lines of a force field file one by one, with the place of each for error messages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        try:
            self.lines = path.read_text(encoding="latin-1").splitlines()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); expected a ReaxFF force field file") from error

    def next(self, what: str) -> list[str]:
        if self.number >= len(self.lines):
            raise DataError(f"{self.path}:{self.number + 1}: the file ends where {what} was expected; fetch it again")
        self.number += 1
        return self.lines[self.number - 1].split("!")[0].split()

    def numbers(self, words: Sequence[str], count: int, what: str) -> list[float]:
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise DataError(f"{self.path}:{self.number}: {what}: {error}; expected numbers") from error
        if len(values) < count:
            raise DataError(f"{self.path}:{self.number}: {what} has {len(values)} numbers; expected {count}")
        return values

    def count(self, what: str) -> int:
        words = self.next(f"the number of {what}")
        if not words or not words[0].isdigit():
            raise DataError(f"{self.path}:{self.number}: expected the number of {what}, found {' '.join(words)!r}")
        return int(words[0])


@reads()
def read_forcefield(path: Path) -> ForceField:
    """Read a ReaxFF force field file: general, atom, bond and off-diagonal blocks; what follows is not needed.

    Raises:
        DataError: a number is missing or malformed; the message has file and line.
    """
    lines = _Lines(path)
    lines.next("a title")
    what = "a general parameter"
    general = [lines.numbers(lines.next(what), 1, what)[0] for _ in range(lines.count("general parameters"))]
    if len(general) < _GENERAL_NEEDED:
        raise DataError(f"{path}: {len(general)} general parameters; expected at least {_GENERAL_NEEDED}")
    elements, atoms = _read_atoms(lines)
    bonds = {}
    count = lines.count("bonds")
    lines.next("the second line of the bonds' header")
    for _ in range(count):
        i, j, first = _entry(lines, "a bond", len(atoms), 8)
        second = lines.numbers(lines.next("a bond's second line"), 7, "a bond's second line")
        row = [*first[:8], *second]
        bonds[i, j] = {name: row[place] for name, place in _BOND_PLACE.items()}
    radii = {}
    for _ in range(lines.count("off-diagonal terms")):
        i, j, row = _entry(lines, "an off-diagonal term", len(atoms), 6)
        radii[i, j] = row[3:6]
    return _build(tuple(elements), general, atoms, bonds, radii)


def _read_atoms(lines: _Lines) -> tuple[list[str], list[dict[str, float]]]:
    count = lines.count("atoms")
    for _ in range(3):
        lines.next("the atoms' header")
    elements, atoms = [], []
    for _ in range(count):
        words = lines.next("an atom")
        elements.append(words[0].capitalize() if words else "")
        row = lines.numbers(words[1:], 8, "an atom's first line")[:8]
        for _ in range(3):
            row += lines.numbers(lines.next("an atom's values"), 8, "an atom's values")[:8]
        atoms.append({name: row[place] for name, place in _ATOM_PLACE.items()})
    return elements, atoms


def _entry(lines: _Lines, what: str, types: int, count: int) -> tuple[int, int, list[float]]:
    words = lines.next(what)
    row = lines.numbers(words, count + 2, what)
    i, j = int(row[0]) - 1, int(row[1]) - 1
    if not (0 <= i < types and 0 <= j < types):
        raise DataError(f"{lines.path}:{lines.number}: {what} names types {i + 1} {j + 1}; expected 1 to {types}")
    return i, j, row[2:]
