"""The wave optics behind the images of laser optics, against theory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumos.workloads.optical.beamline import CROP, PIXEL, PLANE, BeamLine, Session, draw_pits
from lumos.workloads.optical.optics import (
    WAVELENGTH,
    Camera,
    Grid,
    Pit,
    damage,
    dusty_camera,
    fresnel,
    kolmogorov_power,
    kolmogorov_screen,
    structure_function,
    super_gaussian,
)

GRID = Grid(48, 64, 50e-6)


def random_wave(seed: int, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


@pytest.mark.slow
def test_a_screens_structure_function_is_kolmogorovs_within_error_bars() -> None:
    """6.88 (r / r0)^(5/3) for r from 4 spacings (a tenth is missing below) to a fifth of the plane."""
    r0, lags = 1e-3, np.array([4, 6, 9, 13])
    grid = Grid(64, 64, 50e-6)
    rng = np.random.default_rng(0)
    found = np.array([structure_function(kolmogorov_screen(rng, grid, r0), lags) for _ in range(300)])
    theory = 6.88 * (lags * grid.spacing / r0) ** (5 / 3)
    error = found.std(0) / np.sqrt(len(found))
    assert (error < 0.05 * theory).all()  # tight enough to mean something
    assert (np.abs(found.mean(0) - theory) < 3 * error).all()


def test_the_structure_function_of_a_ramp_is_a_parabola() -> None:
    ramp = np.broadcast_to(np.arange(30.0)[None, :], (20, 30))
    # Nothing along columns, n^2 along rows, and their mean.
    np.testing.assert_allclose(structure_function(ramp, np.array([1, 2, 5])), np.array([1, 4, 25]) / 2)


def test_r0_scales_the_phase() -> None:
    """D ~ r0^(-5/3), so that half of r0 is 2^(5/6) of the phase, for the same draw."""
    fine, coarse = (kolmogorov_screen(np.random.default_rng(1), GRID, r0) for r0 in (1e-3, 2e-3))
    np.testing.assert_allclose(fine, coarse * 2 ** (5 / 6), rtol=1e-9)
    assert kolmogorov_power(np.array([2.0]), 1.0) / kolmogorov_power(np.array([1.0]), 1.0) == pytest.approx(
        2 ** (-11 / 3)
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), distance=st.floats(-2.0, 2.0))
def test_propagation_conserves_energy_and_can_be_undone(seed: int, distance: float) -> None:
    wave = random_wave(seed)
    there = fresnel(wave, 50e-6, distance)
    assert np.sum(np.abs(there) ** 2) == pytest.approx(np.sum(np.abs(wave) ** 2), rel=1e-6)
    np.testing.assert_allclose(fresnel(there, 50e-6, -distance), wave, atol=1e-4)


def test_two_steps_are_one_longer_step() -> None:
    wave = random_wave(3)
    np.testing.assert_allclose(fresnel(fresnel(wave, 50e-6, 0.3), 50e-6, 0.5), fresnel(wave, 50e-6, 0.8), atol=1e-4)


def test_a_gaussian_beam_widens_as_it_must() -> None:
    """Waist w0 becomes w0 sqrt(1 + (z / z_R)^2), z_R = pi w0^2 / lambda."""
    grid, waist, z = Grid(256, 256, 20e-6), 0.4e-3, 0.6
    wave = fresnel(super_gaussian(grid, 0.0, 0.0, waist, 2.0).astype(np.complex128), grid.spacing, z)
    intensity = np.abs(wave) ** 2
    x, _ = grid.around()
    # The intensity is exp(-2 r^2 / w^2): the variance along x is w^2 / 4.
    width = 2 * np.sqrt((intensity * x**2).sum() / intensity.sum())
    rayleigh = np.pi * waist**2 / WAVELENGTH
    assert width == pytest.approx(waist * np.sqrt(1 + (z / rayleigh) ** 2), rel=1e-4)


def test_a_tilted_wave_walks_away() -> None:
    """A phase of 2 pi f x moves light by lambda f z."""
    grid, z = Grid(128, 256, 20e-6), 0.5
    x, _ = grid.around()
    f = 8 / (256 * grid.spacing)  # a whole number of periods
    beam = super_gaussian(grid, 0.0, 0.0, 0.5e-3, 2.0) * np.exp(2j * np.pi * f * x)
    intensity = np.abs(fresnel(beam, grid.spacing, z)) ** 2
    assert (intensity * x).sum() / intensity.sum() == pytest.approx(WAVELENGTH * f * z, rel=1e-3)


def test_a_super_gaussian_is_flat_inside_and_one_e_th_at_its_radius() -> None:
    grid = Grid(101, 101, 10e-6)
    amplitude = super_gaussian(grid, 0.0, 0.0, 300e-6, 10.0)
    assert amplitude[50, 50] == 1
    assert amplitude[50, 60] > 0.999
    assert amplitude[50, 80] == pytest.approx(np.exp(-1))
    assert amplitude[50, 100] < 1e-6


def test_a_pit_covers_its_area_and_bulges_around_it() -> None:
    grid = Grid(101, 101, 5e-6)
    opaque = np.abs(damage(grid, [Pit(0.0, 0.0, 100e-6, 0.0, 0.0)]))
    covered = (1 - opaque).sum() * grid.spacing**2
    assert covered == pytest.approx(np.pi * (100e-6) ** 2, rel=0.01)
    bulge = np.angle(damage(grid, [Pit(0.0, 0.0, 50e-6, 1.0, 0.8)]))
    assert bulge[50, 50] == pytest.approx(0.8, rel=1e-5)
    assert bulge[50, 65] == pytest.approx(0.8 * np.exp(-0.5), rel=1e-5)  # 75 um, one and a half radii
    np.testing.assert_array_equal(damage(grid, []), 1)


def test_the_camera_counts_photons_and_saturates() -> None:
    camera = Camera(np.ones((200, 200)), full_well=8000.0, read_noise=5.0, pedestal=32.0)
    counts = camera.expose(np.full((200, 200), 0.5), 1.0, np.random.default_rng(0)).astype(float)
    gain = (4095 - 32) / 8000
    assert counts.mean() == pytest.approx(32 + 4000 * gain, rel=1e-3)
    # Electrons have the variance of their mean, and the reading's; then a rounding of 1/12.
    assert counts.var() == pytest.approx((4000 + 25) * gain**2 + 1 / 12, rel=0.03)
    bright = camera.expose(np.full((200, 200), 5.0), 1.0, np.random.default_rng(0))
    assert bright.dtype == np.uint16
    assert bright.min() == bright.max() == 4095


def test_dust_darkens_where_it_is_and_the_vignette_the_corners() -> None:
    camera = dusty_camera(np.random.default_rng(0), Grid(120, 160, 66e-6))
    assert camera.response.min() < 0.6
    clean = dusty_camera(np.random.default_rng(0), Grid(120, 160, 66e-6), grains=0).response
    assert clean[0, 0] == pytest.approx(0.7, abs=0.01)
    assert clean.max() == pytest.approx(1.0, abs=1e-3)


def test_a_shot_is_12_bit_lies_in_the_crop_and_follows_from_its_seed() -> None:
    line = BeamLine((49, 66))
    session = Session.draw(np.random.default_rng(4))
    one, two, other = (line.shot(session, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    assert one.shape == (49, 66)
    assert one.dtype == np.uint16
    assert one.max() <= 4095
    light = one.astype(float) - np.median(one)
    assert light[15:35, 27:47].sum() > 0.97 * light.sum()


def test_a_smaller_plane_shows_the_same_scene() -> None:
    small = BeamLine((49, 66))
    assert small.spacing * 66 == pytest.approx(PIXEL * PLANE[1])
    x, y = small.middle
    assert x == pytest.approx(((CROP[2] + CROP[3]) / 2 - PLANE[1] / 2) * PIXEL)
    assert y == pytest.approx(((CROP[0] + CROP[1]) / 2 - PLANE[0] / 2) * PIXEL)


def test_pits_are_one_to_three_in_the_beam_and_of_the_size_said() -> None:
    session = Session.draw(np.random.default_rng(0))
    draws = [draw_pits(np.random.default_rng(seed), session) for seed in range(200)]
    assert {len(pits) for pits in draws} == {1, 2, 3}
    for pit in (pit for pits in draws for pit in pits):
        assert 30e-6 <= pit.radius <= 225e-6
        assert np.hypot(pit.x - session.x, pit.y - session.y) <= 0.85 * session.radius


def test_damage_changes_an_image_where_the_pit_is() -> None:
    """The same wave with and without: light far from the pit stays, light behind it goes."""
    grid = Grid(128, 128, 40e-6)
    wave = super_gaussian(grid, 0.0, 0.0, 2e-3, 8.0).astype(np.complex64)
    pit = Pit(0.5e-3, 0.0, 0.2e-3, 0.1, 0.0)
    clean, damaged = (np.abs(fresnel(w, grid.spacing, 0.1)) ** 2 for w in (wave, wave * damage(grid, [pit])))
    change = np.abs(damaged - clean)
    dx, dy = grid.around(pit.x, pit.y)
    near = np.hypot(dx, dy) < 0.4e-3
    assert change[near].mean() > 20 * change[~near].mean()
