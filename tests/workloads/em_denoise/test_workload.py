"""EM-denoise: the lattice and its Fourier spots, the probe, Poisson statistics, the layout and damage to it."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from lumos.errors import DataError
from lumos.suite.workload import DataSource
from lumos.workloads.common.streaming import sample_loader
from lumos.workloads.em_denoise import EMDenoise
from lumos.workloads.em_denoise.data import (
    CLEAN,
    KEY,
    NOISE,
    ImagePairs,
    PairSamples,
    find_root,
    generate,
    inference_pairs,
)
from lumos.workloads.em_denoise.graphene import (
    BOND,
    CARBON,
    LATTICE,
    SILICON,
    Microscope,
    Specimen,
    clean_image,
    draw_pair,
    draw_specimen,
    join_grains,
    lattice,
    noisy_image,
    ripple,
    stone_wales,
)

SHARP = Microscope(pixel=0.15, core=0.35, tail=0.2, dose=10.0)


def test_every_atom_has_three_neighbours_at_142_picometres() -> None:
    atoms = lattice(20.0, 0.4, np.array([0.3, -0.2]))
    inner = atoms[(atoms**2).sum(1) < 15**2]
    distance, _ = KDTree(atoms).query(inner, k=5)
    assert distance[:, 1:4] == pytest.approx(1.4203, abs=1e-3)
    assert distance[:, 4] == pytest.approx(LATTICE, abs=1e-9)


def test_there_are_two_atoms_in_a_cell() -> None:
    radius = 60.0
    cell = LATTICE**2 * np.sqrt(3) / 2
    assert len(lattice(radius, 0.1, np.zeros(2))) == pytest.approx(2 * np.pi * radius**2 / cell, rel=0.01)


@pytest.mark.parametrize("angle", [0.0, 0.2, 0.45])
@pytest.mark.parametrize("pixel", [0.11, 0.19])
def test_spots_of_the_micrograph_are_those_of_the_lattice(angle: float, pixel: float) -> None:
    pixels = 256
    atoms = lattice(40.0, angle, np.array([0.1, 0.2]))
    microscope = dataclasses.replace(SHARP, pixel=pixel)
    clean = clean_image(Specimen(atoms, np.full(len(atoms), float(CARBON))), microscope, pixels)
    noisy = noisy_image(clean, 5.0, np.random.default_rng(0))
    window = np.hanning(pixels)[:, None] * np.hanning(pixels)
    padded = np.abs(np.fft.fft2((noisy - noisy.mean()) * window, s=(1024, 1024)))
    f = np.fft.fftfreq(1024, pixel)
    g = np.hypot(f[:, None], f)
    padded[(g < 0.25) | (g > 0.6)] = 0
    spots = []
    while len(spots) < 6:  # take the strongest spot, wipe it out, go on
        i, j = np.unravel_index(padded.argmax(), padded.shape)
        spots.append((f[i], f[j]))
        padded[np.hypot(f[:, None] - f[i], f - f[j]) < 0.1] = 0
    # |g| = 2/(sqrt(3) a) = 0.4694 per angstrom; six of them, 60 degrees apart.
    assert np.hypot(*np.array(spots).T) == pytest.approx(0.4694, rel=0.02)
    turns = np.sort(np.degrees([np.arctan2(*spot) for spot in spots]))
    assert np.diff(turns) == pytest.approx(60, abs=2)


def test_carbon_is_one_and_silicon_four() -> None:
    atoms = lattice(16.0, 0.0, np.zeros(2))
    carbon = clean_image(Specimen(atoms, np.full(len(atoms), 6.0)), SHARP, 101)
    assert carbon[50, 50] == pytest.approx(1, abs=1e-3)
    lone = Specimen(np.zeros((1, 2)), np.array([14.0]))
    ratio = clean_image(lone, SHARP, 101) / clean_image(dataclasses.replace(lone, numbers=np.array([6.0])), SHARP, 101)
    assert ratio == pytest.approx((SILICON / CARBON) ** 1.64, rel=1e-9)
    assert ratio.mean() == pytest.approx(4.01, abs=0.01)


def test_an_atom_shows_all_of_the_probe() -> None:
    lone = Specimen(np.zeros((1, 2)), np.array([6.0]))
    wide, thin = (clean_image(lone, dataclasses.replace(SHARP, tail=tail), 201) for tail in (1.0, 0.0))
    x = (np.arange(201) - 100) * SHARP.pixel
    for image, sigma in ((thin, 0.35), (wide, 2.5 * 0.35)):
        profile = image.sum(0) / image.sum()
        assert np.sqrt((profile * x**2).sum()) == pytest.approx(sigma, rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
@example(550053)  # a defect that would turn a bond onto another atom
def test_atoms_of_any_flake_keep_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    specimen = draw_specimen(rng, 20.0)
    distance = KDTree(specimen.positions).query(specimen.positions, k=2)[0][:, 1]
    # Grains are joined at 0.8 bonds; thermal displacements of up to 0.1 along each axis come on top.
    assert distance.min() > 0.35
    assert set(specimen.numbers.tolist()) <= {float(CARBON), float(SILICON)}
    density = len(specimen.positions) / (np.pi * (20 / np.sqrt(2) + 8) ** 2)
    assert density == pytest.approx(2 / (LATTICE**2 * np.sqrt(0.75)), rel=0.1)


def test_a_stone_wales_defect_turns_one_bond() -> None:
    atoms = lattice(15.0, 0.0, np.zeros(2))
    turned = stone_wales(atoms, np.random.default_rng(0), 1, 20.0)
    moved = np.flatnonzero((atoms != turned).any(1))
    assert len(moved) == 2
    before, after = (atoms[moved[0]] - atoms[moved[1]], turned[moved[0]] - turned[moved[1]])
    assert np.linalg.norm(after) == pytest.approx(BOND)
    assert before @ after == pytest.approx(0, abs=1e-9)
    assert turned[moved].mean(0) == pytest.approx(atoms[moved].mean(0))


def test_grains_meet_without_overlap_or_gap() -> None:
    rng = np.random.default_rng(3)
    one, other = lattice(25.0, 0.0, np.zeros(2)), lattice(25.0, 0.4, np.array([0.7, 0.2]))
    joined = join_grains(one, other, rng, 30.0)
    assert KDTree(joined).query(joined, k=2)[0][:, 1].min() > 0.8 * BOND - 1e-9
    assert len(joined) == pytest.approx(len(one), rel=0.06)


def test_a_tilted_flat_sheet_is_only_shortened() -> None:
    atoms = lattice(10.0, 0.0, np.zeros(2))
    tilted = ripple(atoms, np.random.default_rng(0))
    assert np.linalg.norm(tilted - atoms, axis=1).max() < 10 * (1 - np.cos(np.radians(8))) + 1.5 * np.sin(np.radians(8))


def test_noise_is_poisson() -> None:
    clean = np.full((256, 256), 0.7)
    dose = 12.0
    ratios, means = [], []
    for seed in range(20):
        image = noisy_image(clean, dose, np.random.default_rng(seed))
        image = np.where(image < 2, image, np.nan)  # but for hot pixels
        electrons = image * dose
        assert (np.abs(electrons - np.rint(electrons)) < 1e-9).mean() > 0.998
        # Neighbours in a line share the beam: half the variance of their difference is Poisson's, mean/dose.
        gap = (image[:, 1:] - image[:, :-1])[:, ::2]
        ratios.append(np.nanmean(gap**2) / 2 / (np.nanmean(image) / dose))
        means.append(np.nanmean(image))
    assert np.median(ratios) == pytest.approx(1, rel=0.02)
    # The beam falls by up to 15% across the image: by half of that, half of 7.5%, on average.
    assert np.mean(means) == pytest.approx(0.7 * (1 - 0.0375), rel=0.015)


def test_half_the_dose_is_twice_the_variance() -> None:
    clean = np.full((512, 512), 1.0)

    def variance(dose: float) -> float:
        noisy = noisy_image(clean, dose, np.random.default_rng(1))
        gap = noisy[:, 1:] - noisy[:, :-1]
        return float(np.square(gap[np.abs(gap) < 5 / np.sqrt(dose)]).mean() / 2)

    assert variance(10) / variance(20) == pytest.approx(2, rel=0.03)


# ---- the layout


def write(folder: Path, count: int = 3, size: int = 16, **wrong: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in (NOISE, CLEAN):
        with h5py.File(folder / name, "w") as file:
            file[KEY] = rng.random((count, size, size, 1), dtype=np.float32)


@pytest.fixture(scope="module")
def tiny(cache: Path) -> EMDenoise:
    return EMDenoise(DataSource(cache=cache)).tiny()


def test_what_is_generated_is_read_as_public_data(tiny: EMDenoise) -> None:
    own = tiny.loaders()
    assert (own.n_train, own.n_valid, own.n_test) == (18, 2, 4)
    for root in (tiny.root, tiny.root.parent):
        public = dataclasses.replace(tiny, data=DataSource("public", root)).loaders()
        assert public.sha256 == own.sha256
        for a, b in zip(own.test, public.test, strict=True):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])


def test_images_on_disk_are_those_that_were_drawn(tiny: EMDenoise) -> None:
    pairs = ImagePairs(tiny.root / "test")
    assert pairs.shape == (4, 32, 32, 1)
    for index in range(4):
        for found, drawn in zip(pairs.pair(index), draw_pair(np.random.default_rng([0, 1, index]), 32), strict=True):
            assert np.array_equal(found, drawn)
    names = [name for name, _, _ in inference_pairs(tiny.root)]
    assert names == [f"image_{k:03d}" for k in range(8)]


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    root = generate(tmp_path, seed=1, train=70, test=3, size=16)
    noise = root / "train" / NOISE
    before, untouched = noise.read_bytes(), (root / "train" / CLEAN).stat().st_mtime_ns
    assert not list((root.parent / "shards").glob("*"))
    noise.unlink()
    assert generate(tmp_path, seed=1, train=70, test=3, size=16) == root
    with h5py.File(noise) as file:
        assert file[KEY].shape == (70, 16, 16, 1)
    assert noise.read_bytes() == before
    assert (root / "train" / CLEAN).stat().st_mtime_ns == untouched


@pytest.mark.parametrize("workers", [0, 1])
def test_pairs_stream(tmp_path: Path, workers: int) -> None:
    write(tmp_path)
    pairs = ImagePairs(tmp_path)
    pairs.pair(0)  # opened here, and again by the worker
    batches = list(sample_loader(PairSamples(pairs, range(1, 3)), batch_size=2, workers=workers))
    assert len(batches) == 1
    assert torch.equal(batches[0][0][0, 0], torch.from_numpy(pairs.pair(1)[0]))


def test_turns_keep_noisy_and_clean_together(tmp_path: Path) -> None:
    write(tmp_path)
    with h5py.File(tmp_path / NOISE, "r+") as noise, h5py.File(tmp_path / CLEAN, "r") as clean:
        noise[KEY][...] = clean[KEY][()] + 1
    samples = PairSamples(ImagePairs(tmp_path), range(3), seed=5)
    seen = set()
    for epoch in range(40):
        noisy, clean = samples.read(0, epoch)
        assert torch.allclose(noisy, clean + 1)
        assert torch.equal(noisy, samples.read(0, epoch)[0])
        seen.add(noisy.numpy().tobytes())
    assert len(seen) == 8  # the symmetries of a square


def test_what_is_wrong_with_the_files_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither it nor em_graphene_sim/"):
        find_root(tmp_path)
    with pytest.raises(DataError, match=r"graphene_img_noise\.h5: there is no such file"):
        ImagePairs(tmp_path)

    def wrong(match: str, name: str = CLEAN, **datasets: np.ndarray) -> None:
        write(tmp_path)
        with h5py.File(tmp_path / name, "w") as file:
            for key, value in datasets.items():
                file[key] = value
        with pytest.raises(DataError, match=match):
            ImagePairs(tmp_path)

    wrong(r"clean\.h5: no key images; it has pictures", pictures=np.zeros(3))
    wrong(r"clean\.h5: no key images; it has none")
    wrong(
        r"noise\.h5: images has shape \(3, 16, 16\); expected \(images, h, w, 1\)", NOISE, images=np.zeros((3, 16, 16))
    )
    wrong(r"shape \(3, 18, 16, 1\).*multiples of 8", images=np.zeros((3, 18, 16, 1)))
    wrong(r"noise\.h5 has shape \(3, 16, 16, 1\) and .* \(2, 16, 16, 1\)", images=np.zeros((2, 16, 16, 1)))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / NOISE
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"graphene_img_noise\.h5: cannot be read .*Fetch it again"):
        ImagePairs(tmp_path)


def test_an_image_that_is_not_finite_is_named_and_skipped_when_asked(tmp_path: Path) -> None:
    write(tmp_path)
    with h5py.File(tmp_path / NOISE, "r+") as file:
        file[KEY][1, 3, 3] = np.nan
    samples = PairSamples(ImagePairs(tmp_path), range(3))
    with pytest.raises(DataError, match=r"noise\.h5: images\[1\] holds values that are not finite"):
        list(sample_loader(samples, batch_size=3))
    assert sum(len(noisy) for noisy, _ in sample_loader(samples, batch_size=3, on_error="skip")) == 2


def test_a_damaged_inference_image_is_named(tmp_path: Path) -> None:
    for kind in ("raw", "truth"):
        (tmp_path / "inference" / kind).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "inference" / kind / "a.tif", np.zeros((8, 8), np.float32))
    assert [image.shape for _, *images in inference_pairs(tmp_path) for image in images] == [(8, 8), (8, 8)]
    (tmp_path / "inference" / "raw" / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r"raw/a\.tif: cannot be read"):
        list(inference_pairs(tmp_path))


def test_trivial_predictors_and_scores_by_hand(tiny: EMDenoise) -> None:
    scores = tiny.baselines()
    pairs = [tiny.splits["test"][0].pair(k) for k in range(4)]
    assert scores["noisy_input"] == pytest.approx(np.mean([np.square(a - b).mean() for a, b in pairs]), rel=1e-5)
    (filtered,) = [name for name in scores if name.startswith("gaussian_filter_")]
    sigma = float(filtered.removeprefix("gaussian_filter_").removesuffix("px"))
    assert scores[filtered] == pytest.approx(
        np.mean([np.square(gaussian_filter(a, sigma) - b).mean() for a, b in pairs]), rel=1e-4
    )
    assert scores[filtered] < scores["noisy_input"]
    shifted = tiny.scores(lambda noisy: torch.full_like(noisy, 0.1), [(torch.zeros(2, 1, 8, 8),) * 2])
    assert shifted == pytest.approx({"MSE": 0.01, "MAE": 0.1, "PSNR": 20.0}, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"size": 100}, "multiple of 8"), ({"channels": [8]}, "2 to 4"), ({"train_pairs": 1}, "at least 2")],
)
def test_settings_that_cannot_be_used(settings: dict, match: str) -> None:
    with pytest.raises(DataError, match=match):
        EMDenoise(**settings)
