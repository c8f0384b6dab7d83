"""A contact sheet of universes: one set of phases, each parameter at either end of its range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lumos.workloads.common.sheets import save_sheet
from lumos.workloads.cosmoflow.universe import PARAMETERS, REDSHIFTS, Cosmology, counts

CELLS, SPACING, SLAB = 96, 2.0, 8
NAMES = {"omega_m": "$\\Omega_m$", "sigma_8": "$\\sigma_8$", "n_s": "$n_s$", "h0": "$H_0$"}


def contact_sheet(folder: Path) -> Path:
    """Draw ``folder/cosmoflow.png``: columns are universes, rows redshifts, each a slab of 16 Mpc/h at H0 = 70."""
    figure = Figure(figsize=(12, 6.6), facecolor="black", dpi=100)
    axes = figure.subplots(len(REDSHIFTS), 2 * len(PARAMETERS))
    for column in range(2 * len(PARAMETERS)):
        units = np.zeros(len(PARAMETERS))
        units[column // 2] = 2 * (column % 2) - 1
        cosmology, name = Cosmology.at(units), PARAMETERS[column // 2]
        cube = counts(cosmology, np.random.default_rng(7), CELLS, SPACING * cosmology.h0 / 70)
        axes[0, column].set_title(f"{NAMES[name]} = {getattr(cosmology, name):.3g}", color="white", fontsize=12)
        for row, z in enumerate(REDSHIFTS):
            axis = axes[row, column]
            slab = np.log1p(cube[:SLAB, :, :, row].sum(0, dtype=float))
            axis.imshow(slab, cmap="inferno", vmin=np.log1p(2), vmax=np.log1p(60), interpolation="bilinear")
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(f"z = {z:g}", color="white", fontsize=12)
    side = SPACING * CELLS
    figure.text(
        0.5,
        0.012,
        f"CosmoFlow: particle counts in slabs of {SPACING * SLAB:g} x {side:g} x {side:g} Mpc/h, "
        "the same phases in all; otherwise $\\Omega_m$ = 0.3, $\\sigma_8$ = 0.8, $n_s$ = 0.96, $H_0$ = 70",
        color="white",
        ha="center",
        fontsize=10,
    )
    figure.subplots_adjust(left=0.03, right=0.995, top=0.95, bottom=0.045, wspace=0.03, hspace=0.03)
    return save_sheet(figure, folder / "cosmoflow.png")
