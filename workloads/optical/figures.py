"""A contact sheet of images of laser optics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lumos.workloads.common.sheets import save_sheet
from lumos.workloads.optical.beamline import CROP, PIXEL, PLANE, BeamLine, Session
from lumos.workloads.optical.data import View

COLUMNS = 5


def contact_sheet(folder: Path) -> Path:
    """Draw ``optical.png`` in ``folder``: shots of the published size without and with damage, and a whole plane."""
    line, view = BeamLine(), View(PLANE, CROP)
    figure = Figure(figsize=(12, 5.6), dpi=100, layout="constrained")
    axes = figure.subplots(2, COLUMNS)
    top, bottom, left, right = CROP
    side = (right - left) * PIXEL * 1e3
    for column in range(COLUMNS):
        session = Session.draw(np.random.default_rng([3, column]))
        for row, damaged in enumerate((False, True)):
            counts = line.shot(session, np.random.default_rng([3, column, 1]), damaged)
            ax = axes[row, column]
            ax.set_xticks([])
            ax.set_yticks([])
            if row == 0 and column == 0:
                ax.imshow(counts, cmap="inferno")
                ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white"))
                ax.set_title("session 1, whole image", fontsize=10)
                continue
            image = view.of(counts)[0]
            ax.imshow(image, cmap="inferno", vmin=0, vmax=1, extent=(0, side, side, 0))
            ax.set_title(f"session {column + 1}, {'damaged' if damaged else 'undamaged'}", fontsize=10)
    figure.suptitle(
        "Laser optics, simulated: a beam through turbulence, 0.6 to 1 m to the camera, dust on the window; the crop is "
        f"{side:.0f} mm wide\nBelow, an optic in the same beam has one to three pits of 0.06 to 0.45 mm",
        fontsize=11,
    )
    return save_sheet(figure, folder / "optical.png")
