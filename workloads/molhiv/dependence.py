"""Which columns the structural alerts need, from their SMARTS.

The alerts name elements, hydrogens, bonds, rings and numbers of neighbours. Rings are needed as a column: message
passing cannot tell a ring of three from a chain (Xu et al., ICLR 2019). A network that sums over neighbours counts them
by itself, so the degree follows from the graph. Of the rest, what valence rules say: with element, hydrogens and the
bonds around an atom its charge and hybridisation are fixed, and an atom is aromatic where a bond of it is. No alert
names a chirality, a radical or a configuration at a double bond.
"""

from __future__ import annotations

from lumos.suite.dependence import Derived, TrueDependence

_VALENCE = ("atomic_num", "num_hydrogens", "bond_type")

ALERT_COLUMNS = TrueDependence(
    enters=dict.fromkeys((*_VALENCE, "is_in_ring"), ("alert",)),
    derived={
        "degree": Derived(()),
        "formal_charge": Derived(_VALENCE, ("num_hydrogens",)),
        "hybridization": Derived(_VALENCE),
        "is_aromatic": Derived(("bond_type",)),
        "is_conjugated": Derived(("bond_type",)),
    },
)
"""Needed: element, hydrogens, bonds, rings; five more follow; chirality, radicals and bond_stereo are idle."""
