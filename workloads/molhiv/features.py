"""OGB's features of atoms and bonds, as numbers from 0 on.

They are defined in a file of the package ``ogb``, which is read by itself: ``import ogb`` starts a thread that asks a
package index for a newer version.
"""

from __future__ import annotations

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from rdkit import Chem

from lumos.errors import DataError

ATOM_FEATURES = (
    "atomic_num",
    "chirality",
    "degree",
    "formal_charge",
    "num_hydrogens",
    "num_radical_electrons",
    "hybridization",
    "is_aromatic",
    "is_in_ring",
)
BOND_FEATURES = ("bond_type", "bond_stereo", "is_conjugated")


def _definitions() -> ModuleType:
    """Run ogb's file of definitions, which imports nothing, under a name of our own."""
    package = find_spec("ogb")  # finds a top-level package without importing it
    folders = (package and package.submodule_search_locations) or []
    file = next((Path(folder) / "utils" / "features.py" for folder in folders), None)
    if file is None or not file.is_file():
        raise DataError(
            "workload=molhiv: the package ogb is not there, whose features it uses; pip install 'ogb>=1.3.6'"
        )
    spec = spec_from_file_location("lumos_ogb_features", file)
    assert spec is not None  # a file that is there has a spec and a loader
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_OGB = _definitions()

ATOM_VALUES: tuple[int, ...] = tuple(_OGB.get_atom_feature_dims())
"""How many values each of :data:`ATOM_FEATURES` has."""

BOND_VALUES: tuple[int, ...] = tuple(_OGB.get_bond_feature_dims())
"""How many values each of :data:`BOND_FEATURES` has."""


def atom_features(atom: Chem.Atom) -> list[int]:
    """Number the features of an atom, in the order of :data:`ATOM_FEATURES`."""
    return _OGB.atom_to_feature_vector(atom)


def bond_features(bond: Chem.Bond) -> list[int]:
    """Number the features of a bond, in the order of :data:`BOND_FEATURES`."""
    return _OGB.bond_to_feature_vector(bond)
