"""Scenes as Sentinel-3's SLSTR sees them: surfaces and clouds, six reflectances, three brightness temperatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy.ndimage import gaussian_filter

from lumos.workloads.slstr.radiation import (
    Image,
    brightness_temperature,
    emitted,
    over,
    planck,
    solar_radiance,
    two_stream,
)
from lumos.workloads.slstr.textures import CLOUDS, GROUND, normal_scores, rough

CHANNELS = ("S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9")
"""0.555, 0.659, 0.868, 1.375, 1.61, 2.25 um (reflectances), 3.74, 10.85, 12.02 um (brightness temperatures, K)."""

SURFACES = {
    "ocean": (0.030, 0.022, 0.012, 0.008, 0.005, 0.004, 0.020),
    "plants": (0.080, 0.050, 0.350, 0.300, 0.200, 0.100, 0.040),
    "soil": (0.150, 0.200, 0.280, 0.330, 0.360, 0.320, 0.150),
    "snow": (0.900, 0.880, 0.800, 0.400, 0.110, 0.070, 0.020),
}
"""Reflectance of surfaces in S1 to S7; typical values, as in the spectral libraries."""

VAPOUR = np.array([0.0, 0.002, 0.004, 4.0, 0.004, 0.010])
"""Absorption of S1 to S6 by water vapour, per cm of precipitable water along one slanted path."""
VAPOUR_THERMAL = (0.030, 0.085, 0.135)
"""The same of S7, S8, S9: the difference of the last two is what split-window retrievals use."""
SCALE_HEIGHT = 2.0
"""Of water vapour, in km."""
LAPSE = 6.5
"""Fall of the temperature with height in K/km."""
THERMAL = (3.74, 10.85, 12.02)
"""Wavelengths of S7, S8, S9 in um."""
FOOTPRINT = (0.5, 0.8)
"""Of the channels for reflectance and for heat: what a pixel's value is a mean over, a Gaussian's sigma in pixels."""
THIN = 0.3
"""Optical depth above which a pixel counts as cloud."""
WRONG = 0.02
"""Share of the mask's pixels that are wrong, in patches."""
NIGHT = 0.3
"""Share of the scenes that are seen at night."""
POLAR = 0.5
"""Share of the scenes that have snow or sea ice, and low ice cloud whose spectrum is that of snow."""
OPAQUE = 10.0
"""Optical depth of such a cloud: what is below it does not show."""
EDGE = 6.0
"""How far the edge of such a cloud is smooth, a Gaussian's sigma in km."""
BRIGHTNESS, WARMTH = 0.2, 5.0
"""How much snow and the cloud like it vary from place to place: a share of the reflectance, and K."""


@dataclass(frozen=True)
class Deck:
    """What a cloud of water or of ice does to light.

    ``asymmetry`` of its scattering; ``white``, the share of light in S1 to S7 that a thick cloud does not absorb;
    ``heat``, its absorption optical depth in S7, S8, S9 per optical depth in the visible.
    """

    asymmetry: float
    white: tuple[float, ...]
    heat: tuple[float, float, float]


LIQUID = Deck(0.85, (1.0, 1.0, 0.99, 0.98, 0.85, 0.70, 0.20), (0.35, 0.45, 0.52))
ICE = Deck(0.75, (1.0, 1.0, 0.99, 0.95, 0.45, 0.35, 0.05), (0.45, 0.45, 0.56))


@dataclass(frozen=True)
class Scene:
    """``refs`` (rows, columns, 6), ``bts`` (rows, columns, 3) in K, ``bayes`` (rows, columns, 1), 1 where cloudy.

    Missing values are nan. ``depth`` is the true optical depth, ``night`` says that the sun is down.
    """

    refs: Float32[np.ndarray, "rows columns 6"]
    bts: Float32[np.ndarray, "rows columns 3"]
    bayes: Float32[np.ndarray, "rows columns 1"]
    depth: Image
    night: bool


def make_scene(rng: np.random.Generator, shape: Sequence[int]) -> Scene:
    """Make a scene of ``shape`` pixels of 1 km: surface, two decks of cloud, sunlight and heat, noise, gaps, mask."""
    night, polar = bool(rng.random() < NIGHT), bool(rng.random() < POLAR)
    cos_zenith = 0.0 if night else float(rng.uniform(0.35, 1.0))
    warmth = float(rng.uniform(255.0, 268.0) if polar else rng.uniform(262.0, 302.0))
    albedo, temperature = _surface(rng, shape, warmth, night, cos_zenith)
    low = np.zeros(tuple(shape))
    if polar:
        albedo, temperature, low = snow_and_its_like(rng, shape, warmth)
    water = 1.4 * np.exp(0.065 * (warmth - 288.0)) * rng.uniform(0.6, 1.4)  # cm; warm air holds more
    slant = 1.0 / max(cos_zenith, 0.35) + 1.0
    most = 0.4 if polar else 1.0
    decks = [
        (LIQUID, _depth(rng, shape, most * rng.uniform(0.15, 0.55), 8.0), rng.uniform(0.7, 3.0)),
        (ICE, _depth(rng, shape, most * rng.uniform(0.05, 0.40), 1.5), rng.uniform(6.0, 11.0)),
    ]
    tops = [height + 0.4 * rough(rng, shape, 80.0) for _, _, height in decks]
    refs = _reflectances(albedo, decks, tops, water * slant)
    bts = _temperatures(albedo[-1], temperature, warmth, decks, tops, water, cos_zenith)
    depth = low + decks[0][1] + decks[1][1]
    if night:
        refs = np.zeros_like(refs)
    refs = refs * (1 + 0.01 * rng.standard_normal(refs.shape)) + 0.002 * rng.standard_normal(refs.shape)
    cold = np.exp(np.clip(240.0 - bts[..., :1], 0, 40) / 15)  # little radiance at 3.7 um: much noise where it is cold
    bts = bts + rng.standard_normal(bts.shape) * np.concatenate([0.08 * cold, np.full((*cold.shape[:2], 2), 0.05)], -1)
    wrong = rough(rng, shape, 30.0)
    cloudy = (depth > THIN) ^ (wrong > np.quantile(wrong, 1 - WRONG))
    _gaps(rng, refs, bts)
    return Scene(refs.astype(np.float32), bts.astype(np.float32), cloudy[..., None].astype(np.float32), depth, night)


def _depth(rng: np.random.Generator, shape: Sequence[int], cover: float, thickness: float) -> Image:
    """Optical depth of a deck that covers a share of the scene: a field, cut at a level, exponentiated."""
    field = rough(rng, shape, rng.uniform(40.0, 200.0))
    above = np.maximum(field - np.quantile(field, 1 - cover), 0)
    return thickness * rng.uniform(0.5, 2.0) * np.expm1(1.2 * above)


def _surface(
    rng: np.random.Generator, shape: Sequence[int], warmth: float, night: bool, cos_zenith: float
) -> tuple[Float[np.ndarray, "7 rows columns"], Image]:
    """Reflectance in S1 to S7 and temperature in K of ocean, plants, soil and snow, with sun glint on the ocean."""
    land = rough(rng, shape, 300.0) > rng.normal(0.5, 1.0)
    green = 1 / (1 + np.exp(-3 * (rough(rng, shape, 60.0) + rng.normal(0, 0.7))))
    snowy = land & (rough(rng, shape, 100.0) > (warmth - 268.0) / 6.0)
    spectra = {name: np.array(values)[:, None, None] for name, values in SURFACES.items()}
    albedo = np.where(land, green * spectra["plants"] + (1 - green) * spectra["soil"], spectra["ocean"])
    albedo = np.where(snowy, spectra["snow"], albedo) * (1 + 0.1 * rough(rng, shape, 20.0))
    if not night and rng.random() < 0.5:
        across = np.linspace(0, 1, shape[1]) - rng.uniform(0, 1)
        albedo = albedo + ~land * rng.uniform(0.05, 0.30) * np.exp(-((across / 0.15) ** 2))
    by_day = rng.uniform(2.0, 12.0) * cos_zenith if not night else -rng.uniform(0.0, 8.0)
    ocean = np.maximum(warmth, 271.5) + 1.5 * rough(rng, shape, 200.0)
    ground = warmth + by_day * (1 - 0.5 * green) + 2.5 * rough(rng, shape, 100.0)
    temperature = np.where(land, ground, ocean)
    return np.clip(albedo, 0.0, 0.98), np.where(snowy, np.minimum(temperature, 272.5), temperature)


def snow_and_its_like(
    rng: np.random.Generator, shape: Sequence[int], warmth: float
) -> tuple[Float[np.ndarray, "7 rows columns"], Image, Image]:
    """Reflectance, temperature and optical depth of snow or ice, and of low cloud that no single pixel tells from it.

    The reflectance of what is opaque depends on its grains alone, and crystals of a cloud near the ground can be as
    large as those of snow (Warren 1982). In the inversion over snow such a cloud is as warm as the ground. What is left
    is how brightness and warmth go from place to place; at every pixel their distribution is the same for both.
    """
    field = gaussian_filter(rough(rng, shape, rng.uniform(60.0, 150.0)), EDGE)
    cloudy = field > np.quantile(field, rng.uniform(0.3, 0.7))
    ground, cloud = (GROUND[rng.integers(len(GROUND))], CLOUDS[rng.integers(len(CLOUDS))])
    texture = np.where(cloudy, normal_scores(cloud(rng, shape)), normal_scores(ground(rng, shape)))
    albedo = np.array(SURFACES["snow"])[:, None, None] * rng.uniform(0.55, 0.7) * (1 + BRIGHTNESS * texture)
    return np.clip(albedo, 0.0, 0.98), warmth + WARMTH * texture, np.where(cloudy, OPAQUE, 0.0)


def _reflectances(
    albedo: Float[np.ndarray, "7 rows columns"],
    decks: Sequence[tuple[Deck, Image, float]],
    tops: Sequence[Image],
    water: float,
) -> Float[np.ndarray, "rows columns 6"]:
    """S1 to S6 at the top of the atmosphere; vapour, ``water`` cm of it along the path, dims what is below it."""
    out = []
    for channel in range(6):
        level, seen = np.zeros_like(tops[0]), albedo[channel]
        for (deck, depth, _), top in zip(decks, tops, strict=True):
            seen = seen * np.exp(-VAPOUR[channel] * water * (_above(level) - _above(top)))
            r = two_stream(depth, deck.asymmetry)
            kept = 1 - (1 - deck.white[channel]) * (1 - np.exp(-depth / 3))
            seen, level = over(r * kept, (1 - r) * kept, seen), top
        seen = seen * np.exp(-VAPOUR[channel] * water * _above(level))
        out.append(gaussian_filter(seen, FOOTPRINT[0]))
    return np.stack(out, -1)


def _temperatures(
    albedo: Image,
    surface: Image,
    warmth: float,
    decks: Sequence[tuple[Deck, Image, float]],
    tops: Sequence[Image],
    water: float,
    cos_zenith: float,
) -> Float[np.ndarray, "rows columns 3"]:
    """S7 to S9 in K: what surface, vapour and clouds emit, and in S7 the sunlight that they reflect."""
    out = []
    for channel, wavelength in enumerate(THERMAL):
        sun = solar_radiance(wavelength, cos_zenith) if channel == 0 else 0.0
        emissivity = 1 - albedo if channel == 0 else np.full_like(albedo, 0.985)
        seen = emissivity * planck(wavelength, surface) + albedo * sun
        level = np.zeros_like(surface)
        for (deck, depth, _), top in zip(decks, tops, strict=True):
            seen = _through_vapour(channel, seen, warmth, level, top, water)
            grey = 1 - np.exp(-1.66 * deck.heat[channel] * depth)
            back = deck.white[6] * two_stream(depth, deck.asymmetry) if channel == 0 else np.zeros_like(depth)
            seen = emitted(wavelength, seen, grey * (1 - back), warmth - LAPSE * top) + back * sun
            level = top
        seen = _through_vapour(channel, seen, warmth, level, np.full_like(level, 30.0), water)
        out.append(brightness_temperature(wavelength, gaussian_filter(seen, FOOTPRINT[1])))
    return np.stack(out, -1)


def _through_vapour(channel: int, below: Image, warmth: float, low: Image, high: Image, water: float) -> Image:
    """Radiance after the vapour between two heights in km, which has the temperature of the lower, 1 km up."""
    emissivity = 1 - np.exp(-VAPOUR_THERMAL[channel] * water * (_above(low) - _above(high)))
    return emitted(THERMAL[channel], below, emissivity, warmth - LAPSE * (low + 1.0))


def _above(height: Image) -> Image:
    """Share of the water vapour above a height in km."""
    return np.exp(-height / SCALE_HEIGHT)


def _gaps(rng: np.random.Generator, refs: np.ndarray, bts: np.ndarray) -> None:
    """Lose a few lines of the scan, in one instrument's channels or the other's."""
    for values in (refs, bts):
        for row in rng.integers(0, len(values), rng.poisson(1.0)):
            values[row] = np.nan
