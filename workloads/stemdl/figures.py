"""A contact sheet of simulated diffraction patterns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lumos.workloads.common.sheets import save_sheet
from lumos.workloads.stemdl.crystals import GROUPS
from lumos.workloads.stemdl.data import Simulation, log_pattern
from lumos.workloads.stemdl.multislice import ZONES

SYMBOLS = {
    62: "Pnma",
    99: "P4mm",
    136: "P4$_2$/mnm",
    139: "I4/mmm",
    186: "P6$_3$mc",
    191: "P6/mmm",
    194: "P6$_3$/mmc",
    216: "F$\\bar4$3m",
    221: "Pm$\\bar3$m",
    225: "Fm$\\bar3$m",
    227: "Fd$\\bar3$m",
    229: "Im$\\bar3$m",
}
"""Symbols of the space groups, in the International Tables."""

SHOWN = (62, 99, 136, 186, 194, 216, 225, 227)


def contact_sheet(folder: Path) -> Path:
    """Draw ``folder/stemdl.png``: eight crystals, a row for each zone axis, as the network sees them."""
    simulation = Simulation(0, 120, 10, 128, 40.0, 1e6, 180.0, 1.0)
    figure = Figure(figsize=(12, 5.3), dpi=100, facecolor="#101014")
    axes = figure.subplots(len(ZONES), len(SHOWN))
    for column, group in zip(axes.T, SHOWN, strict=True):
        material = GROUPS.index(group)
        shown = simulation.shown(material, 0)
        patterns = log_pattern(simulation.patterns(material, 0), 128).numpy()
        for axis, pattern in zip(column, patterns, strict=True):
            axis.imshow(pattern[10:119, 10:119], cmap="magma", vmin=-0.7, vmax=np.quantile(pattern, 0.999))
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        species = str(shown["crystal"]).replace(" type:", "-type")
        column[0].set_title(f"{group}  {SYMBOLS[group]}", color="white", fontsize=12)
        column[-1].set_xlabel(
            f"{species}\n{shown['energy']} keV, {shown['thickness']:.0f} Å", color="#b0b0b8", fontsize=8
        )
    for axis, zone in zip(axes[:, 0], ZONES, strict=True):
        axis.set_ylabel(zone, color="white", fontsize=12)
    figure.subplots_adjust(left=0.035, right=0.995, top=0.93, bottom=0.085, wspace=0.03, hspace=0.03)
    return save_sheet(figure, folder / "stemdl.png")
