"""CosmoFlow's universes: spectrum, growth, displacements, counts."""

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from lumos.workloads.common.random_fields import gaussian_field, gaussian_modes, measured_power
from lumos.workloads.cosmoflow.data import augmented
from lumos.workloads.cosmoflow.model import CosmoNet
from lumos.workloads.cosmoflow.summary import power_and_counts, ridge
from lumos.workloads.cosmoflow.universe import (
    Cosmology,
    counts,
    displacement,
    place,
    second_order_source,
    top_hat_sigma,
)

PLANCKISH = Cosmology(0.3, 0.8, 0.96, 70.0)


def test_parameters_are_drawn_around_their_centres() -> None:
    cosmology = Cosmology.at([0, 1, -1, 0.5])
    assert (cosmology.omega_m, cosmology.sigma_8) == (0.3, pytest.approx(0.88))
    assert (cosmology.n_s, cosmology.h0) == (pytest.approx(0.864), pytest.approx(73.5))


def test_growth_in_a_universe_of_matter_alone_is_the_scale_factor() -> None:
    matter = Cosmology(1.0, 0.8, 1.0, 70.0)
    for z in (0.0, 0.5, 1.5, 3.0):
        assert matter.growth(z) == pytest.approx(1 / (1 + z), rel=1e-12)
        assert matter.second_growth(z) == pytest.approx(-3 / 7 / (1 + z) ** 2, rel=1e-12)


@pytest.mark.parametrize("omega_m", [0.27, 0.33])
@pytest.mark.parametrize("z", [0.5, 1.5, 3.0])
def test_growth_agrees_with_its_integral(omega_m: float, z: float) -> None:
    def hubble(a: float) -> float:
        return np.sqrt(omega_m / a**3 + 1 - omega_m)

    def exact(a: float) -> float:
        return hubble(a) * quad(lambda b: (b * hubble(b)) ** -3, 0, a)[0]

    # The fit of Carroll, Press and Turner is good to about a percent.
    assert Cosmology(omega_m, 0.8, 1, 70).growth(z) == pytest.approx(exact(1 / (1 + z)) / exact(1), rel=5e-3)


def test_transfer_function_has_its_limits() -> None:
    k = np.array([1e-6, 1e-2, 1.0, 1e3])
    transfer = PLANCKISH.transfer(k)
    assert transfer[0] == pytest.approx(1, abs=1e-5)
    assert (np.diff(transfer) < 0).all()
    # On small scales T ~ ln k / k^2.
    assert transfer[3] / transfer[2] == pytest.approx(1e-6 * np.log(1e3), rel=3)


def test_transfer_function_at_a_value_worked_out_by_hand() -> None:
    # omega_m h^2 = .147, omega_b h^2 = .02205: s = 44.5 ln(66.871)/sqrt(1 + 10 * .057222) = 149.186 Mpc,
    # alpha = 1 - .328 ln(63.357) .15 + .38 ln(3.2781) .0225 = .80600; at k = .1 h/Mpc, .43 k s = .43 * .07 * 149.186
    # = 4.4905, its 4th power 406.6: Gamma = .21 (.806 + .194/407.6) = .16936; q = .1 (2.7255/2.7)^2/.16936 = .60166;
    # L = ln(5.43656 + 1.08299) = 1.87480; C = 14.2 + 731/38.604 = 33.136; T = 1.8748/(1.8748 + 33.136 * .36200).
    assert PLANCKISH.transfer(np.array([0.1]))[0] == pytest.approx(0.13516, rel=2e-3)


def test_sigma_8_is_what_was_asked_for() -> None:
    k = np.geomspace(1e-5, 50, 20_000)
    for sigma_8 in (0.72, 0.88):
        power = Cosmology(0.3, sigma_8, 0.96, 70).power(k)
        assert top_hat_sigma(k, power, 8.0) == pytest.approx(sigma_8, rel=1e-4)


def test_a_gaussian_field_has_its_power_within_the_error_bars() -> None:
    spacing, edges = 4.0, np.linspace(0.06, 0.75, 9)
    powers = []
    for seed in range(8):
        field = gaussian_field(np.random.default_rng(seed), (32, 32, 32), spacing, PLANCKISH.power)
        _, power, modes = measured_power(field, spacing, edges)
        powers.append(power)
        assert field.mean() == pytest.approx(0, abs=1e-12)
    # What the bins should hold: the theory's mean over their modes, since it falls steeply across a bin.
    line = 2 * np.pi * np.fft.fftfreq(32, spacing)
    size = np.sqrt(line[:, None, None] ** 2 + line[:, None] ** 2 + line**2).ravel()[1:]
    theory = np.histogram(size, edges, weights=PLANCKISH.power(size))[0] / np.histogram(size, edges)[0]
    # The mean of n modes scatters by 1/sqrt(n): chi^2 over 8 bins, of which 26 is the upper 0.1%.
    error = (np.mean(powers, 0) / theory - 1) * np.sqrt(8 * modes)
    assert (error**2).sum() < 26
    assert np.abs(error).max() > 0.05


def test_power_of_white_noise_is_the_volume_of_a_cell() -> None:
    field = np.random.default_rng(0).standard_normal((64, 64))
    _, power, modes = measured_power(field, 0.5, np.array([0.1, 10.0]))
    assert modes[0] == (64**2 - 1) / 2  # a mode and its conjugate are one
    assert power[0] == pytest.approx(0.25, abs=5 * 0.25 / np.sqrt(modes[0]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 8), st.sampled_from([8, 9, 12]))
def test_no_particle_is_lost(seed: int, spacing: float, cells: int) -> None:
    cubes = counts(PLANCKISH, np.random.default_rng(seed), cells, spacing)
    assert cubes.dtype == np.int16
    assert (cubes.sum((0, 1, 2), dtype=np.int64) == cells**3).all()
    assert (cubes >= 0).all()


def test_displacement_of_a_plane_wave() -> None:
    cells, spacing = 16, 2.0
    x = np.arange(cells) * spacing
    k = 2 * np.pi / (cells * spacing) * 3
    wave = np.broadcast_to(np.cos(k * x)[:, None, None], (cells,) * 3)
    modes = scipy.fft.rfftn(wave)
    # div psi = -delta: psi = -sin(kx)/k along x, none along the others,
    # and no second order: one axis cannot collapse twice.
    assert np.allclose(displacement(modes, cells, spacing, 0), -np.sin(k * x)[:, None, None] / k)
    assert np.allclose(displacement(modes, cells, spacing, 1), 0)
    assert np.allclose(second_order_source(modes, cells, spacing), 0, atol=1e-9)


def test_second_order_source_of_two_crossed_waves() -> None:
    cells, spacing = 16, 1.0
    x = np.arange(cells)
    k = 2 * np.pi / cells * 2
    f = np.broadcast_to((np.cos(k * x)[:, None] + np.cos(k * x))[..., None], (cells,) * 3)
    source = scipy.fft.irfftn(second_order_source(scipy.fft.rfftn(f), cells, spacing), s=(cells,) * 3)
    # phi_xx = cos kx, phi_yy = cos ky, phi_xy = 0.
    assert np.allclose(source, (np.cos(k * x)[:, None] * np.cos(k * x))[..., None])


def test_divergence_of_the_second_order_makes_overdensities_denser() -> None:
    # In a sphere, 1 + delta = (1 - d/3 - d^2/21)^-3: the second order adds a seventh of d^2 to the contraction.
    cells, spacing = 16, 1.0
    rng = np.random.default_rng(1)
    modes = gaussian_modes(rng, (cells,) * 3, spacing, lambda k: np.exp(-((k / 0.8) ** 2)))
    source = second_order_source(modes, cells, spacing)
    second = scipy.fft.rfftn(displacement(-source, cells, spacing, 0))
    expected = scipy.fft.rfftn(displacement(source, cells, spacing, 0))
    assert np.allclose(second, -expected)
    # laplacian phi2 = source, and x = q - D psi.. + D2 grad phi2; D2 < 0, so that a positive source draws matter in.
    k = 2 * np.pi / cells
    x = np.arange(cells)
    bump = np.broadcast_to(np.cos(k * x)[:, None, None], (cells,) * 3)
    push = PLANCKISH.second_growth(0) * displacement(-scipy.fft.rfftn(bump), cells, spacing, 0)
    assert push[1, 0, 0] < 0 < push[-1, 0, 0]  # towards x = 0, the top of the bump, from both sides


def test_a_uniform_universe_stays_so() -> None:
    cubes = place(PLANCKISH, np.zeros((8, 8, 5), complex), 8, 1.0)
    assert (cubes == 1).all()


def test_large_scales_of_the_counts_grow_as_theory_says() -> None:
    # The longest waves of 8 boxes: linear power times D^2. A cell is about as long as particles have moved at z = 3; in
    # one that is much longer, a lattice of particles shows nothing of them.
    cells, spacing, boxes, redshifts = 32, 2.0, 8, (3.0, 1.5)
    edges = np.array([0.9, 2.6]) * 2 * np.pi / (cells * spacing)
    found, linear = np.zeros(2), 0.0
    for seed in range(boxes):
        delta = gaussian_modes(np.random.default_rng([5, seed]), (cells,) * 3, spacing, PLANCKISH.power)
        k, power, modes = measured_power(scipy.fft.irfftn(delta, s=(cells,) * 3), spacing, edges)
        linear += power[0] / boxes
        cubes = place(PLANCKISH, delta, cells, spacing, redshifts)
        found += [measured_power(cubes[..., c] - 1.0, spacing, edges)[1][0] / boxes for c in range(2)]
    assert linear == pytest.approx(PLANCKISH.power(k)[0], rel=4 / np.sqrt(boxes * modes[0]))
    # The same phases: the error bars of few modes drop out of these ratios.
    growth = np.array([PLANCKISH.growth(z) for z in redshifts])
    assert found / linear == pytest.approx(growth**2, rel=0.08)
    assert found[1] / found[0] == pytest.approx((growth[1] / growth[0]) ** 2, rel=0.05)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_moving_a_cube_keeps_its_counts_and_the_redshifts_together(seed: int) -> None:
    cube = np.random.default_rng(seed).poisson(1, (6, 6, 6, 4)).astype(np.int16)
    for rolls in (False, True):
        once, again = (augmented(cube, np.random.default_rng(seed), rolls=rolls) for _ in range(2))
        assert np.array_equal(once, again)
        rows = [sorted(map(tuple, array.reshape(-1, 4).tolist())) for array in (cube, once)]
        assert rows[0] == rows[1]


def test_without_rolls_corners_stay_corners() -> None:
    cube = np.zeros((4, 4, 4, 1), np.int16)
    cube[0, 0, 0] = 1
    for seed in range(10):
        spot = np.argwhere(augmented(cube, np.random.default_rng(seed), rolls=False)[..., 0])
        assert set(spot.ravel().tolist()) <= {0, 3}


def test_ridge_finds_a_plane_and_shrinks_noise() -> None:
    rng = np.random.default_rng(0)
    x, slopes = rng.standard_normal((300, 5)), rng.standard_normal((5, 2))
    y = x @ slopes + 3
    assert np.allclose(ridge((x[:200], y[:200]), (x[200:250], y[200:250]), x[250:]), y[250:], atol=1e-3)
    noise = rng.standard_normal((300, 1))
    guesses = ridge((x[:200], noise[:200]), (x[200:250], noise[200:250]), x[250:])
    assert guesses.std() < 0.2


def test_summaries_are_finite_even_for_an_empty_cube() -> None:
    for cube in (np.zeros((8, 8, 8, 4), np.int16), np.full((8, 8, 8, 4), 30000, np.int16)):
        assert np.isfinite(power_and_counts(cube)).all()


def test_pooling_before_leaky_relu_is_the_published_network() -> None:
    torch.manual_seed(0)
    net = CosmoNet(8, (4, 6), (5,), means=False, strided=False)
    x = torch.randn(2, 4, 8, 8, 8)
    expected = x
    for layer in net.convolutions:
        expected = torch.nn.functional.max_pool3d(torch.nn.functional.leaky_relu(layer(expected), 0.3), 2)
    assert torch.allclose(net(x), 1.2 * torch.tanh(net.head(expected.flatten(1))))
    assert net(x).abs().max() < 1.2


def test_the_published_network_has_its_size() -> None:
    # Weights and biases: sum of 27 in out + out over 4-8-16-32-64-128, then 8192-128-64-4.
    with torch.device("meta"):
        net = CosmoNet(128, (8, 16, 32, 64, 128), (128, 64), means=False, strided=False)
    convolutions = sum(27 * a * b + b for a, b in ((4, 8), (8, 16), (16, 32), (32, 64), (64, 128)))
    linear = sum(a * b + b for a, b in ((8192, 128), (128, 64), (64, 4)))
    assert sum(p.numel() for p in net.parameters()) == convolutions + linear == 1_352_092
