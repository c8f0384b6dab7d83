"""By what a column of numbers is divided: its standard deviation, unless that is rounding and no variation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

EPSILON = torch.finfo(torch.float32).eps
LEAST = torch.finfo(torch.float32).tiny / EPSILON
"""Below this, a deviation has lost digits: single precision has only denormal numbers for its parts."""
LEAST_SQUARE = torch.finfo(torch.float32).tiny
"""Below this, a square in single precision has lost digits."""


def varies(x: Tensor) -> Tensor:
    """Tell which columns vary at all, in single precision.

    A column whose standard deviation is below the rounding of its largest value is constant but for rounding: divided
    by it, the next row that is a little different would be far beyond all that was trained on.

    Args:
        x: A table (rows, columns), finite.

    Returns:
        A truth value for each column.

    Example:
        >>> import torch
        >>> from lumos.scaling import varies
        >>> varies(torch.tensor([[1.0, 7.0, 0.0, 1e-27], [2.0, 7.0, 1e-38, 3e-27]])).tolist()
        [True, False, False, True]
    """
    wide = x.double()
    return wide.std(0, correction=0) > (EPSILON * wide.abs().amax(0)).clamp(min=LEAST)


def spread(x: Tensor) -> Tensor:
    """Compute by what each column is divided: its standard deviation over the rows; 1 where it does not vary.

    Args:
        x: A table (rows, columns), finite, in any unit.

    Returns:
        A positive number for each column, in its unit.

    Example:
        >>> import torch
        >>> from lumos.scaling import spread
        >>> spread(torch.tensor([[1.0, 7.0, 0.0, 1e-27], [3.0, 7.0, 1e-38, 3e-27]])).tolist()
        [1.0, 1.0, 1.0, 1.0000000272452012e-27]
    """
    if not x.numel():
        return x.new_ones(x.shape[1:])
    std = x.std(0, correction=0)
    sound = torch.isfinite(std) & (std.square() >= LEAST_SQUARE)
    if not bool(sound.all()):  # squares that leave the range of single precision
        std = torch.where(sound, std, x.double().std(0, correction=0).to(x.dtype))
    return torch.where(varies(x), std, 1.0)


def standardised(x: np.ndarray) -> np.ndarray:
    """Take the mean out of each column of a table (rows, columns) and divide it by its :func:`spread`."""
    x = np.asarray(x, np.float64)
    return (x - x.mean(0)) / spread(torch.from_numpy(x)).numpy()
