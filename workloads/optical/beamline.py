"""Shots of a laser through its beam line, on a camera: sessions, the shots of a session, and damage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import UInt16
from scipy.fft import next_fast_len

from lumos.workloads.optical.optics import (
    Camera,
    Grid,
    Pit,
    damage,
    dusty_camera,
    fresnel,
    kolmogorov_screen,
    super_gaussian,
)

PLANE = (492, 656)
"""Rows and columns of the published images."""
CROP = (150, 350, 270, 470)
"""Of which these rows and columns are looked at: first row, end row, first column, end column."""
PIXEL = 20e-6
"""What a pixel of the published size stands for here, m; a smaller plane has larger pixels and shows the same."""

VERSION = 1
"""Raised with every change of what is generated, so that no cache of an older generator is read."""


@dataclass(frozen=True)
class Session:
    """What stays as it is from shot to shot: distance (m), Fried's length, radius and middle of the beam (m), order."""

    distance: float
    r0: float
    radius: float
    order: float
    x: float
    y: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Session:
        """Draw a session as the beam line is aligned on some day."""
        return cls(
            distance=rng.uniform(0.6, 1.0),
            r0=rng.uniform(10e-3, 20e-3),
            radius=rng.uniform(1.45e-3, 1.75e-3),
            order=rng.uniform(6.0, 12.0),
            x=rng.normal(0.0, 150e-6),
            y=rng.normal(0.0, 150e-6),
        )


def draw_pits(rng: np.random.Generator, session: Session) -> list[Pit]:
    """Draw one to three pits of 60 to 450 um across, in the bright part of the beam."""
    pits = []
    for _ in range(rng.integers(1, 4)):
        r, angle = 0.85 * session.radius * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        pits.append(
            Pit(
                x=session.x + r * np.cos(angle),
                y=session.y + r * np.sin(angle),
                radius=rng.uniform(30e-6, 225e-6),
                transmission=rng.uniform(0.1, 0.7),
                bulge=rng.uniform(-2.0, 2.0),
            )
        )
    return pits


@dataclass(frozen=True)
class BeamLine:
    """A laser and its camera; ``plane`` is the rows and columns of an image, ``seed`` draws the dust on the camera."""

    plane: tuple[int, int] = PLANE
    seed: int = 0

    @property
    def spacing(self) -> float:
        """Of the pixels, m."""
        return PIXEL * PLANE[1] / self.plane[1]

    @cached_property
    def grid(self) -> Grid:
        """The plane of the computation: that of the camera, a little larger where the transform is faster so."""
        rows, columns = (next_fast_len(n) or n for n in self.plane)
        return Grid(rows, columns, self.spacing)

    @cached_property
    def camera(self) -> Camera:
        """The same at all times, with its dust."""
        return dusty_camera(np.random.default_rng([self.seed, 0]), self.grid)

    @property
    def middle(self) -> tuple[float, float]:
        """Where the beam is aimed at, m from the middle of the plane: the middle of the published crop."""
        top, bottom, left, right = CROP
        return ((left + right - PLANE[1]) / 2 * PIXEL, (top + bottom - PLANE[0]) / 2 * PIXEL)

    def shot(
        self, session: Session, rng: np.random.Generator, damaged: bool = False
    ) -> UInt16[np.ndarray, "rows columns"]:
        """Take one image, in counts of 0 to 4095; if ``damaged``, an optic 80 to 160 mm before the camera has pits."""
        grid, (x, y) = self.grid, self.middle
        x, y = x + session.x + rng.normal(0.0, 50e-6), y + session.y + rng.normal(0.0, 50e-6)
        dx, dy = grid.around(x, y)
        slope = rng.normal(0.0, 0.06, 2) / session.radius
        gain = np.clip(1 + slope[0] * dx + slope[1] * dy, 0.0, None)
        amplitude = super_gaussian(grid, x, y, session.radius, session.order) * np.sqrt(gain)
        phase = kolmogorov_screen(rng, grid, session.r0)
        wave = (amplitude * np.exp(1j * phase)).astype(np.complex64)
        last = rng.uniform(80e-3, 160e-3)
        if damaged:
            wave = fresnel(wave, grid.spacing, session.distance - last)
            wave = fresnel(wave * damage(grid, self._placed(draw_pits(rng, session))), grid.spacing, last)
        else:
            wave = fresnel(wave, grid.spacing, session.distance)
        intensity = np.abs(wave).astype(np.float64) ** 2
        counts = self.camera.expose(intensity, exposure=2.2 * rng.normal(1.0, 0.03), rng=rng)
        return counts[: self.plane[0], : self.plane[1]]

    def _placed(self, pits: list[Pit]) -> list[Pit]:
        x, y = self.middle
        return [Pit(pit.x + x, pit.y + y, pit.radius, pit.transmission, pit.bulge) for pit in pits]
