"""Tetrahedral meshes: the project's own box with a bump, and the text format of Rodinia's euler3d."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from lumos.errors import DataError, reads

WALL = -1
"""Code of a neighbour that is a solid wall (0 in a ``.domn`` file)."""

FAR_FIELD = -2
"""Code of a neighbour that is the undisturbed flow (any negative number in a ``.domn`` file)."""

FIELDS = 17
"""Numbers per element in a ``.domn`` file: the area, then neighbour and normal of four faces."""


@dataclass(frozen=True)
class Mesh:
    """Tetrahedra with what a finite-volume scheme needs of them; lengths in units of a cell's edge.

    ``area`` is what the step formula of the solver calls so, the element's volume. ``neighbour`` counts from 0;
    a negative entry is :data:`WALL` or :data:`FAR_FIELD`. ``normal`` points outward and is as long as the face's
    area (twice that in Rodinia's own files). Raises DataError where its numbers contradict each other.
    """

    area: Float[np.ndarray, " elements"]
    neighbour: Int[np.ndarray, "elements 4"]
    normal: Float[np.ndarray, "elements 4 3"]

    def __post_init__(self) -> None:
        for problem, rows in self.faults():
            if rows.any():
                raise DataError(f"element {int(rows.argmax())} (counted from 0): {problem}")

    def __len__(self) -> int:
        return len(self.area)

    def faults(self) -> list[tuple[str, Any]]:
        """List what can be wrong with an element, and which elements it is true of."""
        n, element = len(self), np.arange(len(self))
        outside = (self.neighbour >= n) | (self.neighbour < FAR_FIELD)
        there = np.where(outside | (self.neighbour < 0), element[:, None], self.neighbour)
        unlisted = np.all(self.neighbour[there] != element[:, None, None], axis=2) & (self.neighbour >= 0) & ~outside
        finite = np.isfinite(self.normal).all((1, 2))
        return [
            ("expected a finite area > 0", ~(np.isfinite(self.area) & (self.area > 0))),
            (f"a neighbour is not one of the {n} elements", outside.any(1)),
            ("it is its own neighbour", (self.neighbour == element[:, None]).any(1)),
            ("a neighbour does not list it in turn", unlisted.any(1)),
            ("a normal is not finite", ~finite),
            ("a normal is zero", np.all(self.normal == 0, axis=2).any(1)),
        ]


def box_with_bump(cells: Sequence[int], jitter: float = 0.15, seed: int = 0) -> Mesh:
    """Build a box of ``cells`` (x, y, z) hexahedra, six tetrahedra each, over a floor (y = 0) with a smooth bump.

    The floor is a wall, the five other sides are far field. The bump is a Gaussian in x and z, a quarter of the box
    high and centred at 40% of its length; the grid lines above it are compressed. Inner vertices are moved by up to
    ``jitter`` of an edge in each direction, so that faces have all kinds of normals. All six tetrahedra share their
    hexahedron's main diagonal and are alike in each (Kuhn's triangulation), so that faces match across hexahedra.

    Raises:
        DataError: there are fewer than two cells along a side, or ``jitter`` is outside [0, 0.3].
    """
    position, tetrahedra, on_floor = box_vertices(cells, jitter, seed)
    return _from_tetrahedra(position, tetrahedra, on_floor)


def box_vertices(
    cells: Sequence[int], jitter: float = 0.15, seed: int = 0
) -> tuple[Float[np.ndarray, "vertices 3"], Int[np.ndarray, "elements 4"], Bool[np.ndarray, " vertices"]]:
    """Place the vertices of :func:`box_with_bump`; returns them, those of each element, and which are on the floor."""
    if len(cells) != 3 or min(cells) < 2:
        raise DataError(f"workload.cells={list(cells)}: expected three numbers >= 2, the cells along x, y and z")
    if not 0 <= jitter <= 0.3:
        raise DataError(f"jitter={jitter}: expected a share of an edge in [0, 0.3]")
    corner = np.stack(np.meshgrid(*(np.arange(n + 1) for n in cells), indexing="ij"), axis=-1)
    position = _bumped(corner.astype(np.float64), np.asarray(cells, dtype=np.float64))
    inner = ((corner > 0) & (corner < np.asarray(cells))).all(-1)
    position[inner] += np.random.default_rng(seed).uniform(-jitter, jitter, (int(inner.sum()), 3))
    on_floor = (corner[..., 1] == 0).reshape(-1)
    return position.reshape(-1, 3), _kuhn(cells), on_floor


def _bumped(corner: Float[np.ndarray, "x y z 3"], size: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "x y z 3"]:
    x, y, z = (corner[..., axis] / size[axis] for axis in range(3))
    floor = 0.25 * np.exp(-(((x - 0.4) / 0.15) ** 2) - ((z - 0.5) / 0.3) ** 2)
    position = corner.copy()
    position[..., 1] = (floor + (1 - floor) * y) * size[1]
    return position


def _kuhn(cells: Sequence[int]) -> Int[np.ndarray, "elements 4"]:
    """Vertex numbers of the tetrahedra: for each order of the axes, the path along it from corner to corner."""
    nodes = np.asarray(cells) + 1
    origin = np.stack(np.meshgrid(*(np.arange(n) for n in cells), indexing="ij"), axis=-1).reshape(-1, 1, 3)
    paths = [np.cumsum(np.eye(3, dtype=np.int64)[list(order)], axis=0) for order in permutations(range(3))]
    steps = np.stack([np.vstack([np.zeros((1, 3), np.int64), path]) for path in paths])  # (6, 4, 3)
    at = (origin[:, None] + steps[None]).reshape(-1, 4, 3)
    return np.ravel_multi_index((at[..., 0], at[..., 1], at[..., 2]), tuple(nodes))


def _from_tetrahedra(
    position: Float[np.ndarray, "vertices 3"],
    tetrahedra: Int[np.ndarray, "elements 4"],
    on_floor: Bool[np.ndarray, " vertices"],
) -> Mesh:
    n = len(tetrahedra)
    opposite = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
    # Sorted vertices name a face, and give both of its sides the very same normal but for the sign.
    face = np.sort(tetrahedra[:, opposite], axis=2)  # (elements, 4, 3)
    a, b, c = (position[face[..., k]] for k in range(3))
    normal = np.cross(b - a, c - a) / 2
    outward = np.einsum("efk,efk->ef", normal, a - position[tetrahedra])
    normal *= np.sign(outward)[..., None]

    flat = face.reshape(-1, 3)
    order = np.lexsort(flat.T)
    same = (flat[order[1:]] == flat[order[:-1]]).all(1)
    one, other = order[:-1][same], order[1:][same]
    neighbour = np.where(on_floor[flat].all(1), WALL, FAR_FIELD)
    neighbour[one], neighbour[other] = other // 4, one // 4

    edges = position[tetrahedra[:, 1:]] - position[tetrahedra[:, :1]]
    volume = np.abs(np.linalg.det(edges)) / 6
    return Mesh(volume, neighbour.reshape(n, 4), normal)


@reads()
def read_domn(path: Path) -> Mesh:
    """Read Rodinia's ``.domn`` text: the count of elements, then ``area`` and 4 x (``neighbour nx ny nz``) each.

    Neighbours count from 1 there; 0 is a wall, a negative number the far field. Normals are kept as they are written.

    Raises:
        DataError: a word is missing, is no number, or contradicts another; the message has file and line.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read it as a .domn text file ({error})") from error
    head, _, body = text.lstrip().partition("\n")
    n = int(head) if head.strip().isdecimal() else 0
    if n < 1:
        raise DataError(f"{path}: line 1: expected the number of elements (> 0) alone, got {head.strip()[:40]!r}")
    try:
        table = np.array(body.split(), dtype=np.float64)
    except ValueError:
        table = np.empty(0)
    if table.size != n * FIELDS:
        raise DataError(f"{path}: {_first_fault(text, n)}")
    table = table.reshape(n, FIELDS)
    faces = table[:, 1:].reshape(n, 4, 4)
    number = faces[..., 0]
    whole = (number == np.round(number)) & (np.abs(number) <= 2**53)
    if not whole.all():
        raise DataError(f"{path}: line {_line(text, int(whole.all(1).argmin()))}: a neighbour is not a whole number")
    # 1-based to 0-based; what is beyond the last element stays there and is found by the mesh's own checks.
    neighbour = np.select([number > 0, number == 0], [number - 1, WALL], FAR_FIELD).astype(np.int64)
    mesh = object.__new__(Mesh)
    for name, value in (("area", table[:, 0].copy()), ("neighbour", neighbour), ("normal", faces[..., 1:].copy())):
        object.__setattr__(mesh, name, value)
    for problem, rows in mesh.faults():
        if rows.any():
            raise DataError(f"{path}: line {_line(text, int(rows.argmax()))}: {problem}")
    return mesh


def _line(text: str, element: int) -> int:
    """The line, counted from 1, on which an element starts (elements need not be a line each)."""
    seen = 0
    for number, line in enumerate(text.splitlines(), start=1):
        seen += len(line.split())
        if seen > 1 + element * FIELDS:
            return number
    return 1


def _first_fault(text: str, n: int) -> str:
    """Why the numbers after the first line are not 17 for each of the n elements, in words, with the line."""
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        for word in line.split():
            try:
                float(word)
            except ValueError:
                return f"line {number}: expected a number, got {word[:40]!r}"
    count = sum(len(line.split()) for line in lines) - 1
    odd = next((k for k, line in enumerate(lines[1:], start=2) if len(line.split()) not in (0, FIELDS)), None)
    where = f"line {odd}: it has {len(lines[odd - 1].split())} numbers; " if odd else ""
    return f"{where}expected {FIELDS} numbers for each of {n} elements, {n * FIELDS} in all, got {count}"


def write_domn(mesh: Mesh, path: Path) -> None:
    """Write the mesh as ``.domn`` text, numbers in full precision, under a temporary name that is then renamed."""
    number = np.select([mesh.neighbour >= 0, mesh.neighbour == WALL], [mesh.neighbour + 1, 0], -1)
    lines = [str(len(mesh))]
    for area, numbers, normals in zip(mesh.area.tolist(), number.tolist(), mesh.normal.tolist(), strict=True):
        faces = (f"{nb} {x!r} {y!r} {z!r}" for nb, (x, y, z) in zip(numbers, normals, strict=True))
        lines.append(f"{area!r} {' '.join(faces)}")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text("\n".join(lines) + "\n")
        os.replace(draft, path)
    except OSError as error:
        raise DataError(f"{path}: cannot write the mesh ({error})") from error
    finally:
        draft.unlink(missing_ok=True)
