"""The contact sheet of BrainTumor: phantoms of each class, as the network sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lumos.workloads.braintumor.phantom import CLASSES, phantom
from lumos.workloads.common.sheets import save_sheet

TITLES = {
    "glioma": "glioma: an irregular ring, or a dull patch",
    "meningioma": "meningioma: smooth, at the dura",
    "notumor": "no tumour",
    "pituitary": "pituitary: smooth, in the midline",
}
EACH, PIXELS = 4, 128


def contact_sheet(folder: Path) -> Path:
    """Draw ``braintumor.png`` in ``folder``: four phantoms of each class, 128 pixels wide."""
    figure = Figure(figsize=(12, 3.7), dpi=100, layout="constrained")
    halves: Any = figure.subfigures(2, 2)
    for label, kind in enumerate(CLASSES):
        part = halves[label // 2, label % 2]
        part.suptitle(TITLES[kind], fontsize=11)
        for k, axis in enumerate(part.subplots(1, EACH)):
            axis.imshow(phantom(kind, PIXELS, np.random.default_rng([2, label, k])), cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
    return save_sheet(figure, folder / "braintumor.png")
