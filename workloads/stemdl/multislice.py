"""Convergent-beam electron diffraction by multislice: a focused probe on a slab of crystal, its far field's intensity.

Source: E. J. Kirkland, Advanced Computing in Electron Microscopy, 3rd ed. (2020), chapters 2, 5 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from jaxtyping import Complex, Float, Shaped

from lumos.workloads.stemdl.crystals import Crystal

COULOMB = 14.399645
"""e^2 / (4 pi epsilon_0) in eV A (CODATA 2018); also the constant of a point charge's potential, in V A."""
REST_ENERGY = 510.99895
"""Electron's m c^2 in keV."""
HC = 12.398420
"""h c in keV A."""

ZONES = {"[001]": ((0, 0, 1), (1, 0, 0)), "[100]": ((1, 0, 0), (0, 0, 1)), "[110]": ((1, 1, 0), (0, 0, 1))}
"""Zone axes: the direction of the beam, and the one that points right in the pattern, both along cell vectors."""


def wavelength(energy: float) -> float:
    """Compute the relativistic wavelength in A of electrons of ``energy`` keV; 0.0370 at 100."""
    return HC / np.sqrt(energy * (2 * REST_ENERGY + energy))


def interaction(energy: float) -> float:
    """Compute sigma in rad/(V A), the phase per projected potential at ``energy`` keV; 9.24e-4 at 100."""
    gain = (REST_ENERGY + energy) / (2 * REST_ENERGY + energy)
    return 2 * np.pi / (wavelength(energy) * energy * 1e3) * gain


def potential(number: int, q: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Compute the Fourier transform of an atom's potential at spatial frequencies ``q`` in 1/A, in V A^3.

    A point charge Z screened over the Thomas-Fermi radius R = 0.468 Z^(-1/3) A (Wentzel's atom):
    V(q) = 4 pi 14.4 Z / (R^-2 + 4 pi^2 q^2).
    """
    radius = 0.468 * number ** (-1 / 3)
    return 4 * np.pi * COULOMB * number / (radius**-2 + 4 * np.pi**2 * q**2)


@dataclass(frozen=True)
class Grid:
    """A square box of ``width`` A with ``points`` along each side; fields on it are periodic."""

    points: int
    width: float

    @property
    def line(self) -> Float[np.ndarray, " points"]:
        """Spatial frequencies along one side in 1/A, in the order of the FFT."""
        return np.fft.fftfreq(self.points, self.width / self.points)

    @property
    def q(self) -> Float[np.ndarray, "points points"]:
        """|q| in 1/A, in the order of the FFT."""
        return np.hypot(self.line[:, None], self.line[None])

    @property
    def limit(self) -> float:
        """Largest |q| in 1/A that is kept: 2/3 of Nyquist's, so that no product of two fields is aliased."""
        return self.points / (3 * self.width)


@dataclass(frozen=True)
class Stage:
    """How a specimen is held: what no two measurements have in common.

    ``turn`` is its rotation about the beam in rad, ``place`` where the probe stands, in A from the cell's corner, and
    ``tilt`` the angle of its zone axis to the beam along x and y, in mrad.
    """

    turn: float = 0.0
    place: tuple[float, float] = (0.0, 0.0)
    tilt: tuple[float, float] = (0.0, 0.0)


CENTRED = Stage()


def oriented(crystal: Crystal, zone: str, turn: float = 0.0) -> tuple[Float[np.ndarray, "3 3"], float]:
    """Turn the cell: the zone axis along z, its reference ``turn`` rad from x; returns it and its period, A."""
    beam, right = (np.asarray(direction, dtype=float) @ crystal.cell for direction in ZONES[zone])
    z = beam / np.linalg.norm(beam)
    x = right - (right @ z) * z
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    x, y = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    return crystal.cell @ np.array([x, y, z]).T, float(np.linalg.norm(beam))


def atoms_in_box(
    crystal: Crystal, zone: str, width: float, stage: Stage = CENTRED
) -> tuple[Float[np.ndarray, "found 3"], Shaped[np.ndarray, " found"], float]:
    """Find the atoms in one period of a box around the probe: positions in A, numbers Z, and the period.

    x and y go from -width/2 to width/2 (both left out), z from 0 to the period.
    """
    cell, period = oriented(crystal, zone, stage.turn)
    half = width / 2
    place = np.array([*stage.place, 0.0])
    corners = np.array([(x, y, z) for x in (-half, half) for y in (-half, half) for z in (0, period)])
    fractional = (corners + place) @ np.linalg.inv(cell)
    ranges = [
        np.arange(np.floor(low) - 1, np.ceil(high) + 1)
        for low, high in zip(fractional.min(0), fractional.max(0), strict=True)
    ]
    shifts = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 1, 3)
    r = ((shifts + crystal.sites) @ cell).reshape(-1, 3) - place
    numbers = np.broadcast_to(crystal.numbers, (len(shifts), len(crystal.numbers))).reshape(-1)
    tiny = 1e-6  # an atom at z = 0 is in the first slice, whatever the rounding
    inside = (np.abs(r[:, :2]) < half - tiny).all(1) & (r[:, 2] > -tiny) & (r[:, 2] < period - tiny)
    return r[inside], numbers[inside], period


def projected_potentials(
    crystal: Crystal, zone: str, grid: Grid, slice_thickness: float, stage: Stage = CENTRED
) -> tuple[Float[np.ndarray, "slices points points"], float]:
    """Compute the potential of one period, integrated over each slice, V A, and a slice's thickness, A.

    The period is cut into as many equal slices as come closest to ``slice_thickness``. Thermal vibration damps the
    atoms by exp(-2 pi^2 q^2 rms^2).
    """
    r, numbers, period = atoms_in_box(crystal, zone, grid.width, stage)
    count = max(1, round(period / slice_thickness))
    which = np.clip(((r[:, 2] + 1e-6) / period * count).astype(int), 0, count - 1)
    wave = np.exp(-2j * np.pi * r[:, :2, None] * grid.line)  # atoms x 2 x points
    damping = np.exp(-2 * np.pi**2 * grid.q**2 * crystal.rms**2) * (grid.q < grid.limit)
    spectrum = np.zeros((count, grid.points, grid.points), complex)
    for number in np.unique(numbers):
        shape = potential(int(number), grid.q) * damping
        for k in range(count):
            x, y = wave[(numbers == number) & (which == k)].swapaxes(0, 1)
            spectrum[k] += shape * (x.T @ y)
    # A Fourier sum over the box: sum over q of V(q) exp(2 pi i q r) / area.
    field: Any = scipy.fft.ifft2(spectrum)
    return field.real * grid.points**2 / grid.width**2, period / count


def probe(grid: Grid, energy: float, semi_angle: float) -> Complex[np.ndarray, "points points"]:
    """Make a focused probe in Fourier space, of unit intensity: a disk of ``semi_angle`` mrad at ``energy`` keV.

    The disk's edge is one frequency wide, so that its size changes smoothly with the energy.
    """
    radius = semi_angle * 1e-3 / wavelength(energy)
    amplitude = np.clip((radius - grid.q) * grid.width + 0.5, 0, 1)
    return (amplitude / np.sqrt((amplitude**2).sum())).astype(complex)


def multislice(
    wave: Complex[np.ndarray, "points points"],
    potentials: Float[np.ndarray, "slices points points"],
    thickness: float,
    step: float,
    grid: Grid,
    energy: float,
    tilt: tuple[float, float] = (0.0, 0.0),
) -> Complex[np.ndarray, "points points"]:
    """Propagate a wave in Fourier space through ``thickness`` A of a crystal whose slices, ``step`` A each, repeat.

    Each slice turns the phase by sigma times its projected potential, then the wave goes on through free space for
    one step: exp(-i pi lambda step q^2), within the grid's limit. A tilt in mrad moves it sideways on the way, by
    exp(2 pi i step q tilt). There is no absorption: the intensity stays, but for what is scattered beyond that limit.
    """
    transmission = np.exp(1j * interaction(energy) * potentials).astype(np.complex64)
    sideways = 2e-3 * (grid.line[:, None] * tilt[0] + grid.line * tilt[1])
    free = np.exp(1j * np.pi * step * (sideways - wavelength(energy) * grid.q**2)) * (grid.q < grid.limit)
    free = free.astype(np.complex64)
    psi = wave.astype(np.complex64)
    for k in range(max(1, round(thickness / step))):
        psi = np.asarray(scipy.fft.ifft2(psi, norm="ortho", overwrite_x=True))
        psi *= transmission[k % len(transmission)]
        psi = np.asarray(scipy.fft.fft2(psi, norm="ortho", overwrite_x=True))
        psi *= free
    return psi


def cbed(
    crystal: Crystal,
    zone: str,
    grid: Grid,
    energy: float,
    semi_angle: float,
    thickness: float,
    slice_thickness: float,
    stage: Stage = CENTRED,
) -> Float[np.ndarray, "points points"]:
    """Simulate a CBED pattern: the share of the electrons in each pixel, with the straight-on beam in pixel points/2.

    ``energy`` in keV, ``semi_angle`` in mrad, thicknesses in A. Rows are x of the pattern, columns y; a pixel is
    1/grid.width wide.
    """
    potentials, step = projected_potentials(crystal, zone, grid, slice_thickness, stage)
    wave = probe(grid, energy, semi_angle)
    out = multislice(wave, potentials, thickness, step, grid, energy, stage.tilt)
    return np.fft.fftshift(np.abs(out.astype(complex)) ** 2)
