"""The layout on disk, gaps and damage, and the scores."""

import logging
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from lumos.errors import DataError
from lumos.suite.config import register_resolvers
from lumos.suite.paths import CONF
from lumos.suite.run import run
from lumos.workloads.slstr import SLSTR
from lumos.workloads.slstr.baselines import mask_scores, pixel_baselines
from lumos.workloads.slstr.data import Patches, Simulation, find_splits, missing_values


@pytest.fixture(scope="module")
def tiny(cache: Path) -> SLSTR:
    return SLSTR(data={"cache": cache}).tiny()


def write(path: Path, **arrays: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def scene(rows: int = 10, columns: int = 12) -> dict[str, np.ndarray]:
    """Values that say where they are from: row + column/100."""
    place = (np.arange(rows)[:, None] + np.arange(columns) / 100).astype(np.float32)[..., None]
    return {"refs": place + np.zeros(6, "f4"), "bts": place + np.full(3, 270, "f4"), "bayes": np.round(place % 2)}


# --- reading ---------------------------------------------------------------------------------------------------------


def test_patches_are_cut_from_the_centre(tmp_path: Path) -> None:
    patches = Patches([write(tmp_path / "S3A_0.hdf", **scene())], (8, 8), 4)
    assert len(patches) == 4
    for index, (row, column) in enumerate([(1, 2), (1, 6), (5, 2), (5, 6)]):
        x, mask = patches.read(index, 0)
        assert x.shape == (9, 4, 4)
        assert mask.shape == (1, 4, 4)
        assert x[0, 0, 0].item() == pytest.approx(row + column / 100 - 0.5, abs=1e-6)
        assert x[8, 0, 0].item() == pytest.approx((row + column / 100) / 22, abs=1e-5)
        np.testing.assert_array_equal(mask[0], np.round(scene()["bayes"][row : row + 4, column : column + 4, 0]) > 0)


def test_what_is_no_number_is_the_middle_and_counted(tmp_path: Path) -> None:
    arrays = scene()
    arrays["refs"][1, :, 0] = np.nan
    arrays["bts"][2] = np.inf
    arrays["bayes"][3:5] = np.nan
    patches = Patches([write(tmp_path / "S3A_0.hdf", **arrays)], (8, 8), 8)
    x, mask = patches.read(0, 0)
    assert torch.isfinite(x).all()
    assert (x[0, 0] == 0).all()
    assert (x[6:, 1] == 0).all()
    assert (mask[0, 2:4] == 0).all()
    assert missing_values(patches) == {"refs": 1 / 48, "bts": 1 / 8, "bayes": 1 / 4}


def test_gaps_are_said(tiny: SLSTR, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lumos"):
        SLSTR(data=tiny.data).tiny().loaders()
    assert "% of refs" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bts": None}, "no array 'bts'"),
        ({"refs": np.zeros((10, 12, 5), "f4")}, r"refs has shape \(10, 12, 5\); expected \(rows, columns, 6\)"),
        ({"refs": np.zeros((20, 24, 6), "f4")}, "arrays of several sizes .refs 20 x 24, bts 10 x 12, bayes 10 x 12"),
        ({"bayes": np.zeros((7, 12, 1), "f4")}, r"bayes has shape \(7, 12, 1\); .*workload.crop=\[8, 8\]"),
    ],
)
def test_a_wrong_array_is_named(tmp_path: Path, change: dict, message: str) -> None:
    arrays = {name: array for name, array in (scene() | change).items() if array is not None}
    patches = Patches([write(tmp_path / "S3A_0.hdf", **arrays)], (8, 8), 4)
    with pytest.raises(DataError, match=message) as error:
        patches.read(0, 0)
    assert "S3A_0.hdf" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_are_split_whole_and_by_seed(tmp_path: Path) -> None:
    for k in range(20):
        write(tmp_path / "training" / f"day-{k % 2}" / f"S3A_{k}.hdf")
    splits = find_splits(tmp_path, (8, 8), 4, 0)
    names = {split: {file.name for file in patches.files} for split, patches in splits.items()}
    assert [len(found) for found in names.values()] == [16, 2, 2]
    assert len(set.union(*names.values())) == 20
    other = find_splits(tmp_path, (8, 8), 4, 1)
    assert names["train"] != {file.name for file in other["train"].files}


def test_further_scenes_to_validate_and_test_on_leave_the_training_ones(tmp_path: Path) -> None:
    plain, more = Simulation(0, 20, (8, 8)), Simulation(0, 20, (8, 8), (1, 3))
    assert more.names()[: len(plain.names())] == plain.names()  # and with them what is drawn for each
    for k in range(24):
        write(tmp_path / f"{20 + 4 * (k >= 20)}" / "training" / f"S3A_{k:05d}.hdf")
        if k < 20:
            write(tmp_path / "24" / "training" / f"S3A_{k:05d}.hdf")
    few = find_splits(tmp_path / "20", (8, 8), 4, 0)
    many = find_splits(tmp_path / "24", (8, 8), 4, 0, (1, 3))
    assert [file.name for file in few["train"].files] == [file.name for file in many["train"].files]
    assert [len(many[split].files) for split in ("train", "valid", "test")] == [16, 3, 5]
    with pytest.raises(DataError, match=r"workload\.test_scenes=1: expected at least 2"):
        SLSTR(scenes=20, test_scenes=1)


def test_too_few_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 files S3A"):
        find_splits(tmp_path, (8, 8), 4, 0)


def test_a_damaged_file_is_named_and_skipped(tiny: SLSTR, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = tiny.splits["train"]
    for file in sorted(train.files[0].parent.glob("S3A*.hdf")):
        (tmp_path / "training").mkdir(exist_ok=True)
        (tmp_path / "training" / file.name).write_bytes(file.read_bytes())
    bad = tmp_path / "training" / train.files[0].name
    bad.write_bytes(bad.read_bytes()[:3000])
    data = {"source": "public", "root": tmp_path, "cache": tmp_path}
    with pytest.raises(DataError, match=bad.name):
        list(SLSTR(data=data).tiny().loaders().train)
    loaders = SLSTR(data={**data, "on_error": "skip"}).tiny().loaders()
    read = sum(len(x) for x, _ in loaders.train)
    assert bad.name in caplog.text
    # An incomplete last batch is dropped besides.
    assert loaders.n_train - train.per_file - 16 < read <= loaders.n_train - train.per_file


# --- the workload ----------------------------------------------------------------------------------------------------


def test_generated_files_are_the_published_layout(tiny: SLSTR) -> None:
    """What was generated reads as public data, to the same samples."""
    tiny.loaders()
    root = tiny.root
    assert len(list(root.glob("inference/**/S3A*.hdf"))) == 1
    public = SLSTR(data={"source": "public", "root": root.parent, "cache": root}).tiny()
    assert public.loaders().source == "public"
    assert public.loaders().sha256 == tiny.loaders().sha256
    for (x, mask), (same_x, same_mask) in zip(public.loaders().test, tiny.loaders().test, strict=True):
        torch.testing.assert_close(x, same_x, rtol=0, atol=0)
        torch.testing.assert_close(mask, same_mask, rtol=0, atol=0)


def test_generation_is_deterministic_and_resumes(tiny: SLSTR, tmp_path: Path) -> None:
    again = SLSTR(data={"cache": tmp_path}).tiny()
    assert again.loaders().sha256 == tiny.loaders().sha256
    files = sorted(tmp_path.rglob("S3A*.hdf"))
    lost, times = files[3], {file: file.stat().st_mtime_ns for file in files}
    content = lost.read_bytes()
    lost.unlink()
    SLSTR(data={"cache": tmp_path}).tiny().loaders()
    assert lost.read_bytes() == content
    assert all(file.stat().st_mtime_ns == times[file] for file in files if file != lost)


class Constant(nn.Module):
    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x[:, :1], self.logit)


def test_scores_are_those_of_the_formulas() -> None:
    mask = torch.zeros(2, 1, 2, 2)
    mask[0] = 1
    batch = (torch.zeros(2, 9, 2, 2), mask)
    chance = 1 / (1 + math.exp(-1.0))
    scores = SLSTR().scores(Constant(1.0), [batch])
    assert scores["BCE"] == pytest.approx(-(math.log(chance) + math.log(1 - chance)) / 2, rel=1e-6)
    assert (scores["accuracy"], scores["IoU"]) == (0.5, 0.5)
    assert scores["MSE"] == pytest.approx((chance**2 + (1 - chance) ** 2) / 2, rel=1e-6)
    assert SLSTR().loss(Constant(0.0), batch).item() == pytest.approx(1.0)
    same = mask_scores(np.full(8, chance), mask.numpy().reshape(-1) > 0)
    assert same == pytest.approx(scores, rel=1e-6)
    assert SLSTR().scores(Constant(-1.0), [batch])["IoU"] == 0.0
    with pytest.raises(DataError, match="no samples"):
        SLSTR().scores(Constant(0.0), [])


def test_pixel_baselines_find_a_threshold() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 9)).astype(np.float32)
    scores = pixel_baselines((x[:2000], x[:2000, 4] > 0.3), (x[2000:], x[2000:, 4] > 0.3))
    assert scores["logistic"]["accuracy"] > 0.97
    assert scores["boosted_trees"]["accuracy"] > 0.97
    assert scores["majority"]["accuracy"] == pytest.approx(0.62, abs=0.03)


def test_the_papers_network() -> None:
    """UNet 32-64-128-256 on 9 channels, counted by hand: weights and biases of each convolution."""
    model = SLSTR(patch=256, crop=(1024, 1280), scene=(1200, 1500), widths=(32, 64, 128, 256)).model()
    down = sum(9 * (a * b + b * b) + 2 * b for a, b in [(9, 32), (32, 64), (64, 128), (128, 256)])
    up = sum(4 * 2 * b * b + b + 9 * (2 * b * b + b * b) + 2 * b for b in (128, 64, 32))
    assert sum(p.numel() for p in model.parameters()) == down + up + 33 == 1_927_329


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenes": 3}, "workload.scenes=3"),
        ({"patch": 20}, "workload.patch=20: expected a multiple of 8"),
        ({"crop": (100, 64)}, "workload.crop"),
        ({"scene": (64, 64)}, "workload.scene"),
        ({"widths": ()}, "workload.widths"),
        ({"batch_size": 0}, "workload.batch_size=0"),
        ({"data": {"sauce": "public"}}, "data.sauce"),
    ],
)
def test_settings_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SLSTR(**settings)


@pytest.mark.slow
def test_predictors_see_the_same_pixels_however_long_the_training(tmp_path):
    """The training patches come in another order each epoch, and a resumed run trains fewer epochs or none."""

    def predictors(epochs):
        register_resolvers()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            few = ["scenes=10", "scene=[40,40]", "crop=[32,32]", "patch=16", "widths=[4,4]", f"epochs={epochs}"]
            settings = [f"paths.cache={tmp_path}", f"paths.results={tmp_path / epochs}"]
            settings += [f"workload.{setting}" for setting in few]
            return run(compose("config", ["workload=slstr", "scale=tiny", "trainer.device=cpu", *settings]))

    one, three = predictors("1"), predictors("3")
    assert one["dense"]["score"] != three["dense"]["score"]
    assert one["baselines"] == three["baselines"]
