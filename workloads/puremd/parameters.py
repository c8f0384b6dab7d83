"""The part of a published ReaxFF parametrisation that the default data needs, as a table of numbers.

Source: K. Chenoweth, A. C. T. van Duin and W. A. Goddard, "ReaxFF reactive force field for molecular dynamics
simulations of hydrocarbon oxidation", J. Phys. Chem. A 112 (2008) 1040-1053, doi:10.1021/jp709896w, supporting
information: carbon, hydrogen, oxygen. Lengths in Å, energies in kcal/mol, masses in g/mol. Only what bond orders,
bond energy, over- and undercoordination and lone pairs read is here; no charges, angles, torsions or van der Waals.
"""

from __future__ import annotations

GENERAL = {0: 50.0, 1: 9.5469, 6: 1.0588, 8: 12.1176, 9: 13.3056, 15: 6.0891, 29: 0.1, 31: 0.6991, 32: 50.0}
"""The general parameters by their number (from 0) in a force field file."""

ATOM_COLUMNS = (
    "r_s", "val", "mass", "r_p", "val_e", "val_boc", "ovun5", "r_pp", "lp2", "b131", "b132", "b133", "ovun2", "val_val",
)  # fmt: skip
ATOMS = {
    "C": (1.3825, 4, 12.000, 1.1359, 4, 4, 33.2433, 1.2104, 0.0000, 8.6991, 34.7289, 13.3894, -2.8983, 4),
    "H": (0.7853, 1, 1.0080, -0.100, 1, 1, 0.00000, -0.100, 0.0000, 1.9771, 3.35170, 0.75710, -15.7683, 1),
    "O": (1.2477, 2, 15.999, 1.0863, 6, 4, 36.9573, 0.9088, 1.0003, 20.4140, 3.3754, 0.27020, -3.6141, 4),
}

BOND_COLUMNS = (
    "de_s", "de_p", "de_pp", "be1", "bo5", "v13cor", "bo6", "ovun1", "be2", "bo3", "bo4", "bo1", "bo2", "ovc",
)  # fmt: skip
BONDS = {
    ("C", "C"): (156.5953, 100.0397, 80, -0.8157, -0.4591, 1, 37.7369, 0.4235, 0.4527, -0.1, 9.2605, -0.075, 6.8316, 1),
    ("C", "H"): (170.2316, 0, 0, -0.5931, 0, 1, 6, 0.7140, 5.2267, 1, 0, -0.05, 6.8315, 0),
    ("H", "H"): (156.0973, 0, 0, -0.1377, 0, 1, 6, 0.8240, 2.9907, 1, 0, -0.0593, 4.8358, 0),
    ("C", "O"): (
        160.4802, 105.1693, 23.3059, -0.3873, -0.1613, 1, 10.8851, 1, 0.5341, -0.3174, 7.0303, -0.1463, 5.2913, 0,
    ),
    ("O", "O"): (
        60.1463, 176.6202, 51.1430, -0.2802, -0.1244, 1, 29.6439, 0.9114, 0.2441, -0.1239, 7.6487, -0.1302, 6.2919, 1,
    ),
    ("H", "O"): (180.4373, 0, 0, -0.8074, 0, 1, 6, 0.5514, 1.2490, 1, 0, -0.0657, 5.0451, 0),
}  # fmt: skip

RADII = {("C", "H"): (1.1203, -1, -1), ("H", "O"): (0.9013, -1, -1), ("C", "O"): (1.2775, 1.1342, 1.0621)}
"""Radii r_s, r_p, r_pp of unlike atoms, which replace the mean of the two atoms' where positive."""
