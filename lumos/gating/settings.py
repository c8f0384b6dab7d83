"""The shape of a gate's distribution, the kinds of penalty, the other methods. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Penalty = Literal["gates", "params", "macs"]


@dataclass(frozen=True)
class GateSettings:
    """The shape of a gate's distribution.

    ``tau`` is the temperature; noise is drawn from U(``t_l``, ``t_u``), so that with 0 < t_l and t_u < 1 gates far
    from the middle are deterministic (semi-stochastic, eq. 1); ``gamma`` < 0 and ``zeta`` > 1 stretch the interval
    before it is clipped to [0, 1]; ``initial_open`` is the open probability at the start. Raises ValueError.
    """

    tau: float = 2 / 3
    t_l: float = 0.4
    t_u: float = 0.6
    gamma: float = -0.1
    zeta: float = 1.1
    initial_open: float = 0.99

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ValueError(f"tau={self.tau}: expected a number > 0")
        if not 0 <= self.t_l < 0.5:
            raise ValueError(f"t_l={self.t_l}: expected a number in [0, 0.5)")
        if not 0.5 < self.t_u <= 1:
            raise ValueError(f"t_u={self.t_u}: expected a number in (0.5, 1]")
        if not self.gamma < 0:
            raise ValueError(f"gamma={self.gamma}: expected a number < 0")
        if not self.zeta > 1:
            raise ValueError(f"zeta={self.zeta}: expected a number > 1")
        if not self.zeta > -self.gamma:  # at log_alpha 0, the floor of a group's widest gate, a gate has to be open
            raise ValueError(f"zeta={self.zeta}: expected a number > {-self.gamma:g}, which is -gamma")
        if not 0 < self.initial_open < 1:
            raise ValueError(f"initial_open={self.initial_open}: expected a number in (0, 1)")

    @property
    def shift(self) -> float:
        """``tau * log(-gamma / zeta)``, at or below which a gate is closed at test time."""
        return self.tau * math.log(-self.gamma / self.zeta)
