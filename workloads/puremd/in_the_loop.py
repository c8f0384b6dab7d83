"""Molecular dynamics with the force kernel replaced: velocity Verlet in a box of molecules that was not trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lumos.suite.simulation import Kernel, Surrogate
from lumos.workloads.puremd import PureMD
from lumos.workloads.puremd.bond_order import Box, sum_edges
from lumos.workloads.puremd.data import bond_samples
from lumos.workloads.puremd.forcefield import ForceField
from lumos.workloads.puremd.forces import (
    Molecules,
    analyse,
    assemble,
    bond_forces,
    neighbour_coefficients,
    neighbour_rows,
)
from lumos.workloads.puremd.molecules import WAVENUMBER

Vectors = Float[Tensor, "atoms 3"]

TIME_STEP = 0.25
"""Femtoseconds; the fastest motion, O-H stretching, takes about nine."""

PER_MASS = 4.184e-4
"""Å/fs2 that a force of 1 kcal/mol/Å gives a mass of 1 g/mol."""

BOLTZMANN = 1.987204e-3
"""kcal/mol/K."""

LIGHT = 2.99792458e-5
"""cm/fs."""

SWEEPS = 3
"""A network that reads ``temp``, its own answer of the turn before, is asked this often, each time with its last."""

NUDGE = 1e-9
"""Å."""


class State(NamedTuple):
    """Positions (not wrapped, Å), velocities (Å/fs) and the whole gradient of the energy there (kcal/mol/Å)."""

    x: Vectors
    v: Vectors
    gradient: Vectors | None


@dataclass(frozen=True)
class BondLoop:
    """A box of molecules at rest in their geometry, with random velocities of the workload's lowest temperature.

    The project has the energies that depend on bond orders alone: without van der Waals, angles and charges molecules
    are not in equilibrium. What those terms do near it is put in as a force of its own on each atom, the opposite of
    the bonds' force at the start, and a spring of 1500/cm, as the training data's jitter has it. The total energy is
    conserved by the true kernel. The network replaces the sums over neighbours (``variant=inner``) or the forces on a
    bond's own atoms (``bond``); bond orders, coefficients and energies stay the project's own.
    """

    workload: PureMD

    kernel_name = "Add_dBond_to_Forces (vectorised torch, float64)"
    step_name = "step of 0.25 fs, one call of the kernel"
    steps = 200

    @cached_property
    def _box(self) -> tuple[Box, ForceField]:
        return self.workload.fresh_box()

    @cached_property
    def _masses(self) -> Float[Tensor, "atoms 1"]:
        box, ff = self._box
        return ff.atom["mass"][box.types][:, None]

    @cached_property
    def _pull(self) -> Vectors:
        """The gradient of the bonds' energy at the start, which the other terms balance."""
        return assemble(analyse(*self._box))

    @cached_property
    def _springs(self) -> Float[Tensor, "atoms 1"]:
        return self._masses * (2 * math.pi * LIGHT * WAVENUMBER) ** 2 / PER_MASS

    def start(self) -> State:
        """Make the first state: atoms in their places, moving; the same at every call."""
        box, _ = self._box
        rng = np.random.default_rng([self.workload.seed, 4])
        # Half of it goes into springs and bonds.
        kelvin = 2 * self.workload.kelvin[0]
        swing = torch.from_numpy(rng.standard_normal(tuple(box.positions.shape)))
        v = swing * (BOLTZMANN * kelvin * PER_MASS / self._masses).sqrt()
        v = v - (self._masses * v).sum(0) / self._masses.sum()
        return State(box.positions.clone(), v, None)

    def nudged(self, state: State) -> State:
        """Move each coordinate by 1e-9 Å up or down."""
        signs = np.random.default_rng(0).choice([-1.0, 1.0], tuple(state.x.shape))
        return State(state.x + NUDGE * torch.from_numpy(signs), state.v, None)

    def _molecules(self, x: Vectors) -> Molecules:
        box, ff = self._box
        return analyse(replace(box, positions=x % box.cell), ff)

    def _gradient(self, x: Vectors, kernel: Kernel) -> Vectors:
        return kernel(self._molecules(x)) - self._pull + self._springs * (x - self._box[0].positions)

    def step(self, state: State, kernel: Kernel) -> State:
        """Take a step of velocity Verlet. Raises FloatingPointError where an atom is flung away."""
        gradient = self._gradient(state.x, kernel) if state.gradient is None else state.gradient
        half = state.v - 0.5 * TIME_STEP * PER_MASS / self._masses * gradient
        x = state.x + TIME_STEP * half
        if not bool(((x - self._box[0].positions).abs() < 2.0).all()):
            raise FloatingPointError("an atom is 2 Å from its place")
        gradient = self._gradient(x, kernel)
        return State(x, half - 0.5 * TIME_STEP * PER_MASS / self._masses * gradient, gradient)

    def exact(self, call: Molecules) -> Vectors:
        """Compute the gradient of the bonds' energy."""
        return assemble(call)

    def replaced(self, call: Molecules, surrogate: Surrogate) -> Vectors:
        """Compute the same, with the part that the variant stands for by the network."""
        bonds, atoms = call.bonds, len(call.box.types)
        edge, k = neighbour_rows(bonds, atoms)
        if self.workload.variant == "inner":
            pull, own = self._inner(call, surrogate, edge, k), bond_forces(call)
        else:
            pull = -neighbour_coefficients(call).sum(1)[edge, None] * bonds.d_order[k]
            own = torch.empty_like(bonds.d_order)
            once = torch.nonzero(bonds.i < bonds.j)[:, 0]
            both = torch.from_numpy(surrogate(bond_samples(call)[0].numpy()))
            own[once], own[bonds.reverse[once]] = both[:, :3], both[:, 3:]
        return sum_edges(own, bonds.i, atoms) + sum_edges(pull, bonds.j[k], atoms)

    def _inner(self, call: Molecules, surrogate: Surrogate, edge: Tensor, k: Tensor) -> Float[Tensor, "rows 3"]:
        """Every turn of the loop at once; ``temp`` before is zero at first, then what the last sweep gave."""
        known = torch.cat([neighbour_coefficients(call)[edge], call.bonds.d_order[k]], dim=1).numpy()
        new = np.zeros((len(known), 3))
        for _ in range(SWEEPS if any(name.startswith("temp") for name in surrogate.reads) else 1):
            before = np.concatenate([np.zeros((1, 3)), new[:-1]])
            new = surrogate(np.concatenate([known, before], axis=1))
        return torch.from_numpy(new)

    def rows(self, call: Molecules) -> int:
        """Count turns of the inner loop, or bonds."""
        if self.workload.variant == "bond":
            return len(call.bonds.i) // 2
        return len(neighbour_rows(call.bonds, len(call.box.types))[0])

    def conserved(self, state: State, kernel: Kernel) -> Mapping[str, float]:
        """Compute the total energy by the true function (kcal/mol), and the sum of the bonds' forces over their sizes.

        Bonds push nothing but each other, so that the sum is zero.
        """
        molecules = self._molecules(state.x)
        away = state.x - self._box[0].positions
        other = -(self._pull * away).sum() + 0.5 * (self._springs * away.square()).sum()
        motion = 0.5 * (self._masses * state.v.square()).sum() / PER_MASS
        force = kernel(molecules)
        return {
            "total energy": molecules.energy + float(other + motion),
            "kinetic energy": float(motion),
            "net bond force": float(force.sum(0).abs().max() / force.abs().sum().clamp(min=1e-300)),
        }

    def apart(self, state: State, true: State) -> Mapping[str, float]:
        """Measure the atoms' rms distance over how far they swing, and that of velocities over their size."""
        swing = (true.x - self._box[0].positions).square().sum(1).mean().sqrt().clamp(min=1e-300)
        speed = true.v.square().sum(1).mean().sqrt()
        return {
            "position, rms error / rms swing": float((state.x - true.x).square().sum(1).mean().sqrt() / swing),
            "velocity, rms error / rms": float((state.v - true.v).square().sum(1).mean().sqrt() / speed),
        }


def simulation(workload: PureMD) -> BondLoop:
    """Make the simulation of a workload's settings."""
    return BondLoop(workload)
