"""What tests of several workloads need: reference data, and ogb itself to compare with."""

import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where samples are kept that several modules need; what is damaged or counted belongs into a folder of its own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    """The folder of files of others, which are not part of the project."""
    if not (root := os.environ.get("LUMOS_REFERENCE_DATA")):
        pytest.skip("LUMOS_REFERENCE_DATA, the folder of the reference data, is not set")
    return Path(root)


@pytest.fixture(scope="session")
def reference_data(reference_folder: Path) -> Path:
    """The original codes' inputs and results."""
    return reference_folder / "surrogates"


@pytest.fixture(scope="session")
def ogb() -> SimpleNamespace:
    """Parts of ogb, imported without its thread that asks a package index for a newer version."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setitem(sys.modules, "outdated", None)
        warnings.simplefilter("ignore")
        from ogb.graphproppred import Evaluator
        from ogb.graphproppred.mol_encoder import AtomEncoder, BondEncoder
        from ogb.io.read_graph_raw import read_csv_graph_raw
        from ogb.utils.mol import smiles2graph
        from ogb.version import check_outdated
    assert check_outdated is None
    return SimpleNamespace(
        Evaluator=Evaluator,
        AtomEncoder=AtomEncoder,
        BondEncoder=BondEncoder,
        read_csv_graph_raw=read_csv_graph_raw,
        smiles2graph=smiles2graph,
    )
