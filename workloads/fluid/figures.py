"""A block of water that falls and sloshes: its particles, coloured by speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lumos.workloads.common.sheets import save_sheet
from lumos.workloads.fluid.data import falling_block
from lumos.workloads.fluid.solver import BOX_MAX, BOX_MIN, Kernel, advance

PER_METRE, SEED = 140.0, 3
MOMENTS = (0, 60, 120, 200, 320, 600)
"""Steps of 1 ms."""


def contact_sheet(folder: Path) -> Path:
    """Draw ``fluid_simulation.png`` in ``folder``: six moments of a block of water, seen from the front."""
    kernel = Kernel.at(PER_METRE)
    state = falling_block(PER_METRE, np.random.default_rng(SEED))
    shown, done = [], 0
    for moment in MOMENTS:
        advance(state, kernel, moment - done)
        done = moment
        shown.append((state.x * 100, np.sqrt((state.v**2).sum(1))))
    fastest = float(np.percentile(np.concatenate([speed for _, speed in shown]), 99.5))
    figure = Figure(figsize=(12, 3.5), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(MOMENTS), sharey=True)
    colours = ScalarMappable(Normalize(0, fastest), "viridis")
    for axis, moment, (x, speed) in zip(axes, MOMENTS, shown, strict=True):
        back = np.argsort(x[:, 2])
        axis.scatter(x[back, 0], x[back, 1], c=colours.to_rgba(speed[back]), s=5, lw=0)
        axis.set(xlim=(100 * BOX_MIN[0], 100 * BOX_MAX[0]), ylim=(100 * BOX_MIN[1], 100 * BOX_MAX[1]), aspect="equal")
        axis.set_title(f"{moment} ms", fontsize=11)
        axis.set_xlabel("x, cm")
    axes[0].set_ylabel("y, cm")
    figure.colorbar(colours, ax=axes, fraction=0.012, pad=0.01, label="speed, m/s")
    figure.suptitle(f"{len(state.x):,} smoothed particles of water in a box, {PER_METRE:g} along a metre", fontsize=11)
    return save_sheet(figure, folder / "fluid_simulation.png")
