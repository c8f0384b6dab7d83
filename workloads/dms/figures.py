"""A contact sheet of patterns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lumos.workloads.common.sheets import save_sheet
from lumos.workloads.dms.pattern import DETECTOR, Scene

ROWS = 4


def contact_sheet(folder: Path) -> Path:
    """Draw ``dms.png`` in ``folder``: crystals of both phases that differ in nothing but their symmetry."""
    scene = Scene(DETECTOR, 0.0)
    figure = Figure(figsize=(12, 9), dpi=100, layout="constrained")
    axes = figure.subplots(ROWS, 2)
    shown = None
    for row in range(ROWS):
        for column, phase in enumerate(("tetragonal", "monoclinic")):
            # The same seed draws the same cell, mount, domains and light for both.
            image = scene.pattern(phase, np.random.default_rng([7, row]))
            ax = axes[row, column]
            shown = ax.imshow(image.T, cmap="magma", vmin=2.7, vmax=6.5, origin="lower", aspect="auto")
            ax.set_xticks([])
            ax.set_yticks([])
            for spine in ax.spines.values():
                spine.set_visible(False)
            if row == 0:
                label = "tetragonal, a = b < c, label 1" if column == 0 else "monoclinic, β = 90.1° to 90.7°, label 0"
                ax.set_title(label, fontsize=13)
        axes[row, 0].set_ylabel(f"crystal {row + 1}", fontsize=12)
    assert shown is not None
    bar = figure.colorbar(shown, ax=axes, orientation="horizontal", shrink=0.5, aspect=50, pad=0.02)
    bar.set_label("log(1 + counts)")
    figure.suptitle(
        "Diffuse multiple scattering at 9 keV: 487 x 195 pixels, 19° x 7.7°\n"
        "In each row, both crystals have the same a and c, width of the lines, domains and light",
        fontsize=13,
    )
    return save_sheet(figure, folder / "dms.png")
