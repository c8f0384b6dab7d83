"""What the two variants of the kernel depend on, from their equations.

``inner``: new temp = -(c_dbo + c_ddelta + c_dbopi + c_dbopi2) dBOp_k, by component; temp before is not used.
``bond``: f_i = c1 dBOp + C1dbopi Cdbopi dln_pi + C1dbopi2 Cdbopi2 dln_pi2 + s_i dDeltap_self_i, and f_j with the
sign of the first three turned and s_j dDeltap_self_j.
"""

from __future__ import annotations

from collections.abc import Mapping

from lumos.suite.dependence import Derived, TrueDependence
from lumos.workloads.puremd.data import OUTPUTS, Variant

_BOTH = OUTPUTS["bond"]
_SIDE = {side: tuple(name for name in _BOTH if name.startswith(f"f_{side}")) for side in "ij"}


def _vectors() -> dict[str, tuple[str, ...]]:
    shared = {f"{name}_{a}": (f"f_i_{a}", f"f_j_{a}") for name in ("dBOp", "dln_pi", "dln_pi2") for a in "xyz"}
    return shared | {f"dDeltap_self_{side}_{a}": (f"f_{side}_{a}",) for side in "ij" for a in "xyz"}


DEPENDENCE: Mapping[Variant, TrueDependence] = {
    "inner": TrueDependence(
        enters={
            **dict.fromkeys(("c_dbo", "c_ddelta", "c_dbopi", "c_dbopi2"), OUTPUTS["inner"]),
            **{f"dbop_k_{axis}": (f"new_temp_{axis}",) for axis in "xyz"},
        }
    ),
    "bond": TrueDependence(
        enters={
            # c1 = C1dbo (Cdbo + D) + C2dbopi Cdbopi + C2dbopi2 Cdbopi2
            **dict.fromkeys(("C1dbo", "C1dbopi", "C2dbopi", "C2dbopi2"), _BOTH),
            **dict.fromkeys(("Cdbo", "Cdbopi", "Cdbopi2", "CdDelta_i", "CdDelta_j"), _BOTH),
            # s_i = C2dbo (Cdbo + D) + C3dbopi Cdbopi + C3dbopi2 Cdbopi2; s_j with C3dbo, C4dbopi, C4dbopi2
            **dict.fromkeys(("C2dbo", "C3dbopi", "C3dbopi2"), _SIDE["i"]),
            **dict.fromkeys(("C3dbo", "C4dbopi", "C4dbopi2"), _SIDE["j"]),
            **_vectors(),
        },
        derived={"C1dbopi2": Derived(("C1dbopi",), ("C1dbopi",))},
    ),
}
