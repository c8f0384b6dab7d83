"""What the acceleration of a pair depends on, from its equation.

a = [d cp (h - r)^2 / r (rho_i + rho_j - 2000) + (v_j - v_i) cv (h - r)] / (rho_i rho_j): a component of the velocities
enters that component of the acceleration alone; the distance, and with it the whole of d, enters all three.
"""

from __future__ import annotations

from lumos.suite.dependence import Derived, TrueDependence
from lumos.workloads.fluid.data import OUTPUTS

DISPLACEMENT = ("dx", "dy", "dz")

DEPENDENCE = TrueDependence(
    enters={
        **dict.fromkeys(DISPLACEMENT, OUTPUTS),
        **{f"v{axis}_{side}": (f"a{axis}",) for side in "ij" for axis in "xyz"},
        **dict.fromkeys(("rho_i", "rho_j"), OUTPUTS),
    },
    derived={
        "r_squared": Derived(DISPLACEMENT),
        "r": Derived(("r_squared",), ("r_squared",)),
        "h_minus_r": Derived(("r",), ("r",)),
        "rho_sum": Derived(("rho_i", "rho_j"), ("rho_i", "rho_j")),
    },
)
