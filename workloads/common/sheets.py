"""Saving a contact sheet as a small PNG."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

LIMIT = 300_000  # bytes


def save_sheet(figure: Figure, path: Path) -> Path:
    """Write the figure to ``path`` with as many colours, up to 256, as keep it below 300 kB where it can be.

    Noise does not compress, so that the number of colours decides the size.
    """
    FigureCanvasAgg(figure)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", facecolor=figure.get_facecolor())
    image = Image.open(drawn, formats=["PNG"]).convert("RGB")
    for colours in (256, 160, 96, 64, 48, 32, 16):
        small = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
        if small.tell() <= LIMIT:
            break
    path.write_bytes(small.getvalue())
    return path
