"""torch-geometric and ogb, imported so that neither warns about its own affairs nor reaches out to the network.

ogb asks a package index for a newer version of itself, in a thread, when it is imported; here it cannot. Its data set
classes, which ask on stdin and download, are not used.
"""

from __future__ import annotations

import sys
import warnings

_asks = sys.modules.get("outdated")
sys.modules["outdated"] = None  # type: ignore[assignment]  # ogb then goes without its check
try:
    with warnings.catch_warnings():
        # torch-geometric scripts a class when it is imported, which torch has deprecated.
        warnings.simplefilter("ignore")
        from ogb.graphproppred.evaluate import Evaluator
        from ogb.graphproppred.mol_encoder import AtomEncoder, BondEncoder
        from ogb.utils.features import (
            atom_to_feature_vector,
            bond_to_feature_vector,
            get_atom_feature_dims,
            get_bond_feature_dims,
        )
        from torch_geometric.data import Batch
        from torch_geometric.nn import MessagePassing, global_add_pool, global_mean_pool
        from torch_geometric.utils import degree
finally:
    del sys.modules["outdated"]
    if _asks is not None:
        sys.modules["outdated"] = _asks

__all__ = [
    "AtomEncoder",
    "Batch",
    "BondEncoder",
    "Evaluator",
    "MessagePassing",
    "atom_to_feature_vector",
    "bond_to_feature_vector",
    "degree",
    "get_atom_feature_dims",
    "get_bond_feature_dims",
    "global_add_pool",
    "global_mean_pool",
]
