import numpy as np
import pytest

from lumos.errors import DataError
from lumos.workloads.cfd.mesh import FAR_FIELD, WALL, Mesh, box_with_bump, read_domn, write_domn


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return box_with_bump((5, 4, 3))


def test_elements_are_closed(mesh: Mesh) -> None:
    assert np.abs(mesh.normal.sum(1)).max() < 1e-14


def test_a_shared_face_has_one_normal_with_two_signs(mesh: Mesh) -> None:
    for element, face in np.argwhere(mesh.neighbour >= 0):
        other = mesh.neighbour[element, face]
        (back,) = np.nonzero(mesh.neighbour[other] == element)[0]
        np.testing.assert_array_equal(mesh.normal[other, back], -mesh.normal[element, face])


def test_the_outer_faces_are_the_floor_and_five_far_sides(mesh: Mesh) -> None:
    """Two triangles a square; the floor is closed by the far field, and both span the same projected area."""
    floor, far = mesh.neighbour == WALL, mesh.neighbour == FAR_FIELD
    assert floor.sum() == 2 * 5 * 3
    assert far.sum() == 2 * (5 * 3 + 2 * 5 * 4 + 2 * 4 * 3)
    np.testing.assert_allclose(mesh.normal[floor].sum(0), [0, -15, 0], atol=1)
    np.testing.assert_allclose(mesh.normal[floor].sum(0) + mesh.normal[far].sum(0), 0, atol=1e-12)


def test_area_is_the_volume_of_the_tetrahedron_with_these_faces(mesh: Mesh) -> None:
    volume = np.sqrt(2 / 9 * np.abs(np.linalg.det(mesh.normal[:, :3])))
    np.testing.assert_allclose(mesh.area, volume, rtol=1e-10)
    assert len(mesh) == 5 * 4 * 3 * 6


def test_the_same_seed_gives_the_same_mesh() -> None:
    one, same, other = (box_with_bump((3, 3, 3), seed=seed).normal for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("cells", [(1, 4, 4), (4, 4), (4, 4, 4, 4)])
def test_a_box_needs_three_sides_of_two_cells(cells: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected three numbers >= 2"):
        box_with_bump(cells)


def test_domn_round_trip(mesh: Mesh, tmp_path) -> None:
    write_domn(mesh, tmp_path / "a.domn")
    again = read_domn(tmp_path / "a.domn")
    for name in ("area", "neighbour", "normal"):
        np.testing.assert_array_equal(getattr(again, name), getattr(mesh, name))
    assert [file.name for file in tmp_path.iterdir()] == ["a.domn"]


def test_domn_elements_need_not_be_a_line_each(mesh: Mesh, tmp_path) -> None:
    write_domn(mesh, tmp_path / "a.domn")
    head, body = (tmp_path / "a.domn").read_text().split("\n", 1)
    (tmp_path / "b.domn").write_text(head + "\n" + "\n".join(body.split()))
    np.testing.assert_array_equal(read_domn(tmp_path / "b.domn").normal, mesh.normal)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: ["many", *lines[1:]], r"line 1: expected the number of elements"),
        (lambda lines: ["0"], r"line 1: expected the number of elements"),
        (lambda lines: lines[:-1], r"expected 17 numbers for each of 360 elements, 6120 in all, got 6103"),
        (lambda lines: [*lines[:3], lines[3] + " 7", *lines[4:]], r"line 4: it has 18 numbers; expected 17"),
        (lambda lines: [*lines[:3], "x" + lines[3], *lines[4:]], r"line 4: expected a number, got 'x"),
        (lambda lines: [*lines[:3], "-" + lines[3], *lines[4:]], r"line 4: expected a finite area > 0"),
        (lambda lines: _neighbour(lines, 9999), r"line 4: a neighbour is not one of the 360 elements"),
        (lambda lines: _neighbour(lines, 3), r"line 4: it is its own neighbour"),
        (lambda lines: _neighbour(lines, 200), r"line 4: a neighbour does not list it in turn"),
        (lambda lines: _neighbour(lines, 1.5), r"line 4: a neighbour is not a whole number"),
        (lambda lines: _neighbour(lines, float("nan")), r"line 4: a neighbour is not a whole number"),
    ],
)
def test_a_bad_domn_file_is_named_with_its_line(mesh: Mesh, tmp_path, change, message: str) -> None:
    path = tmp_path / "bad.domn"
    write_domn(mesh, path)
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(DataError, match=rf"bad\.domn: {message}"):
        read_domn(path)


def _neighbour(lines: list[str], value: float) -> list[str]:
    """The file with the first neighbour of the third element (line 4) replaced."""
    words = lines[3].split()
    return [*lines[:3], " ".join([words[0], str(value), *words[2:]]), *lines[4:]]


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(DataError, match="cannot read it"):
        read_domn(tmp_path / "none.domn")


def test_a_mesh_refuses_contradictions(mesh: Mesh) -> None:
    neighbour = mesh.neighbour.copy()
    neighbour[7, 0] = -3
    with pytest.raises(DataError, match="element 7"):
        Mesh(mesh.area, neighbour, mesh.normal)
