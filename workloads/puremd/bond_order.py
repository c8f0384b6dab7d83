"""ReaxFF bond orders, their corrections, and the derivatives that Add_dBond_to_Forces takes as inputs.

Equations: van Duin, Dasgupta, Lorant and Goddard, J. Phys. Chem. A 105 (2001) 9396; the derivative coefficients as in
Aktulga, Fogarty, Pandit and Grama, Parallel Computing 38 (2012) 245. The code is the project's own. Lengths in Å; bond
orders and their coefficients without unit; double precision throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lumos.errors import DataError
from lumos.workloads.common.native import compiled
from lumos.workloads.puremd.forcefield import ForceField

REACH = 5.0
"""No two atoms further apart than this, in Å, share a bond."""

TERMS = (("r_s", "bo1", "bo2"), ("r_p", "bo3", "bo4"), ("r_pp", "bo5", "bo6"))
"""Radius, factor and power of the sigma, pi and double-pi terms."""

Atoms = Float[Tensor, " atoms"]
Edges = Float[Tensor, " edges"]
EdgeVectors = Float[Tensor, "edges 3"]


@dataclass(frozen=True)
class Box:
    """Atoms in a periodic rectangular box: positions (atoms, 3) and edge lengths (3,) in Å, types of a force field."""

    positions: Float[Tensor, "atoms 3"]
    types: Int[Tensor, " atoms"]
    cell: Float[Tensor, " 3"]


@dataclass(frozen=True)
class Bonds:
    """Uncorrected bonds as directed edges i -> j, sorted by i, then j; each bond is there both ways.

    ``d`` = x_j - x_i (nearest image, Å), ``s``, ``p``, ``q`` the sigma, pi and double-pi terms, ``order`` =
    s + p + q - cutoff; ``d_order``, ``d_pi``, ``d_pi2`` the derivatives of order, ln p and ln q (times p and q),
    with respect to x_i (1/Å).
    """

    i: Int[Tensor, " edges"]
    j: Int[Tensor, " edges"]
    reverse: Int[Tensor, " edges"]
    s: Edges
    p: Edges
    q: Edges
    order: Edges
    d_order: EdgeVectors
    d_pi: EdgeVectors
    d_pi2: EdgeVectors


def _nearest_image(d: Tensor, cell: Tensor) -> Tensor:
    return d - cell * torch.round(d.detach() / cell)


@compiled
def _close_pairs(x, cell, types, reach, room):  # pragma: no cover - compiled
    pairs = np.empty((room, 2), np.int64)
    found = 0
    for i in range(len(x)):
        for j in range(len(x)):
            square = 0.0
            for axis in range(3):
                d = x[j, axis] - x[i, axis]
                d -= cell[axis] * np.round(d / cell[axis])
                square += d * d
            if i != j and square <= reach[types[i], types[j]] ** 2:
                if found < room:
                    pairs[found, 0], pairs[found, 1] = i, j
                found += 1
    return pairs, found


def close_pairs(box: Box, reach: Float[Tensor, "types types"]) -> tuple[Int[Tensor, " edges"], Int[Tensor, " edges"]]:
    """Find ordered pairs (i, j) of different atoms within the ``reach`` (Å) of their types, sorted by i, then j.

    Time grows with the square of the atoms, memory with the pairs.

    Raises:
        DataError: the box is narrower than 2 ``REACH``.
    """
    if float(box.cell.min()) < 2 * REACH:
        raise DataError(
            f"a box of {', '.join(f'{c:.3f}' for c in box.cell.tolist())} Å; expected at least {2 * REACH:.0f} Å a "
            "side, so that an atom does not see two images of another: repeat the cell"
        )
    arrays = [value.detach().numpy() for value in (box.positions, box.cell, box.types, reach)]
    room = 16 * len(box.types)
    while True:
        pairs, found = _close_pairs(*arrays, room)
        if found <= room:
            i, j = torch.from_numpy(pairs[:found]).T.contiguous()
            return i, j
        room = found


def bond_reach(ff: ForceField) -> Float[Tensor, "types types"]:
    """Bound the length (Å) of bonds of two types that reach the cutoff: ``REACH`` at most, 0 where none is known.

    Bonds need S + P + Q >= cutoff, so that one of the three is a third of it or more.
    """
    furthest = torch.zeros_like(ff.pair["r_s"])
    for radius, factor, power in TERMS:
        size, b, n = ff.pair[radius], ff.pair[factor], ff.pair[power]
        least = torch.tensor(ff.cutoff / (3 * (1 + ff.cutoff)), dtype=torch.float64).log()
        decays = (b < 0) & (n > 0)
        far = size * (least / torch.where(decays, b, -1.0)) ** (1 / torch.where(decays, n, 1.0))
        furthest = torch.maximum(furthest, torch.where(size > 0, torch.where(decays, far, REACH), 0.0))
    return torch.where(ff.known, furthest.clamp(max=REACH), 0.0)


def order_terms(ff: ForceField, kind: tuple[Tensor, Tensor], r: Edges) -> tuple[tuple[Edges, Edges], ...]:
    """Compute sigma, pi and double-pi terms at distance r, each with x = exponent times power: d term/dr = term x/r."""
    terms = []
    for (radius, factor, power), scale in zip(TERMS, (1 + ff.cutoff, 1.0, 1.0), strict=True):
        size, b, n = ff.pair[radius][kind], ff.pair[factor][kind], ff.pair[power][kind]
        exponent = b * (r / torch.where(size > 0, size, 1.0)) ** n
        # Where there is no radius the exponent is meaningless and may overflow; leave it out of the product.
        exponent = torch.where(size > 0, exponent, -torch.inf)
        term = scale * exponent.exp()
        terms.append((term, torch.where(term > 0, n * exponent, 0.0)))
    return tuple(terms)


def uncorrected(box: Box, ff: ForceField) -> Bonds:
    """Find all bonds of a box: pairs within reach whose terms sum to the cutoff or more. Differentiable in positions.

    S = (1 + cut) exp(bo1 (r/r_s)^bo2), P = exp(bo3 (r/r_p)^bo4), Q = exp(bo5 (r/r_pp)^bo6).
    """
    i, j = close_pairs(box, bond_reach(ff))
    kind = (box.types[i], box.types[j])
    d = _nearest_image(box.positions[j] - box.positions[i], box.cell)
    r = d.square().sum(-1).sqrt()
    if len(r) and float(r.detach().min()) <= 0:
        raise DataError("two atoms are at the same place; expected each position once")
    with torch.no_grad():
        kept = sum(term for term, _ in order_terms(ff, kind, r)) >= ff.cutoff
    i, j, d, r = i[kept], j[kept], d[kept], r[kept]
    (s, ds), (p, dp), (q, dq) = order_terms(ff, (box.types[i], box.types[j]), r)
    towards = d / r.square()[:, None]
    d_pi, d_pi2 = -(p * dp)[:, None] * towards, -(q * dq)[:, None] * towards
    d_order = -(s * ds)[:, None] * towards + d_pi + d_pi2
    atoms = len(box.types)
    reverse = torch.argsort(j * atoms + i)
    return Bonds(i, j, reverse, s, p, q, s + p + q - ff.cutoff, d_order, d_pi, d_pi2)


def sum_edges(values: Tensor, atom: Int[Tensor, " edges"], atoms: int) -> Tensor:
    """Sum edge values (edges, ...) by atom: (atoms, ...)."""
    return torch.zeros(atoms, *values.shape[1:], dtype=values.dtype).index_add(0, atom, values)


@dataclass(frozen=True)
class Corrected:
    """Corrected orders of the directed edges, ``delta`` (overcoordination of each atom), and the C coefficients.

    For an edge i -> j, ``c2dbo`` belongs to atom i and ``c3dbo`` to j, and likewise c3 and c4 of pi and double pi.
    ``c1dbopi`` and ``c1dbopi2`` are the same number.
    """

    order: Edges
    pi: Edges
    pi2: Edges
    delta: Atoms
    c1dbo: Edges
    c2dbo: Edges
    c3dbo: Edges
    c1dbopi: Edges
    c2dbopi: Edges
    c3dbopi: Edges
    c4dbopi: Edges
    c1dbopi2: Edges
    c2dbopi2: Edges
    c3dbopi2: Edges
    c4dbopi2: Edges


def _overcoordination(
    ff: ForceField, own: tuple[Edges, Edges], other: tuple[Edges, Edges], on: Bool[Tensor, " edges"]
) -> tuple[Edges, Edges]:
    """Factor f1 and the derivative c_i of f1 with respect to the own atom's D'; ``own`` = (valence, D')."""
    p1, p2 = ff.general[0], ff.general[1]
    (val_i, over_i), (val_j, over_j) = own, other
    first_i, first_j = torch.exp(-p1 * over_i), torch.exp(-p1 * over_j)
    second_i, second_j = torch.exp(-p2 * over_i), torch.exp(-p2 * over_j)
    f2 = first_i + first_j
    f3 = -torch.log((second_i + second_j) / 2) / p2
    u_i, u_j = val_i + f2 + f3, val_j + f2 + f3
    f1 = ((val_i + f2) / u_i + (val_j + f2) / u_j) / 2
    by_f2 = f3 * (u_i**-2 + u_j**-2) / 2
    by_f3 = -((u_i - f3) / u_i**2 + (u_j - f3) / u_j**2) / 2
    c = -by_f2 * p1 * first_i + by_f3 * second_i / (second_i + second_j)
    return torch.where(on, f1, 1.0), torch.where(on, c, 0.0)


def corrected(box: Box, ff: ForceField, bonds: Bonds) -> Corrected:
    """Correct orders for overcoordination (f1) and 1-3 bonds (f4, f5), with the coefficients of their derivatives.

    BO = BO' f1 f4 f5; Bpi = P f1^2 f4 f5; Bpipi = Q f1^2 f4 f5.
    """
    i, j, atoms = bonds.i, bonds.j, len(box.types)
    kind = (box.types[i], box.types[j])
    total = sum_edges(bonds.order, i, atoms)
    val = ff.atom["val"][box.types]
    over, over_boc = total - val, total - ff.atom["val_val"][box.types]
    on = ff.pair["ovc"][kind] >= 0.001
    f1, c_i = _overcoordination(ff, (val[i], over[i]), (val[j], over[j]), on)
    _, c_j = _overcoordination(ff, (val[j], over[j]), (val[i], over[i]), on)

    boc3, boc4, boc5 = (ff.pair[f"boc{n}"][kind] for n in (3, 4, 5))
    on = ff.pair["v13cor"][kind] >= 0.001

    def screened(atom: Tensor) -> Edges:
        # f = 1/(1 + exp(x)), written so that a large x does not overflow.
        f = torch.sigmoid(boc3 * (boc4 * bonds.order.square() - over_boc[atom]) - boc5)
        return torch.where(on, f, 1.0)

    f4, f5 = screened(i), screened(j)
    g_i, g_j = f4 - 1, f5 - 1  # -f4 x4 and -f5 x5
    order = bonds.order * f1 * f4 * f5
    pi, pi2 = bonds.p * f1.square() * f4 * f5, bonds.q * f1.square() * f4 * f5
    a1 = -2 * boc3 * boc4 * bonds.order * (g_i + g_j)
    a2_i, a2_j = c_i / f1 + boc3 * g_i, c_j / f1 + boc3 * g_j
    a3_i, a3_j = a2_i + c_i / f1, a2_j + c_j / f1
    shared = f1.square() * f4 * f5
    return Corrected(
        order=order,
        pi=pi,
        pi2=pi2,
        delta=sum_edges(order, i, atoms) - val,
        c1dbo=f1 * f4 * f5 + order * a1,
        c2dbo=order * a2_i,
        c3dbo=order * a2_j,
        c1dbopi=shared,
        c2dbopi=pi * a1,
        c3dbopi=pi * a3_i,
        c4dbopi=pi * a3_j,
        c1dbopi2=shared,
        c2dbopi2=pi2 * a1,
        c3dbopi2=pi2 * a3_i,
        c4dbopi2=pi2 * a3_j,
    )
