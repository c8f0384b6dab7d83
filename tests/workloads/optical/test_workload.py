"""The images of laser optics: their layout on disk, how damage is told, and the autoencoder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from lumos.errors import DataError
from lumos.suite.workload import DataSource
from lumos.workloads.common import parallel
from lumos.workloads.optical import Optical
from lumos.workloads.optical.data import FOLDER, Images, View, find_files, generate, read_image
from lumos.workloads.optical.detection import Errors, PrincipalComponents, area_under_roc, detection, errors
from lumos.workloads.optical.model import Autoencoder

COUNTS = {"training/undamaged": 7, "validation/undamaged": 6, "inference/undamaged": 5, "inference/damaged": 6}
PLANE, CROP = (49, 66), (15, 35, 27, 47)


@pytest.fixture(scope="module")
def tiny(cache: Path) -> Optical:
    return Optical(DataSource(cache=cache)).tiny()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return generate(tmp_path, PLANE, COUNTS, seed=3)


def test_the_generator_writes_the_published_layout(dataset: Path) -> None:
    found = {
        f"{split}/{kind}": len(list((dataset / FOLDER / split / kind).glob("*.TIFF")))
        for split, kind in (name.split("/") for name in COUNTS)
    }
    assert found == COUNTS
    with tifffile.TiffFile(next((dataset / FOLDER / "inference/damaged").glob("*.TIFF"))) as file:
        assert len(file.pages) == 1
        assert file.pages[0].dtype == np.uint16
        assert file.pages[0].shape == PLANE


def test_generated_images_read_as_public_ones_are_the_same(tiny: Optical) -> None:
    public = replace(
        tiny, data=DataSource("public", root=tiny.root, cache=Path("unused")), plane=tiny.plane, crop=tiny.crop
    )
    inner = replace(public, data=DataSource("public", root=tiny.root / FOLDER))
    ours = list(tiny.loaders().test)
    for other in (public, inner):
        assert other.loaders().sha256 == tiny.loaders().sha256
        for (a, x), (b, y) in zip(ours, other.loaders().test, strict=True):
            assert torch.equal(a, b)
            assert torch.equal(x, y)


def test_the_images_do_not_depend_on_the_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = []
    for cores in (1, 3):
        monkeypatch.setattr(parallel.os, "cpu_count", lambda cores=cores: cores)
        folders.append(generate(tmp_path / str(cores), PLANE, COUNTS, seed=3))
    names = sorted(p.relative_to(folders[0]) for p in folders[0].rglob("*.TIFF"))
    assert len(names) == sum(COUNTS.values())
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_generation_that_was_stopped_goes_on(dataset: Path) -> None:
    """A file that is missing comes back as it was; the others are not touched."""
    first, second = sorted((dataset / FOLDER / "training/undamaged").glob("*.TIFF"))[:2]
    before, kept = first.read_bytes(), second.stat().st_mtime_ns
    first.unlink()
    assert generate(dataset.parent, PLANE, COUNTS, seed=3) == dataset
    assert first.read_bytes() == before
    assert second.stat().st_mtime_ns == kept


def test_a_session_is_in_one_split_and_of_five_shots(dataset: Path) -> None:
    """Shots of one session differ less than shots of two: the beam stays about where it is."""
    view = View(PLANE, CROP)
    images = [view.of(read_image(path, PLANE)) for path, _ in find_files(dataset, "training", ["undamaged"])]
    within = np.mean([(images[0] - images[k]) ** 2 for k in range(1, 5)])
    between = np.mean([(images[k] - images[n]) ** 2 for k in range(5) for n in (5, 6)])
    assert between > 1.5 * within


def test_the_view_scales_the_whole_plane_and_crops_after() -> None:
    counts = np.arange(12, dtype=np.uint16).reshape(3, 4) * 10 + 100
    seen = View((8, 8), (0, 4, 4, 8)).of(np.pad(counts, ((0, 5), (4, 0)), constant_values=60))
    np.testing.assert_allclose(seen[0, 0], (counts[0] - 60) / 150.0)
    assert seen[0, 2, 3] == 1
    assert seen.shape == (1, 4, 4)
    # An image of one grey has no range to be scaled by.
    assert not View((4, 4), (0, 4, 0, 4)).of(np.full((4, 4), 7, np.uint16)).any()


@pytest.mark.parametrize("crop", [(0, 4, 0, 6), (-4, 4, 0, 4), (4, 4, 0, 4), (0, 12, 0, 4)])
def test_a_crop_that_cannot_be_used_is_an_error(crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(DataError, match="crop"):
        View((8, 8), crop)


def test_a_wrong_file_is_named_with_what_was_expected(tmp_path: Path) -> None:
    path = tmp_path / "shot.TIFF"
    image = np.random.default_rng(0).integers(0, 4095, PLANE).astype(np.uint16)
    tifffile.imwrite(path, image)
    np.testing.assert_array_equal(read_image(path, PLANE), image)
    with pytest.raises(DataError, match=r"shot.TIFF: 49 x 66, uint16; expected .* 492 x 656"):
        read_image(path, (492, 656))
    tifffile.imwrite(path, image.astype(np.float32))
    with pytest.raises(DataError, match="float32; expected"):
        read_image(path, PLANE)
    tifffile.imwrite(path, np.stack([image, image]), photometric="minisblack")
    with pytest.raises(DataError, match="2 planes"):
        read_image(path, PLANE)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shot.TIFF"
    tifffile.imwrite(path, np.ones(PLANE, np.uint16))
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"shot.TIFF: cannot be read"):
            read_image(path, PLANE)
    with pytest.raises(DataError, match=r"absent.TIFF"):
        read_image(tmp_path / "absent.TIFF", PLANE)


def test_a_missing_folder_is_named(dataset: Path) -> None:
    with pytest.raises(DataError, match=r"validation/damaged: is not there; expected data.root to have"):
        find_files(dataset, "validation")
    (dataset / FOLDER / "validation/damaged").mkdir()
    with pytest.raises(DataError, match=r"has no .TIFF files"):
        find_files(dataset, "validation")


def test_a_damaged_file_ends_the_run_or_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = generate(tmp_path, PLANE, COUNTS, seed=3)
    broken = sorted((root / FOLDER / "training/undamaged").glob("*.TIFF"))[2]
    broken.write_bytes(b"II*\0")
    tiny = Optical().tiny()

    def workload(on_error: str) -> Optical:
        return replace(tiny, data=DataSource("public", root=root, on_error=on_error), plane=PLANE, crop=CROP)

    with pytest.raises(DataError, match=broken.name):
        workload("fatal").model()
    skipping = workload("skip")
    assert torch.isfinite(skipping.loss(skipping.model(), next(iter(skipping.loaders().test))))
    assert broken.name in caplog.text


def test_the_loss_of_the_mean_image_is_one(tiny: Optical) -> None:
    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return tiny.model().mean.expand_as(x)

    whole = torch.cat([images for images, _ in tiny.in_order("train")])
    assert tiny.loss(Mean(), (whole, torch.zeros(len(whole), dtype=torch.int64))).item() == pytest.approx(1, rel=1e-4)


def test_the_score_is_of_undamaged_images_alone(tiny: Optical) -> None:
    class Dark(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x)

    images = torch.cat([images for images, damaged in tiny.loaders().test])
    damaged = torch.cat([damaged for _, damaged in tiny.loaders().test])
    assert int(damaged.sum()) == len(damaged) // 2
    expected = images[damaged == 0].double().square().mean().item()
    assert tiny.score(Dark(), tiny.loaders().test) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(DataError, match="no undamaged"):
        tiny.score(Dark(), [(images[damaged == 1], damaged[damaged == 1])])


def test_the_area_under_the_curve_is_sklearns_ties_included() -> None:
    rng = np.random.default_rng(0)
    for n in (5, 50):
        score, label = rng.integers(0, 8, n).astype(float), rng.integers(0, 2, n).astype(bool)
        expected = roc_auc_score(label, score)
        assert area_under_roc(torch.from_numpy(score), torch.from_numpy(label)) == pytest.approx(expected)
    with pytest.raises(DataError, match="at least one of each"):
        area_under_roc(torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.bool))


def test_the_threshold_is_from_undamaged_validation_images() -> None:
    """Of the peaks 0..99, the 0.95 quantile is 94.05: half of the damaged and one in four of the others are above."""
    valid = Errors(torch.zeros(101), torch.cat([torch.arange(100.0), torch.tensor([1e6])]), torch.arange(101) == 100)
    test = Errors(
        mean=torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 1.0]),
        peak=torch.tensor([1.0, 2.0, 94.0, 95.0, 94.0, 95.0]),
        damaged=torch.tensor([0, 0, 0, 0, 1, 1]) == 1,
    )
    found = detection(valid, test, 0.95)
    assert found["true positive rate"] == 0.5
    assert found["false positive rate"] == 0.25
    assert found["AUC (mean error)"] == 1.0
    assert found["AUC (peak error)"] == pytest.approx((2 + 0.5 + 3 + 0.5) / 8)


def test_the_peak_is_the_worst_window() -> None:
    image = torch.zeros(1, 1, 20, 20)
    image[0, 0, 10, 10] = 5.0
    found = errors(torch.zeros_like, [(image, torch.tensor([1]))])
    assert found.peak.item() == pytest.approx(1.0)  # 25 over the 25 pixels of a window
    assert found.mean.item() == pytest.approx(25 / 400)


def test_principal_components_are_sklearns() -> None:
    x = torch.randn(30, 1, 6, 8) * torch.linspace(0.1, 2, 48).reshape(6, 8)
    ours = PrincipalComponents.fit(x, 5)(x)
    reference = PCA(5).fit(x.flatten(1).numpy())
    expected = reference.inverse_transform(reference.transform(x.flatten(1).numpy())).reshape(30, 1, 6, 8)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(PrincipalComponents.fit(x, 0)(x), x.mean(0).expand_as(x))


def test_the_papers_network_has_its_sizes() -> None:
    model = Autoencoder(torch.zeros(1, 200, 200), torch.ones(()), (64, 32, 16), 512, (16, 32, 32, 64, 64))
    assert model.squeeze[1].weight.shape == (512, 16 * 50 * 50)
    assert model.expand[0].weight.shape == (16 * 50 * 50, 512)
    assert model(torch.zeros(2, 1, 200, 200)).shape == (2, 1, 200, 200)
    assert sum(p.numel() for p in model.parameters()) == 41_096_609


def test_samples_are_what_is_in_the_files(dataset: Path) -> None:
    files = find_files(dataset, "inference")
    assert [label for _, label in files] == [0] * 5 + [1] * 6
    samples = Images(files, View(PLANE, CROP))
    image, label = samples.read(10, 0)
    counts = tifffile.imread(files[10][0]).astype(np.float32)
    expected = ((counts - counts.min()) / (counts.max() - counts.min()))[15:35, 27:47]
    np.testing.assert_allclose(image[0].numpy(), expected, rtol=1e-6)
    assert label == 1


@pytest.mark.parametrize(
    "settings",
    [{"plane": (49,)}, {"encoder": (4, 4)}, {"decoder": (4, 4, 4, 4)}, {"latent": 0}, {"quantile": 1.0},
     {"encoder": (4, 0, 4)}, {"train_images": 0}],
)  # fmt: skip
def test_settings_that_cannot_be_used_are_errors(settings: dict[str, object]) -> None:
    with pytest.raises(DataError, match=next(iter(settings))):
        Optical(**settings)
