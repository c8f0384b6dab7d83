"""Where inputs are drawn: the published ranges of the network, and narrower ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from lumos.errors import DataError
from lumos.workloads.qlknn.network import INPUTS

Box = dict[str, tuple[float, float]]
"""Least and largest value of each input."""


def _box(*bounds: tuple[float, float]) -> Box:
    return dict(zip(INPUTS, bounds, strict=True))


REGIONS: dict[str, Box] = {
    "core": _box((0, 16), (0, 16), (-5, 5), (-15, 15), (0.66, 10), (-1, 4), (0.1, 0.95), (0.25, 2.5), (-5, 0),
                 (0.7, 1)),
    "edge": _box((5, 150), (5, 150), (2, 110), (2, 110), (2, 30), (1, 40), (0.95, 0.95), (1, 1), (-1, 0.4768),
                 (0.5, 1)),
    "hmode": _box((2, 10), (2, 10), (0, 4), (0, 4), (1, 4), (0, 3), (0.2, 0.8), (0.7, 1.5), (-3, -0.5), (0.8, 1)),
}  # fmt: skip
"""``core`` and ``edge`` are the boxes of QLKNN11D and QLKNN7D-edge, on which the network was trained, as the package's
qlknn/models/README.md states them (in ``core`` 1e-14 is 0 and -0.00029 is 0). ``hmode``, of the project's own choosing,
is what the core of an H-mode plasma in a conventional tokamak passes through."""


def box_of(region: str, ranges: Mapping[str, Sequence[float]] | None) -> Box:
    """Return the box of a region, with the user's own ranges of some inputs in place of the region's.

    Args:
        region: One of :data:`REGIONS`.
        ranges: Least and largest value of inputs, by name.

    Raises:
        DataError: There is no such region or input, or a range is none.

    Example:
        >>> box_of("hmode", {"q": [1.5, 3]})["q"]
        (1.5, 3.0)
    """
    if region not in REGIONS:
        raise DataError(f"workload.region={region}: expected {', '.join(REGIONS)}")
    own: Box = {}
    for name, bounds in (ranges or {}).items():
        if name not in INPUTS:
            raise DataError(f"workload.ranges.{name}: there is no such input; expected {', '.join(INPUTS)}")
        good = isinstance(bounds, Sequence) and len(bounds) == 2 and all(isinstance(b, int | float) for b in bounds)
        if not good or not (np.isfinite(bounds).all() and bounds[0] <= bounds[1]):
            raise DataError(f"workload.ranges.{name}={bounds}: expected [least, largest]")
        own[name] = (float(bounds[0]), float(bounds[1]))
    return {**REGIONS[region], **own}


def draw_inputs(box: Box, rows: int, rng: np.random.Generator) -> Float[np.ndarray, "rows inputs"]:
    """Draw inputs from a box, each uniformly and independently of the others; float32."""
    low, high = np.array([box[name] for name in INPUTS], np.float64).T
    return rng.uniform(low, high, (rows, len(INPUTS))).astype(np.float32)
