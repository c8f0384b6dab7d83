"""Boxes of small molecules that the project builds itself: random places and turns, thermal jitter.

Equilibrium geometries of the gas phase, in Å, from NIST's Computational Chemistry Comparison and Benchmark Database
(experimental values): r(OH) 0.958 and 104.48 deg in water; r(OO) 1.475, r(OH) 0.950, 94.8 and 119.8 deg in hydrogen
peroxide; r(OO) 1.208 in oxygen; r(HH) 0.741; r(CO) 1.162 in carbon dioxide; r(CH) 1.087 in methane; r(CO) 1.205,
r(CH) 1.111, 121.9 deg in formaldehyde.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumos.errors import DataError
from lumos.workloads.common.native import compiled
from lumos.workloads.puremd.bond_order import REACH, Box
from lumos.workloads.puremd.forcefield import ForceField

Geometry = tuple[tuple[str, ...], Float[np.ndarray, "atoms 3"]]

EXCLUSION = {"light": 1.8, "mixed": 1.7, "heavy": 2.5}
"""Atoms of two molecules keep at least this far apart (Å): both hydrogen, one hydrogen, none."""

JITTER_CUT = 2.5
"""Jitter beyond this many standard deviations is cut back to it: together with ``EXCLUSION`` it bounds the forces."""

WAVENUMBER = 1500.0
"""Each atom swings about its place like an oscillator of this wavenumber (1/cm): between bend and stretch."""

TRIES = 400
"""Turns and shifts that a molecule may try before its box is given up."""


def _polar(r: float, degrees: float, around: float = 0.0) -> tuple[float, float, float]:
    a, b = math.radians(degrees), math.radians(around)
    return r * math.cos(a), r * math.sin(a) * math.cos(b), r * math.sin(a) * math.sin(b)


def _peroxide() -> list[tuple[float, float, float]]:
    """O, O, H, H; each O-H leans over the other oxygen's side by 94.8 degrees, the two planes 119.8 apart."""
    near = _polar(0.950, 94.8)
    far = _polar(0.950, 94.8, 119.8)
    return [(0.0, 0.0, 0.0), (1.475, 0.0, 0.0), near, (1.475 - far[0], far[1], far[2])]


_TETRAHEDRON = 1.087 / math.sqrt(3)
_SHAPES: Mapping[str, tuple[str, list[tuple[float, float, float]]]] = {
    "H2O": ("OHH", [(0, 0, 0), _polar(0.958, 0.0), _polar(0.958, 104.48)]),
    "H2O2": ("OOHH", _peroxide()),
    "O2": ("OO", [(0, 0, 0), (1.208, 0, 0)]),
    "H2": ("HH", [(0, 0, 0), (0.741, 0, 0)]),
    "CO2": ("COO", [(0, 0, 0), (1.162, 0, 0), (-1.162, 0, 0)]),
    "CH4": (
        "CHHHH",
        [
            (0, 0, 0),
            *((a * _TETRAHEDRON, b * _TETRAHEDRON, a * b * _TETRAHEDRON) for a in (-1, 1) for b in (-1, 1)),
        ],
    ),
    "CH2O": ("COHH", [(0, 0, 0), (1.205, 0, 0), _polar(1.111, 121.9), _polar(1.111, -121.9)]),
}


def geometry(name: str) -> Geometry:
    """Look up a molecule's elements and positions (atoms, 3) about its middle, Å. Raises DataError if unknown."""
    if name not in _SHAPES:
        raise DataError(f"workload.molecules: {name} is unknown; expected {', '.join(_SHAPES)}")
    symbols, places = _SHAPES[name]
    positions = np.array(places)
    return tuple(symbols), positions - positions.mean(0)


def _turn(rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """A rotation matrix, uniform over all rotations, from a random unit quaternion."""
    w, x, y, z = (q := rng.standard_normal(4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@compiled
def _clear(trial, hydrogens, placed, placed_hydrogens, edge, least):  # pragma: no cover - compiled
    """Whether no atom of a trial is closer to one placed before than their number of hydrogens allows."""
    for a in range(len(trial)):
        for b in range(len(placed)):
            square = 0.0
            for axis in range(3):
                d = trial[a, axis] - placed[b, axis]
                d -= edge * np.round(d / edge)
                square += d * d
            if square < least[hydrogens[a] + placed_hydrogens[b]] ** 2:
                return False
    return True


def jitter(masses: Float[np.ndarray, " atoms"], kelvin: float) -> Float[np.ndarray, " atoms"]:
    """Compute the deviation of each coordinate, Å, of a classical oscillator of ``WAVENUMBER``: sqrt(kT/m)/omega."""
    gas_constant, light, dalton = 8.314462618, 2.99792458e10, 1e-3
    omega = 2 * math.pi * light * WAVENUMBER
    return np.sqrt(gas_constant * kelvin / (masses * dalton)) / omega * 1e10


def jittered(
    positions: Float[Tensor, "atoms 3"], masses: Float[Tensor, " atoms"], kelvin: float, rng: np.random.Generator
) -> Float[Tensor, "atoms 3"]:
    """Move positions (Å) by thermal jitter at ``kelvin``, which is clipped at ``JITTER_CUT`` standard deviations."""
    swing = rng.normal(size=positions.shape).clip(-JITTER_CUT, JITTER_CUT)
    return positions + torch.from_numpy(swing * jitter(masses.numpy(), kelvin)[:, None])


def build_box(counts: Mapping[str, int], volume: float, kelvin: float, ff: ForceField, rng: np.random.Generator) -> Box:
    """Build a cubic box with ``counts`` molecules of each kind, ``volume`` Å3 a molecule, jittered at ``kelvin``.

    Molecules start on the sites of a cubic lattice in random order and are turned and shifted until they keep clear of
    those placed before.

    Raises:
        DataError: a molecule finds no place: the box is too dense.
    """
    shapes = {name: geometry(name) for name in counts}
    names = rng.permutation([name for name, count in counts.items() for _ in range(count)])
    edge = (volume * len(names)) ** (1 / 3)
    if edge < 2 * REACH:
        raise DataError(
            f"a box of {len(names)} molecules is {edge:.2f} Å wide; expected at least {2 * REACH:.0f} Å: more molecules"
        )
    side = math.ceil(len(names) ** (1 / 3) - 1e-9)
    sites = rng.permutation(np.stack(np.meshgrid(*[np.arange(side)] * 3), -1).reshape(-1, 3))[: len(names)]
    symbols = [symbol for name in names for symbol in shapes[str(name)][0]]
    hydrogens = np.array([symbol == "H" for symbol in symbols], dtype=np.int64)
    placed = np.empty((len(symbols), 3))
    least = np.array([EXCLUSION["heavy"], EXCLUSION["mixed"], EXCLUSION["light"]])
    done = 0
    for name, site in zip(names, sites, strict=True):
        shape = shapes[str(name)][1]
        mine = slice(done, done + len(shape))
        for attempt in range(TRIES):
            # Wander further from the lattice the longer no place is found.
            shift = rng.normal(0, 0.1 * (1 + 10 * attempt / TRIES), 3) * edge / side
            placed[mine] = shape @ _turn(rng).T + (site + 0.5) * edge / side + shift
            if _clear(placed[mine], hydrogens[mine], placed[:done], hydrogens[:done], edge, least):
                break
        else:
            raise DataError(
                f"no place for a molecule of {name} at {volume:.1f} Å3 a molecule; set workload.volume to more"
            )
        done += len(shape)
    types = ff.types(symbols, "workload.molecules")
    moved = jittered(torch.from_numpy(placed), ff.atom["mass"][types], kelvin, rng)
    return Box(moved % edge, types, torch.full((3,), edge, dtype=torch.float64))
