"""The ReaxFF energies that depend on bond orders alone, and the kernel that turns their derivatives into forces.

Energies: van Duin et al. (2001) and Chenoweth et al. (2008): bond, lone pair, over- and undercoordination. The
corrections for C2 and for the triple bond of CO are left out. kcal/mol and kcal/mol/Å; double precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lumos.workloads.puremd.bond_order import Bonds, Box, Corrected, EdgeVectors, corrected, sum_edges, uncorrected
from lumos.workloads.puremd.forcefield import ForceField

Edges = Float[Tensor, " edges"]
Atoms = Float[Tensor, " atoms"]


def energy(
    box: Box,
    ff: ForceField,
    ends: tuple[Int[Tensor, " edges"], Int[Tensor, " edges"]],
    orders: tuple[Edges, Edges, Edges],
    delta: Atoms,
) -> Float[Tensor, ""]:
    """Compute E_bond + E_over + E_under + E_lonepair, kcal/mol, from BO, Bpi, Bpipi per edge and Delta per atom."""
    (i, j), (order, pi, pi2) = ends, orders
    kind = (box.types[i], box.types[j])
    pair = {name: ff.pair[name][kind] for name in ("de_s", "de_p", "de_pp", "be1", "be2", "ovun1")}
    atom = {name: ff.atom[name][box.types] for name in ("val", "val_e", "mass", "lp2", "ovun2", "ovun5")}
    gp, atoms = ff.general, len(box.types)

    sigma = order - pi - pi2
    # Weak bonds may have no sigma part left; a power of zero has no finite derivative.
    sigma = sigma.clamp(min=1e-10)
    bond = -pair["de_s"] * sigma * torch.exp(pair["be1"] * (1 - sigma ** pair["be2"]))
    bond = bond - pair["de_p"] * pi - pair["de_pp"] * pi2

    spare = delta + atom["val"] - atom["val_e"]
    pairs = torch.trunc(spare.detach() / 2)
    lone = torch.exp(-gp[15] * (2 + spare - 2 * pairs).square()) - pairs
    missing = (atom["val_e"] - atom["val"]) / 2 - lone
    lone_energy = atom["lp2"] * missing * torch.sigmoid(75 * missing)

    # Only light atoms' lone pairs weaken their overcoordination.
    light = (atom["mass"] <= 21.0).double()
    strength = sum_edges(pair["ovun1"] * pair["de_s"] * order, i, atoms)
    multiple = sum_edges((delta[j] - light[i] * light[j] * missing[j]) * (pi + pi2), i, atoms)
    # 1/(1 + a exp(b x)) as a sigmoid, which does not overflow.
    over = delta - light * missing * torch.sigmoid(-(gp[31] * multiple + gp[32].log()))
    over_energy = strength * over / (over + atom["val"] + 1e-8) * torch.sigmoid(-atom["ovun2"] * over)
    under = torch.sigmoid(atom["ovun2"] * over) * torch.sigmoid(-(gp[9] * multiple + gp[8].log()))
    under_energy = -atom["ovun5"] * (1 - torch.exp(gp[6] * over)) * under
    # Every bond is there as two edges.
    return bond.sum() / 2 + (lone_energy + over_energy + under_energy).sum()


@dataclass(frozen=True)
class Demand:
    """Derivatives of the energy, kcal/mol: ``cb``, ``cp``, ``cq`` of a bond's orders, ``cd`` of each atom's Delta."""

    cb: Edges
    cp: Edges
    cq: Edges
    cd: Atoms


@dataclass(frozen=True)
class Molecules:
    """A box with its bonds, corrected orders, energy (kcal/mol) and the energy's derivatives."""

    box: Box
    bonds: Bonds
    orders: Corrected
    demand: Demand
    energy: float


def analyse(box: Box, ff: ForceField) -> Molecules:
    """Compute bond orders, energy and derivatives of a box, orders and Delta taken as independent of one another."""
    with torch.no_grad():
        bonds = uncorrected(box, ff)
        orders = corrected(box, ff, bonds)
    with torch.enable_grad():
        leaves = [x.clone().requires_grad_() for x in (orders.order, orders.pi, orders.pi2, orders.delta)]
        total = energy(box, ff, (bonds.i, bonds.j), (leaves[0], leaves[1], leaves[2]), leaves[3])
        cb, cp, cq, cd = torch.autograd.grad(total, leaves)
    cb, cp, cq = (c + c[bonds.reverse] for c in (cb, cp, cq))
    return Molecules(box, bonds, orders, Demand(cb, cp, cq, cd), total.item())


def full_energy(box: Box, ff: ForceField) -> Float[Tensor, ""]:
    """Compute the energy of a box in kcal/mol, differentiable in its positions: assembled forces must agree with it."""
    bonds = uncorrected(box, ff)
    orders = corrected(box, ff, bonds)
    return energy(box, ff, (bonds.i, bonds.j), (orders.order, orders.pi, orders.pi2), orders.delta)


def self_terms(bonds: Bonds, atoms: int) -> Float[Tensor, "atoms 3"]:
    """Compute the derivative of each atom's sum of uncorrected orders by its own position, 1/Å."""
    return sum_edges(bonds.d_order, bonds.i, atoms)


def neighbour_coefficients(m: Molecules) -> Float[Tensor, "edges 4"]:
    """Compute, for an edge i -> j, what multiplies the dBOp of i's neighbours: C2/C3 of dbo, dDelta, pi, pi2.

    kcal/mol; from the bond's second atom the same holds on the reverse edge.
    """
    o, demand = m.orders, m.demand
    both = demand.cd[m.bonds.i] + demand.cd[m.bonds.j]
    return torch.stack([o.c2dbo * demand.cb, o.c2dbo * both, o.c3dbopi * demand.cp, o.c3dbopi2 * demand.cq], 1)


def bond_forces(m: Molecules) -> EdgeVectors:
    """Compute, for an edge i -> j, what its bond adds to f_i, kcal/mol/Å; to f_j it adds that of the reverse edge.

    f_i += c1 dBOp + C1dbopi Cp dln_pi + C1dbopi2 Cq dln_pi2 + s_i dDeltap_self_i.
    """
    o, demand, bonds = m.orders, m.demand, m.bonds
    both = demand.cb + demand.cd[bonds.i] + demand.cd[bonds.j]
    c1 = o.c1dbo * both + o.c2dbopi * demand.cp + o.c2dbopi2 * demand.cq
    along = c1[:, None] * bonds.d_order
    along = along + (o.c1dbopi * demand.cp)[:, None] * bonds.d_pi + (o.c1dbopi2 * demand.cq)[:, None] * bonds.d_pi2
    own = neighbour_coefficients(m).sum(1)
    return along + own[:, None] * self_terms(bonds, len(m.box.types))[bonds.i]


def neighbour_rows(bonds: Bonds, atoms: int) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """List the inner loop: for every edge i -> j, each edge i -> k in turn (k = j too), as numbers (edge, its k)."""
    degree = torch.bincount(bonds.i, minlength=atoms)
    first = torch.cumsum(degree, 0) - degree
    count = degree[bonds.i]
    edge = torch.repeat_interleave(torch.arange(len(bonds.i)), count)
    place = torch.arange(len(edge)) - torch.repeat_interleave(torch.cumsum(count, 0) - count, count)
    return edge, first[bonds.i][edge] + place


def assemble(m: Molecules) -> Float[Tensor, "atoms 3"]:
    """Assemble dE/dx of all atoms, kcal/mol/Å, bond by bond as Add_dBond_to_Forces does."""
    bonds, atoms = m.bonds, len(m.box.types)
    force = sum_edges(bond_forces(m), bonds.i, atoms)
    edge, k = neighbour_rows(bonds, atoms)
    pull = -neighbour_coefficients(m).sum(1)[edge, None] * bonds.d_order[k]
    return force + sum_edges(pull, bonds.j[k], atoms)
