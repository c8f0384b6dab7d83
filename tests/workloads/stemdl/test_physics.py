"""The crystals are what their labels say, and the electrons do what physics says."""

import numpy as np
import pytest
import spglib
from hypothesis import given, settings
from hypothesis import strategies as st

from lumos.workloads.stemdl.crystals import GROUPS, TYPES, Crystal, closest_contact, covalent_radius, random_crystal
from lumos.workloads.stemdl.multislice import (
    ZONES,
    Grid,
    atoms_in_box,
    cbed,
    interaction,
    multislice,
    oriented,
    potential,
    probe,
    projected_potentials,
    wavelength,
)

GRID = Grid(48, 16.0)


def cubic(*atoms: tuple[int, tuple[float, float, float]], a: float = 4.0, rms: float = 0.08) -> Crystal:
    return Crystal("cubic", 221, np.eye(3) * a, np.array([z for z, _ in atoms]), np.array([r for _, r in atoms]), rms)


SIMPLE = cubic((26, (0.0, 0.0, 0.0)), (8, (0.5, 0.5, 0.5)))


# --- constants: Kirkland 2020, table 2.2 and the programs' own output ------------------------------------------------


@pytest.mark.parametrize(("kev", "angstrom"), [(100, 0.037014), (200, 0.025079), (300, 0.019687), (1000, 0.0087192)])
def test_wavelength(kev: float, angstrom: float) -> None:
    assert wavelength(kev) == pytest.approx(angstrom, rel=3e-5)


@pytest.mark.parametrize(("kev", "sigma"), [(100, 0.92440e-3), (200, 0.72884e-3), (300, 0.65262e-3)])
def test_interaction(kev: float, sigma: float) -> None:
    assert interaction(kev) == pytest.approx(sigma, rel=3e-5)


def test_potential_is_that_of_a_screened_charge() -> None:
    """Against the integral of 14.4 Z/r exp(-r/R) over all space."""
    number, radius = 14, 0.468 * 14 ** (-1 / 3)
    r = np.linspace(0, 40 * radius, 400_001)[1:]
    for q in (0.1, 0.7, 2.0):
        wave = np.sinc(2 * q * r)  # sin(2 pi q r) / (2 pi q r)
        charge = 14.399645 * number * r * np.exp(-r / radius)
        integral = 4 * np.pi * np.trapezoid(charge * wave, r)
        assert float(potential(number, np.array([q]))[0]) == pytest.approx(integral, rel=1e-5)


# --- crystals --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: f"{kind.space_group}-{kind.name}")
def test_the_label_is_the_space_group(kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """As spglib finds it from the positions alone."""
    monkeypatch.setattr("lumos.workloads.stemdl.crystals.TYPES", (kind,))
    for seed in range(4):
        crystal = random_crystal(np.random.default_rng(seed), kind.space_group)
        found = spglib.get_symmetry_dataset((crystal.cell, crystal.sites, crystal.numbers), symprec=1e-3)
        assert found.number == kind.space_group == crystal.space_group


def test_there_are_twelve_groups() -> None:
    assert GROUPS == (62, 99, 136, 139, 186, 191, 194, 216, 221, 225, 227, 229)


@given(st.integers(0, 10**6), st.sampled_from(GROUPS))
@settings(max_examples=20, deadline=None)
def test_atoms_keep_their_distance(seed: int, group: int) -> None:
    crystal = random_crystal(np.random.default_rng(seed), group)
    from rdkit.Chem import GetPeriodicTable

    symbols = [GetPeriodicTable().GetElementSymbol(int(number)) for number in crystal.numbers]
    radii = np.array([covalent_radius(symbol) for symbol in symbols])
    assert 0.85 <= closest_contact(crystal.cell, crystal.sites, radii) <= 1.05
    assert np.linalg.det(crystal.cell) > 0


def test_contact_of_a_known_crystal() -> None:
    """Rock salt: neighbours half an edge apart."""
    assert closest_contact(np.eye(3) * 5.6, np.array([[0, 0, 0], [0.5, 0, 0]]), np.array([1.4, 1.4])) == 1.0


# --- the box ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("group", [62, 191, 227])
def test_orientation_is_a_rotation(zone: str, group: int) -> None:
    crystal = random_crystal(np.random.default_rng(1), group)
    cell, period = oriented(crystal, zone)
    np.testing.assert_allclose(cell @ cell.T, crystal.cell @ crystal.cell.T, atol=1e-12)
    assert np.linalg.det(cell) == pytest.approx(np.linalg.det(crystal.cell))
    np.testing.assert_allclose(np.array(ZONES[zone][0]) @ cell, [0, 0, period], atol=1e-12)


@pytest.mark.parametrize("zone", ZONES)
def test_the_box_has_the_crystals_density(zone: str) -> None:
    crystal = random_crystal(np.random.default_rng(2), 186)
    r, numbers, period = atoms_in_box(crystal, zone, 80.0)
    density = len(crystal.numbers) / np.linalg.det(crystal.cell)
    assert len(r) / (80.0**2 * period) == pytest.approx(density, rel=0.06)
    assert len(np.unique(np.round(r, 4), axis=0)) == len(r) == len(numbers)


def test_potential_in_real_space_is_a_sum_over_atoms() -> None:
    """Mean projected potential of the box: V(0) of its atoms over its area."""
    potentials, step = projected_potentials(SIMPLE, "[001]", GRID, 2.0)
    _, numbers, period = atoms_in_box(SIMPLE, "[001]", GRID.width)
    zero = sum(float(potential(int(z), np.zeros(1))[0]) for z in numbers)
    assert len(potentials) == 2
    assert step == period / 2 == 2.0
    assert potentials.sum(0).mean() == pytest.approx(zero / GRID.width**2, rel=1e-9)


# --- electrons -------------------------------------------------------------------------------------------------------


def test_no_crystal_leaves_the_probe_as_it_is() -> None:
    wave = probe(GRID, 150.0, 4.5)
    out = multislice(wave, np.zeros((1, 48, 48)), 150.0, 2.0, GRID, 150.0)
    np.testing.assert_allclose(np.abs(out), np.abs(wave), atol=1e-5)


def test_the_probe_is_a_disk_of_the_semi_angle() -> None:
    """Intensity 1 in all; its area that of a disk of 4.5 mrad in units of pixels."""
    grid = Grid(256, 160.0)
    for energy in (100.0, 190.0):
        wave = np.abs(probe(grid, energy, 4.5)) ** 2
        assert wave.sum() == pytest.approx(1)
        area = np.pi * (4.5e-3 / wavelength(energy) * 160.0) ** 2
        assert (wave > wave.max() / 4).sum() == pytest.approx(area, rel=0.02)


def test_intensity_is_conserved() -> None:
    """Parseval: phase and free space keep the sum; only what is scattered beyond the grid's limit is lost."""
    light = cubic((6, (0.0, 0.0, 0.0)), rms=0.15)
    pattern = cbed(light, "[001]", Grid(128, 16.0), 190.0, 4.5, 100.0, 2.0)
    assert pattern.sum() == pytest.approx(1, abs=1e-4)
    heavy = cbed(cubic((79, (0.0, 0.0, 0.0)), rms=0.05), "[001]", GRID, 100.0, 4.5, 220.0, 2.0)
    assert 0.8 < heavy.sum() < 1


def mirrored(pattern: np.ndarray, axis: int) -> np.ndarray:
    return np.roll(np.flip(pattern, axis), 1, axis)


def test_a_cubic_crystal_has_a_fourfold_pattern() -> None:
    pattern = cbed(SIMPLE, "[001]", GRID, 120.0, 4.5, 150.0, 2.0)
    assert pattern.max() > 100 * np.median(pattern)
    for same in (pattern.T, mirrored(pattern, 0), mirrored(pattern, 1)):
        np.testing.assert_allclose(same, pattern, atol=1e-4 * pattern.max())


def test_a_polar_axis_shows_across_but_not_along() -> None:
    """P4mm: fourfold down c; across it the two ends differ, which Friedel's law hides in thin crystals."""
    crystal = random_crystal(np.random.default_rng(0), 99)
    along = cbed(crystal, "[001]", GRID, 120.0, 4.5, 200.0, 2.0)
    np.testing.assert_allclose(mirrored(along, 0), along, atol=1e-4 * along.max())
    across = cbed(crystal, "[100]", GRID, 120.0, 4.5, 200.0, 2.0)
    assert np.abs(mirrored(across, 0) - across).max() > 1e-2 * across.max()
    np.testing.assert_allclose(mirrored(across, 1), across, atol=1e-4 * across.max())


def test_spots_are_where_bragg_puts_them() -> None:
    """A small aperture's disks stand at multiples of 1/a; with box width 4a, every fourth pixel."""
    pattern = cbed(SIMPLE, "[001]", GRID, 120.0, 0.5, 50.0, 2.0)
    rows, columns = np.nonzero(pattern > 1e-3 * pattern.max())
    assert len(rows) > 8
    assert not ((rows - 24) % 4).any()
    assert not ((columns - 24) % 4).any()


def test_half_thickness_slices_change_little() -> None:
    one, two = (cbed(SIMPLE, "[001]", GRID, 150.0, 4.5, 120.0, dz) for dz in (2.0, 1.0))
    assert np.abs(one - two).sum() < 0.05
