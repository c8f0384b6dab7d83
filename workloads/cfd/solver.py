"""An unstructured finite-volume solver of the Euler equations, after the formulas of Rodinia's euler3d.

Quantities are without unit: lengths in cell edges, and the far field has density 1.4 and pressure 1, so that its
sound speed is 1. A state W is (rho, m_x, m_y, m_z, E): density, momentum and total energy per volume. Fluxes are
taken through the *inward* normal, so that their sum over an element's faces is what it gains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lumos.errors import DataError
from lumos.workloads.cfd.mesh import FAR_FIELD, WALL, Mesh

GAMMA = 1.4
SMOOTHING = 0.2
"""Coefficient of the dissipation at inner faces."""

CFL = 0.5
STAGES = 3


class Gas(NamedTuple):
    """States with what follows from them; ``w`` (..., 5), ``v`` (..., 3), and pressure, speed, sound speed (...)."""

    w: Float[np.ndarray, "*n 5"]
    v: Float[np.ndarray, "*n 3"]
    p: Float[np.ndarray, "*n"]
    speed: Float[np.ndarray, "*n"]
    c: Float[np.ndarray, "*n"]

    def take(self, index: np.ndarray) -> Gas:
        """Take the states at these places of the first axis."""
        return Gas(*(value.take(index, axis=0) for value in self))


def gas(w: Float[np.ndarray, "*n 5"]) -> Gas:
    """Compute what follows from states: p = (gamma-1)(E - rho |v|^2 / 2), c^2 = gamma p / rho, v and its size.

    Raises:
        DataError: a density or a pressure is not positive, which no real gas has.
    """
    rho = w[..., 0]
    with np.errstate(all="ignore"):  # what is not physical is reported below, in words
        v = w[..., 1:4] / rho[..., None]
        speed2 = np.einsum("...k,...k->...", v, v)
        p = (GAMMA - 1) * (w[..., 4] - 0.5 * rho * speed2)
        physical = (rho > 0) & (p > 0) & np.isfinite(speed2)
        if not physical.all():
            raise DataError(
                f"{int((~physical).sum())} states have a density or pressure that is not positive: the scheme is not "
                "stable here; use a lower Mach number, a smaller angle of attack or fewer iterations"
            )
        return Gas(w, v, p, np.sqrt(speed2), np.sqrt(GAMMA * p / rho))


def free_stream(mach: float, angle: float = 0.0) -> Float[np.ndarray, " 5"]:
    """Make the far field's state: density 1.4, pressure 1, flow at ``mach`` and ``angle`` (degrees, x towards y).

    Raises:
        DataError: ``mach`` is not above 0, or one of the two is not finite.
    """
    if not (np.isfinite(mach) and np.isfinite(angle) and mach > 0):
        raise DataError(f"Mach {mach}, angle {angle}: expected a Mach number > 0 and an angle in degrees")
    rho, p, alpha = 1.4, 1.0, np.deg2rad(angle)
    speed = mach * np.sqrt(GAMMA * p / rho)
    momentum = rho * speed * np.array([np.cos(alpha), np.sin(alpha), 0.0])
    return np.array([rho, *momentum, p / (GAMMA - 1) + 0.5 * rho * speed**2])


def through(state: Gas, inward: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 5"]:
    """Compute the Euler flux F(W).n' = [m.n', m (v.n') + p n', (E + p)(v.n')] through the inward normal n'."""
    volume = np.einsum("...k,...k->...", state.v, inward)  # of gas that enters per time
    flux = state.w * volume[..., None]
    flux[..., 1:4] += state.p[..., None] * inward
    flux[..., 4] += state.p * volume
    return flux


def inner_flux(one: Gas, other: Gas, inward: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 5"]:
    """Compute what ``one`` gains through a face it shares with ``other``; ``inward`` points into ``one``.

    (F_i + F_j).n'/2 - |n'| 0.2 (|v_i| + |v_j| + c_i + c_j)/2 (W_i - W_j): central, with scalar dissipation.
    """
    length = np.sqrt(np.einsum("...k,...k->...", inward, inward))
    damping = 0.5 * SMOOTHING * length * (one.speed + other.speed + one.c + other.c)
    return 0.5 * (through(one, inward) + through(other, inward)) - damping[..., None] * (one.w - other.w)


def wall_flux(one: Gas, inward: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 5"]:
    """Compute what an element gains through a solid wall: momentum p n' from the pressure, no mass and no energy."""
    flux = np.zeros_like(one.w)
    flux[..., 1:4] = one.p[..., None] * inward
    return flux


def far_flux(one: Gas, far: Gas, inward: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 5"]:
    """Compute what an element gains through the far field's boundary: (F_i + F_ff).n'/2, without dissipation."""
    return 0.5 * (through(one, inward) + through(far, inward))


def compute_flux(mesh: Mesh, state: Gas, far: Gas) -> Float[np.ndarray, "elements 4 5"]:
    """Compute what each element gains through each of its faces per time; ``far`` is one state, of shape (1,)."""
    inward = -mesh.normal
    flux = np.empty((*mesh.neighbour.shape, 5))
    for kind in (0, WALL, FAR_FIELD):
        at = mesh.neighbour >= 0 if kind == 0 else mesh.neighbour == kind
        element, normal = np.nonzero(at)[0], inward[at]
        one = state.take(element)
        if kind == 0:
            flux[at] = inner_flux(one, state.take(mesh.neighbour[at]), normal)
        else:
            flux[at] = wall_flux(one, normal) if kind == WALL else far_flux(one, far, normal)
    return flux


def step(
    mesh: Mesh, w: Float[np.ndarray, "elements 5"], far: Gas, flux: Callable[..., np.ndarray] = compute_flux
) -> Float[np.ndarray, "elements 5"]:
    """Take an iteration: local time steps s = 0.5/(sqrt(area)(|v| + c)), then W = W0 + s/(4-j) sum F for j = 0, 1, 2.

    ``flux`` takes and returns what :func:`compute_flux` does, which it may replace.
    """
    state = gas(w)
    size = CFL / (np.sqrt(mesh.area) * (state.speed + state.c))
    new = w
    for stage in range(STAGES):
        gain = flux(mesh, gas(new), far).sum(1)
        new = w + size[:, None] / (STAGES + 1 - stage) * gain
    return new


def run(mesh: Mesh, mach: float, angle: float, iterations: int) -> Iterator[Float[np.ndarray, "elements 5"]]:
    """Run a flow from the undisturbed far field everywhere; yields the states after 1, 2, .. ``iterations`` iterations.

    ``angle`` of attack in degrees.

    Raises:
        DataError: the flow stops being physical; the message names the condition.
    """
    far = gas(free_stream(mach, angle)[None])
    w = np.repeat(far.w, len(mesh), axis=0)
    for iteration in range(1, iterations + 1):
        try:
            w = step(mesh, w, far)
            gas(w)
        except DataError as error:
            raise DataError(f"Mach {mach:g}, angle {angle:g}, iteration {iteration}: {error}") from error
        yield w
