"""Readers of atoms in a periodic box: PDB files, and LAMMPS data files with charges."""

from __future__ import annotations

from pathlib import Path

import torch

from lumos.errors import DataError, reads
from lumos.workloads.puremd.bond_order import REACH, Box
from lumos.workloads.puremd.forcefield import ForceField

MOST_ATOMS = 10_000_000
"""Atoms of a box, with those that its short edges repeat."""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a file of atoms") from error


def _numbers(path: Path, line: int, words: list[str], what: str) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise DataError(f"{path}:{line}: {what}: {error}") from error


@reads()
def read_pdb(path: Path, ff: ForceField) -> Box:
    """Read atoms and cell of a PDB file: CRYST1 and ATOM or HETATM records, in their fixed columns; Å.

    The element is that of columns 77-78, else the letters of the atom's name.

    Raises:
        DataError: a record is missing or malformed, the cell is not rectangular, or an element has no parameters; the
            message has the line.
    """
    cell: list[float] = []
    places: list[list[float]] = []
    symbols: list[str] = []
    for number, line in enumerate(_lines(path), 1):
        if line.startswith("CRYST1"):
            cell, angles = _cell(path, number, line)
            if any(abs(angle - 90.0) > 1e-3 for angle in angles):
                raise DataError(f"{path}:{number}: angles {angles}; expected a rectangular cell, 90 degrees each")
        elif line.startswith(("ATOM", "HETATM")):
            columns = [line[30:38], line[38:46], line[46:54]]
            places.append(_numbers(path, number, columns, "three coordinates in columns 31-54"))
            symbol = line[76:78].strip() or "".join(c for c in line[12:16] if c.isalpha())
            symbols.append(symbol.capitalize())
    if not cell:
        raise DataError(f"{path}: no CRYST1 record; expected one with the periodic cell")
    return _box(path, places, symbols, cell, ff)


def _cell(path: Path, number: int, line: str) -> tuple[list[float], list[float]]:
    """The edges and angles of a CRYST1 record.

    Where numbers abut, columns count; where a program wrote wider fields than the format has, spaces do.
    """
    words = line[6:].split()
    try:
        apart = [float(word) for word in words[:6]]
    except ValueError:
        apart = []
    if len(apart) == 6 and all(1.0 < angle < 180.0 for angle in apart[3:]):
        return apart[:3], apart[3:]
    edges = _numbers(path, number, [line[6:15], line[15:24], line[24:33]], "three edges in columns 7-33")
    return edges, _numbers(path, number, [line[33:40], line[40:47], line[47:54]], "three angles in columns 34-54")


@reads()
def read_data(path: Path, ff: ForceField) -> Box:
    """Read atoms and cell of a LAMMPS data file, atom style ``charge`` (number, type, charge, x, y, z); Å.

    A type's element is the one whose mass in the force field is nearest to the file's, within 0.5 g/mol; the cell is
    repeated along edges that are too short.

    Raises:
        DataError: something is missing or malformed; the message has the line.
    """
    section, low, edge = "", {}, {}
    masses: dict[int, float] = {}
    places: list[list[float]] = []
    types: list[int] = []
    for number, line in enumerate(_lines(path), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) == 4 and words[2:] in (["xlo", "xhi"], ["ylo", "yhi"], ["zlo", "zhi"]):
            axis = "xyz".index(words[2][0])
            low[axis], high = _numbers(path, number, words[:2], "two bounds of the box")
            edge[axis] = high - low[axis]
        elif words[0].isalpha():
            section = words[0]
        elif section == "Masses":
            kind, mass = _numbers(path, number, words[:2] if len(words) > 1 else ["", ""], "a type and its mass")
            masses[int(kind)] = mass
        elif section == "Atoms":
            if len(words) < 6:
                raise DataError(f"{path}:{number}: {len(words)} columns; expected number, type, charge, x, y, z")
            row = _numbers(path, number, words[:6], "an atom")
            types.append(int(row[1]))
            places.append(row[3:])
            if types[-1] not in masses:
                raise DataError(f"{path}:{number}: type {types[-1]} has no entry under Masses")
    if len(edge) < 3:
        raise DataError(f"{path}: bounds of the box are missing; expected lines 'lo hi xlo xhi', and so for y and z")
    elements = {kind: _element(path, mass, ff) for kind, mass in masses.items()}
    return _box(path, places, [elements[kind] for kind in types], [edge[axis] for axis in range(3)], ff)


def _element(path: Path, mass: float, ff: ForceField) -> str:
    gap = (ff.atom["mass"] - mass).abs()
    nearest = int(gap.argmin())
    if float(gap[nearest]) > 0.5:
        raise DataError(f"{path}: no element of mass {mass} in the force field, which has {', '.join(ff.elements)}")
    return ff.elements[nearest]


def _box(path: Path, places: list[list[float]], symbols: list[str], cell: list[float], ff: ForceField) -> Box:
    """The box, repeated along its short edges until no atom can see two images of another."""
    if len(places) < 2:
        raise DataError(f"{path}: {len(places)} atoms; expected at least 2")
    edges = torch.tensor(cell, dtype=torch.float64)
    if not (torch.isfinite(edges).all() and (edges > 0).all()):
        raise DataError(f"{path}: a cell of {cell} Å; expected three edges > 0")
    x = torch.tensor(places, dtype=torch.float64)
    if not torch.isfinite(x).all():
        raise DataError(f"{path}: a coordinate is not a finite number")
    needed = torch.ceil(2 * REACH / edges)
    if float(needed.prod()) * len(places) > MOST_ATOMS:
        raise DataError(f"{path}: a cell of {cell} Å is repeated to {float(needed.prod()) * len(places):.2g} atoms; "
                        f"expected edges of some Å, for at most {MOST_ATOMS:,}")  # fmt: skip
    repeats = needed.long().tolist()
    shifts = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in repeats)).reshape(-1, 3) * edges
    images = (x[None] + shifts[:, None]).reshape(-1, 3)
    return Box(images, ff.types(symbols * len(shifts), str(path)), edges * torch.tensor(repeats))
