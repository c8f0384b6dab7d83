"""A contact sheet of simulated scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from lumos.workloads.common.sheets import save_sheet
from lumos.workloads.slstr.scenes import Scene, make_scene

ROWS = ("S3 S2 S1\nreflected", "S4, 1.375 µm\nhigh clouds", "S8, 10.85 µm\ntemperature", "mask\nto be learnt")
SCENES = (0, 1, 3, 2, 5, 6, 7, 8)
SHAPE = (90, 90)


def contact_sheet(folder: Path) -> Path:
    """Draw ``folder/slstr.png``: eight scenes, with what the channels show of each and the mask to be learnt."""
    figure = Figure(figsize=(12, 6.2), dpi=100, facecolor="#101014")
    axes = figure.subplots(len(ROWS), len(SCENES))
    for column, number in zip(axes.T, SCENES, strict=True):
        scene = make_scene(np.random.default_rng([0, number]), SHAPE)
        images = [
            (_colours(scene, (2, 1, 0)), {}),
            (scene.refs[..., 3], {"cmap": "gray", "vmin": 0, "vmax": 0.6}),
            (scene.bts[..., 1], {"cmap": "magma", "vmin": 220, "vmax": 305}),
            (scene.bayes[..., 0], {"cmap": "Blues_r", "vmin": -0.15, "vmax": 1}),
        ]
        for axis, (image, style) in zip(column, images, strict=True):
            axis.set_facecolor("#303038")  # shows where lines are lost
            axis.imshow(image, interpolation="nearest", **style)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        column[0].set_title("night" if scene.night else "day", color="white", fontsize=12)
        column[-1].set_xlabel(f"{scene.bayes.mean():.0%} cloud", color="#b0b0b8", fontsize=9)
    for axis, name in zip(axes[:, 0], ROWS, strict=True):
        axis.set_ylabel(name, color="white", fontsize=10)
    figure.subplots_adjust(left=0.05, right=0.995, top=0.955, bottom=0.04, wspace=0.03, hspace=0.03)
    return save_sheet(figure, folder / "slstr.png")


def _colours(scene: Scene, channels: tuple[int, int, int]) -> Float[np.ndarray, "rows columns 3"]:
    return np.clip(np.nan_to_num(scene.refs[..., channels].astype(float)), 0, 1) ** 0.6
