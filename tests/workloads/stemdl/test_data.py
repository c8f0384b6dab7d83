"""The layouts on disk, damage, splits by material, and the scores."""

import csv
import math
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from lumos.errors import DataError
from lumos.workloads.stemdl import CLASSES, StemDL
from lumos.workloads.stemdl.crystals import GROUPS
from lumos.workloads.stemdl.data import ENERGIES, Patterns, RandomQuarterTurns, Simulation, find_splits, log_pattern


@pytest.fixture(scope="module")
def tiny(cache: Path) -> StemDL:
    workload = StemDL(data={"cache": cache}).tiny()
    workload.loaders()
    return workload


@pytest.fixture
def root(tiny: StemDL) -> Path:
    return tiny.root


def write(path: Path, **arrays: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def good(pixels: int = 32) -> dict[str, np.ndarray]:
    return {"data": np.random.default_rng(0).random((3, pixels, pixels), np.float32), "label": np.array([225])}


# --- reading ---------------------------------------------------------------------------------------------------------


def test_patterns_are_logarithms_whatever_their_unit() -> None:
    data = good()["data"]
    x = log_pattern(data, 32)
    torch.testing.assert_close(log_pattern(data * 1e6, 32), x)
    assert x[0, 3, 4].item() == pytest.approx(1 + math.log10(data[0, 3, 4] / data[0].mean() + 0.01), rel=1e-5)
    assert log_pattern(np.zeros((3, 32, 32), np.float32), 32).eq(-1).all()


def test_patterns_that_are_scaled_already_are_taken_as_they_are(tmp_path: Path) -> None:
    data = good(64)["data"] - 0.5
    file = write(tmp_path / "sample-0.npz", data=data, label=np.array([2]))
    x, _ = Patterns([(file, None)], 64, log_scale=False).read(0, 0)
    assert np.array_equal(x.numpy(), data)
    smaller, _ = Patterns([(file, None)], 32, log_scale=False).read(0, 0)
    assert np.allclose(smaller.numpy(), data.reshape(3, 32, 2, 32, 2).mean((2, 4)), atol=1e-6)


def test_what_an_archive_unpacks_to_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for folder, count in (("training", 20), ("testing", 3)):
        for number in range(count):
            write(tmp_path / "stemdl_ds1a" / folder / f"sample-{number}.npz", **good())
    # Published without a folder for validation: the end of training, for neighbours may be one material.
    splits = find_splits(tmp_path, 32)
    assert [len(splits[split]) for split in ("train", "valid", "test")] == [18, 2, 3]
    assert [path.name for path, _ in splits["valid"].places] == ["sample-18.npz", "sample-19.npz"]
    assert "there is no folder validation; the last 2 files of training/ validate" in caplog.text


def test_large_patterns_are_averaged_down(tmp_path: Path) -> None:
    data = good(128)["data"]
    file = write(tmp_path / "sample-0.npz", data=data, label=np.array([2]))
    x, label = Patterns([(file, None)], 32).read(0, 0)
    assert label == 2
    torch.testing.assert_close(x, log_pattern(data.reshape(3, 32, 4, 32, 4).mean((2, 4)), 32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": good()["data"]}, "no array 'label' .there is data."),
        (good() | {"data": np.zeros((32, 32), "f4")}, r"data has shape \(32, 32\); expected \(3, n, n\)"),
        (good(16), r"data has shape \(3, 16, 16\); .* workload.pattern=32 or more"),
        (good() | {"label": np.array([0])}, "the label is 0; expected a space group, 1 to 230"),
        (good() | {"label": np.array([1, 2])}, r"label has shape \(2,\)"),
        (good() | {"data": np.full((3, 32, 32), np.nan, "f4")}, "not finite; expected intensities"),
        (
            good() | {"data": np.full((3, 32, 32), -1, "f4")},
            r"negative values, the least -1.*set workload\.log_scale=false",
        ),
        (good() | {"label": np.array(["x"], dtype=object)}, "cannot be read"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, arrays: dict, message: str) -> None:
    patterns = Patterns([(write(tmp_path / "sample-7.npz", **arrays), None)], 32)
    with pytest.raises(DataError, match=message) as error:
        patterns.read(0, 0)
    assert "sample-7.npz" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_damaged_file_is_named_and_skipped(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in root.rglob("sample-*.npz"):
        copy = tmp_path / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    bad = tmp_path / "testing" / "sample-3.npz"
    bad.write_bytes(bad.read_bytes()[:900])
    data = {"source": "public", "root": tmp_path, "cache": tmp_path}
    with pytest.raises(DataError, match=r"testing/sample-3.npz: cannot be read"):
        list(StemDL(data=data).tiny().loaders().test)
    loaders = StemDL(data={**data, "on_error": "skip"}).tiny().loaders()
    assert sum(len(x) for x, _ in loaders.test) == loaders.n_test - 1
    assert "sample-3.npz" in caplog.text


def test_a_folder_without_samples_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="training: no sample-"):
        find_splits(tmp_path, 32)


# --- raw files -------------------------------------------------------------------------------------------------------


def raw(folder: Path, materials: int = 40, energies: int = 2) -> Path:
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / "batch_0.h5", "w") as file:
        for i in range(materials):
            for j in range(energies):
                group = file.create_group(f"sample_{i}_{j}")
                group["cbed_stack"] = np.random.default_rng(i).random((3, 64, 64), np.float32)
                group.attrs["space_group"] = str(1 + i).encode()
    return folder / "batch_0.h5"


def test_raw_files_are_split_by_material(tmp_path: Path) -> None:
    file = raw(tmp_path)
    splits = find_splits(tmp_path, 32)
    materials = {s: {name.split("_")[1] for _, name in p.places if name} for s, p in splits.items()}
    assert sum(map(len, materials.values())) == 40 == len(set.union(*materials.values()))
    assert {s: len(p) for s, p in splits.items()} == {s: 2 * len(m) for s, m in materials.items()}
    x, group = splits["train"].read(0, 0)
    number = int(splits["train"].places[0][1].split("_")[1])  # type: ignore[union-attr]
    with h5py.File(file) as content:
        torch.testing.assert_close(x, log_pattern(content[f"sample_{number}_0/cbed_stack"][()], 32))  # type: ignore[index]
    assert group == 1 + number


def test_a_damaged_raw_file_is_named_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw(tmp_path)
    (tmp_path / "batch_1.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"batch_1.h5: cannot be read"):
        find_splits(tmp_path, 32)
    assert len(find_splits(tmp_path, 32, "skip")["train"]) > 40
    assert "batch_1.h5" in caplog.text
    with h5py.File(tmp_path / "batch_0.h5", "a") as file:
        del file["sample_0_0/cbed_stack"]
        del file["sample_1_0"].attrs["space_group"]
    for name, message in (("sample_0_0", "no cbed_stack"), ("sample_1_0", "no attribute space_group")):
        with pytest.raises(DataError, match=f"batch_0.h5: {name} has {message}"):
            Patterns([(tmp_path / "batch_0.h5", name)], 32).read(0, 0)


# --- generated files -------------------------------------------------------------------------------------------------


def test_generated_files_are_the_published_layout(tiny: StemDL, root: Path) -> None:
    """What was generated reads as public data, to the same samples; files hold what the published ones do."""
    assert {p.name for p in root.iterdir()} == {"training", "validation", "testing", "inference", "samples.csv"}
    with np.load(root / "training" / "sample-0.npz") as file:
        assert sorted(file) == ["data", "label"]
        assert (file["data"].shape, file["data"].dtype) == ((3, 32, 32), np.float32)
        assert file["label"].shape == (1,)
        assert (file["data"].sum((1, 2)) <= 1.01).all()
        assert (file["data"].sum((1, 2)) > 0.8).all()
    public = StemDL(data={"source": "public", "root": root.parent, "cache": root}).tiny()
    assert public.loaders().sha256 == tiny.loaders().sha256
    for (x, group), (same_x, same_group) in zip(public.loaders().test, tiny.loaders().test, strict=True):
        assert torch.equal(x, same_x)
        assert torch.equal(group, same_group)


def test_the_table_says_what_each_sample_shows(root: Path) -> None:
    with (root / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    for row in rows[::20]:
        with np.load(root / row["file"]) as sample:
            assert sample["label"][0] == int(row["space_group"])
        assert int(row["energy"]) in ENERGIES
        assert 100 <= float(row["thickness"]) <= 220


def test_more_materials_to_test_on_leave_the_training_ones_as_they_are() -> None:
    plain = Simulation(0, 1200, 1, 32, 16.0, 1e5, 180.0, 1.0)
    more = replace(plain, valid_materials=600, test_materials=6000)
    assert more.folders()["training"] == plain.folders()["training"] == range(840)
    assert (more.folders()["validation"], more.folders()["testing"]) == (range(840, 1440), range(1440, 7440))


def test_no_material_is_in_two_splits() -> None:
    simulation = Simulation(0, 1200, 10, 32, 16.0, 1e5, 180.0, 1.0)
    folders = simulation.folders()
    assert sum(map(len, folders.values())) == 1200 == len(set().union(*folders.values()))
    for materials in folders.values():
        counts = np.bincount([m % len(GROUPS) for m in materials], minlength=len(GROUPS))
        assert counts.max() - counts.min() <= 1
    energies = {simulation.shown(5, n)["energy"] for n in range(10)}
    assert energies == set(ENERGIES)
    assert len({simulation.shown(5, n)["crystal"] for n in range(10)}) == 1


def test_a_sample_follows_from_the_settings_and_its_number(tiny: StemDL, root: Path) -> None:
    """Material 5 is the sixth of the training folder; 84 materials train and 14 validate before testing begins."""
    simulation = tiny._simulation
    for file, material in (("training/sample-5.npz", 5), ("testing/sample-0.npz", 98)):
        assert np.array_equal(np.load(root / file)["data"], simulation.patterns(material, 0))


def test_a_generation_that_was_stopped_goes_on(tiny: StemDL, root: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny.cache, tmp_path / "stemdl")
    stopped = replace(tiny, data={"cache": tmp_path})
    other = tmp_path / "stemdl" / root.relative_to(tiny.cache)
    lost, kept = other / "training" / "sample-5.npz", other / "testing" / "sample-1.npz"
    lost.unlink()
    time = kept.stat().st_mtime_ns
    assert stopped.root == other
    assert lost.read_bytes() == (root / "training" / "sample-5.npz").read_bytes()
    assert kept.stat().st_mtime_ns == time


def test_patterns_turn_about_the_straight_beam(tiny: StemDL) -> None:
    patterns = tiny.splits["train"]
    turned = RandomQuarterTurns(patterns, 3)
    plain, group = patterns.read(2, 0)
    orders = set()
    for epoch in range(6):
        x, same = turned.read(2, epoch)
        assert same == group
        assert torch.equal(turned.read(2, epoch)[0], x)
        assert torch.equal(x[:, 16, 16], plain[:, 16, 16])
        assert torch.equal(x.flatten(1).sort().values, plain.flatten(1).sort().values)
        orders.add(tuple(x[:, 16, 20].tolist()))
    assert len(orders) > 2


# --- the workload ----------------------------------------------------------------------------------------------------


class Says(nn.Module):
    """A network whose first choices are given."""

    def __init__(self, *groups: int) -> None:
        super().__init__()
        self.groups = torch.tensor(groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(self.groups, CLASSES).float()


def test_accuracy_and_macro_f1() -> None:
    """Three groups: F1 of 62 is 2/3, of 99 is 2/3, of 225 is 0 (never said); 227 is said but never true: 0."""
    truth = torch.tensor([62, 62, 99, 225])
    scores = StemDL().scores(Says(62, 227, 99, 99), [(torch.zeros(4, 3, 32, 32), truth)])
    assert scores == pytest.approx({"accuracy": 0.5, "macro_f1": (2 / 3 + 2 / 3 + 0 + 0) / 4})
    with pytest.raises(DataError, match="no samples"):
        StemDL().scores(Says(62), [])


def test_the_papers_network() -> None:
    """VGG11 without normalisation at 128 pixels, 231 outputs: counted by hand."""
    with torch.device("meta"):
        model = StemDL(pattern=128, widths=(64, 128, 256, 512, 512), hidden=(4096, 4096), dropout=0.5).model()
    pairs = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    convolutions = sum(9 * a * b + b for a, b in pairs)
    linear = sum(a * b + b for a, b in [(8192, 4096), (4096, 4096), (4096, 231)])
    assert sum(p.numel() for p in model.parameters()) == convolutions + linear == 60_506_727


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"materials": 50}, "workload.materials=50"),
        ({"energies": 11}, "workload.energies=11"),
        ({"pattern": 20}, "workload.pattern=20"),
        ({"pattern": 33}, "workload.pattern=33"),
        ({"width": 1.0}, "workload.width=1.0"),
        ({"dose": -1.0}, "workload.dose=-1.0"),
        ({"rotation": 200.0}, "workload.rotation=200.0"),
        ({"tilt": 20.0}, "workload.tilt=20.0"),
        ({"widths": (4, 4)}, "workload.widths"),
        ({"hidden": ()}, "workload.hidden"),
        ({"batch_size": 0}, "workload.batch_size=0"),
        ({"data": {"sauce": "public"}}, "data.sauce"),
    ],
)
def test_settings_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        StemDL(**settings)
