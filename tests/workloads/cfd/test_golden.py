"""The solver against the compiled original: 20 iterations at Mach 1.2 on a mesh in Rodinia's format."""

from pathlib import Path

import numpy as np
import pytest

from lumos.workloads.cfd.mesh import FAR_FIELD, WALL, read_domn
from lumos.workloads.cfd.solver import run


@pytest.fixture(scope="module")
def folder(reference_data: Path) -> Path:
    return reference_data / "cfd"


def test_the_mesh_is_read_whole(folder: Path) -> None:
    mesh = read_domn(folder / "gen.domn")
    assert len(mesh) == 30558
    assert [(mesh.neighbour == kind).sum() for kind in (WALL, FAR_FIELD)] == [108, 3584]
    assert np.abs(mesh.normal.sum(1)).max() < 2e-5  # six digits in the file


def test_twenty_iterations_agree_with_the_original(folder: Path) -> None:
    *_, w = run(read_domn(folder / "gen.domn"), mach=1.2, angle=0.0, iterations=20)
    with np.load(folder / "rodinia_gen_domn_M1.2_it20.npz", allow_pickle=False) as golden:
        difference = np.abs(w - golden["W"]).max(0)
    # Measured: 7.3e-9 in rho, 1.4e-8 in momentum, 2.6e-8 in E.
    assert difference[0] < 1e-8
    assert difference[1:4].max() < 2e-8
    assert difference[4] < 3e-8
