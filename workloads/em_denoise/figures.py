"""A contact sheet of micrographs: noisy, clean, and what the noisy one shows in Fourier space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lumos.workloads.common.sheets import save_sheet
from lumos.workloads.em_denoise.graphene import LATTICE, clean_image, draw_microscope, draw_specimen, noisy_image

PIXELS, COLUMNS = 160, 7
BAR = 5.0  # angstrom

# Few colours, so that the noise can be compressed.
GREYS, FIRE = colormaps["gray"].resampled(16), colormaps["magma"].resampled(12)


def contact_sheet(folder: Path) -> Path:
    """Draw ``folder/em_denoise.png``: a column is a flake, with the dose and pixel size above it."""
    figure = Figure(figsize=(12, 5.75), facecolor="black", dpi=100)
    axes = figure.subplots(3, COLUMNS)
    for column in range(COLUMNS):
        rng = np.random.default_rng([21, column])
        microscope = draw_microscope(rng)
        clean = clean_image(draw_specimen(rng, PIXELS * microscope.pixel), microscope, PIXELS)
        noisy = noisy_image(clean, microscope.dose, rng)
        top, middle, bottom = axes[:, column]
        top.set_title(f"dose {microscope.dose:.1f}, {microscope.pixel:.2f} Å/px", color="white", fontsize=10)
        top.imshow(noisy, cmap=GREYS, vmin=0, vmax=1.8, interpolation="nearest")
        middle.imshow(clean, cmap=GREYS, vmin=0, vmax=1.8)
        bar = BAR / microscope.pixel
        middle.plot([10, 10 + bar], [PIXELS - 12] * 2, color="#ffc857", lw=3, solid_capstyle="butt")
        middle.text(10 + bar / 2, PIXELS - 18, f"{BAR:g} Å", color="#ffc857", ha="center", fontsize=9)
        _spots(bottom, noisy, microscope.pixel)
        for axis in (top, middle, bottom):
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, name in zip(axes[:, 0], ("noisy", "clean", "|FFT| of noisy"), strict=True):
        axis.set_ylabel(name, color="white", fontsize=11)
    figure.text(
        0.5,
        0.012,
        "EM-denoise: flakes of graphene; the dashed ring is where the lattice's first spots are, "
        f"2/(√3 a) = 1/({LATTICE * 0.75**0.5:.2f} Å)",
        color="white",
        ha="center",
        fontsize=10,
    )
    figure.subplots_adjust(left=0.025, right=0.995, top=0.95, bottom=0.05, wspace=0.03, hspace=0.03)
    return save_sheet(figure, folder / "em_denoise.png")


def _spots(axis: Axes, noisy: np.ndarray, pixel: float) -> None:
    window = np.hanning(PIXELS)[:, None] * np.hanning(PIXELS)
    size = np.abs(np.fft.fftshift(np.fft.fft2((noisy - noisy.mean()) * window)))
    edge = np.fft.fftshift(np.fft.fftfreq(PIXELS, pixel))  # 1/angstrom
    axis.imshow(
        np.log(size + 1e-9), cmap=FIRE, vmin=np.log(2 * np.median(size)), extent=(edge[0], edge[-1], edge[0], edge[-1])
    )
    turn = np.linspace(0, 2 * np.pi, 200)
    ring = 2 / (np.sqrt(3) * LATTICE)
    axis.plot(ring * np.cos(turn), ring * np.sin(turn), "--", color="#7ad7f0", lw=0.8)
    axis.set_xlim(-1.4, 1.4)
    axis.set_ylim(-1.4, 1.4)
