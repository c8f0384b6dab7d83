"""The smoothed-particle simulation with its pair kernel replaced: a block of water that was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lumos.suite.simulation import Kernel, Surrogate
from lumos.workloads.fluid import Fluid
from lumos.workloads.fluid.data import SPRAY_DENSITY, pair_inputs
from lumos.workloads.fluid.solver import (
    BOX_MAX,
    BOX_MIN,
    GRAVITY,
    REST_DENSITY,
    Pairs,
    State,
    advance,
    densities,
    gather_pairs,
    move,
    neighbour_pairs,
    pair_terms,
)
from lumos.workloads.fluid.solver import Kernel as Constants

NUDGE = 1e-9
"""Metres."""

FALL = 60
"""Steps of 1 ms by the true kernel before the comparison starts: the block has reached the floor."""


class Call(NamedTuple):
    """What the kernel is asked: for pairs of particles of a state, with densities in kg/m3."""

    state: State
    rho: Float[np.ndarray, " particles"]
    pairs: Pairs


@dataclass(frozen=True)
class FluidLoop:
    """A block of water drawn anew (or the first file), after 60 ms of the true simulation.

    Pairs in spray are left to the true kernel, for both networks, since they were left out of the training data too.
    """

    workload: Fluid

    kernel_name = "ComputeForces' pair term (numba, float64)"
    step_name = "step of 1 ms, one call of the kernel"
    steps = 100

    @cached_property
    def _first(self) -> tuple[State, Constants]:
        state, constants = self.workload.fresh_start()
        advance(state, constants, FALL)
        return state, constants

    def start(self) -> State:
        """Return the water as it reaches the floor."""
        return deepcopy(self._first[0])

    def nudged(self, state: State) -> State:
        """Move each coordinate by 1e-9 m up or down."""
        out = deepcopy(state)
        out.x += NUDGE * np.random.default_rng(0).choice([-1.0, 1.0], out.x.shape)
        return out

    def step(self, state: State, kernel: Kernel) -> State:
        """Take one time step. Raises FloatingPointError where a particle is lost."""
        constants = self._first[1]
        pairs = neighbour_pairs(state.x, constants.h)
        rho = densities(state.x, pairs, constants)
        new = State(state.x, state.half_v, state.v)
        move(new, gather_pairs(kernel(Call(state, rho, pairs)), pairs, len(state.x)))
        if not ((new.x >= BOX_MIN) & (new.x <= BOX_MAX)).all():
            raise FloatingPointError("a particle left the box in one step")
        return new

    def exact(self, call: Call) -> Float[np.ndarray, "pairs 3"]:
        """Compute the terms of all pairs."""
        return pair_terms(call.state.x, call.state.v, call.rho, call.pairs, self._first[1])

    def replaced(self, call: Call, surrogate: Surrogate) -> Float[np.ndarray, "pairs 3"]:
        """Compute the same by the network, but for pairs in spray."""
        constants = self._first[1]
        fluid = self._in_fluid(call)
        terms = np.empty((len(call.pairs), 3))
        terms[fluid] = surrogate(pair_inputs(call.state, constants, call.rho, call.pairs[fluid]))
        spray = call.pairs[~fluid]
        terms[~fluid] = pair_terms(call.state.x, call.state.v, call.rho, spray, constants)
        return terms

    def _in_fluid(self, call: Call) -> np.ndarray:
        return call.rho[call.pairs].max(1) >= SPRAY_DENSITY

    def rows(self, call: Call) -> int:
        """Count the pairs."""
        return len(call.pairs)

    def conserved(self, state: State, kernel: Kernel) -> Mapping[str, float]:
        """Compute energy of motion and of height of the block (J), and the sum of all pair forces over their sizes.

        The sum is zero by construction, whatever the kernel says of a pair: what it adds to one it takes from the
        other. Energies are those of the true run only while the kernel is right; viscosity and walls take from both.
        """
        constants = self._first[1]
        mass = REST_DENSITY / constants.rest_per_metre**3
        pairs = neighbour_pairs(state.x, constants.h)
        terms = kernel(Call(state, densities(state.x, pairs, constants), pairs))
        gathered = gather_pairs(terms, pairs, len(state.x))
        return {
            "kinetic energy": 0.5 * mass * float((state.v**2).sum()),
            "potential energy": -mass * GRAVITY * float((state.x[:, 1] - BOX_MIN[1]).sum()),
            "net pair force": float(np.abs(gathered.sum(0)).max() / max(np.abs(terms).sum(), 1e-300)),
        }

    def apart(self, state: State, true: State) -> Mapping[str, float]:
        """Measure the particles' rms distance in smoothing radii, and the difference of velocity over its size."""
        h = self._first[1].h
        distance = np.sqrt(((state.x - true.x) ** 2).sum(1).mean()) / h
        speed = np.sqrt((true.v**2).sum(1).mean())
        return {
            "position, rms error / h": float(distance),
            "velocity, rms error / rms": float(np.sqrt(((state.v - true.v) ** 2).sum(1).mean()) / max(speed, 1e-300)),
        }


def simulation(workload: Fluid) -> FluidLoop:
    """Make the simulation of a workload's settings."""
    return FluidLoop(workload)
