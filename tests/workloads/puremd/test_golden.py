"""Energies of two systems by an independent code, and the forces of water: kcal/mol and Å."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lumos.workloads.puremd import PureMD
from lumos.workloads.puremd.data import read_system, systems
from lumos.workloads.puremd.forces import analyse, assemble, full_energy


@pytest.fixture(scope="module")
def folder(reference_data: Path) -> Path:
    return reference_data / "puremd"


# Bond, over- and undercoordination, lone pairs; PETN is two cells a side.
@pytest.mark.parametrize(
    ("name", "atoms", "golden"), [("water_300.pdb", 300, -26345.788950), ("petn.data.reax", 464, -68560.543779)]
)
def test_energy_agrees_with_an_independent_code(folder: Path, name: str, atoms: int, golden: float) -> None:
    ((file, forcefield),) = systems(folder / name)
    box, ff = read_system(file, forcefield)
    assert len(box.types) == atoms
    molecules = analyse(box, ff)
    # Measured: 3.3e-7 and 1.6e-6, half a unit of the golden values' last digit and a little more.
    assert molecules.energy == pytest.approx(golden, abs=3e-6)

    x = box.positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(full_energy(replace(box, positions=x), ff), x)
    force = assemble(molecules)
    torch.testing.assert_close(force, gradient, rtol=1e-10, atol=1e-10)
    assert float(force.sum(0).abs().max()) < 1e-11


def test_forces_on_water_agree_with_finite_differences(folder: Path) -> None:
    box, ff = read_system(*systems(folder / "water_300.pdb")[0])
    force, step = assemble(analyse(box, ff)), 1e-5
    for atom, axis in ((0, 0), (7, 1), (150, 2), (299, 0)):
        move = torch.zeros_like(box.positions)
        move[atom, axis] = step
        up, down = (float(full_energy(replace(box, positions=box.positions + s * move), ff)) for s in (1, -1))
        assert abs((up - down) / (2 * step) - float(force[atom, axis])) < 1e-6


@pytest.mark.parametrize("variant", ["inner", "bond"])
def test_the_public_files_make_a_workload(folder: Path, tmp_path: Path, variant: str) -> None:
    data = {"source": "public", "root": folder / "water_300.pdb", "cache": tmp_path}
    workload = PureMD(data=data, variant=variant, replicas=5, rows=1500)
    assert workload.loaders().n_train == 900
    assert workload.loaders().n_test == 300
