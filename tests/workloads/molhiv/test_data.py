"""Molecules: structural alerts, graphs, scaffolds, tables of SMILES and OGB's layout."""

import gzip
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from lumos.errors import DataError
from lumos.workloads.molhiv import Molhiv
from lumos.workloads.molhiv.alerts import ALERTS, alerts
from lumos.workloads.molhiv.data import csv_molecules, molecule_graph, nci_molecules, parse, scaffold, scaffold_split

ALERTING = {
    "O=[N+]([O-])c1ccccc1": "aromatic nitro",
    "Nc1ccccc1": "aromatic amine",
    "ONc1ccccc1": "aromatic amine",
    "c1ccccc1C1CO1": "three-membered heterocycle",
    "CN(C)N=O": "nitroso",
    "NNc1ccccc1": "unsubstituted heteroatom on a heteroatom",
    "c1ccccc1N=Nc1ccccc1": "azo, azide, diazo or triazene",
    "[N-]=[N+]=NCC": "azo, azide, diazo or triazene",
    "CCCCBr": "aliphatic halide",
    "c1ccc2cc3ccccc3cc2c1": "polycyclic aromatic system",
    "c1ccc2c(c1)ccc1ccccc12": "polycyclic aromatic system",
}
UNDONE = [
    "FC(F)(F)c1ccccc1[N+](=O)[O-]",  # trifluoromethyl beside the nitro group
    "Nc1ccc(S(=O)(=O)O)cc1",  # sulfanilic acid
    "Nc1ccccc1C(=O)O",  # anthranilic acid
    "NNC(=O)c1ccccc1",  # a hydrazide
    "ClC(Cl)Cl",  # chloroform
    "CC(C)(C)Cl",  # fully substituted
    "OS(=O)(=O)c1ccc(cc1)N=Nc1ccc(cc1)S(=O)(=O)O",  # both rings sulfonated
    "OC(=O)c1cccc2cc3ccccc3cc12",  # an acid on the anthracene
]


@pytest.mark.parametrize(("smiles", "name"), ALERTING.items())
def test_alerts_of_known_molecules(smiles, name):
    assert name in alerts(Chem.MolFromSmiles(smiles))


@pytest.mark.parametrize("smiles", [*UNDONE, "c1ccc2ccccc2c1", "CCO", "ON=C1CCCCC1"])
def test_what_undoes_an_alert(smiles):
    assert alerts(Chem.MolFromSmiles(smiles)) == {}


def test_one_sulfonated_ring_does_not_undo_an_azo_group():
    assert alerts(Chem.MolFromSmiles("c1ccccc1N=Nc1ccc(cc1)S(=O)(=O)O"))


def test_alert_atoms_are_the_ones_that_match():
    assert alerts(Chem.MolFromSmiles("CCCCBr")) == {"aliphatic halide": {3, 4}}


@pytest.fixture(scope="module")
def nci():
    return nci_molecules(label_noise=0.0, seed=0)


def test_ncis_molecules_and_their_labels(nci):
    assert len(ALERTS) == 8
    assert len(nci.smiles) == len(set(nci.smiles)) == 4892
    assert 0.18 < nci.labels.mean() < 0.22


def test_label_noise_shuffles_a_tenth_and_keeps_the_positives(nci):
    noisy = nci_molecules(label_noise=0.1, seed=0)
    assert noisy.labels.sum() == nci.labels.sum()
    # A shuffled label is wrong with probability 2 p (1 - p), p = 0.207: 3.3% of all.
    assert 0.02 < (noisy.labels != nci.labels).mean() < 0.045
    other = nci_molecules(label_noise=0.1, seed=1)
    assert (other.labels != noisy.labels).any()


def test_a_limit_draws_molecules(nci):
    few = nci_molecules(label_noise=0.0, seed=0, limit=50)
    assert len(few.smiles) == 50
    assert set(few.smiles) < set(nci.smiles)
    kept = [nci.smiles.index(smiles) for smiles in few.smiles]
    assert kept == sorted(kept)
    assert few.labels.tolist() == nci.labels[kept].tolist()


@pytest.mark.parametrize("smiles", ["CC(=O)Oc1ccccc1C(=O)O", "C/C=C/[C@H](Cl)Br", "[Na+].[Cl-]", "C", "C[N+](C)(C)C"])
def test_graphs_are_ogbs(smiles, ogb):
    theirs, ours = ogb.smiles2graph(smiles), molecule_graph(Chem.MolFromSmiles(smiles), 1)
    assert np.array_equal(ours.x, theirs["node_feat"])
    both = np.stack([ours.edges, ours.edges[:, ::-1]], 1).reshape(-1, 2).T
    assert np.array_equal(both, theirs["edge_index"])
    assert np.array_equal(ours.edge_attr.repeat(2, 0), theirs["edge_feat"])


def test_a_molecule_that_fails_sanitisation_keeps_its_atoms():
    """Aluminium with six bonds, as MoleculeNet's table has some."""
    smiles = "O=C1O[Al]23(O1)(OC(=O)O2)OC(=O)O3"
    assert Chem.MolFromSmiles(smiles) is None
    molecule = parse(smiles)
    assert molecule is not None
    graph = molecule_graph(molecule, 0)
    assert len(graph.x) == 13
    assert (graph.x[:, 0] == 12).sum() == 1  # aluminium, atomic number 13, at place 12
    assert scaffold(smiles) is not None
    assert parse("c1ccccc1(") is None
    assert scaffold("c1ccccc1(") is None


def test_scaffold_split_by_hand():
    """The largest sets first and, of one size, the later ones; of ten molecules eight may train, one validate."""
    # sets: a 0 1 3 8, b 2 6, then e 9, d 7, f 5, c 4
    splits = scaffold_split(["a", "a", "b", "a", "c", "f", "b", "d", "a", "e"])
    assert {k: v.tolist() for k, v in splits.items()} == {"train": [0, 1, 2, 3, 6, 7, 8, 9], "valid": [5], "test": [4]}


def test_a_molecule_without_a_scaffold_entry_is_in_no_split():
    splits = scaffold_split([None, *"abcdefghijk"])
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(1, 12))


def test_too_few_scaffolds():
    with pytest.raises(DataError, match="4 molecules with 1 scaffolds do not fill three splits"):
        scaffold_split(["a"] * 4)


# ---- tables of SMILES ------------------------------------------------------------------------------------------------


def smiles_table(file, rows=40, change=()):
    """NCI's first molecules with every fourth active, and some rows changed."""
    smiles = nci_molecules(0.0, 0).smiles[:rows]
    table = pd.DataFrame({"smiles": smiles, "activity": "CI", "HIV_active": [int(k % 4 == 0) for k in range(rows)]})
    for row, text in change:
        table.loc[row, "smiles"] = text
    table.to_csv(file, index=False)
    return table


def test_a_table_of_smiles_is_read_row_by_row(tmp_path):
    table = smiles_table(tmp_path / "HIV.csv", change=[(5, "O=C1O[Al]23(O1)(OC(=O)O2)OC(=O)O3")])
    workload = Molhiv(data={"cache": tmp_path / "cache"}, smiles=tmp_path / "HIV.csv")
    graphs = workload.graphs
    assert len(graphs) == 40
    assert sum(len(numbers) for numbers in graphs.splits.values()) == 40
    assert graphs.labels.tolist() == table["HIV_active"].tolist()
    for row in (4, 5, 6, 39):
        assert len(graphs[row].x) == parse(table["smiles"][row]).GetNumAtoms()
    assert workload.metric.target == 0.7558
    assert workload.note == "molecules of HIV.csv; tested on scaffolds not trained on"
    mapping = pd.read_csv(next((tmp_path / "cache").rglob("mol.csv.gz")))
    assert mapping["smiles"].tolist() == table["smiles"].tolist()


@pytest.mark.parametrize("named", ["", "HIV.csv"])
def test_the_published_table_is_found_by_its_name_or_its_folder(tmp_path, named):
    table = smiles_table(tmp_path / "HIV.csv")
    workload = Molhiv(data={"source": "public", "root": tmp_path / named, "cache": tmp_path / "cache"})
    assert workload.graphs.labels.tolist() == table["HIV_active"].tolist()
    assert workload.source.source == "public"
    assert workload.files() == [tmp_path / "HIV.csv"]
    assert workload.metric.target == 0.7558
    assert replace(workload, epochs=1).files() == [tmp_path / "HIV.csv"]


def test_an_unreadable_row_keeps_its_number(tmp_path, caplog):
    table = smiles_table(tmp_path / "HIV.csv", change=[(7, "C1CC(")])
    data = {"cache": tmp_path / "cache"}
    with pytest.raises(DataError, match=r"HIV.csv: RDKit cannot read the SMILES of row 8 \(C1CC\(\); mend it, or set"):
        _ = Molhiv(data=data, smiles=tmp_path / "HIV.csv").graphs
    graphs = Molhiv(data={**data, "on_error": "skip"}, smiles=tmp_path / "HIV.csv").graphs
    assert "row 8 (C1CC()" in caplog.text
    assert len(graphs) == 40
    assert len(graphs[7].x) == 0
    assert len(graphs[8].x) == parse(table["smiles"][8]).GetNumAtoms()
    assert graphs.labels.tolist() == table["HIV_active"].tolist()
    assert 7 not in np.concatenate(list(graphs.splits.values()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smiles,active\nCC,1\n", "no column HIV_active, but smiles, active; expected smiles and HIV_active"),
        ("smiles,HIV_active\nCC,1\n,0\n", "row 2 has no SMILES, or an HIV_active that is not 0 or 1"),
        ("smiles,HIV_active\nCC,2\n", "row 1 has no SMILES"),
        ("smiles,HIV_active\n", "no rows"),
        ("", "cannot be read"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        csv_molecules(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("head", "values"),
    [("SMILES,toxic", (0, 1)), ("id,Smiles,outcome", ("inactive", "toxic")), ("smiles,hit", (False, True))],
)
def test_any_column_of_two_values_is_a_label(tmp_path, head, values):
    smiles, first = nci_molecules(0.0, 0, 60).smiles, "7," if head.startswith("id") else ""
    rows = [f"{first}{s},{values[k % 3 == 0]}" for k, s in enumerate(smiles)]
    (tmp_path / "mine.csv").write_text("\n".join([head, *rows]))
    label = head.rsplit(",", 1)[1]
    found = csv_molecules(tmp_path / "mine.csv", label)
    assert list(found.smiles) == list(smiles)
    assert found.labels.tolist() == [int(k % 3 == 0) for k in range(60)]
    workload = Molhiv(data={"cache": tmp_path / "cache"}, smiles=tmp_path / "mine.csv", label=label).tiny()
    assert workload.loaders().source == workload.data.source == "file"
    assert workload.metric.target is None
    assert label in workload.note
    assert not any(word in workload.note for word in ("HIV", "alert"))


def test_a_label_without_a_table_or_with_many_values_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"workload.label=toxic: expected workload.smiles=FILE"):
        Molhiv(label="toxic")
    (tmp_path / "t.csv").write_text("smiles,kind\nCC,a\nCCC,b\nCCCC,c\n")
    with pytest.raises(DataError, match=r"kind has 3 values; expected 0 and 1, or two words"):
        csv_molecules(tmp_path / "t.csv", "kind")
    with pytest.raises(DataError, match=r"no column toxic, but smiles, kind; expected smiles and toxic"):
        csv_molecules(tmp_path / "t.csv", "toxic")


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"workload.smiles=.*none.csv: cannot be read"):
        csv_molecules(tmp_path / "none.csv")


# ---- default data ----------------------------------------------------------------------------------------------------


def test_default_data_have_ogbs_layout_and_read_back_the_same(tmp_path):
    """What is generated is read by the loader of the published data, here as data=public."""
    own = Molhiv(data={"cache": tmp_path / "cache"}).tiny()
    assert own.loaders().sha256
    root = next((tmp_path / "cache").rglob("ogbg_molhiv")).parent
    public = replace(own, data={"source": "public", "root": root, "cache": tmp_path / "other"})
    assert public.loaders().sha256 == own.loaders().sha256
    assert public.metric.target == 0.7558
    assert own.metric.target == 0.8
    assert "not HIV" in own.note
    first, again = (gzip.decompress(f.read_bytes()) for f in (root / "ogbg_molhiv" / "raw").glob("*-list.csv.gz"))
    assert len(first.splitlines()) == len(again.splitlines()) == len(own.graphs) == 300


def test_splits_share_no_scaffold(tmp_path):
    workload = Molhiv(data={"cache": tmp_path}).tiny()
    molecules = nci_molecules(workload.label_noise, 0, workload.molecules)
    found = {split: {scaffold(molecules.smiles[k]) for k in n} for split, n in workload.graphs.splits.items()}
    assert not found["train"] & found["valid"]
    assert not (found["train"] | found["valid"]) & found["test"]
    sizes = [len(n) for n in workload.graphs.splits.values()]
    assert sum(sizes) == 300
    assert sizes[0] == pytest.approx(240, abs=2)
