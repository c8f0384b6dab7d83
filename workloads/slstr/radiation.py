"""Light and heat on their way to the satellite: Planck's law, and the reflection of layers over a surface."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

PLANCK = 6.62607015e-34
"""h in J s."""
LIGHT = 299_792_458.0
"""c in m/s."""
BOLTZMANN = 1.380649e-23
"""k in J/K."""
SUN_TEMPERATURE = 5772.0
"""Effective temperature of the sun in K (IAU 2015)."""
SUN_SOLID_ANGLE = 6.794e-5
"""Of the sun's disk at one astronomical unit, in sr."""

Image = Float[np.ndarray, "rows columns"]


def planck(wavelength: float, temperature: Float[np.ndarray, "*any"] | float) -> Float[np.ndarray, "*any"] | float:
    """Compute the radiance of a black body in W/(m2 sr um) at ``wavelength`` um and ``temperature`` K."""
    metres = wavelength * 1e-6
    front = 2 * PLANCK * LIGHT**2 / metres**5 * 1e-6
    return front / np.expm1(PLANCK * LIGHT / (metres * BOLTZMANN * temperature))


def brightness_temperature(
    wavelength: float, radiance: Float[np.ndarray, "*any"] | float
) -> Float[np.ndarray, "*any"] | float:
    """Compute the temperature in K of the black body with ``radiance`` in W/(m2 sr um) at ``wavelength`` um."""
    metres = wavelength * 1e-6
    front = 2 * PLANCK * LIGHT**2 / metres**5 * 1e-6
    return PLANCK * LIGHT / (metres * BOLTZMANN * np.log1p(front / radiance))


def solar_radiance(wavelength: float, cos_zenith: float) -> float:
    """Compute the radiance in W/(m2 sr um) of a white Lambertian surface, the sun ``acos(cos_zenith)`` off the zenith.

    The sun is a black body: within a few percent of the measured spectrum in the near and middle infrared.
    """
    irradiance = float(planck(wavelength, SUN_TEMPERATURE)) * SUN_SOLID_ANGLE
    return irradiance * cos_zenith / np.pi


def two_stream(depth: Image, asymmetry: float) -> Image:
    """Compute the reflectance of a layer that does not absorb: (1-g)t / (1.6 + (1-g)t), optical depth t, asymmetry g.

    0 for no layer, 1 for an endless one; transmittance is what is left. The 1.6 stands for the mean path of diffuse
    light and the sun's height. Source: the two-stream approximation, as in Meador and Weaver 1980.
    """
    scaled = (1 - asymmetry) * depth
    return scaled / (1.6 + scaled)


def over(reflectance: Image, transmittance: Image, below: Image) -> Image:
    """Compute the reflectance of a layer and what is ``below``, with reflections between them: r + t² b / (1 - r b)."""
    return reflectance + transmittance**2 * below / (1 - reflectance * below)


def emitted(wavelength: float, below: Image, emissivity: Image, temperature: Image) -> Image:
    """Compute the radiance in W/(m2 sr um) above a grey layer: what passes it from below, and its own."""
    return (1 - emissivity) * below + emissivity * planck(wavelength, temperature)
