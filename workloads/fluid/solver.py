"""Smoothed-particle hydrodynamics of water in a box, as in PARSEC's fluidanimate; SI units, double precision.

Equations after Müller, Charypar and Gross, "Particle-based fluid simulation for interactive applications" (SCA 2003),
with the constants of the PARSEC 3.0 benchmark (Bienia 2011). The code is the project's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lumos.workloads.common.native import compiled

TIME_STEP = 0.001
STIFFNESS = 3.0
VISCOSITY = 0.4
REST_DENSITY = 1000.0
GRAVITY = -9.8
BOX_MIN = np.array([-0.065, -0.08, -0.065])
BOX_MAX = np.array([0.065, 0.1, 0.065])
WALL_SKIN = 0.0002
WALL_STIFFNESS = 30000.0
WALL_DAMPING = 128.0
SMALLEST_SQUARE = 1e-12
"""The squared distance below which two particles count as 1e-6 m apart, so that no division is by zero."""

Vectors = Float[np.ndarray, "particles 3"]
Pairs = Int[np.ndarray, "pairs 2"]


@dataclass(frozen=True)
class Kernel:
    """What the resolution fixes: the smoothing radius h (m) and the factors of density, pressure and viscosity."""

    rest_per_metre: float
    h: float
    density: float
    pressure: float
    viscosity: float

    @classmethod
    def at(cls, rest_per_metre: float) -> Kernel:
        """Make the kernel of a fluid with ``rest_per_metre`` particles a metre at rest (204 in PARSEC's in_5K)."""
        if not (math.isfinite(rest_per_metre) and rest_per_metre > 0):
            raise ValueError(f"rest_per_metre={rest_per_metre}: expected a finite number > 0")
        h = 1.695 / rest_per_metre
        mass = REST_DENSITY / rest_per_metre**3
        spiky = mass * 45.0 / (math.pi * h**6)
        return cls(
            rest_per_metre, h, mass * 315.0 / (64.0 * math.pi * h**9), 0.5 * STIFFNESS * spiky, VISCOSITY * spiky
        )


@dataclass
class State:
    """Positions (m), velocities half a step back and velocities (m/s) of all particles; ``advance`` replaces them."""

    x: Vectors
    half_v: Vectors
    v: Vectors


@compiled
def _sort_into_cells(x, low, high, h):  # pragma: no cover - compiled
    """Particles ordered by grid cell: (cell counts per axis, first particle of each cell, order)."""
    # Cells are at least h wide, so all neighbours of a particle lie in the 27 cells around it.
    shape = np.maximum(1, ((high - low) / h).astype(np.int64))
    cell = np.empty(len(x), np.int64)
    start = np.zeros(shape[0] * shape[1] * shape[2] + 1, np.int64)
    for p in range(len(x)):
        index = 0
        for axis in range(3):
            width = (high[axis] - low[axis]) / shape[axis]
            # A particle outside the box counts for the cell at the wall.
            along = min(max(int((x[p, axis] - low[axis]) / width), 0), shape[axis] - 1)
            index = index * shape[axis] + along
        cell[p] = index
        start[index + 1] += 1
    start = np.cumsum(start)
    return shape, start, np.argsort(cell, kind="mergesort")


@compiled
def _cells_ahead(shape, cell):  # pragma: no cover - compiled
    """The cell itself and those of its up to 26 neighbours that have a higher number: each couple of cells once."""
    i, j, k = cell // (shape[1] * shape[2]), cell // shape[2] % shape[1], cell % shape[2]
    ahead = np.empty(27, np.int64)
    found = 0
    for a in range(max(i - 1, 0), min(i + 2, shape[0])):
        for b in range(max(j - 1, 0), min(j + 2, shape[1])):
            for c in range(max(k - 1, 0), min(k + 2, shape[2])):
                there = (a * shape[1] + b) * shape[2] + c
                if there >= cell:
                    ahead[found] = there
                    found += 1
    return ahead[:found]


@compiled
def _find_pairs(x, low, high, h, room):  # pragma: no cover - compiled
    """Fill an array of ``room`` pairs; returns it and the number found, which may be larger."""
    shape, start, order = _sort_into_cells(x, low, high, h)
    pairs = np.empty((room, 2), np.int32)
    found = 0
    for here in range(len(start) - 1):
        if start[here] == start[here + 1]:
            continue
        for there in _cells_ahead(shape, here):
            for s in range(start[here], start[here + 1]):
                p = order[s]
                for t in range(s + 1 if there == here else start[there], start[there + 1]):
                    q = order[t]
                    square = (x[p, 0] - x[q, 0]) ** 2 + (x[p, 1] - x[q, 1]) ** 2 + (x[p, 2] - x[q, 2]) ** 2
                    if square < h * h:
                        if found < room:
                            pairs[found, 0], pairs[found, 1] = p, q
                        found += 1
    return pairs, found


def neighbour_pairs(x: Vectors, h: float) -> Pairs:
    """Find each unordered pair of particles closer than h, once, with a grid of cells."""
    # Stacked particles make clumps; grow the buffer rather than guess the worst case.
    room = 32 * len(x)
    while True:
        pairs, found = _find_pairs(x, BOX_MIN, BOX_MAX, h, room)
        if found <= room:
            return pairs[:found]
        room = found


@compiled
def _densities(x, pairs, h, factor):  # pragma: no cover - compiled
    overlap = np.full(len(x), h**6)
    for n in range(len(pairs)):
        p, q = pairs[n]
        square = (x[p, 0] - x[q, 0]) ** 2 + (x[p, 1] - x[q, 1]) ** 2 + (x[p, 2] - x[q, 2]) ** 2
        term = (h * h - square) ** 3
        overlap[p] += term
        overlap[q] += term
    return factor * overlap


def densities(x: Vectors, pairs: Pairs, kernel: Kernel) -> Float[np.ndarray, " particles"]:
    """Compute the density at each particle, kg/m3: rho_i = cd (h^6 + sum over r < h of (h^2 - r^2)^3)."""
    return _densities(x, pairs, kernel.h, kernel.density)


@compiled
def _pair_terms(x, v, rho, pairs, h, pressure, viscosity):  # pragma: no cover - compiled
    terms = np.empty((len(pairs), 3))
    for n in range(len(pairs)):
        p, q = pairs[n]
        square = (x[p, 0] - x[q, 0]) ** 2 + (x[p, 1] - x[q, 1]) ** 2 + (x[p, 2] - x[q, 2]) ** 2
        r = math.sqrt(max(square, SMALLEST_SQUARE))
        push = pressure * (h - r) ** 2 / r * (rho[p] + rho[q] - 2.0 * REST_DENSITY)
        for axis in range(3):
            drag = viscosity * (h - r) * (v[q, axis] - v[p, axis])
            terms[n, axis] = ((x[p, axis] - x[q, axis]) * push + drag) / (rho[p] * rho[q])
    return terms


def pair_terms(
    x: Vectors, v: Vectors, rho: Float[np.ndarray, " particles"], pairs: Pairs, kernel: Kernel
) -> Float[np.ndarray, "pairs 3"]:
    """Compute what each pair (i, j) adds to the acceleration of i and takes from that of j, m/s2: the kernel.

    a = [(x_i - x_j) cp (h - r)^2 / r (rho_i + rho_j - 2000) + (v_j - v_i) cv (h - r)] / (rho_i rho_j)
    """
    return _pair_terms(x, v, rho, pairs, kernel.h, kernel.pressure, kernel.viscosity)


@compiled
def _scatter(terms, pairs, particles):  # pragma: no cover - compiled
    total = np.zeros((particles, 3))
    for n in range(len(pairs)):
        for axis in range(3):
            total[pairs[n, 0], axis] += terms[n, axis]
            total[pairs[n, 1], axis] -= terms[n, axis]
    return total


def gather_pairs(terms: Float[np.ndarray, "pairs 3"], pairs: Pairs, particles: int) -> Vectors:
    """Sum the particles' accelerations, m/s2: a pair's term is added to its first, taken from its second particle."""
    return _scatter(terms, pairs, particles)


def move(state: State, acceleration: Vectors) -> None:
    """Take one leapfrog step under gravity, the walls' push and the given acceleration (m/s2); bounces off the box."""
    a = acceleration.copy()
    a[:, 1] += GRAVITY
    ahead = state.x + state.half_v * TIME_STEP
    for gap, sign in ((ahead - BOX_MIN, 1.0), (BOX_MAX - ahead, -1.0)):
        inside = WALL_SKIN - gap
        a += np.where(inside > 1e-10, sign * WALL_STIFFNESS * inside - WALL_DAMPING * state.v, 0.0)
    half_v = state.half_v + a * TIME_STEP
    v = 0.5 * (state.half_v + half_v)
    x = state.x + half_v * TIME_STEP
    below, above = x < BOX_MIN, x > BOX_MAX
    flip = np.where(below | above, -1.0, 1.0)
    x = np.where(below, 2.0 * BOX_MIN - x, np.where(above, 2.0 * BOX_MAX - x, x))
    state.x, state.half_v, state.v = x, half_v * flip, v * flip


def advance(state: State, kernel: Kernel, steps: int = 1) -> None:
    """Run the simulation on by ``steps`` time steps of 1 ms, in place.

    Raises:
        FloatingPointError: a particle is lost: positions not finite, or thrown further than the box is wide.
    """
    for _ in range(steps):
        pairs = neighbour_pairs(state.x, kernel.h)
        rho = densities(state.x, pairs, kernel)
        move(state, gather_pairs(pair_terms(state.x, state.v, rho, pairs, kernel), pairs, len(state.x)))
        if not ((state.x >= BOX_MIN) & (state.x <= BOX_MAX)).all():
            raise FloatingPointError("the simulation of the fluid blew up: a particle left the box in one step")
