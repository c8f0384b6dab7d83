"""How snow and low cloud vary from place to place: patterns on a grid of 1 km, by which the two are told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import KDTree
from scipy.special import ndtri
from scipy.stats import rankdata

from lumos.workloads.common.random_fields import gaussian_field
from lumos.workloads.slstr.radiation import Image

Texture = Callable[[np.random.Generator, Sequence[int]], Image]


def rough(rng: np.random.Generator, shape: Sequence[int], outer: float) -> Image:
    """Draw a field of zero mean and unit variance with turbulence's spectrum k^(-8/3), flat beyond ``outer`` km."""
    field = gaussian_field(rng, shape, 1.0, lambda k: (k**2 + (2 * np.pi / outer) ** 2) ** (-4 / 3))
    return field / field.std()


def normal_scores(field: Image) -> Float[np.ndarray, "rows columns"]:
    """Replace each value by that of a normal distribution of the same rank, so that all fields have equal values."""
    return ndtri((rankdata(field).reshape(field.shape) - 0.5) / field.size)


# ---- the ground -----------------------------------------------------------------------------------------------------


def plains(rng: np.random.Generator, shape: Sequence[int]) -> Image:
    """Draw snow of several falls: smooth over some kilometres."""
    return gaussian_filter(rough(rng, shape, 60.0), rng.uniform(2.0, 3.0), mode="wrap")


def mountains(rng: np.random.Generator, shape: Sequence[int]) -> Image:
    """Draw wide slopes in the light of a low sun: ridges are sharp, valleys are round."""
    height = -np.abs(plains(rng, shape))
    angle = rng.uniform(0, 2 * np.pi)
    down, across = np.gradient(height)
    return np.cos(angle) * across + np.sin(angle) * down


def drifts(rng: np.random.Generator, shape: Sequence[int]) -> Image:
    """Draw snow that wind has drawn out into streaks, three to six times as long as wide."""
    field, angle, stretch = plains(rng, shape), rng.uniform(0, np.pi), rng.uniform(3.0, 6.0)
    rows, columns = np.indices(tuple(shape))
    along = (np.cos(angle) * columns + np.sin(angle) * rows) / stretch
    across = np.cos(angle) * rows - np.sin(angle) * columns
    return map_coordinates(field, [across, along], order=1, mode="grid-wrap")  # the field is periodic


# ---- clouds ---------------------------------------------------------------------------------------------------------


def billows(rng: np.random.Generator, shape: Sequence[int]) -> Image:
    """Draw waves of 4 to 6 km with crests that waver."""
    length, angle = rng.uniform(4.0, 6.0), rng.uniform(0, np.pi)
    rows, columns = np.indices(tuple(shape))
    along = (np.cos(angle) * columns + np.sin(angle) * rows) / length + 0.35 * rough(rng, shape, 60.0)
    return np.sin(2 * np.pi * along) + 0.5 * rough(rng, shape, 15.0)


def closed_cells(rng: np.random.Generator, shape: Sequence[int]) -> Image:
    """Draw convection of 4 to 7 km: bright cells with dark rims."""
    return -_rims(rng, shape, rng.uniform(4.0, 7.0))


def open_cells(rng: np.random.Generator, shape: Sequence[int]) -> Image:
    """Draw convection of 5 to 8 km: dark cells with bright rims."""
    return _rims(rng, shape, rng.uniform(5.0, 8.0))


GROUND: tuple[Texture, ...] = (plains, mountains, drifts)
CLOUDS: tuple[Texture, ...] = (billows, closed_cells, open_cells)
"""Patterns of snow and ice, and of low cloud over them."""


def _rims(rng: np.random.Generator, shape: Sequence[int], size: float) -> Image:
    """How far the second nearest of random points is not farther than the nearest: 0 on the rim between two cells."""
    rows, columns = shape
    points = rng.uniform(-size, np.array(shape) + size, (int((rows + 2 * size) * (columns + 2 * size) / size**2), 2))
    grid = np.moveaxis(np.indices((rows, columns)), 0, -1).reshape(-1, 2).astype(float)
    distance = KDTree(points).query(grid, k=2)[0]
    gap = (distance[:, 1] - distance[:, 0]).reshape(rows, columns)
    return -gap + 0.1 * size * rough(rng, shape, 15.0)
