"""Radiation against known values, and scenes that look as a radiometer sees them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from lumos.workloads.slstr.radiation import (
    SUN_SOLID_ANGLE,
    SUN_TEMPERATURE,
    brightness_temperature,
    emitted,
    over,
    planck,
    solar_radiance,
    two_stream,
)
from lumos.workloads.slstr.scenes import CHANNELS, OPAQUE, THIN, WRONG, Scene, make_scene, snow_and_its_like
from lumos.workloads.slstr.textures import CLOUDS, GROUND, normal_scores, rough


def image(value: float) -> np.ndarray:
    return np.full((1, 1), value)


# --- Planck ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kelvin", [pytest.param(220.0, marks=pytest.mark.slow), 300.0, pytest.param(5772.0, marks=pytest.mark.slow)]
)
def test_all_wavelengths_together_give_stefan_and_boltzmann(kelvin: float) -> None:
    um = np.geomspace(50, 3e7, 40_001) / kelvin
    total = np.pi * np.trapezoid([float(planck(w, kelvin)) for w in um], um)
    assert total == pytest.approx(5.670374419e-8 * kelvin**4, rel=1e-4)


def test_wien() -> None:
    um = np.linspace(9, 10.5, 15_001)
    assert um[np.argmax([float(planck(w, 300.0)) for w in um])] == pytest.approx(2897.771955 / 300, abs=2e-4)


def test_radiance_at_11_um_and_300_k() -> None:
    """9.573 W/(m2 sr um): 2hc2/l5 = 739.5, hc/lkT = 4.360."""
    assert float(planck(11.0, 300.0)) == pytest.approx(739.54 / (np.exp(4.35989) - 1), rel=1e-4)


@given(st.floats(180, 340), st.sampled_from([3.74, 10.85, 12.02]))
def test_brightness_temperature_inverts_planck(kelvin: float, wavelength: float) -> None:
    assert float(brightness_temperature(wavelength, planck(wavelength, kelvin))) == pytest.approx(kelvin, rel=1e-12)


def test_the_sun_is_a_black_body() -> None:
    """Its whole spectrum is the solar constant, 1361 W/m2."""
    assert 5.670374419e-8 * SUN_TEMPERATURE**4 * SUN_SOLID_ANGLE / np.pi == pytest.approx(1361, rel=2e-3)
    assert solar_radiance(3.74, 0.5) == pytest.approx(0.5 * solar_radiance(3.74, 1.0))
    assert solar_radiance(3.74, 0.0) == 0.0


# --- layers ----------------------------------------------------------------------------------------------------------


def test_two_stream_limits() -> None:
    assert two_stream(image(0.0), 0.85).item() == 0.0
    assert two_stream(image(1e9), 0.85).item() == pytest.approx(1.0)
    # A thin layer reflects in proportion to its depth: (1-g) t / 1.6.
    assert two_stream(image(1e-6), 0.85).item() == pytest.approx(0.15e-6 / 1.6, rel=1e-5)
    # Depth 10 of water, 0.484: the reflectance of a middling stratocumulus.
    assert two_stream(image(10.0), 0.85).item() == pytest.approx(1.5 / 3.1)


@pytest.mark.slow
@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 0.99))
def test_more_cloud_reflects_more(one: float, other: float, asymmetry: float) -> None:
    thin, thick = sorted((one, other))
    assert 0 <= two_stream(image(thin), asymmetry).item() <= two_stream(image(thick), asymmetry).item() <= 1


@given(st.floats(0, 0.99), st.floats(0, 1))
def test_layers_lose_no_light(reflectance: float, below: float) -> None:
    r, b = image(reflectance), image(below)
    total = over(r, 1 - r, b).item()
    assert max(reflectance, 0) - 1e-12 <= total <= 1 + 1e-12
    assert over(r, 1 - r, image(1.0)).item() == pytest.approx(1.0)
    assert over(image(0.0), image(1.0), b).item() == below


def test_an_opaque_cloud_hides_what_is_below() -> None:
    below = image(float(planck(10.85, 300.0)))
    seen = emitted(10.85, below, image(1.0), image(230.0))
    assert brightness_temperature(10.85, seen).item() == pytest.approx(230.0)
    half = brightness_temperature(10.85, emitted(10.85, below, image(0.5), image(230.0))).item()
    assert 265.0 < half < 300.0  # radiance mixes, not temperature


# --- scenes ----------------------------------------------------------------------------------------------------------

SHAPE = (96, 120)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(np.random.default_rng([0, k]), SHAPE) for k in range(60)]


def pixels(scene: Scene) -> np.ndarray:
    return np.concatenate([scene.refs, scene.bts], -1)


def test_a_scene_has_the_published_arrays(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert (scene.refs.shape, scene.bts.shape, scene.bayes.shape) == ((*SHAPE, 6), (*SHAPE, 3), (*SHAPE, 1))
        assert set(np.unique(scene.bayes)) <= {0.0, 1.0}
        assert np.nanmin(scene.bts) > 180
        assert np.nanmax(scene.bts) < 340
        assert np.nanmin(scene.refs) > -0.05
        assert np.nanmax(scene.refs) < 1.1


def test_a_third_is_night(scenes: list[Scene]) -> None:
    nights = [scene for scene in scenes if scene.night]
    assert 10 <= len(nights) <= 26
    for scene in nights:
        assert np.nanmax(np.abs(scene.refs)) < 0.02


def test_the_mask_is_the_depth_with_a_few_errors_in_patches(scenes: list[Scene]) -> None:
    wrong = np.stack([(scene.depth > THIN) != (scene.bayes[..., 0] > 0) for scene in scenes])
    assert wrong.mean() == pytest.approx(WRONG, rel=0.05)
    # A wrong pixel's neighbour is wrong far more often than a pixel chosen at random.
    assert (wrong[:, 1:] & wrong[:, :-1]).mean() > 10 * WRONG**2


def test_channels_are_redundant(scenes: list[Scene]) -> None:
    day = np.concatenate([pixels(scene).reshape(-1, 9) for scene in scenes if not scene.night])
    r = np.corrcoef(day[np.isfinite(day).all(1)].T)
    named = {(a, b): r[i, j] for i, a in enumerate(CHANNELS) for j, b in enumerate(CHANNELS)}
    assert named["S1", "S2"] > 0.99
    assert named["S8", "S9"] > 0.99
    assert named["S5", "S6"] > 0.95
    assert named["S1", "S8"] < 0


def test_the_atmosphere_is_in_the_channels(scenes: list[Scene]) -> None:
    for scene in scenes:
        clear = scene.depth == 0
        if not scene.night and np.nanmedian(scene.bts[clear]) > 285:
            # Warm, so moist air hides the ground at 1.375 um; a footprint near a cloud still has some of its light.
            far = binary_erosion(clear, iterations=4, border_value=1)
            assert np.nanmax(scene.refs[..., 3][far], initial=0.0) < 0.02
        # Vapour absorbs more at 12 um than at 11 um, and is colder than the ground.
        assert np.nanmedian((scene.bts[..., 1] - scene.bts[..., 2])[clear]) > 0


@pytest.mark.parametrize("seed", range(4))
def test_no_single_pixel_tells_snow_from_the_cloud_like_it(seed: int) -> None:
    """Reflectance and temperature have the same distribution over both: the quantiles agree within a tenth of it."""
    albedo, temperature, depth = snow_and_its_like(np.random.default_rng(seed), (200, 200), 260.0)
    cloudy = depth == OPAQUE
    assert 0.25 < cloudy.mean() < 0.75
    for image in (albedo[0], albedo[4], temperature):
        snow, cloud = (np.quantile(image[where], [0.1, 0.25, 0.5, 0.75, 0.9]) for where in (~cloudy, cloudy))
        assert np.abs(snow - cloud).max() < 0.35 * image.std()


@pytest.mark.parametrize("texture", [*GROUND, *CLOUDS], ids=lambda texture: texture.__name__)
def test_textures_follow_the_seed_and_have_equal_values(texture) -> None:
    one, same, other = (texture(np.random.default_rng(seed), (40, 56)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0
    np.testing.assert_allclose(np.sort(normal_scores(one).ravel()), np.sort(normal_scores(other).ravel()), atol=0.02)
    assert normal_scores(one).std() == pytest.approx(1, abs=0.01)


def test_rough_fields_have_the_slope() -> None:
    """Power falls as k^(-8/3): by 2^(8/3) from one octave to the next, where k is well above the outer scale's."""
    power = np.zeros((256, 129))
    for seed in range(20):
        power += np.abs(np.fft.rfft2(rough(np.random.default_rng(seed), (256, 256), 400.0))) ** 2
    k = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256))
    low, high = (power[(k > a) & (k < 1.2 * a)].mean() for a in (0.05, 0.2))
    assert np.log2(low / high) / 2 == pytest.approx(8 / 3, abs=0.1)


def test_gaps_are_lines(scenes: list[Scene]) -> None:
    lost = [np.isnan(scene.refs[..., 0]) for scene in scenes]
    assert sum(map(np.any, lost)) > 20
    for gap in lost:
        assert (gap.all(1) | ~gap.any(1)).all()


def test_the_same_seed_gives_the_same_scene() -> None:
    one, same, other = (make_scene(np.random.default_rng(seed), SHAPE) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.bts, same.bts)
    assert not np.array_equal(one.bts, other.bts)
