from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lumos.errors import DataError
from lumos.workloads.puremd import INPUTS, OUTPUTS, PureMD
from lumos.workloads.puremd.bond_order import Box, bond_reach, close_pairs, corrected, order_terms, uncorrected
from lumos.workloads.puremd.data import bond_samples, inner_samples
from lumos.workloads.puremd.forcefield import ForceField, published
from lumos.workloads.puremd.forces import Molecules, analyse, assemble, full_energy, neighbour_rows
from lumos.workloads.puremd.molecules import EXCLUSION, build_box, geometry, jitter

MIXTURE = {"H2O": 20, "H2O2": 6, "O2": 2, "H2": 2, "CO2": 2, "CH4": 2, "CH2O": 2}


@pytest.fixture(scope="module")
def ff() -> ForceField:
    return published()


@pytest.fixture(scope="module")
def box(ff: ForceField) -> Box:
    """A mixture with sigma, pi and double-pi bonds, light and heavy atoms."""
    return build_box(MIXTURE, 65.0, 600.0, ff, np.random.default_rng(0))


@pytest.fixture(scope="module")
def molecules(box: Box, ff: ForceField) -> Molecules:
    return analyse(box, ff)


# --- bond orders and forces ------------------------------------------------------------------------------------------


def test_close_pairs_are_those_of_the_nearest_images(box: Box) -> None:
    x, edge = box.positions.numpy(), box.cell.numpy()
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 1, 1, 3) * edge
    distance = np.sqrt(((x[None, :, None] - x[None, None] + shifts) ** 2).sum(-1)).min(0)
    for reach in (5.0, 1.3):
        expected = np.argwhere((distance <= reach) & ~np.eye(len(x), dtype=bool))
        found = close_pairs(box, torch.full((3, 3), reach, dtype=torch.float64))
        np.testing.assert_array_equal(torch.stack(found, 1).numpy(), expected)


def test_no_bond_is_longer_than_its_reach(box: Box, ff: ForceField) -> None:
    """The reach of two types leaves out no pair that a search up to 5 Å finds."""
    reach = bond_reach(ff)
    r = torch.linspace(0.5, 5.0, 2000, dtype=torch.float64)
    for a in range(3):
        for b in range(3):
            orders = sum(term for term, _ in order_terms(ff, (torch.full((2000,), a), torch.full((2000,), b)), r))
            assert float(r[orders >= ff.cutoff].max()) < float(reach[a, b]) < 5.0


def test_every_bond_is_there_both_ways(molecules: Molecules) -> None:
    b = molecules.bonds
    torch.testing.assert_close(b.i[b.reverse], b.j)
    torch.testing.assert_close(b.j[b.reverse], b.i)
    torch.testing.assert_close(b.order[b.reverse], b.order)
    torch.testing.assert_close(b.d_order[b.reverse], -b.d_order)
    assert bool((b.p > 1e-3).any())
    assert bool((b.q > 1e-3).any())


def test_bond_orders_are_those_of_chemistry(ff: ForceField) -> None:
    """Lone molecules: single bonds in water and hydrogen, about double ones in oxygen and carbon dioxide."""
    for name, low, high in (("H2O", 0.9, 1.01), ("H2", 0.9, 1.01), ("O2", 1.3, 2.1), ("CO2", 1.6, 2.4)):
        symbols, places = geometry(name)
        alone = Box(torch.from_numpy(places) + 10, ff.types(symbols, name), torch.full((3,), 20.0, dtype=torch.float64))
        bonds = uncorrected(alone, ff)
        order = corrected(alone, ff, bonds).order[bonds.i == 0]
        assert low < float(order.max()) < high, (name, order)


def test_assembled_forces_are_the_gradient_of_the_energy(box: Box, ff: ForceField, molecules: Molecules) -> None:
    x = box.positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(full_energy(replace(box, positions=x), ff), x)
    torch.testing.assert_close(assemble(molecules), gradient, rtol=1e-10, atol=1e-9)


def test_forces_agree_with_finite_differences(box: Box, ff: ForceField, molecules: Molecules) -> None:
    force, step = assemble(molecules), 1e-5
    for atom, axis in ((0, 0), (7, 1), (31, 2), (60, 0)):
        move = torch.zeros_like(box.positions)
        move[atom, axis] = step
        up, down = (float(full_energy(replace(box, positions=box.positions + s * move), ff)) for s in (1, -1))
        assert abs((up - down) / (2 * step) - float(force[atom, axis])) < 1e-5


def test_forces_sum_to_zero(molecules: Molecules) -> None:
    assert float(assemble(molecules).sum(0).abs().max()) < 1e-10


def test_a_bond_has_one_coefficient_for_pi_and_double_pi(molecules: Molecules) -> None:
    torch.testing.assert_close(molecules.orders.c1dbopi, molecules.orders.c1dbopi2, rtol=0, atol=0)
    column = dict(zip(INPUTS["bond"], bond_samples(molecules)[0].T, strict=True))
    torch.testing.assert_close(column["C1dbopi"], column["C1dbopi2"], rtol=0, atol=0)


def test_the_inner_loop_visits_the_neighbours_of_a_bonds_atom(molecules: Molecules) -> None:
    b = molecules.bonds
    edge, k = neighbour_rows(b, len(molecules.box.types))
    assert [(int(e), int(n)) for e, n in zip(edge, k, strict=True)] == [
        (e, n) for e in range(len(b.i)) for n in torch.nonzero(b.i == b.i[e])[:, 0].tolist()
    ]


def test_inner_samples_are_the_pull_on_the_neighbours(molecules: Molecules) -> None:
    """Their sum over the loop, with the bonds' own part, is the whole force: nothing is left out or counted twice."""
    inputs, new = inner_samples(molecules)
    b, atoms = molecules.bonds, len(molecules.box.types)
    _, k = neighbour_rows(b, atoms)
    row = dict(zip(INPUTS["inner"], inputs.T, strict=True))
    total = row["c_dbo"] + row["c_ddelta"] + row["c_dbopi"] + row["c_dbopi2"]
    torch.testing.assert_close(new[:, 1], -total * row["dbop_k_y"])
    torch.testing.assert_close(inputs[1:, 7:], new[:-1])
    force = torch.zeros(atoms, 3, dtype=torch.float64).index_add(0, b.j[k], new)
    _, own = bond_samples(molecules)
    once = b.i < b.j
    force = force.index_add(0, b.i[once], own[:, :3]).index_add(0, b.j[once], own[:, 3:])
    torch.testing.assert_close(force, assemble(molecules))


def test_a_bond_is_described_by_its_own_31_numbers(molecules: Molecules) -> None:
    """The kernel's formula, written out once more, from the named inputs alone."""
    inputs, outputs = bond_samples(molecules)
    c = dict(zip(INPUTS["bond"], inputs.T, strict=True))
    both = c["Cdbo"] + c["CdDelta_i"] + c["CdDelta_j"]
    along = c["C1dbo"] * both + c["C2dbopi"] * c["Cdbopi"] + c["C2dbopi2"] * c["Cdbopi2"]
    at_i = c["C2dbo"] * both + c["C3dbopi"] * c["Cdbopi"] + c["C3dbopi2"] * c["Cdbopi2"]
    at_j = c["C3dbo"] * both + c["C4dbopi"] * c["Cdbopi"] + c["C4dbopi2"] * c["Cdbopi2"]
    for k, axis in enumerate("xyz"):
        a = along * c[f"dBOp_{axis}"] + c["C1dbopi"] * c["Cdbopi"] * c[f"dln_pi_{axis}"]
        a = a + c["C1dbopi2"] * c["Cdbopi2"] * c[f"dln_pi2_{axis}"]
        torch.testing.assert_close(outputs[:, k], a + at_i * c[f"dDeltap_self_i_{axis}"])
        torch.testing.assert_close(outputs[:, 3 + k], -a + at_j * c[f"dDeltap_self_j_{axis}"])


def test_a_narrow_box_is_refused(box: Box, ff: ForceField) -> None:
    with pytest.raises(DataError, match="repeat the cell"):
        analyse(replace(box, cell=torch.tensor([9.0, 20.0, 20.0], dtype=torch.float64)), ff)


def test_atoms_in_one_place_are_refused(box: Box, ff: ForceField) -> None:
    x = box.positions.clone()
    x[1] = x[0]
    with pytest.raises(DataError, match="same place"):
        analyse(replace(box, positions=x), ff)


# --- molecules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "a", "b", "length"),
    [("H2O", 0, 1, 0.958), ("H2O2", 0, 1, 1.475), ("H2O2", 1, 3, 0.950), ("CH4", 0, 4, 1.087), ("CH2O", 0, 1, 1.205)],
)
def test_bond_lengths(name: str, a: int, b: int, length: float) -> None:
    _, places = geometry(name)
    assert np.linalg.norm(places[a] - places[b]) == pytest.approx(length)


def test_peroxide_is_not_flat() -> None:
    _, (o1, o2, h1, h2) = geometry("H2O2")
    axis = (o2 - o1) / np.linalg.norm(o2 - o1)
    one, other = (v - (v @ axis) * axis for v in (h1 - o1, h2 - o2))
    assert np.degrees(np.arccos(one @ other / np.linalg.norm(one) / np.linalg.norm(other))) == pytest.approx(119.8)
    assert np.degrees(np.arccos((h2 - o2) @ -axis / 0.950)) == pytest.approx(94.8)


def test_molecules_keep_their_distance_and_seeds_decide(ff: ForceField) -> None:
    counts = {"H2O": 40}
    cold, same, other = (build_box(counts, 40.0, 0.0, ff, np.random.default_rng(seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(cold.positions, same.positions, rtol=0, atol=0)
    assert not torch.equal(cold.positions, other.positions)
    d = cold.positions[:, None] - cold.positions
    d = (d - cold.cell * torch.round(d / cold.cell)).square().sum(-1).sqrt()
    own = torch.arange(len(d)) // 3
    assert float(d[own[:, None] != own].min()) >= min(EXCLUSION.values())


def test_jitter_is_that_of_an_oscillator() -> None:
    """300 K, 1500/cm: 0.056 Å for hydrogen, four times less for oxygen; grows with the root of temperature."""
    hydrogen, oxygen = jitter(np.array([1.008, 15.999]), 300.0)
    assert hydrogen == pytest.approx(0.0557, abs=1e-4)
    assert hydrogen / oxygen == pytest.approx((15.999 / 1.008) ** 0.5)
    assert jitter(np.array([1.008]), 1200.0)[0] == pytest.approx(2 * hydrogen)


@pytest.mark.parametrize(
    ("counts", "volume", "message"),
    [
        ({"H2O": 100}, 12.0, "set workload.volume to more"),
        ({"H2O": 8}, 40.0, "more molecules"),
        ({"XeF2": 9}, 40.0, "XeF2"),
    ],
)
def test_boxes_that_cannot_be(counts: dict, volume: float, message: str, ff: ForceField) -> None:
    with pytest.raises(DataError, match=message):
        build_box(counts, volume, 300.0, ff, np.random.default_rng(0))


# --- the workload ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "inputs", "outputs"), [("inner", 10, 3), ("bond", 31, 6)])
def test_samples_have_the_named_columns(cache: Path, variant: str, inputs: int, outputs: int) -> None:
    workload = PureMD(data={"cache": cache}, variant=variant).tiny()
    splits = workload.splits
    assert splits.train.inputs.shape == (800, inputs) == (800, len(INPUTS[variant]))
    assert splits.train.outputs.shape == (800, outputs) == (800, len(OUTPUTS[variant]))
    assert (len(splits.valid), len(splits.test)) == (100, 100)
    assert set(workload.baselines()) == {"mean", "linear"}


def test_generation_is_deterministic_and_goes_on_where_it_stopped(cache: Path, tmp_path: Path) -> None:
    expected = PureMD(data={"cache": cache}).tiny().loaders().sha256
    assert PureMD(data={"cache": tmp_path}).tiny().loaders().sha256 == expected
    shards = sorted(tmp_path.rglob("*.h5"))
    assert len(shards) == 10
    times = {shard: shard.stat().st_mtime_ns for shard in shards[1:]}
    shards[0].unlink()
    assert PureMD(data={"cache": tmp_path}).tiny().loaders().sha256 == expected
    assert {shard: shard.stat().st_mtime_ns for shard in times} == times
    shards[3].write_bytes(b"not a shard")
    assert PureMD(data={"cache": tmp_path}).tiny().loaders().sha256 == expected
    assert {shard: shard.stat().st_mtime_ns for shard in times if shard != shards[3]} == {
        shard: time for shard, time in times.items() if shard != shards[3]
    }


def test_another_seed_gives_other_samples(cache: Path, tmp_path: Path) -> None:
    one, other = (PureMD(data={"cache": cache}, seed=seed).tiny().loaders().sha256 for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, "workload.rows=0"),
        ({"replicas": 2}, "workload.replicas=2"),
        ({"widths": ()}, "workload.widths"),
        ({"kelvin": (600.0, 300.0)}, "workload.kelvin"),
        ({"volume": 0.0}, "workload.volume"),
        ({"molecules": {"XeF2": 3}}, "XeF2 is unknown"),
        ({"molecules": {"H2O": -3}}, "workload.molecules.H2O=-3"),
    ],
)
def test_settings_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        PureMD(**settings)


def test_more_rows_than_a_replica_has(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rows of one replica"):
        _ = PureMD(data={"cache": tmp_path}, molecules={"H2O": 30}, replicas=3).splits
