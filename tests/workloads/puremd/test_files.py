from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lumos.errors import DataError
from lumos.workloads.puremd import PureMD, parameters
from lumos.workloads.puremd.bond_order import Box
from lumos.workloads.puremd.data import systems
from lumos.workloads.puremd.files import read_data, read_pdb
from lumos.workloads.puremd.forcefield import ForceField, published, read_forcefield
from lumos.workloads.puremd.forces import analyse
from lumos.workloads.puremd.molecules import build_box


@pytest.fixture(scope="module")
def ff() -> ForceField:
    return published()


@pytest.fixture(scope="module")
def box(ff: ForceField) -> Box:
    counts = {"H2O": 30, "CO2": 4, "CH4": 4}
    return build_box(counts, 60.0, 300.0, ff, np.random.default_rng(0))


def forcefield_text() -> str:
    """The built-in table in the layout of a force field file; what the reader does not need is zero."""
    lines = ["made for a test", "39 ! general"]
    lines += [f"{parameters.GENERAL.get(n, 0.0)} ! {n}" for n in range(39)]
    lines += [f"{len(parameters.ATOMS)} ! atoms", "x", "x", "x"]
    for name, values in parameters.ATOMS.items():
        a = dict(zip(parameters.ATOM_COLUMNS, values, strict=True))
        lines += [
            f"{name} {a['r_s']} {a['val']} {a['mass']} 0 0 0 {a['r_p']} {a['val_e']}",
            f"0 0 {a['val_boc']} {a['ovun5']} 0 0 0 0",
            f"{a['r_pp']} {a['lp2']} 0 {a['b131']} {a['b132']} {a['b133']} 0 0",
            f"{a['ovun2']} 0 0 {a['val_val']} 0 0 0 0",
        ]
    number = {name: n + 1 for n, name in enumerate(parameters.ATOMS)}
    lines += [f"{len(parameters.BONDS)} ! bonds", "x"]
    for (one, other), values in parameters.BONDS.items():
        lines += [
            f"{number[one]} {number[other]} " + " ".join(str(v) for v in values[:8]),
            " ".join(str(v) for v in (*values[8:11], 1.0, *values[11:], 0.0)),
        ]
    lines += [f"{len(parameters.RADII)} ! off-diagonal"]
    lines += [f"{number[a]} {number[b]} 0 0 0 {' '.join(map(str, r))}" for (a, b), r in parameters.RADII.items()]
    return "\n".join(lines) + "\n0 ! angles\n"


def pdb_text(box: Box, ff: ForceField) -> str:
    cell = "".join(f"{c:9.4f}" for c in box.cell.tolist())
    lines = [f"CRYST1{cell}  90.00  90.00  90.00"]
    for n, (kind, (x, y, z)) in enumerate(zip(box.types.tolist(), box.positions.tolist(), strict=True), 1):
        lines.append(f"ATOM  {n:5d}  {ff.elements[kind]:<4}REX     1    {x:8.5f}{y:8.5f}{z:8.5f}  1.00  0.00")
    return "\n".join(lines) + "\nEND\n"


@pytest.fixture
def folder(tmp_path: Path, box: Box, ff: ForceField) -> Path:
    (tmp_path / "ffield").write_text(forcefield_text())
    (tmp_path / "mixture.pdb").write_text(pdb_text(box, ff))
    return tmp_path


def test_a_force_field_file_reads_as_the_table_it_was_made_from(folder: Path, ff: ForceField) -> None:
    read = read_forcefield(folder / "ffield")
    assert read.elements == ff.elements
    torch.testing.assert_close(read.known, ff.known)
    torch.testing.assert_close(read.general[:33], ff.general)
    for group in ("atom", "pair"):
        for name, values in getattr(ff, group).items():
            torch.testing.assert_close(getattr(read, group)[name], values, rtol=0, atol=0)


def test_a_pdb_file_reads_with_columns_that_abut(folder: Path, box: Box, ff: ForceField) -> None:
    read = read_pdb(folder / "mixture.pdb", ff)
    torch.testing.assert_close(read.types, box.types)
    torch.testing.assert_close(read.positions, box.positions, rtol=0, atol=6e-6)
    torch.testing.assert_close(read.cell, box.cell, rtol=0, atol=6e-5)


def test_a_small_cell_is_repeated(tmp_path: Path, ff: ForceField) -> None:
    text = "t\n\n2 atoms\n0 6 xlo xhi\n-1 10 ylo yhi\n0 4 zlo zhi\n\nMasses\n\n1 1.008\n2 16\n\nAtoms # charge\n\n"
    (tmp_path / "a.data").write_text(text + "1 2 0.0 1 1 1\n2 1 0.0 1.9 1 1\n")
    box = read_data(tmp_path / "a.data", ff)
    assert box.cell.tolist() == [12.0, 11.0, 12.0]
    assert len(box.types) == 2 * 2 * 1 * 3
    assert [ff.elements[kind] for kind in box.types[:2].tolist()] == ["O", "H"]
    analyse(box, ff)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.replace("CRYST1", "REMARK"), "no CRYST1 record"),
        (lambda t: t.replace("  90.00  90.00  90.00", "  90.00  90.00 120.00"), r":1: angles"),
        (lambda t: t.replace("  H   REX", "  Xe  REX", 1), "no parameters for"),
        (
            lambda t: "\n".join(line[:40] if n == 4 else line for n, line in enumerate(t.splitlines())),
            r":5: three coord",
        ),
        (lambda t: "\n".join(t.splitlines()[:2]), "1 atoms; expected at least 2"),
    ],
)
def test_a_damaged_pdb_is_one_clear_line(folder: Path, ff: ForceField, edit: Callable, message: str) -> None:
    path = folder / "mixture.pdb"
    path.write_text(edit(path.read_text()))
    with pytest.raises(DataError, match=message) as error:
        read_pdb(path, ff)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t[:300], "the file ends where"),
        (lambda t: t.replace("39 ! general", "many ! general"), "ffield:2: expected the number of general"),
        (lambda t: t.replace("1.3825", "1.38.25"), "an atom's first line"),
        (lambda t: t.replace("6 ! bonds", "7 ! bonds"), "ffield:.*a bond"),
        (lambda t: t.replace("1 1 156.5953", "1 9 156.5953"), "names types 1 9; expected 1 to 3"),
    ],
)
def test_a_damaged_force_field_is_one_clear_line(folder: Path, edit: Callable, message: str) -> None:
    path = folder / "ffield"
    path.write_text(edit(path.read_text()))
    with pytest.raises(DataError, match=message) as error:
        read_forcefield(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t\n0 20 xlo xhi\n", "bounds of the box are missing"),
        ("t\nMasses\n\n1 1.0\n\nAtoms\n\n1 2 0 0 0 0\n", ":8: type 2 has no entry"),
        ("t\nMasses\n\n1 1.0\n\nAtoms\n\n1 1 0 0 0\n", ":8: 5 columns"),
        ("t\n0 20 xlo xhi\n0 20 ylo yhi\n0 20 zlo zhi\nMasses\n\n1 99.0\n", "no element of mass 99.0"),
    ],
)
def test_a_damaged_data_file_is_one_clear_line(tmp_path: Path, ff: ForceField, text: str, message: str) -> None:
    (tmp_path / "a.data").write_text(text)
    with pytest.raises(DataError, match=message):
        read_data(tmp_path / "a.data", ff)


def test_missing_files_are_one_clear_line(tmp_path: Path, ff: ForceField) -> None:
    for read in (lambda: read_pdb(tmp_path / "a.pdb", ff), lambda: read_forcefield(tmp_path / "ffield")):
        with pytest.raises(DataError, match="cannot be read"):
            read()


def test_atoms_find_their_force_field(tmp_path: Path) -> None:
    for name in ("ffield.water", "petn.ffield.reax", "water_300.pdb", "petn.data.reax"):
        (tmp_path / name).touch()
    found = [(atoms.name, field.name) for atoms, field in systems(tmp_path)]
    assert found == [("petn.data.reax", "petn.ffield.reax"), ("water_300.pdb", "ffield.water")]
    assert systems(tmp_path / "water_300.pdb") == [(tmp_path / "water_300.pdb", tmp_path / "ffield.water")]
    (tmp_path / "ice.pdb").touch()
    with pytest.raises(DataError, match=r"2 force fields beside it .* workload.force_field=NAME"):
        systems(tmp_path)
    chosen = systems(tmp_path, "ffield.water")
    assert {field.name for _, field in chosen} == {"ffield.water"}
    assert len(chosen) == 3
    with pytest.raises(DataError, match=r"workload.force_field=ffield.ice: not beside"):
        systems(tmp_path, "ffield.ice")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file of atoms there"):
        systems(tmp_path / "empty")


def test_a_published_folder_of_many_force_fields_has_one_of_its_own(tmp_path: Path) -> None:
    for name in ("ffield.water", "ffield_Achtyl", "ffield_acks2.water", "ffield_acks2_300.water", "water_6540.pdb"):
        (tmp_path / name).touch()
    assert systems(tmp_path) == [(tmp_path / "water_6540.pdb", tmp_path / "ffield.water")]
    (tmp_path / "ffield.water").unlink()
    with pytest.raises(DataError, match="3 force fields beside it"):
        systems(tmp_path)
    (tmp_path / "data.reax").touch()
    found = {atoms.name for atoms, _ in systems(tmp_path, "ffield_Achtyl")}
    assert found == {"data.reax", "water_6540.pdb"}
    for field in tmp_path.glob("*ffield*"):
        field.unlink()
    with pytest.raises(DataError, match="no force field beside it"):
        systems(tmp_path)


@pytest.mark.parametrize(
    ("record", "edge"),
    [
        ("CRYST1   40.299   40.299   40.299  90.00  90.00  90.00", 40.299),
        ("CRYST1  100.0000  100.0000  100.0000  90.00  90.00  90.00 P 1", 100.0),  # wider than the format
        ("CRYST110000.00010000.00010000.000  90.00  90.00  90.00", 10000.0),  # numbers that abut
    ],
)
def test_the_cell_is_read_in_columns_or_between_spaces(
    record: str, edge: float, tmp_path: Path, ff: ForceField
) -> None:
    atoms = [f"ATOM  {n:5d}  O   HOH     1    {n:8.3f}{n:8.3f}{n:8.3f}  1.00  0.00           O" for n in (1, 4)]
    (tmp_path / "a.pdb").write_text("\n".join([record, *atoms]))
    assert read_pdb(tmp_path / "a.pdb", ff).cell.tolist() == pytest.approx([edge] * 3)


def test_public_atoms_make_a_workload(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = {"source": "public", "root": folder, "cache": folder / "cache"}
    loaders = PureMD(data=data).tiny().loaders()
    assert loaders.source == "public"
    assert loaders.n_test == 100
    (folder / "broken.pdb").write_text("nothing")
    with pytest.raises(DataError, match="no CRYST1"):
        _ = PureMD(data=data).tiny().splits
    assert len(PureMD(data={**data, "on_error": "skip"}).tiny().splits.train) == 800
    assert "left out" in caplog.text
