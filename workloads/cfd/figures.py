"""The flow over the bump: pressure on a slice, as the solver leaves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from lumos.workloads.cfd.mesh import box_vertices, box_with_bump
from lumos.workloads.cfd.solver import gas, run
from lumos.workloads.common.sheets import save_sheet

CELLS, ITERATIONS, ANGLE = (24, 10, 10), 60, 0.0
FLOWS = (0.5, 0.8, 1.1, 1.7)


def _section(vertices: np.ndarray, z: float) -> tuple[list[np.ndarray], list[int]]:
    """The polygons (x, y) in which a plane of constant z cuts tetrahedra (elements, 4, 3), and their elements."""
    polygons, elements = [], []
    below = vertices[:, :, 2] < z
    for element in np.flatnonzero(below.any(1) & ~below.all(1)):
        corners = vertices[element]
        low, high = corners[below[element]], corners[~below[element]]
        share = (z - low[:, None, 2]) / (high[None, :, 2] - low[:, None, 2])
        cut = low[:, None, :2] + share[..., None] * (high[None, :, :2] - low[:, None, :2])
        # Two vertices below and two above give a quadrangle: around its middle, in order.
        points = cut.reshape(-1, 2)
        away = points - points.mean(0)
        polygons.append(points[np.argsort(np.arctan2(away[:, 1], away[:, 0]))])
        elements.append(int(element))
    return polygons, elements


def contact_sheet(folder: Path) -> Path:
    """Draw ``cfd_simulation.png`` in ``folder``: pressure over the middle of the bump at four Mach numbers."""
    mesh = box_with_bump(CELLS)
    position, tetrahedra, _ = box_vertices(CELLS)
    polygons, elements = _section(position[tetrahedra], CELLS[2] / 2 + 0.01)
    figure = Figure(figsize=(12, 6.0), dpi=100, layout="constrained")
    for axis, mach in zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, FLOWS, strict=True):
        *_, w = run(mesh, mach, ANGLE, ITERATIONS)
        pressure = gas(w).p[elements]
        norm = TwoSlopeNorm(1.0, float(pressure.min()), float(pressure.max()))
        axis.add_collection(
            PolyCollection(polygons, array=pressure, cmap="RdBu_r", norm=norm, edgecolors="face", lw=0.3)
        )
        axis.set(xlim=(0, CELLS[0]), ylim=(0, CELLS[1]), aspect="equal", facecolor="#777777")
        axis.set_title(f"Mach {mach:g}", fontsize=11)
        figure.colorbar(ScalarMappable(norm, "RdBu_r"), ax=axis, fraction=0.025, pad=0.01, label="p / p far away")
    figure.suptitle(
        f"Flow over a bump, {len(mesh):,} tetrahedra cut at half their depth, after {ITERATIONS} iterations from the "
        "undisturbed stream; lengths in cell edges",
        fontsize=11,
    )
    return save_sheet(figure, folder / "cfd_simulation.png")
