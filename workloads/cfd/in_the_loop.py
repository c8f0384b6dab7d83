"""The Euler solver with its flux kernel replaced: a flow that is not among those trained on, from the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lumos.suite.simulation import Kernel, Surrogate
from lumos.workloads.cfd import CFD
from lumos.workloads.cfd.data import Condition, face_inputs, held_out
from lumos.workloads.cfd.mesh import Mesh
from lumos.workloads.cfd.solver import Gas, compute_flux, free_stream, gas, step

State = Float[np.ndarray, "elements 5"]
NUDGE = 1e-9


class Call(NamedTuple):
    """What the kernel is asked: all elements' states, and the far field's (1,)."""

    state: Gas
    far: Gas


@dataclass(frozen=True)
class FlowLoop:
    """The first flow of the test split, on the workload's own mesh (or the first file's), from the undisturbed stream.

    All four faces of every element go through the kernel, walls and far field included, three times an iteration.
    """

    workload: CFD

    kernel_name = "compute_flux (vectorised NumPy, float64)"
    step_name = "iteration of the solver, three calls of the kernel"

    @property
    def steps(self) -> int:
        """As many as the training flows ran."""
        return self.workload.iterations

    @cached_property
    def condition(self) -> Condition:
        """Mach number and angle of the flow."""
        return held_out(self.workload.mach, self.workload.angle)["test"][0]

    @cached_property
    def mesh(self) -> Mesh:
        """The mesh."""
        return self.workload.meshes()[0]

    @cached_property
    def _far(self) -> Gas:
        return gas(free_stream(self.condition.mach, self.condition.angle)[None])

    def start(self) -> State:
        """Return the undisturbed stream everywhere."""
        return np.repeat(self._far.w, len(self.mesh), axis=0)

    def nudged(self, state: State) -> State:
        """Change densities by 1e-9 of themselves, up and down at random."""
        out = state.copy()
        out[:, 0] *= 1 + NUDGE * np.random.default_rng(0).choice([-1.0, 1.0], len(state))
        return out

    def step(self, state: State, kernel: Kernel) -> State:
        """Take one iteration. Raises DataError where a density or pressure is no longer positive."""
        new = step(self.mesh, state, self._far, lambda _, now, far: kernel(Call(now, far)))
        gas(new)
        return new

    def exact(self, call: Call) -> Float[np.ndarray, "elements 4 5"]:
        """Compute the fluxes through all faces."""
        return compute_flux(self.mesh, call.state, call.far)

    def replaced(self, call: Call, surrogate: Surrogate) -> Float[np.ndarray, "elements 4 5"]:
        """Compute the same by the network."""
        inputs = face_inputs(self.mesh, call.state, call.far.w[0], np.arange(4 * len(self.mesh)))
        return surrogate(inputs).reshape(len(self.mesh), 4, 5)

    def rows(self, call: Call) -> int:
        """Count all faces."""
        return 4 * len(self.mesh)

    def conserved(self, state: State, kernel: Kernel) -> Mapping[str, float]:
        """Compute mass and energy in the box, and by how much the two sides' fluxes through inner faces fail to cancel.

        The box is open and its steps are local in time, so that the totals of the true run change too; what it does
        keep is that nothing is lost at an inner face. That imbalance is relative to the fluxes' size, over all five.
        """
        volume = self.mesh.area
        flux = kernel(Call(gas(state), self._far))
        inner = self.mesh.neighbour >= 0
        lost = np.abs(flux[inner].sum(0)) / np.abs(flux[inner]).sum(0)
        return {
            "mass": float(volume @ state[:, 0]),
            "energy": float(volume @ state[:, 4]),
            "imbalance of inner faces": float(lost.max()),
        }

    def apart(self, state: State, true: State) -> Mapping[str, float]:
        """Measure rms differences of density and pressure, relative to how much the true flow departs from rest.

        1 is as far as the undisturbed stream itself is.
        """
        out = {}
        for name, value in (("density", lambda w: w[:, 0]), ("pressure", lambda w: gas(w).p)):
            departs = np.sqrt(np.mean((value(true) - value(self._far.w)) ** 2))
            out[f"{name}, rms error / rms departure"] = float(
                np.sqrt(np.mean((value(state) - value(true)) ** 2)) / max(departs, 1e-300)
            )
        return out


def simulation(workload: CFD) -> FlowLoop:
    """Make the simulation of a workload's settings."""
    return FlowLoop(workload)
