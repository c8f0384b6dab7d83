"""Diffuse multiple scattering on a flat detector: the lines in which light from within a crystal leaves it.

A. G. A. Nisbet et al., Acta Cryst. A71, 20 (2015). Light that defects have scattered travels through the crystal in all
directions; where it meets a set of planes at Bragg's angle, it is reflected. What comes out along d (a unit vector)
was reflected by g where d . g = lambda |g|^2 / 2: each reflection draws a cone around g, whose cut with the detector is
a line, a conic. The code is the project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from lumos.workloads.common.native import compiled
from lumos.workloads.dms.crystal import DOMAINS, Phase, draw_lattice, rotation, structure_factors

HC = 12.398419843320026
"""Planck's constant times the speed of light, keV angstrom (exact in the SI of 2019)."""
ENERGY = 9.0
"""keV."""
WAVELENGTH = HC / ENERGY
DETECTOR = (487, 195)
"""Pixels of the published images, along the two sides of the detector."""
PIXEL = 172e-6
"""Side of such a pixel, m."""
DISTANCE = 0.25
"""From the crystal to the middle of the detector, m."""
ELEVATION, AZIMUTH = 38.0, 45.0
"""Where the middle of the detector is, seen from the crystal, in degrees: above its xy plane, and from x to y."""

VERSION = 1
"""Raised with every change of what is generated, so that no cache of an older generator is read."""

Vectors = Float[np.ndarray, "reflections 3"]


@dataclass(frozen=True)
class Detector:
    """A flat detector of the published size, in ``shape`` pixels, facing the crystal ``distance`` m away."""

    shape: tuple[int, int] = DETECTOR
    distance: float = DISTANCE
    elevation: float = ELEVATION
    azimuth: float = AZIMUTH

    @cached_property
    def directions(self) -> Float[np.ndarray, "rows columns 3"]:
        """Unit vectors from the crystal to the middle of each pixel."""
        up, around = np.radians([self.elevation, self.azimuth])
        middle = np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
        # The long side lies level, so that the mirror plane of a tetragonal crystal halves it.
        level = np.array([-np.sin(around), np.cos(around), 0.0])
        steep = np.cross(middle, level)
        rows, columns = (
            (np.arange(n) - (n - 1) / 2) * PIXEL * full / n for n, full in zip(self.shape, DETECTOR, strict=True)
        )
        d = self.distance * middle + rows[:, None, None] * level + columns[None, :, None] * steep
        return d / np.linalg.norm(d, axis=-1, keepdims=True)

    @cached_property
    def half_angle(self) -> float:
        """Between the middle of the detector and its corners, radian."""
        d = self.directions
        middle = d.mean((0, 1)) / np.linalg.norm(d.mean((0, 1)))
        return float(np.arccos(np.clip((d @ middle).min(), -1.0, 1.0)))


def bragg_angles(g: Vectors) -> Float[np.ndarray, " reflections"]:
    """Compute Bragg's angles, radian: sin theta = lambda |g| / 2. Raises ValueError where there is none."""
    sine = WAVELENGTH * np.linalg.norm(g, axis=1) / 2
    if (sine > 1).any():
        raise ValueError(f"|g| = {2 * sine.max() / WAVELENGTH:.3f} / A cannot reflect {WAVELENGTH:.3f} A")
    return np.arcsin(sine)


@compiled
def _draw(directions, axes, sines, cosines, weights, width, image):  # pragma: no cover - compiled
    rows, columns, _ = directions.shape
    for n in range(len(axes)):
        x, y, z = axes[n]
        # Off the cone by an angle e, sin(theta + e) is sin theta + e cos theta: no arcsine for each pixel.
        per_width = 1.0 / (width * cosines[n])
        for i in range(rows):
            for j in range(columns):
                off = (
                    directions[i, j, 0] * x + directions[i, j, 1] * y + directions[i, j, 2] * z - sines[n]
                ) * per_width
                if -4.5 < off < 4.5:
                    image[i, j] += weights[n] * np.exp(-0.5 * off * off)


def draw_lines(
    detector: Detector, g: Vectors, weights: Float[np.ndarray, " reflections"], width: float
) -> Float[np.ndarray, "rows columns"]:
    """Draw the lines of reflections g (1/A, in the frame of the detector), each with its peak weight.

    Across a line, the intensity is a Gaussian of ``width`` radian standard deviation in the angle to g.
    """
    theta = bragg_angles(g)
    axes = g / np.linalg.norm(g, axis=1, keepdims=True)
    d = detector.directions
    middle = d[d.shape[0] // 2, d.shape[1] // 2]
    apart = np.abs(np.arcsin(np.clip(axes @ middle, -1.0, 1.0)) - theta)
    near = apart < 1.1 * detector.half_angle + 5 * width
    image = np.zeros(detector.shape)
    _draw(d, axes[near], np.sin(theta[near]), np.cos(theta[near]), weights[near], width, image)
    return image


@dataclass(frozen=True)
class Scene:
    """What all patterns of a data set share: the detector's pixels, and how far the geometry varies between them.

    With ``jitter`` 1, a crystal is mounted up to about 1 degree off, and the detector stands up to about 1% off its
    distance (one standard deviation); 0 stands for a perfectly reproduced geometry.
    """

    shape: tuple[int, int] = DETECTOR
    jitter: float = 0.0

    @cached_property
    def detector(self) -> Detector:
        """The detector where it should be."""
        return Detector(self.shape)

    def pattern(self, phase: Phase, rng: np.random.Generator) -> Float[np.ndarray, "rows columns"]:
        """Simulate one crystal's pattern, float32: log(1 + counts)."""
        lattice = draw_lattice(rng, phase)
        hkl, g = lattice.reflections(WAVELENGTH)
        strength = structure_factors(hkl, g)
        width = np.radians(rng.uniform(0.04, 0.10))
        tilt = rotation(self.jitter * rng.normal(0.0, 1.0, 3))
        distance = DISTANCE * (1 + 0.01 * self.jitter * rng.normal())
        detector = self.detector if distance == DISTANCE else Detector(self.shape, distance)
        first = rng.integers(len(DOMAINS))
        image = np.zeros(self.shape)
        for turn, share in _domains(rng, int(first)):
            image += draw_lines(detector, g @ turn.T @ tilt.T, share * strength / strength.max(), width)
        along = np.linspace(-1, 1, self.shape[0])[:, None]
        background = rng.uniform(8.0, 20.0) * (1 + rng.uniform(-0.3, 0.3) * along)
        mean = background + rng.uniform(300.0, 900.0) * image
        return np.log1p(rng.poisson(mean)).astype(np.float32)


def _domains(rng: np.random.Generator, first: int) -> list[tuple[np.ndarray, float]]:
    """One domain, or two with different orientations: (rotation, share of the volume)."""
    if rng.random() < 0.5:
        return [(DOMAINS[first], 1.0)]
    second = (first + int(rng.integers(1, len(DOMAINS)))) % len(DOMAINS)
    share = rng.uniform(0.5, 0.85)
    return [(DOMAINS[first], share), (DOMAINS[second], 1 - share)]
