"""Wave optics of a laser beam line: a turbulent phase, free propagation, damage on an optic, and the camera; SI units.

J. W. Goodman, "Introduction to Fourier Optics", for the propagation; D. L. Fried, J. Opt. Soc. Am. 56, 1372 (1966), and
R. G. Lane, A. Glindemann, J. C. Dainty, Waves Random Media 2, 209 (1992), for the phase screens. The code is the
project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Complex, Float, Int, UInt16

from lumos.workloads.common.random_fields import gaussian_field

WAVELENGTH = 1.053e-6
"""Neodymium glass, m."""
SUBHARMONICS = 12
"""Levels of wavelengths longer than the plane; what is left out is 1% of the tilt that the first would bring."""

Plane = Float[np.ndarray, "rows columns"]
Wave = Complex[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class Grid:
    """A plane of ``rows`` x ``columns`` points, ``spacing`` m apart; x runs along columns, y along rows."""

    rows: int
    columns: int
    spacing: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    def around(
        self, x: float = 0.0, y: float = 0.0
    ) -> tuple[Float[np.ndarray, "1 columns"], Float[np.ndarray, "rows 1"]]:
        """Compute distances along x and y from a point (m; the plane's middle is 0, 0); they broadcast together."""
        columns = (np.arange(self.columns) - (self.columns - 1) / 2) * self.spacing - x
        rows = (np.arange(self.rows) - (self.rows - 1) / 2) * self.spacing - y
        return columns[None, :], rows[:, None]


def kolmogorov_power(k: Float[np.ndarray, "*modes"], r0: float) -> Float[np.ndarray, "*modes"]:
    """Compute the phase's power, rad2 m2, at k rad/m: (2 pi)^2 0.490 r0^(-5/3) k^(-11/3), r0 (m) being Fried's length.

    Its variance is the integral of power d2k / (2 pi)^2, and <(phase(x) - phase(x + r))^2> = 6.88 (r / r0)^(5/3).
    """
    return (2 * np.pi) ** 2 * 0.490 * r0 ** (-5 / 3) * k ** (-11 / 3)


def kolmogorov_screen(rng: np.random.Generator, grid: Grid, r0: float) -> Plane:
    """Draw a random phase, rad, as air with turbulence of Fried's length r0 (m) leaves behind.

    The grid's own Fourier modes hold nothing longer than the plane, where most of the power is; subharmonics, each
    level a third in k of the one before, bring it back (Lane et al. 1992). The screen is therefore not periodic.
    """
    # A square box, so that each level of subharmonics fills the middle cell of the last.
    side = max(grid.shape)
    step = 2 * np.pi / (side * grid.spacing)

    def cell_power(k: np.ndarray) -> np.ndarray:
        # The power falls so steeply that its value in the middle of a cell of k is too little for the whole of it.
        # What counts is k^2 times it, k^(-5/3); to second order, its mean over the cell is this much more.
        return kolmogorov_power(k, r0) * (1 + (5 / 3) ** 2 / 24 * (step / k) ** 2)

    screen = gaussian_field(rng, (side, side), grid.spacing, cell_power)[: grid.rows, : grid.columns]
    x, y = grid.around()
    ring = np.array([-1.0, 0.0, 1.0])
    for _ in range(SUBHARMONICS):
        step /= 3
        k = np.hypot(ring[:, None], ring[None, :]) * step
        k[1, 1] = np.inf  # the middle is what the next level fills
        modes = np.sqrt(cell_power(k)) * step / (2 * np.pi) * _complex_normal(rng, (3, 3))
        screen = screen + (np.exp(1j * step * y * ring) @ modes @ np.exp(1j * step * ring[:, None] * x)).real
    return screen


def _complex_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def fresnel(wave: Wave, spacing: float, distance: float, wavelength: float = WAVELENGTH) -> Wave:
    """Propagate a wave over ``distance`` m of free space, paraxial: its spectrum times exp(-i pi lambda z f^2).

    The factor has modulus one, so that the energy, sum |wave|^2, stays as it is (Parseval). The plane is periodic:
    light that would leave it comes back at the other side.
    """
    rows, columns = (np.fft.fftfreq(n, spacing).astype(np.float32) for n in wave.shape)
    f_squared = rows[:, None] ** 2 + columns[None, :] ** 2
    transfer = np.exp(np.complex64(-1j * np.pi * wavelength * distance) * f_squared)
    return np.asarray(scipy.fft.ifft2(scipy.fft.fft2(wave) * transfer))


def super_gaussian(grid: Grid, x: float, y: float, radius: float, order: float) -> Plane:
    """Compute the amplitude exp(-(r / radius)^order) around (x, y) m: flat inside, the steeper the higher the order."""
    dx, dy = grid.around(x, y)
    return np.exp(-(((dx**2 + dy**2) / radius**2) ** (order / 2)))


@dataclass(frozen=True)
class Pit:
    """A damaged spot: at (x, y) m, of ``radius`` m, letting through the amplitude ``transmission``.

    The glass around it bulges: a Gaussian phase of ``bulge`` rad, 1.5 radii wide.
    """

    x: float
    y: float
    radius: float
    transmission: float
    bulge: float


def damage(grid: Grid, pits: Sequence[Pit]) -> Wave:
    """Compute what a wave is multiplied by on its way through an optic with pits, whose edges are one pixel soft."""
    total = np.ones(grid.shape, np.complex64)
    for pit in pits:
        dx, dy = grid.around(pit.x, pit.y)
        r = np.hypot(dx, dy)
        covered = np.clip((pit.radius - r) / grid.spacing + 0.5, 0.0, 1.0)
        phase = pit.bulge * np.exp(-0.5 * (r / (1.5 * pit.radius)) ** 2)
        total *= (1 - (1 - pit.transmission) * covered) * np.exp(1j * phase)
    return total


@dataclass(frozen=True)
class Camera:
    """What a camera does to the intensity on it: ``response`` (dust and vignette), then electrons, then counts.

    ``full_well`` electrons fill its 12 bits, over a pedestal of ``pedestal`` counts; ``read_noise`` in electrons.
    """

    response: Plane
    full_well: float = 8000.0
    read_noise: float = 8.0
    pedestal: float = 32.0

    def expose(self, intensity: Plane, exposure: float, rng: np.random.Generator) -> UInt16[np.ndarray, "rows columns"]:
        """Draw the counts, 0 to 4095, of an intensity of which ``exposure`` fills the well."""
        mean = intensity * self.response * (self.full_well / exposure)
        electrons = rng.poisson(mean) + rng.normal(0.0, self.read_noise, mean.shape)
        counts = electrons * (4095 - self.pedestal) / self.full_well + self.pedestal
        return np.clip(np.rint(counts), 0, 4095).astype(np.uint16)


def dusty_camera(rng: np.random.Generator, grid: Grid, grains: int = 12) -> Camera:
    """Make a camera with dust on its window: each grain, 5 to 30 mm before the sensor, casts a Fresnel shadow.

    Towards the edges of the plane a vignette takes up to 30% of the light.
    """
    x, y = grid.around()
    half = grid.spacing * np.array([grid.columns, grid.rows]) / 2
    response = 1 - 0.15 * ((x / half[0]) ** 2 + (y / half[1]) ** 2)
    for _ in range(grains):
        place = rng.uniform(-0.9, 0.9, 2) * half
        grain = Pit(place[0], place[1], rng.uniform(30e-6, 120e-6), 0.3, 0.0)
        shadow = fresnel(damage(grid, [grain]), grid.spacing, rng.uniform(5e-3, 30e-3))
        response = response * np.abs(shadow) ** 2
    return Camera(response)


def structure_function(screen: Plane, lags: Int[np.ndarray, " lags"]) -> Float[np.ndarray, " lags"]:
    """Measure the mean square of the difference between points ``lags`` grid points apart, along rows and columns."""
    along = [np.mean((screen[:, n:] - screen[:, :-n]) ** 2) for n in lags]
    across = [np.mean((screen[n:] - screen[:-n]) ** 2) for n in lags]
    return (np.array(along) + np.array(across)) / 2
