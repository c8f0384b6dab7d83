"""The optimiser at the cut."""

from __future__ import annotations

import math
from collections.abc import Sequence


def rate_gain(matrices: Sequence[tuple[int, int]], most: float) -> float:
    """The factor by which the weights' peak rate rises, from the sizes of each weight matrix, dense and compact.

    With Adam the rate that fits a layer falls as its width rises (Yang & Hu et al. 2021, muP, table 3), and the
    recipe's was chosen for the dense network. How many times narrower a matrix became is the square root of its sizes'
    ratio; the factor is the geometric mean of these, so that one large layer that nearly goes does not speak for all,
    and a residual stream that stays is not forgotten. At most ``most``.
    """
    narrower = [0.5 * math.log(dense / max(1, compact)) for dense, compact in matrices]
    return min(most, math.exp(math.fsum(narrower) / max(1, len(narrower))))
