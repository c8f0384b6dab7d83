"""What the flux through a face depends on, from its equations: everything on everything, but seven columns follow."""

from __future__ import annotations

from lumos.suite.dependence import Derived, TrueDependence
from lumos.workloads.cfd.data import INPUTS, OUTPUTS


def _state(side: str) -> dict[str, Derived]:
    rho, *momentum, energy = (f"{name}_{side}" for name in ("rho", "mx", "my", "mz", "E"))
    return {
        # p = 0.4 (E - |m|^2 / (2 rho)), speed = |m| / rho, c^2 = 1.4 p / rho; the sign of a momentum is not recovered.
        f"p_{side}": Derived((rho, *momentum, energy), (rho, energy)),
        f"speed_{side}": Derived((rho, *momentum), (rho,)),
        f"c_{side}": Derived((rho, f"p_{side}"), (rho, f"p_{side}")),
    }


DERIVED = {"area": Derived(("nx", "ny", "nz")), **_state("i"), **_state("j")}

DEPENDENCE = TrueDependence(
    enters={name: OUTPUTS for name in INPUTS if name not in DERIVED},
    derived=DERIVED,
)
