"""Universes in a box: linear power spectrum, growth, and particles moved by second-order perturbation theory.

Lengths are comoving Mpc/h and wavenumbers h/Mpc throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from lumos.workloads.common.random_fields import gaussian_modes, to_field, to_modes, wavenumbers

REDSHIFTS = (0.0, 0.5, 1.5, 3.0)
"""Of the four channels of a cube, in order."""

PARAMETERS = ("omega_m", "sigma_8", "n_s", "h0")
"""What is predicted, in order; h0 in km/s/Mpc."""

CENTRES = (0.3, 0.8, 0.96, 70.0)
"""Of the parameters; each is drawn uniformly within a share of it."""

SPREAD = 0.1
"""That share, as published."""
OMEGA_B = 0.045
T_CMB = 2.7255  # K


@dataclass(frozen=True)
class Cosmology:
    """A flat universe with a cosmological constant, without radiation and neutrinos; h0 in km/s/Mpc."""

    omega_m: float
    sigma_8: float
    n_s: float
    h0: float
    omega_b: float = OMEGA_B

    @classmethod
    def at(cls, units: Sequence[float] | np.ndarray, spread: float = SPREAD) -> Cosmology:
        """Make it from the four parameters in [-1, 1], in the order of :data:`PARAMETERS`; 1 is ``spread`` off."""
        return cls(*(float(c * (1 + spread * u)) for c, u in zip(CENTRES, units, strict=True)))

    @property
    def h(self) -> float:
        """H0 in units of 100 km/s/Mpc."""
        return self.h0 / 100

    def matter(self, z: float) -> float:
        """Compute Omega_m at redshift z."""
        dense = self.omega_m * (1 + z) ** 3
        return dense / (dense + 1 - self.omega_m)

    def growth(self, z: float) -> float:
        """Compute the growth factor D(z) of linear perturbations, D(0) = 1. Carroll, Press & Turner 1992, eq. 29."""

        def suppressed(m: float) -> float:
            vacuum = 1 - m
            return 2.5 * m / (m ** (4 / 7) - vacuum + (1 + m / 2) * (1 + vacuum / 70))

        return suppressed(self.matter(z)) / suppressed(self.omega_m) / (1 + z)

    def second_growth(self, z: float) -> float:
        """Compute the growth factor of the second order, D2 = -3/7 D^2 Omega_m(z)^(-1/143). Bouchet et al. 1995."""
        return -3 / 7 * self.growth(z) ** 2 * self.matter(z) ** (-1 / 143)

    def transfer(self, k: np.ndarray) -> np.ndarray:
        """Compute the transfer function without baryon wiggles at k in h/Mpc. Eisenstein & Hu 1998, eqs. 26-31."""
        matter, baryons = self.omega_m * self.h**2, self.omega_b * self.h**2
        share = self.omega_b / self.omega_m
        sound_horizon = 44.5 * np.log(9.83 / matter) / np.sqrt(1 + 10 * baryons**0.75)  # Mpc
        alpha = 1 - 0.328 * np.log(431 * matter) * share + 0.38 * np.log(22.3 * matter) * share**2
        shape = self.omega_m * self.h * (alpha + (1 - alpha) / (1 + (0.43 * k * self.h * sound_horizon) ** 4))
        q = k * (T_CMB / 2.7) ** 2 / shape
        log = np.log(2 * np.e + 1.8 * q)
        return log / (log + (14.2 + 731 / (1 + 62.5 * q)) * q**2)

    def power(self, k: np.ndarray) -> np.ndarray:
        """Compute the linear power today at k > 0 in h/Mpc, (Mpc/h)^3: A k^n_s T^2, A from sigma(8 Mpc/h) = sigma_8."""
        grid = np.geomspace(1e-5, 50, 4000)
        return self._shape(k) * (self.sigma_8 / top_hat_sigma(grid, self._shape(grid), 8.0)) ** 2

    def _shape(self, k: np.ndarray) -> np.ndarray:
        return k**self.n_s * self.transfer(k) ** 2


def top_hat_sigma(k: np.ndarray, power: np.ndarray, radius: float) -> float:
    """Compute the deviation of the density contrast in spheres, from P(k) on a rising grid of k; radius in Mpc/h.

    sigma^2 = integral of k^3 P(k) W(kR)^2 / (2 pi^2) dln k, W(x) = 3 (sin x - x cos x)/x^3.
    """
    x = k * radius
    # The closed form loses all digits where x is small; there, its series.
    window = np.where(x < 1e-2, 1 - x**2 / 10, 3 * (np.sin(x) - x * np.cos(x)) / np.maximum(x, 1e-2) ** 3)
    return float(np.sqrt(np.trapezoid(k**3 * power * window**2 / (2 * np.pi**2), np.log(k))))


def counts(
    cosmology: Cosmology,
    rng: np.random.Generator,
    cells: int,
    spacing: float,
    redshifts: Sequence[float] = REDSHIFTS,
) -> Integer[np.ndarray, "cells cells cells redshifts"]:
    """Count particles in each cell of a periodic box, int16, as many as cells: ``cells`` a side, ``spacing`` Mpc/h.

    The linear density is Gaussian with the cosmology's power. Particles start in the middle of the cells and move by
    second-order Lagrangian perturbation theory, x = q + D psi1 + D2 psi2, with the same psi (the same phases) at all
    redshifts; a particle counts in the cell that it ends in.
    """
    delta = gaussian_modes(rng, (cells,) * 3, spacing, cosmology.power)
    return place(cosmology, delta, cells, spacing, redshifts)


def place(
    cosmology: Cosmology, delta: np.ndarray, cells: int, spacing: float, redshifts: Sequence[float] = REDSHIFTS
) -> Integer[np.ndarray, "cells cells cells redshifts"]:
    """Place particles as :func:`counts` does, from the modes ``rfftn`` of the linear density contrast today."""
    source = second_order_source(delta, cells, spacing)
    # One axis at a time: a universe of 512^3 would not fit into memory with all its displacements.
    flat = np.zeros((len(redshifts), cells**3), np.int64)
    for axis in range(3):
        first = displacement(delta, cells, spacing, axis) / spacing
        second = displacement(-source, cells, spacing, axis) / spacing
        start = np.arange(cells).reshape([-1 if a == axis else 1 for a in range(3)])
        for number, z in enumerate(redshifts):
            moved = start + cosmology.growth(z) * first + cosmology.second_growth(z) * second
            flat[number] = flat[number] * cells + (np.rint(moved).astype(np.int64) % cells).ravel()
    cubes = [np.bincount(cell, minlength=cells**3).astype(np.int16) for cell in flat]
    return np.stack(cubes, -1).reshape(cells, cells, cells, len(redshifts))


def displacement(modes: np.ndarray, cells: int, spacing: float, axis: int) -> Float[np.ndarray, "cells cells cells"]:
    """Compute one component of the field psi with div psi = -f, from the modes of f; in Mpc/h for a pure number f."""
    k = wavenumbers((cells,) * 3, spacing)
    return to_field(1j * _nyquist_free(k[axis], cells) * _inverse_square(k) * modes, (cells,) * 3)


def second_order_source(modes: np.ndarray, cells: int, spacing: float) -> np.ndarray:
    """Compute modes of sum over i < j of phi_ii phi_jj - phi_ij^2 with laplacian phi = f, from the modes of f."""
    k = wavenumbers((cells,) * 3, spacing)
    scaled = modes * _inverse_square(k)

    def second(i: int, j: int) -> np.ndarray:
        # A first derivative of a Nyquist mode is not real, and is left out; its second derivative is.
        ki, kj = (k[i], k[j]) if i == j else (_nyquist_free(k[i], cells), _nyquist_free(k[j], cells))
        return to_field(ki * kj * scaled, (cells,) * 3)

    x, y, z = second(0, 0), second(1, 1), second(2, 2)
    total = x * y + y * z + z * x
    for i, j in ((0, 1), (1, 2), (2, 0)):
        total -= second(i, j) ** 2
    return to_modes(total)


def _inverse_square(k: list[np.ndarray]) -> np.ndarray:
    square = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    square.flat[0] = np.inf
    return 1 / square


def _nyquist_free(k: np.ndarray, cells: int) -> np.ndarray:
    return np.where(np.abs(k) < np.abs(k).max(), k, 0.0) if cells % 2 == 0 else k
