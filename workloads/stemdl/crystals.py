"""Crystals of known space group: textbook structure types with species, sizes and free parameters drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from jaxtyping import Float, Int
from rdkit.Chem import GetPeriodicTable

POOLS = {
    "big": "Na K Ca Rb Sr Y Cs Ba La Pb",
    "metal": "Mg Al Ti V Cr Mn Fe Co Ni Cu Zn Zr Nb Mo Ru Pd Ag Cd In Sn Hf Ta W Re Pt Au",
    "ligand": "O F S Cl Se",
    "anion": "C N O Si P S Ge As Se Sb Te",
    "any": "Li Be Al Si Ti V Cr Fe Ni Cu Ge Nb Mo Pd Ag Sn Ta W Pt Au Pb",
}
"""Elements that a site of a structure type is filled with."""


@dataclass(frozen=True)
class Crystal:
    """One material: its conventional cell with rows a, b, c in A, and what is in it.

    ``numbers`` are atomic numbers Z, ``sites`` fractional coordinates, ``rms`` the thermal displacement along one
    axis in A, and ``space_group`` the number in the International Tables, 1 to 230.
    """

    name: str
    space_group: int
    cell: Float[np.ndarray, "3 3"]
    numbers: Int[np.ndarray, " atoms"]
    sites: Float[np.ndarray, "atoms 3"]
    rms: float


Sites = Sequence[tuple[int, Sequence[tuple[float, float, float]]]]
"""For each species of a structure type, by number, the fractional coordinates of its atoms."""

Shape = tuple[Float[np.ndarray, "3 3"], Sites]
"""A cell up to its size, and its sites."""


@dataclass(frozen=True)
class StructureType:
    """A structure type: the pools its species come from, and how its shape is drawn."""

    name: str
    space_group: int
    pools: tuple[str, ...]
    shape: Callable[[np.random.Generator], Shape]


def cuboid(b: float = 1.0, c: float = 1.0) -> Float[np.ndarray, "3 3"]:
    """Make an orthogonal cell with a = 1."""
    return np.diag([1.0, b, c])


def hexagon(c: float) -> Float[np.ndarray, "3 3"]:
    """Make a hexagonal cell with a = b = 1 and 120 degrees between them."""
    return np.array([[1.0, 0.0, 0.0], [-0.5, np.sqrt(3) / 2, 0.0], [0.0, 0.0, c]])


def centred(kind: str, *points: tuple[float, float, float]) -> list[tuple[float, float, float]]:
    """Copy points by the centring translations of a body-centred (I) or face-centred (F) cell."""
    shifts = {"I": [(0, 0, 0), (0.5, 0.5, 0.5)], "F": [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]}
    return [(x + u, y + v, z + w) for x, y, z in points for u, v, w in shifts[kind]]


# ---- structure types, by space group --------------------------------------------------------------------------------


def _pnma(x: float, y: float, z: float) -> list[tuple[float, float, float]]:
    """The orbit of a point of Pnma: 8 points, or 4 where the point is on the mirror (y = 1/4)."""
    half = [(x, y, z), (0.5 - x, -y, z + 0.5), (-x, y + 0.5, -z), (x + 0.5, 0.5 - y, 0.5 - z)]
    if y == 0.25:
        return half
    return [*half, (-x, -y, -z), (x + 0.5, y, 0.5 - z), (x, 0.5 - y, z), (0.5 - x, y + 0.5, z + 0.5)]


def _tilted_perovskite(rng: np.random.Generator) -> Shape:
    tilt = rng.uniform(0.5, 1.3)
    sites: Sites = [
        (0, _pnma(0.5 - 0.05 * tilt, 0.25, 0.01 * tilt)),
        (1, [(0, 0, 0), (0.5, 0, 0.5), (0, 0.5, 0), (0.5, 0.5, 0.5)]),
        (2, _pnma(0.02 * tilt, 0.25, 0.08 * tilt)),
        (2, _pnma(0.25 + 0.04 * tilt, 0.04 * tilt, 0.75 - 0.04 * tilt)),
    ]
    return cuboid(rng.uniform(1.36, 1.44), rng.uniform(0.92, 0.99)), sites


def _manganese_phosphide(rng: np.random.Generator) -> Shape:
    u = rng.uniform(-0.015, 0.015, 4)
    sites: Sites = [(0, _pnma(0.005 + u[0], 0.25, 0.20 + u[1])), (1, _pnma(0.19 + u[2], 0.25, 0.57 + u[3]))]
    return cuboid(rng.uniform(0.58, 0.64), rng.uniform(1.06, 1.16)), sites


def _polar_perovskite(rng: np.random.Generator) -> Shape:
    d = rng.uniform(0.03, 0.1)
    sites: Sites = [
        (0, [(0, 0, 0)]),
        (1, [(0.5, 0.5, 0.5 + 0.4 * d)]),
        (2, [(0.5, 0.5, 1.2 * d), (0.5, 0, 0.5 + 1.2 * d), (0, 0.5, 0.5 + 1.2 * d)]),
    ]
    return cuboid(1.0, rng.uniform(1.02, 1.12)), sites


def _rutile(rng: np.random.Generator) -> Shape:
    u = rng.uniform(0.295, 0.312)
    anions = [(u, u, 0), (-u, -u, 0), (0.5 + u, 0.5 - u, 0.5), (0.5 - u, 0.5 + u, 0.5)]
    return cuboid(1.0, rng.uniform(0.60, 0.72)), [(0, centred("I", (0, 0, 0))), (1, anions)]


def _molybdenum_silicide(rng: np.random.Generator) -> Shape:
    z = rng.uniform(0.325, 0.345)
    return cuboid(1.0, rng.uniform(2.3, 2.6)), [(0, centred("I", (0, 0, 0))), (1, centred("I", (0, 0, z), (0, 0, -z)))]


def _layered_perovskite(rng: np.random.Generator) -> Shape:
    a, x = rng.uniform(0.350, 0.360), rng.uniform(0.150, 0.165)
    sites: Sites = [
        (0, centred("I", (0, 0, a), (0, 0, -a))),
        (1, centred("I", (0, 0, 0))),
        (2, centred("I", (0.5, 0, 0), (0, 0.5, 0), (0, 0, x), (0, 0, -x))),
    ]
    return cuboid(1.0, rng.uniform(3.1, 3.5)), sites


def _wurtzite(rng: np.random.Generator) -> Shape:
    u = rng.uniform(0.37, 0.39)
    third, two = 1 / 3, 2 / 3
    sites: Sites = [(0, [(third, two, 0), (two, third, 0.5)]), (1, [(third, two, u), (two, third, 0.5 + u)])]
    return hexagon(rng.uniform(1.57, 1.66)), sites


def _aluminium_boride(rng: np.random.Generator) -> Shape:
    return hexagon(rng.uniform(1.0, 1.2)), [(0, [(0, 0, 0)]), (1, [(1 / 3, 2 / 3, 0.5), (2 / 3, 1 / 3, 0.5)])]


def _calcium_copper(rng: np.random.Generator) -> Shape:
    copper = [(1 / 3, 2 / 3, 0), (2 / 3, 1 / 3, 0), (0.5, 0, 0.5), (0, 0.5, 0.5), (0.5, 0.5, 0.5)]
    return hexagon(rng.uniform(0.77, 0.85)), [(0, [(0, 0, 0)]), (1, copper)]


def _nickel_arsenide(rng: np.random.Generator) -> Shape:
    sites: Sites = [(0, [(0, 0, 0), (0, 0, 0.5)]), (1, [(1 / 3, 2 / 3, 0.25), (2 / 3, 1 / 3, 0.75)])]
    return hexagon(rng.uniform(1.25, 1.65)), sites


def _hexagonal_close_packed(rng: np.random.Generator) -> Shape:
    return hexagon(rng.uniform(1.56, 1.70)), [(0, [(1 / 3, 2 / 3, 0.25), (2 / 3, 1 / 3, 0.75)])]


def _molybdenite(rng: np.random.Generator) -> Shape:
    z = rng.uniform(0.61, 0.635)
    third, two = 1 / 3, 2 / 3
    anions = [(third, two, z), (two, third, z + 0.5), (two, third, -z), (third, two, 0.5 - z)]
    return hexagon(rng.uniform(3.6, 4.0)), [(0, [(third, two, 0.25), (two, third, 0.75)]), (1, anions)]


def _zincblende(rng: np.random.Generator) -> Shape:
    return cuboid(), [(0, centred("F", (0, 0, 0))), (1, centred("F", (0.25, 0.25, 0.25)))]


def _half_heusler(rng: np.random.Generator) -> Shape:
    points = [(0, 0, 0), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)]
    return cuboid(), [(k, centred("F", point)) for k, point in enumerate(points)]


def _cubic_perovskite(rng: np.random.Generator) -> Shape:
    return cuboid(), [(0, [(0, 0, 0)]), (1, [(0.5, 0.5, 0.5)]), (2, [(0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)])]


def _caesium_chloride(rng: np.random.Generator) -> Shape:
    return cuboid(), [(0, [(0, 0, 0)]), (1, [(0.5, 0.5, 0.5)])]


def _copper_gold(rng: np.random.Generator) -> Shape:
    return cuboid(), [(0, [(0, 0, 0)]), (1, [(0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)])]


def _rock_salt(rng: np.random.Generator) -> Shape:
    return cuboid(), [(0, centred("F", (0, 0, 0))), (1, centred("F", (0.5, 0.5, 0.5)))]


def _fluorite(rng: np.random.Generator) -> Shape:
    return cuboid(), [(0, centred("F", (0, 0, 0))), (1, centred("F", (0.25, 0.25, 0.25), (0.75, 0.75, 0.75)))]


def _face_centred(rng: np.random.Generator) -> Shape:
    return cuboid(), [(0, centred("F", (0, 0, 0)))]


def _diamond(rng: np.random.Generator) -> Shape:
    return cuboid(), [(0, centred("F", (0, 0, 0), (0.25, 0.25, 0.25)))]


def _laves(rng: np.random.Generator) -> Shape:
    corners = [(0.5, 0.5, 0.5), (0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.25, 0.25, 0.5)]
    corners = [(x + 0.125, y + 0.125, z + 0.125) for x, y, z in corners]
    return cuboid(), [(0, centred("F", (0, 0, 0), (0.25, 0.25, 0.25))), (1, centred("F", *corners))]


def _body_centred(rng: np.random.Generator) -> Shape:
    return cuboid(), [(0, centred("I", (0, 0, 0)))]


TYPES = (
    StructureType("GdFeO3", 62, ("big", "metal", "ligand"), _tilted_perovskite),
    StructureType("MnP", 62, ("metal", "anion"), _manganese_phosphide),
    StructureType("PbTiO3", 99, ("big", "metal", "ligand"), _polar_perovskite),
    StructureType("TiO2 rutile", 136, ("metal", "ligand"), _rutile),
    StructureType("MoSi2", 139, ("metal", "anion"), _molybdenum_silicide),
    StructureType("K2NiF4", 139, ("big", "metal", "ligand"), _layered_perovskite),
    StructureType("ZnS wurtzite", 186, ("metal", "anion"), _wurtzite),
    StructureType("AlB2", 191, ("metal", "anion"), _aluminium_boride),
    StructureType("CaCu5", 191, ("big", "metal"), _calcium_copper),
    StructureType("NiAs", 194, ("metal", "anion"), _nickel_arsenide),
    StructureType("Mg hcp", 194, ("any",), _hexagonal_close_packed),
    StructureType("MoS2", 194, ("metal", "ligand"), _molybdenite),
    StructureType("ZnS zincblende", 216, ("metal", "anion"), _zincblende),
    StructureType("MgAgAs", 216, ("big", "anion", "metal"), _half_heusler),
    StructureType("CaTiO3", 221, ("big", "metal", "ligand"), _cubic_perovskite),
    StructureType("CsCl", 221, ("big", "anion"), _caesium_chloride),
    StructureType("Cu3Au", 221, ("metal", "any"), _copper_gold),
    StructureType("NaCl", 225, ("metal", "anion"), _rock_salt),
    StructureType("CaF2", 225, ("big", "ligand"), _fluorite),
    StructureType("Cu fcc", 225, ("any",), _face_centred),
    StructureType("C diamond", 227, ("any",), _diamond),
    StructureType("MgCu2", 227, ("big", "metal"), _laves),
    StructureType("W bcc", 229, ("any",), _body_centred),
)
"""The structure types: 23, in 12 space groups."""

GROUPS = tuple(sorted({kind.space_group for kind in TYPES}))
"""The space groups that the generator makes."""


@cache
def covalent_radius(symbol: str) -> float:
    """Look up the covalent radius of an element in A, in RDKit's table (Cordero et al. 2008)."""
    return GetPeriodicTable().GetRcovalent(symbol)


def random_crystal(rng: np.random.Generator, space_group: int) -> Crystal:
    """Draw a material of this space group: structure type, species, free parameters and size.

    Its closest two atoms are 0.85 to 1.05 times the sum of their covalent radii apart. No two sites that the type
    tells apart have the same element, since that would be another space group.
    """
    kinds = [kind for kind in TYPES if kind.space_group == space_group]
    kind = kinds[rng.integers(len(kinds))]
    species: list[str] = []
    for pool in kind.pools:
        species.append(str(rng.choice([e for e in POOLS[pool].split() if e not in species])))
    cell, orbits = kind.shape(rng)
    which = np.array([k for k, points in orbits for _ in points])
    sites = np.array([point for _, points in orbits for point in points], dtype=float) % 1.0
    radii = np.array([covalent_radius(species[k]) for k in which])
    size = rng.uniform(0.85, 1.05) / closest_contact(cell, sites, radii)
    numbers = np.array([GetPeriodicTable().GetAtomicNumber(species[k]) for k in which])
    name = f"{kind.name.split()[0]} type: {' '.join(species)}"
    return Crystal(name, space_group, cell * size, numbers, sites, float(rng.uniform(0.05, 0.10)))


def closest_contact(
    cell: Float[np.ndarray, "3 3"], sites: Float[np.ndarray, "atoms 3"], radii: Float[np.ndarray, " atoms"]
) -> float:
    """Find the smallest distance of two atoms in units of the sum of their radii, neighbouring cells included."""
    shifts = np.array(list(product((-1, 0, 1), repeat=3)), dtype=float)
    d = sites[:, None, None] - sites[None, :, None] + shifts  # atoms x atoms x 27 x 3
    ratio = np.linalg.norm(d @ cell, axis=-1) / (radii[:, None] + radii)[..., None]
    return float(ratio[ratio > 1e-6].min())
