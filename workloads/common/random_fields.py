"""Gaussian random fields with a given power spectrum, in any number of dimensions, by fast Fourier transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
from jaxtyping import Float

Spectrum = Callable[[np.ndarray], np.ndarray]
"""Power P(k) at wavenumbers k > 0, in rad per unit of length: P in (unit of the field)^2 times length^dimensions."""


def wavenumbers(shape: Sequence[int], spacing: float) -> list[np.ndarray]:
    """Compute the components of k, rad per unit of length, of the cells of ``scipy.fft.rfftn``; they broadcast."""
    last = len(shape) - 1
    parts = []
    for axis, count in enumerate(shape):
        line = np.fft.rfftfreq(count, spacing) if axis == last else np.fft.fftfreq(count, spacing)
        parts.append((2 * np.pi * line).reshape([-1 if a == axis else 1 for a in range(len(shape))]))
    return parts


def wavenumber_size(shape: Sequence[int], spacing: float) -> np.ndarray:
    """Compute |k|, rad per unit of length, at the cells of ``scipy.fft.rfftn`` of an array of this shape."""
    return np.sqrt(sum(part**2 for part in wavenumbers(shape, spacing)))


def to_modes(field: np.ndarray) -> np.ndarray:
    """Transform a real array to its modes, by ``scipy.fft.rfftn``."""
    return np.asarray(scipy.fft.rfftn(field))


def to_field(modes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Transform modes back to the real array of the given shape."""
    return np.asarray(scipy.fft.irfftn(modes, s=tuple(shape)))


def gaussian_modes(rng: np.random.Generator, shape: Sequence[int], spacing: float, spectrum: Spectrum) -> np.ndarray:
    """Draw the modes (``scipy.fft.rfftn``, complex128) of a :func:`gaussian_field`."""
    k = wavenumber_size(shape, spacing)
    power = np.zeros_like(k)
    # The mean is not a fluctuation: the mode at k = 0 is left at zero.
    power.flat[1:] = spectrum(k.ravel()[1:])
    return to_modes(rng.standard_normal(tuple(shape))) * np.sqrt(power / spacing ** len(shape))


def gaussian_field(
    rng: np.random.Generator, shape: Sequence[int], spacing: float, spectrum: Spectrum
) -> Float[np.ndarray, ...]:
    """Draw a periodic Gaussian field of zero mean on a grid of ``spacing``, float64, of the given shape.

    Its modes f_k = sum f(x) exp(-i k x) spacing^d have <|f_k|^2> = V P(k), with V the volume of the box: the
    convention of cosmology, in which the variance is the integral of P(k) d^dk / (2 pi)^d.
    """
    return to_field(gaussian_modes(rng, shape, spacing, spectrum), shape)


def measured_power(
    field: Float[np.ndarray, ...], spacing: float, edges: Float[np.ndarray, " edges"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure P(k) of a periodic field in bins of |k|, in the convention of :func:`gaussian_field`.

    Returns:
        For each of the ``len(edges) - 1`` bins, the mean |k|, the mean power, and the number of independent modes n (a
        mode and its conjugate are one), so that the power of a Gaussian field scatters by P/sqrt(n). A bin without
        modes has nan and 0.
    """
    modes = to_modes(field)
    k = wavenumber_size(field.shape, spacing).ravel()
    # Of a mode and its conjugate, rfftn keeps one; but both in the planes where the last component is 0 or Nyquist.
    weight = np.ones(modes.shape)
    weight[..., 0] = 0.5
    if field.shape[-1] % 2 == 0:
        weight[..., -1] = 0.5
    power = np.abs(modes.ravel()) ** 2 * spacing**field.ndim / field.size
    count, k_sum, power_sum = (
        np.histogram(k[1:], edges, weights=weight.ravel()[1:] * values)[0] for values in (1.0, k[1:], power[1:])
    )
    with np.errstate(invalid="ignore"):
        return k_sum / count, power_sum / count, count
