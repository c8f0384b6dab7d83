"""Perovskite crystals, tetragonal and monoclinic: their reciprocal lattices, structure factors and domains.

Lengths in angstrom, reciprocal lengths in 1/angstrom without the factor 2 pi, angles in degrees. C. Giacovazzo (ed.),
"Fundamentals of Crystallography"; B. Noheda et al., Phys. Rev. B 61, 8687 (2000), for the monoclinic phase between the
tetragonal and the rhombohedral one of such crystals.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Phase = Literal["monoclinic", "tetragonal"]
PHASES: tuple[Phase, Phase] = ("monoclinic", "tetragonal")
"""A sample's label is its phase's place here."""

ATOMS = (
    (82, (0.0, 0.0, 0.0)),
    (22, (0.5, 0.5, 0.53)),
    (8, (0.5, 0.5, 0.08)),
    (8, (0.5, 0.0, 0.58)),
    (8, (0.0, 0.5, 0.58)),
)
"""Atomic number and place of lead, titanium (a little off centre, along the polar axis c) and the three oxygens."""
FALL = 3.0
"""Of an atom's scattering factor with s = |g| / 2, as Z exp(-FALL s^2), A2: form and thermal motion together."""

Vectors = Float[np.ndarray, "reflections 3"]


@dataclass(frozen=True)
class Lattice:
    """A unit cell with edges a, b, c and the angle beta between a and c; the other two are right angles."""

    a: float
    b: float
    c: float
    beta: float = 90.0

    @cached_property
    def reciprocal(self) -> Float[np.ndarray, "3 3"]:
        """Rows a*, b*, c*: a along x, b along y, c in the plane of x and z; a . a* = 1, a . b* = 0 and so on."""
        beta = np.radians(self.beta)
        direct = np.array([[self.a, 0.0, 0.0], [0.0, self.b, 0.0], [self.c * np.cos(beta), 0.0, self.c * np.sin(beta)]])
        return np.linalg.inv(direct).T

    def reflections(self, wavelength: float) -> tuple[Int[np.ndarray, "reflections 3"], Vectors]:
        """Find all (h, k, l) that can reflect, |g| < 2 / wavelength, and their g."""
        most = int(np.ceil(2 / wavelength * max(self.a, self.b, self.c)))
        axis = np.arange(-most, most + 1)
        hkl = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        g = hkl @ self.reciprocal
        size = np.linalg.norm(g, axis=1)
        keep = (size > 0) & (size < 2 / wavelength)
        return hkl[keep], g[keep]


def structure_factors(hkl: Int[np.ndarray, "reflections 3"], g: Vectors) -> Float[np.ndarray, " reflections"]:
    """Compute |F|^2, electrons squared: F = sum over atoms of Z exp(-FALL |g|^2 / 4) exp(2 pi i (h x + k y + l z))."""
    total = sum(number * np.exp(2j * np.pi * (hkl @ np.array(place))) for number, place in ATOMS)
    return np.abs(total) ** 2 * np.exp(-2 * FALL * (g**2).sum(1) / 4)


def draw_lattice(rng: np.random.Generator, phase: Phase) -> Lattice:
    """Draw a cell: a 3.98 to 4.02, c/a 1.005 to 1.02; a = b, or b up to 0.3% off it and beta 90.1 to 90.7.

    Both phases draw the same numbers, so that nothing but the symmetry tells them apart.
    """
    a, ratio = rng.uniform(3.98, 4.02), rng.uniform(1.005, 1.02)
    stretch, beta = rng.uniform(-0.003, 0.003), rng.uniform(90.1, 90.7)
    if phase == "tetragonal":
        return Lattice(a, a, a * ratio)
    return Lattice(a, a * (1 + stretch), a * ratio, beta)


DOMAINS = (
    np.eye(3),
    np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]),
    np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]),
)
"""Rotations that a domain may have to the first: none, or a quarter turn about z, y or x."""


def rotation(vector: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """Make the rotation about a vector by its length, in degrees (Rodrigues)."""
    angle = np.radians(np.linalg.norm(vector))
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / np.linalg.norm(vector)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
