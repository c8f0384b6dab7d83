"""Diffuse multiple scattering: lines against Bragg's law, the layout on disk, and the classifier."""

import itertools
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lumos.errors import DataError
from lumos.suite.workload import DataSource
from lumos.workloads.common import parallel
from lumos.workloads.dms import DMS
from lumos.workloads.dms.crystal import DOMAINS, PHASES, Lattice, draw_lattice, rotation, structure_factors
from lumos.workloads.dms.data import BINARY, FOLDER, find_data, generate, hold_out, read_labels
from lumos.workloads.dms.model import DMSNet
from lumos.workloads.dms.pattern import DISTANCE, WAVELENGTH, Detector, Scene, bragg_angles, draw_lines

SHAPE = (61, 25)
COUNTS = {"train": 60, "test": 12, "inference": 4}


@pytest.fixture(scope="module")
def tiny(cache: Path) -> DMS:
    return DMS(DataSource(cache=cache)).tiny()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return generate(tmp_path, Scene(SHAPE, 0.1), COUNTS, seed=3)


# crystals ------------------------------------------------------------------------------------------------------------


def test_the_wavelength_of_9_kev() -> None:
    assert pytest.approx(1.37760, abs=1e-5) == WAVELENGTH


@settings(max_examples=25, deadline=None)
@given(
    a=st.floats(3, 5),
    b=st.floats(3, 5),
    c=st.floats(3, 5),
    beta=st.floats(80, 100),
    hkl=st.tuples(*[st.integers(-4, 4)] * 3),
)
def test_spacings_are_those_of_the_monoclinic_formula(
    a: float, b: float, c: float, beta: float, hkl: tuple[int, int, int]
) -> None:
    """1/d2 = (h2/a2 + k2 sin2 beta / b2 + l2/c2 - 2 h l cos beta / (a c)) / sin2 beta."""
    h, k, l = hkl  # noqa: E741
    g = np.array([h, k, l]) @ Lattice(a, b, c, beta).reciprocal
    s, t = np.sin(np.radians(beta)), np.cos(np.radians(beta))
    expected = (h**2 / a**2 + (k * s / b) ** 2 + l**2 / c**2 - 2 * h * l * t / (a * c)) / s**2
    assert g @ g == pytest.approx(expected, abs=1e-12)


def test_all_reflections_that_bragg_allows_are_there() -> None:
    lattice = Lattice(4.0, 4.0, 4.1)
    hkl, g = lattice.reflections(WAVELENGTH)
    brute = [
        n for n in itertools.product(range(-8, 9), repeat=3)
        if any(n) and np.linalg.norm(np.array(n) @ lattice.reciprocal) < 2 / WAVELENGTH
    ]  # fmt: skip
    assert {tuple(n) for n in hkl.tolist()} == set(brute)
    # About the volume of the sphere of radius 2 / lambda times that of the cell.
    assert len(g) == pytest.approx(4 / 3 * np.pi * (2 / WAVELENGTH) ** 3 * 4.0 * 4.0 * 4.1, rel=0.02)


def test_structure_factors_of_a_centred_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two equal atoms, at the corner and in the middle: odd h + k + l is extinct, even has four times one atom's."""
    monkeypatch.setattr("lumos.workloads.dms.crystal.ATOMS", ((10, (0.0, 0.0, 0.0)), (10, (0.5, 0.5, 0.5))))
    monkeypatch.setattr("lumos.workloads.dms.crystal.FALL", 0.0)
    hkl = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 0, 0]])
    np.testing.assert_allclose(structure_factors(hkl, hkl / 4.0), [0, 400, 0, 400], atol=1e-9)


def test_forward_scattering_counts_the_electrons_and_friedel_holds() -> None:
    hkl, g = Lattice(4.0, 4.0, 4.05).reflections(WAVELENGTH)
    assert structure_factors(np.zeros((1, 3), int), np.zeros((1, 3)))[0] == pytest.approx((82 + 22 + 3 * 8) ** 2)
    np.testing.assert_allclose(structure_factors(hkl, g), structure_factors(-hkl, -g))


def test_phases_are_what_they_are_called() -> None:
    for seed in range(50):
        four, one = (draw_lattice(np.random.default_rng(seed), phase) for phase in ("tetragonal", "monoclinic"))
        assert four.a == four.b < four.c
        assert four.beta == 90
        assert 90.1 <= one.beta <= 90.7
        assert (one.a, one.c) == (four.a, four.c)


@given(st.tuples(*[st.floats(-180, 180)] * 3))
@settings(max_examples=25, deadline=None)
def test_rotations_rotate(vector: tuple[float, float, float]) -> None:
    turn = rotation(np.array(vector))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(turn) == pytest.approx(1)
    np.testing.assert_allclose(turn @ np.array(vector), vector, atol=1e-9)


def test_domains_are_quarter_turns() -> None:
    for turn, axis in zip(DOMAINS[1:], np.eye(3)[::-1], strict=True):
        np.testing.assert_allclose(np.linalg.matrix_power(turn, 4), np.eye(3))
        np.testing.assert_allclose(turn @ axis, axis)
        assert np.trace(turn) == 1  # 1 + 2 cos 90


# lines ---------------------------------------------------------------------------------------------------------------


def test_the_detector_has_its_size_and_distance() -> None:
    detector = Detector()
    d = detector.directions
    np.testing.assert_allclose(np.linalg.norm(d, axis=-1), 1)
    # 487 pixels of 172 um at 250 mm are 19.0 degrees wide, 195 are 7.7.
    wide, high = (np.degrees(np.arccos(a @ b)) for a, b in ((d[0, 97], d[-1, 97]), (d[243, 0], d[243, -1])))
    assert wide == pytest.approx(2 * np.degrees(np.arctan(243 * 172e-6 / DISTANCE)), abs=1e-6)
    assert high == pytest.approx(2 * np.degrees(np.arctan(97 * 172e-6 / DISTANCE)), abs=1e-6)
    # A coarser detector of the same size looks in the same directions.
    coarse = Detector((61, 25)).directions
    assert np.degrees(np.arccos(np.clip(coarse[30, 12] @ d[243, 97], -1, 1))) < 1e-6


@pytest.mark.parametrize("phase", PHASES)
def test_lines_lie_where_braggs_law_says(phase: str) -> None:
    """The brightest pixel of each line looks along d with d . g = lambda |g|^2 / 2, to within a pixel."""
    detector = Detector((243, 97))
    lattice = draw_lattice(np.random.default_rng(1), phase)
    hkl, g = lattice.reflections(WAVELENGTH)
    seen = 0
    for vector in g[np.argsort(np.abs(g @ detector.directions[121, 48] - WAVELENGTH * (g**2).sum(1) / 2))[:40]]:
        image = draw_lines(detector, vector[None], np.ones(1), np.radians(0.05))
        if image.max() < 0.9:
            continue
        seen += 1
        d = detector.directions[np.unravel_index(image.argmax(), image.shape)]
        angle = np.pi / 2 - np.arccos(d @ vector / np.linalg.norm(vector))
        assert angle == pytest.approx(bragg_angles(vector[None])[0], abs=np.radians(0.05))
        assert d @ vector == pytest.approx(WAVELENGTH * (vector @ vector) / 2, rel=0.01)
        # Reflected by g, the light came along d - lambda g: elastic scattering turns it and does not stretch it.
        assert np.linalg.norm(d - WAVELENGTH * vector) == pytest.approx(1, abs=2e-3)
    assert seen > 20
    assert len(hkl) == len(g)


def test_a_line_is_a_gaussian_in_the_angle_to_its_cone() -> None:
    detector, width = Detector((487, 195)), np.radians(0.08)
    _, g = Lattice(4.0, 4.0, 4.05).reflections(WAVELENGTH)
    nearest = g[np.abs(g @ detector.directions[243, 97] - WAVELENGTH * (g**2).sum(1) / 2).argmin()]
    image = draw_lines(detector, nearest[None], np.array([3.0]), width)
    off = np.arcsin(detector.directions @ nearest / np.linalg.norm(nearest)) - bragg_angles(nearest[None])[0]
    np.testing.assert_allclose(image, 3.0 * np.exp(-0.5 * (off / width) ** 2), atol=3.0 * 2e-3)


def test_no_line_is_missed_by_leaving_out_those_far_away() -> None:
    """Where the cone passes the corner only, the line is drawn all the same."""
    detector, width = Detector((60, 24)), np.radians(0.1)
    _, g = Lattice(3.99, 4.0, 4.05, 90.5).reflections(WAVELENGTH)
    theta, axes = bragg_angles(g), g / np.linalg.norm(g, axis=1, keepdims=True)
    off = np.arcsin(np.clip(detector.directions @ axes.T, -1, 1)) - theta
    expected = np.where(np.abs(off) < 4.4 * width, np.exp(-0.5 * (off / width) ** 2), 0).sum(-1)
    np.testing.assert_allclose(draw_lines(detector, g, np.ones(len(g)), width), expected, atol=0.02)


def test_what_cannot_reflect_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot reflect"):
        bragg_angles(np.array([[2.0, 0.0, 0.0]]))


def test_a_tetragonal_crystal_is_mirrored_about_the_middle_and_a_monoclinic_one_is_not() -> None:
    """The detector's middle lies in the mirror plane between a and b."""
    detector, width = Detector((121, 49)), np.radians(0.08)
    found = {}
    for phase, lattice in (("tetragonal", Lattice(4.0, 4.0, 4.06)), ("monoclinic", Lattice(4.0, 4.0, 4.06, 90.4))):
        hkl, g = lattice.reflections(WAVELENGTH)
        image = draw_lines(detector, g, structure_factors(hkl, g) / 16384, width)
        found[phase] = np.abs(image - image[::-1]).mean() / image.mean()
    assert found["tetragonal"] < 1e-9
    assert found["monoclinic"] > 0.1


def test_a_pattern_follows_from_its_seed_and_is_log_counts() -> None:
    scene = Scene(SHAPE, 0.1)
    one, two, other = (scene.pattern("tetragonal", np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    counts = np.expm1(one.astype(np.float64))
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
    assert one.dtype == np.float32


# files ---------------------------------------------------------------------------------------------------------------


def test_the_generator_writes_the_published_layout(dataset: Path) -> None:
    with h5py.File(dataset / FOLDER / BINARY) as file:
        for group in ("train", "test"):
            images = file[f"{group}/images"]
            assert images.shape == (COUNTS[group], *SHAPE, 3)
            assert images.dtype == np.float32
            assert sorted(file[f"{group}/labels"][()]) == [0] * (COUNTS[group] // 2) + [1] * (COUNTS[group] // 2)
            np.testing.assert_array_equal(images[..., 0], images[..., 2])
            assert all(image.max() > 0 for image in images)
    singles = sorted((dataset / FOLDER / "inference").rglob("*.tif"))
    assert [path.parent.name for path in singles] == ["monoclinic"] * 2 + ["tetragonal"] * 2
    assert tifffile.imread(singles[0]).shape == (*SHAPE, 3)
    assert not (dataset / "parts").exists()


def test_generated_data_read_as_public_are_the_same(tiny: DMS) -> None:
    for root in (tiny.root, tiny.root / FOLDER):
        public = replace(tiny, data=DataSource("public", root=root))
        for split in ("train", "valid", "test"):
            for ours, theirs in zip(getattr(tiny.loaders(), split), getattr(public.loaders(), split), strict=True):
                assert torch.equal(ours[0], theirs[0])
                assert torch.equal(ours[1], theirs[1])
        assert public.scores(tiny.model(), public.loaders().test).keys() >= {"accuracy, single files"}


def test_the_patterns_do_not_depend_on_the_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = []
    for cores in (1, 3):
        monkeypatch.setattr(parallel.os, "cpu_count", lambda cores=cores: cores)
        root = generate(tmp_path / str(cores), Scene(SHAPE, 0.1), COUNTS, seed=3)
        with h5py.File(root / FOLDER / BINARY) as file:
            contents.append(
                [file[f"{group}/{name}"][()] for group in ("train", "test") for name in ("images", "labels")]
            )
    for one, three in zip(*contents, strict=True):
        np.testing.assert_array_equal(one, three)


def test_a_generation_that_was_stopped_goes_on(dataset: Path, tmp_path: Path) -> None:
    binary = dataset / FOLDER / BINARY
    with h5py.File(binary) as file:
        before = file["train/images"][()]
    binary.unlink()
    assert generate(tmp_path, Scene(SHAPE, 0.1), COUNTS, seed=3) == dataset
    with h5py.File(binary) as file:
        np.testing.assert_array_equal(file["train/images"][()], before)
    made = binary.stat().st_mtime_ns
    generate(tmp_path, Scene(SHAPE, 0.1), COUNTS, seed=3)
    assert binary.stat().st_mtime_ns == made


def test_a_wrong_key_or_shape_is_named(dataset: Path) -> None:
    path = dataset / FOLDER / BINARY
    assert read_labels(path, "test", SHAPE).shape == (12,)
    with pytest.raises(DataError, match=r"train/images is \(60, 61, 25, 3\) float32; expected \(N, 487, 195, 3\)"):
        read_labels(path, "train", (487, 195))
    with h5py.File(path, "r+") as file:
        file["test/labels"][3] = 7
        del file["train/labels"]
        file["train/label"] = np.zeros(60)
    with pytest.raises(DataError, match=r"no dataset train/labels; it has test, test/images.*train/label"):
        read_labels(path, "train", SHAPE)
    with pytest.raises(DataError, match="test/labels has other values"):
        read_labels(path, "test", SHAPE)
    with h5py.File(path, "r+") as file:
        file["train/labels"] = np.zeros(59)
    with pytest.raises(DataError, match=r"labels is \(59,\) for 60 images"):
        read_labels(path, "train", SHAPE)


def test_labels_may_stand_in_a_column(dataset: Path) -> None:
    path = dataset / FOLDER / BINARY
    flat = read_labels(path, "train", SHAPE)
    with h5py.File(path, "r+") as file:
        del file["train/labels"]
        file["train/labels"] = flat[:, None].astype(np.float64)
    np.testing.assert_array_equal(read_labels(path, "train", SHAPE), flat)


def test_a_truncated_or_missing_file_is_named(dataset: Path) -> None:
    path = dataset / FOLDER / BINARY
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"data-binary.h5: cannot be read"):
        read_labels(path, "train", SHAPE)
    path.unlink()
    with pytest.raises(DataError, match=r"there is no such file; expected data.root to have training/data-binary.h5"):
        find_data(dataset)


def test_a_damaged_image_ends_the_run_or_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = generate(tmp_path, Scene(SHAPE, 0.1), COUNTS, seed=3)
    with h5py.File(root / FOLDER / BINARY, "r+") as file:
        file["test/images"][5, 3, 3] = np.nan
    tiny = DMS().tiny()

    def batches(on_error: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
        source = DataSource("public", root=root, on_error=on_error)
        return list(replace(tiny, data=source, shape=SHAPE).in_order("test"))

    with pytest.raises(DataError, match=r"test/images\[5\] has values that are not finite"):
        batches("fatal")
    assert sum(len(labels) for _, labels in batches("skip")) == 11
    assert "test/images[5]" in caplog.text


def test_a_damaged_training_image_does_not_end_up_in_the_mean(tmp_path: Path) -> None:
    root = generate(tmp_path, Scene(SHAPE, 0.1), COUNTS, seed=3)
    with h5py.File(root / FOLDER / BINARY, "r+") as file:
        file["train/images"][0, 3, 3] = np.inf
    tiny = replace(DMS().tiny(), shape=SHAPE)
    with pytest.raises(DataError, match=r"train/images\[0\]"):
        replace(tiny, data=DataSource("public", root=root)).model()
    skipping = replace(tiny, data=DataSource("public", root=root, on_error="skip"))
    assert torch.isfinite(skipping.model().mean).all()
    assert len(skipping.loaders().sha256) == 64


def test_single_files_are_read_from_png_and_labelled_by_their_path(dataset: Path) -> None:
    folder = dataset / FOLDER / "inference/monoclinic"
    for path in (dataset / FOLDER / "inference").rglob("*.tif"):
        path.unlink()
    picture = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3)).astype(np.uint8)
    Image.fromarray(picture).save(folder / "a.png")
    workload = replace(DMS().tiny(), data=DataSource("public", root=dataset), shape=SHAPE)
    image, label = workload.samples["inference"].read(0, 0)
    np.testing.assert_array_equal(image.numpy(), picture.transpose(2, 0, 1))
    assert label == 0
    Image.fromarray(picture[:, :, 0]).save(folder / "a.png")
    with pytest.raises(DataError, match=r"a.png: 61 x 25; expected an image of 61 x 25 x 3"):
        replace(workload).samples["inference"].read(0, 0)
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a.png: cannot be read"):
        replace(workload).samples["inference"].read(0, 0)


def test_validation_images_are_the_last_of_each_class() -> None:
    labels = np.array([0] * 20 + [1] * 10)
    train, valid = hold_out(labels, 0.1)
    assert valid == [18, 19, 29]
    assert train == [*range(18), *range(20, 29)]
    with pytest.raises(DataError, match="1 images of label 1"):
        hold_out(np.array([0, 0, 0, 1]), 0.1)


# the network ---------------------------------------------------------------------------------------------------------


def test_the_papers_network_has_its_sizes() -> None:
    model = DMSNet(torch.zeros(3), torch.ones(3), (487, 195), (8, 16, 32, 64, 128), (512, 256))
    assert [m.in_features for m in model.modules() if isinstance(m, torch.nn.Linear)] == [4608, 512, 256]
    assert model(torch.zeros(2, 3, 487, 195)).shape == (2, 2)
    with pytest.raises(DataError, match="too few"):
        DMSNet(torch.zeros(3), torch.ones(3), (61, 25), (8, 16, 32, 64, 128), (512, 256))


def test_the_loss_of_a_coin_is_one_and_accuracy_counts(tiny: DMS) -> None:
    class Monoclinic(torch.nn.Module):
        def __init__(self, margin: float) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(torch.tensor([margin, 0.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.logits.expand(len(x), 2)

    batch = next(iter(tiny.loaders().train))
    assert tiny.loss(Monoclinic(0.0), batch).item() == pytest.approx(1)
    assert tiny.score(Monoclinic(1.0), tiny.loaders().test) == 0.5
    scores = tiny.scores(Monoclinic(1.0), tiny.loaders().test)
    by_class = {"accuracy, monoclinic": 1.0, "accuracy, tetragonal": 0.0}
    assert scores == {"accuracy": 0.5, **by_class, "accuracy, single files": 0.5}


def test_the_commonest_class_is_a_coin(tiny: DMS) -> None:
    found = tiny.baselines()
    assert found["majority"] == 0.5
    assert set(found) == {"majority", "nearest mean", "logistic regression"}


@pytest.mark.parametrize(
    "settings",
    [{"shape": (61,)}, {"channels": ()}, {"hidden": (0,)}, {"train_images": 3}, {"jitter": -1.0}, {"batch_size": 0}],
)
def test_settings_that_cannot_be_used_are_errors(settings: dict[str, object]) -> None:
    with pytest.raises(DataError, match=next(iter(settings))):
        DMS(**settings)
