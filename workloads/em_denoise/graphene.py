"""Micrographs of graphene: where the atoms are, what a scanning probe sees of them, and the noise of few electrons.

Lengths are in angstrom. Positions are (y, x), as rows and columns of an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

LATTICE = 2.46
"""Lattice constant of graphene; neighbouring atoms are LATTICE / sqrt(3) = 1.42 apart."""

BOND = LATTICE / np.sqrt(3)
CARBON, SILICON = 6, 14
CONTRAST = 1.64
"""The annular dark field's intensity of an atom goes as Z^1.64. Krivanek et al. 2010."""

NEAREST = 0.8
"""No two atoms are put closer than this many bonds."""
MARGIN = 8.0
"""Atoms this far outside of the image are there too: their tails reach in."""


@dataclass(frozen=True)
class Specimen:
    """Atoms of a flake: projected positions (y, x) and atomic numbers."""

    positions: Float[np.ndarray, "atoms 2"]
    numbers: Float[np.ndarray, " atoms"]


@dataclass(frozen=True)
class Microscope:
    """``pixel`` is a pixel's side, ``core`` the standard deviation of the probe's Gaussian core.

    ``tail`` of the intensity is in a second Gaussian, 2.5 times as wide; ``dose`` is the mean number of electrons
    that a carbon atom's brightest pixel scatters to the detector.
    """

    pixel: float
    core: float
    tail: float
    dose: float


def draw_microscope(rng: np.random.Generator) -> Microscope:
    """Draw pixels of 0.11 to 0.19, a probe of 0.33 to 0.55, 10 to 30% of it in the tail, a dose of 2 to 30."""
    return Microscope(
        pixel=rng.uniform(0.11, 0.19),
        core=rng.uniform(0.33, 0.55),
        tail=rng.uniform(0.1, 0.3),
        dose=float(np.exp(rng.uniform(np.log(2.0), np.log(30.0)))),
    )


def lattice(radius: float, angle: float, shift: np.ndarray) -> Float[np.ndarray, "atoms 2"]:
    """Place ideal graphene within ``radius`` of the origin: turned by ``angle`` (radians), moved by ``shift``."""
    steps = np.arange(-int(radius / LATTICE * 1.3) - 2, int(radius / LATTICE * 1.3) + 3)
    i, j = (grid.ravel()[:, None] for grid in np.meshgrid(steps, steps, indexing="ij"))
    first, second = LATTICE * np.array([0.0, 1.0]), LATTICE * np.array([np.sqrt(0.75), 0.5])
    cells = i * first + j * second
    atoms = np.concatenate([cells, cells + np.array([BOND, 0.0])])
    cos, sin = np.cos(angle), np.sin(angle)
    atoms = atoms @ np.array([[cos, sin], [-sin, cos]]) + shift
    return atoms[(atoms**2).sum(1) < radius**2]


def draw_specimen(rng: np.random.Generator, size: float) -> Specimen:
    """Draw a flake with defects that covers ``size`` x ``size`` and a margin, its middle at the origin.

    A second grain with probability 0.35, up to 3% vacancies, up to three Stone-Wales defects, 1% silicon, ripples of a
    tilted sheet, and every atom displaced by 0.03 to 0.1 (standard deviation along each axis).
    """
    radius = size / np.sqrt(2) + MARGIN
    angle = rng.uniform(0, np.pi / 3)
    atoms = lattice(radius, angle, rng.uniform(-LATTICE, LATTICE, 2))
    if rng.random() < 0.35:
        other = lattice(radius, angle + rng.uniform(np.radians(8), np.radians(52)), rng.uniform(-LATTICE, LATTICE, 2))
        atoms = join_grains(atoms, other, rng, size)
    atoms = stone_wales(atoms, rng, int(rng.integers(0, 4)), size)
    atoms = atoms[rng.random(len(atoms)) >= rng.uniform(0, 0.03)]
    atoms = ripple(atoms, rng) + rng.normal(0, rng.uniform(0.03, 0.1), atoms.shape)
    return Specimen(atoms, np.where(rng.random(len(atoms)) < 0.01, float(SILICON), float(CARBON)))


def join_grains(
    one: Float[np.ndarray, "m 2"], other: Float[np.ndarray, "n 2"], rng: np.random.Generator, size: float
) -> Float[np.ndarray, "atoms 2"]:
    """Join two grains at a wavy line through the image, one on either side; no atoms closer than 0.8 bonds."""
    normal = np.array([np.cos(turn := rng.uniform(0, 2 * np.pi)), np.sin(turn)])
    along = np.array([-normal[1], normal[0]])
    offset, phase = rng.uniform(-0.3, 0.3) * size, rng.uniform(0, 2 * np.pi)
    wave, height = rng.uniform(15, 40), rng.uniform(0, 2)

    def side(atoms: np.ndarray) -> np.ndarray:
        return atoms @ normal - offset - height * np.sin(2 * np.pi * atoms @ along / wave + phase)

    left, right = one[side(one) < 0], other[side(other) >= 0]
    apart = KDTree(left).query(right)[0] > NEAREST * BOND if len(left) and len(right) else np.ones(len(right), bool)
    return np.concatenate([left, right[apart]])


def stone_wales(
    atoms: Float[np.ndarray, "atoms 2"], rng: np.random.Generator, defects: int, size: float
) -> Float[np.ndarray, "atoms 2"]:
    """Turn bonds of the image by 90 degrees about their middle: two pentagons and two heptagons for four hexagons.

    A bond that would turn onto another atom, at a boundary of grains or beside one that turned, stays.
    """
    atoms = atoms.copy()
    bonds = KDTree(atoms).query_pairs(1.1 * BOND, output_type="ndarray")
    seen = bonds[(np.abs(atoms[bonds].mean(1)) < size / 2).all(1)] if len(bonds) else bonds
    for first, second in seen[rng.permutation(len(seen))[:defects]]:
        middle, half = (atoms[first] + atoms[second]) / 2, (atoms[first] - atoms[second]) / 2
        turned = np.array([-half[1], half[0]])
        others = np.delete(atoms, [first, second], axis=0)
        if KDTree(others).query([middle + turned, middle - turned])[0].min() > NEAREST * BOND:
            atoms[first], atoms[second] = middle + turned, middle - turned
    return atoms


def ripple(atoms: Float[np.ndarray, "atoms 2"], rng: np.random.Generator) -> Float[np.ndarray, "atoms 2"]:
    """Ripple a sheet and tilt it by up to 8 degrees; returns the atoms as seen along the beam.

    Heights h are three plane waves, 20 to 60 long and up to 0.5 high. With the tilt t in the direction u, a position
    p becomes p + u [(cos t - 1) p.u + h sin t].
    """
    height = np.zeros(len(atoms))
    for _ in range(3):
        turn, phase = rng.uniform(0, 2 * np.pi, 2)
        wave = 2 * np.pi / rng.uniform(20, 60) * np.array([np.cos(turn), np.sin(turn)])
        height += rng.uniform(0, 0.5) * np.sin(atoms @ wave + phase)
    turn, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0, np.radians(8))
    direction = np.array([np.cos(turn), np.sin(turn)])
    moved = (np.cos(tilt) - 1) * (atoms @ direction) + np.sin(tilt) * height
    return atoms + moved[:, None] * direction


def clean_image(specimen: Specimen, microscope: Microscope, pixels: int) -> Float[np.ndarray, "pixels pixels"]:
    """Compute the noiseless image, in units of the brightest pixel of a carbon atom in perfect graphene (about 1).

    The sum over the atoms of Z^1.64 times the probe, exact at the middles of the pixels: a Gaussian is a product of
    one along y and one along x, so that the image is a product of two matrices.
    """
    centres = (np.arange(pixels) - (pixels - 1) / 2) * microscope.pixel
    weight = (specimen.numbers / CARBON) ** CONTRAST
    image = np.zeros((pixels, pixels))
    for sigma, share in _probe(microscope):
        y, x = (np.exp(-((centres - specimen.positions[:, axis, None]) ** 2) / (2 * sigma**2)) for axis in (0, 1))
        image += share / sigma**2 * ((weight[:, None] * y).T @ x)
    return image / _brightness(microscope)


def _probe(microscope: Microscope) -> tuple[tuple[float, float], tuple[float, float]]:
    """Widths and shares of the probe's two Gaussians."""
    return (microscope.core, 1 - microscope.tail), (2.5 * microscope.core, microscope.tail)


def _brightness(microscope: Microscope) -> float:
    """What an atom of perfect graphene shows in its middle, its neighbours' tails included."""
    square = (lattice(MARGIN, 0.0, np.zeros(2)) ** 2).sum(1)
    return sum(share / s**2 * float(np.exp(-square / (2 * s**2)).sum()) for s, share in _probe(microscope))


def noisy_image(
    clean: Float[np.ndarray, "pixels pixels"], dose: float, rng: np.random.Generator
) -> Float[np.ndarray, "pixels pixels"]:
    """Draw the image of few electrons, in the same units: Poisson(dose * clean * beam) / dose, and bad pixels.

    ``beam`` falls off by up to 15% across the image and flickers by 2% from line to line; up to 0.1% of the pixels
    are dead (0), as many are hot (1 to 3).
    """
    pixels = len(clean)
    noisy = rng.poisson(dose * clean * _beam(pixels, rng)) / dose
    for value in (0.0, rng.uniform(1, 3)):
        bad = rng.random(clean.shape) < rng.uniform(0, 1e-3)
        noisy[bad] = value
    return noisy


def _beam(pixels: int, rng: np.random.Generator) -> Float[np.ndarray, "pixels pixels"]:
    line = np.linspace(-0.5, 0.5, pixels)
    turn, fall = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.15)
    slope = np.cos(turn) * line[:, None] + np.sin(turn) * line
    flicker = np.maximum(rng.normal(1, 0.02, (pixels, 1)), 0)
    return (1 - fall * (slope + 0.5)).clip(0) * flicker


def draw_pair(rng: np.random.Generator, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a noisy and a clean image of a flake of its own, float32 (pixels, pixels)."""
    microscope = draw_microscope(rng)
    clean = clean_image(draw_specimen(rng, pixels * microscope.pixel), microscope, pixels)
    return noisy_image(clean, microscope.dose, rng).astype(np.float32), clean.astype(np.float32)
