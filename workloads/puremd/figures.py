"""A box of molecules with the bond orders that ReaxFF finds in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lumos.workloads.common.sheets import save_sheet
from lumos.workloads.puremd.forcefield import ForceField, published
from lumos.workloads.puremd.forces import Molecules, analyse, assemble
from lumos.workloads.puremd.molecules import build_box

MOLECULES, VOLUME, KELVIN = {"H2O": 80, "H2O2": 20}, 60.0, 450.0
COLOURS = {"H": "#eeeeee", "O": "#d62728", "C": "#333333"}
SIZES = {"H": 40, "O": 130, "C": 150}


def contact_sheet(folder: Path) -> Path:
    """Draw ``puremd_simulation.png`` in ``folder``: a box of water and peroxide, its bonds, and the bonds' forces."""
    ff = published()
    box = build_box(MOLECULES, VOLUME, KELVIN, ff, np.random.default_rng(1))
    m = analyse(box, ff)
    figure = Figure(figsize=(12, 6.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    _atoms(left, m, ff)
    left.set(title="bonds, as wide as their order", xlabel="x, Å", ylabel="y, Å", aspect="equal")
    _orders(right, m, ff)
    names = " and ".join(f"{count} {name}" for name, count in MOLECULES.items())
    figure.suptitle(
        f"A box of {names} at {KELVIN:g} K: {len(box.types)} atoms, {len(m.bonds.i) // 2} bonds", fontsize=11
    )
    return save_sheet(figure, folder / "puremd_simulation.png")


def _atoms(axis: Axes, m: Molecules, ff: ForceField) -> None:
    x = m.box.positions.numpy()
    edge = float(m.box.cell[0])
    depth = x[:, 2] / edge
    for i, j, order in zip(m.bonds.i.tolist(), m.bonds.j.tolist(), m.orders.order.tolist(), strict=True):
        # A bond through the wall would be drawn across the whole box.
        if i < j and np.abs(x[i] - x[j]).max() < edge / 2:
            shade = 0.35 + 0.65 * (depth[i] + depth[j]) / 2
            axis.plot(
                *x[[i, j], :2].T, color="#555555", lw=4 * order, alpha=shade, zorder=2 * shade, solid_capstyle="round"
            )
    for kind, name in enumerate(ff.elements):
        here = np.flatnonzero((m.box.types == kind).numpy())
        for atom in here:
            near = float(depth[atom])
            axis.scatter(
                *x[atom, :2],
                s=SIZES[name] * (0.5 + 0.5 * near),
                color=COLOURS[name],
                edgecolors="#444444",
                lw=0.6,
                alpha=0.4 + 0.6 * near,
                zorder=2 * (0.36 + 0.65 * near),
            )
    axis.set(xlim=(0, edge), ylim=(0, edge))


def _orders(axis: Axes, m: Molecules, ff: ForceField) -> None:
    """Corrected bond order over distance, by the kind of bond; and how large the atoms' forces are."""
    once = (m.bonds.i < m.bonds.j).numpy()
    r = _distance(m).numpy()[once]
    order = m.orders.order.numpy()[once]
    kinds = torch.stack([m.box.types[m.bonds.i], m.box.types[m.bonds.j]]).sort(0).values.numpy()[:, once]
    for pair in sorted({tuple(kind) for kind in kinds.T.tolist()}):
        here = np.equal(kinds.T, pair).all(1)
        label = "-".join(ff.elements[k] for k in pair)
        axis.scatter(r[here], order[here], s=9, label=f"{label} ({here.sum()})", alpha=0.6, lw=0)
    axis.set(xlabel="distance, Å", ylabel="bond order", title="every pair with a bond order of the cutoff or more")
    force = assemble(m).norm(dim=1)
    note = Line2D(
        [], [], ls="", label=f"bonds' force on an atom: median {force.median():.0f}, max {force.max():.0f} kcal/mol/Å"
    )
    handles, _ = axis.get_legend_handles_labels()
    axis.legend(handles=[*handles, note], frameon=False, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _distance(m: Molecules) -> torch.Tensor:
    d = m.box.positions[m.bonds.j] - m.box.positions[m.bonds.i]
    return (d - m.box.cell * torch.round(d / m.box.cell)).norm(dim=1)
