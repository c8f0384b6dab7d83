"""CosmoFlow's layouts: TFRecord of both versions, npy, HDF5; round trips and damage."""

import dataclasses
import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lumos.errors import DataError
from lumos.suite.workload import DataSource
from lumos.workloads.cosmoflow import CosmoFlow, errors, split_universes
from lumos.workloads.cosmoflow.data import (
    Cube,
    CubeSamples,
    Survey,
    collate,
    find_cubes,
    generate,
    read_cube,
    universe_of,
)
from lumos.workloads.cosmoflow.tfrecord import (
    crc32c,
    masked_crc,
    read_example,
    read_records,
    write_example,
    write_record,
)
from lumos.workloads.cosmoflow.universe import PARAMETERS

CELLS = 4


def a_cube(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.poisson(1, (CELLS,) * 3 + (4,)).astype("<i2"), rng.uniform(-1, 1, 4).astype(np.float32)


def write(folder: Path, kind: str, seed: int, stem: str = "univ_000001_000") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    x, y = a_cube(seed)
    if kind.startswith("tfrecord"):
        file = folder / f"{stem}.tfrecord"
        write_record(file, write_example({"x": x.tobytes(), "y": y}), compressed=kind.endswith("2"))
    elif kind == "npy":
        file = folder / f"{stem}_data.npy"
        np.save(file, x)
        np.save(folder / f"{stem}_label.npy", y)
    else:
        file = folder / f"{stem}.h5"
        with h5py.File(file, "w") as opened:
            keys = ("full", "unitPar") if kind == "hdf5 full" else ("x", "y")
            opened[keys[0]], opened[keys[1]] = x, y
    return file


@pytest.mark.parametrize("kind", ["tfrecord 1", "tfrecord 2", "npy", "hdf5", "hdf5 full"])
def test_all_layouts_read_alike(tmp_path: Path, kind: str) -> None:
    write(tmp_path, kind, 3)
    (cube,) = find_cubes(tmp_path, CELLS)
    assert cube.universe == "univ_000001"
    x, y = read_cube(cube, CELLS)
    for found, written in zip((x, y), a_cube(3), strict=True):
        assert np.array_equal(found, written)


def test_crc32c_of_known_strings() -> None:
    # RFC 3720, B.4, and the usual check value.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


def test_an_example_as_tensorflow_writes_it() -> None:
    # An Example with x = b"\x01\x00" and y = [0.5, -1], worked out by hand from the encoding of protocol buffers.
    x = bytes.fromhex("0a0b 0a0178 1206 0a04 0a020100")
    y = bytes.fromhex("0a11 0a0179 120c 120a 0a08 0000003f 000080bf")
    example = bytes([0x0A, len(x + y)]) + x + y
    features = read_example(example)
    assert features["x"] == b"\x01\x00"
    assert features["y"].tolist() == [0.5, -1.0]
    assert write_example({"x": b"\x01\x00", "y": np.array([0.5, -1.0])}) == example


def test_floats_that_are_not_packed_and_integers_are_read_too() -> None:
    y = bytes.fromhex("0a11 0a0179 120c 120a 0d0000003f 0d000080bf")
    n = bytes.fromhex("0a0b 0a016e 1206 1a04 0a02 8501")
    features = read_example(bytes([0x0A, len(y + n)]) + y + n)
    assert features["y"].tolist() == [0.5, -1.0]
    assert features["n"].tolist() == [133]


@given(st.binary(max_size=300), st.booleans())
def test_any_record_comes_back(tmp_path_factory: pytest.TempPathFactory, record: bytes, compressed: bool) -> None:
    file = tmp_path_factory.mktemp("record") / "a.tfrecord"
    write_record(file, record, compressed=compressed)
    assert list(read_records(file)) == [record]
    data = file.read_bytes()
    if not compressed:
        assert int.from_bytes(data[:8], "little") == len(record)
        assert int.from_bytes(data[8:12], "little") == masked_crc(data[:8])


def test_a_plain_record_whose_length_looks_like_gzip(tmp_path: Path) -> None:
    record = bytes(0x8B1F)
    write_record(tmp_path / "a.tfrecord", record, compressed=False)
    assert (tmp_path / "a.tfrecord").read_bytes()[:2] == b"\x1f\x8b"
    assert next(read_records(tmp_path / "a.tfrecord")) == record


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_flipped_bit_of_a_record_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, place: int, change: int
) -> None:
    file = write(tmp_path_factory.mktemp("damage"), "tfrecord 1", 0)
    data = bytearray(file.read_bytes())
    data[place % len(data)] ^= change
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"univ_000001_000\.tfrecord"):
        read_cube(Cube(file, 0, "u"), CELLS)


@pytest.mark.parametrize("kind", ["tfrecord 1", "tfrecord 2", "npy", "hdf5"])
def test_a_truncated_file_is_named(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, kind, 0)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match=file.name):
        read_cube(Cube(file, 0, "u"), CELLS)


def test_what_is_wrong_with_a_cube_is_said(tmp_path: Path) -> None:
    x, y = a_cube(0)
    file = tmp_path / "a.tfrecord"

    def wrong(match: str, cells: int = CELLS, **features: bytes | np.ndarray) -> None:
        write_record(file, write_example({"x": x.tobytes(), "y": y} | features), compressed=False)
        with pytest.raises(DataError, match=match):
            read_cube(Cube(file, 0, "u"), cells)

    wrong(r"4\^3 cells of 4 int16; expected 4,096, 8\^3 .*set workload\.cells=4", cells=8)
    wrong("x has 6 bytes; expected 512", x=b"123456")
    wrong("label of shape", y=np.zeros(3))
    wrong(r"expected four numbers in \[-1, 1\]", y=np.array([0.3, 0.8, 0.96, 70.0]))
    wrong(r"expected four numbers in \[-1, 1\]", y=np.full(4, np.nan))
    wrong("count of -1 particles", x=(-np.ones_like(x)).tobytes())
    wrong("other types", x=np.zeros(4))
    write_record(file, write_example({"y": y}), compressed=True)
    with pytest.raises(DataError, match="no key x; it has y"):
        read_cube(Cube(file, 0, "u"), CELLS)
    write_record(file, b"\x0a\xff", compressed=True)
    with pytest.raises(DataError, match=r"a\.tfrecord: record 0 is no tf\.Example"):
        read_cube(Cube(file, 0, "u"), CELLS)
    file.write_bytes(b"")
    with pytest.raises(DataError, match="0 records; expected one"):
        read_cube(Cube(file, 0, "u"), CELLS)


def test_npy_without_its_label_or_with_pickles(tmp_path: Path) -> None:
    file = write(tmp_path, "npy", 0)
    label = tmp_path / "univ_000001_000_label.npy"
    np.save(label, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"label\.npy: cannot be read"):
        read_cube(Cube(file, 0, "u"), CELLS)
    label.unlink()
    with pytest.raises(DataError, match=r"label\.npy: not there"):
        read_cube(Cube(file, 0, "u"), CELLS)


def test_hdf5_of_a_whole_universe_is_cut(tmp_path: Path) -> None:
    whole = np.arange(8**3 * 4, dtype=np.int16).reshape(8, 8, 8, 4)
    with h5py.File(tmp_path / "universe.hdf5", "w") as file:
        file["full"], file["unitPar"] = whole, np.zeros(4)
    cubes = find_cubes(tmp_path, CELLS)
    assert [cube.number for cube in cubes] == list(range(8))
    assert {cube.universe for cube in cubes} == {"universe"}
    assert np.array_equal(read_cube(cubes[1], CELLS)[0], whole[:4, :4, 4:])
    assert np.array_equal(read_cube(cubes[6], CELLS)[0], whole[4:, 4:, :4])
    with pytest.raises(DataError, match=r"\(8, 8, 8, 4\); expected cubes of 3\^3.*workload\.cells=8"):
        find_cubes(tmp_path, 3)


def test_hdf5_without_its_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "hdf5", 0)
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["cube"] = np.zeros(3)
    with pytest.raises(DataError, match=r"odd\.h5: no key x or full; it has cube"):
        find_cubes(tmp_path, CELLS)
    with caplog.at_level(logging.WARNING, "lumos"):
        logging.getLogger("lumos").addHandler(caplog.handler)
        assert len(find_cubes(tmp_path, CELLS, "skip")) == 1
        logging.getLogger("lumos").removeHandler(caplog.handler)
    assert "odd.h5" in caplog.text


def test_folders_without_cubes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        find_cubes(tmp_path / "train", CELLS)
    with pytest.raises(DataError, match=r"no cubes there; expected \*\.tfrecord"):
        find_cubes(tmp_path, CELLS)


def test_universe_of_a_file() -> None:
    assert universe_of(Path("a/ics_2019-03_a10000668_063.tfrecord")) == "ics_2019-03_a10000668"
    assert universe_of(Path("a/ics_7_001_data.npy")) == "ics_7"
    assert universe_of(Path("universe12.hdf5")) == "universe12"


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.lists(st.integers(20, 40), max_size=20))
def test_no_universe_is_in_two_splits(train: list[int], test: list[int]) -> None:
    cubes, held = ([Cube(Path(f"{u}_{i:03d}"), 0, str(u)) for i, u in enumerate(part)] for part in (train, test))
    left = {u for u in train if u not in test}
    if len(left) < 2:
        with pytest.raises(DataError, match="universes in train/"):
            split_universes(cubes, held)
        return
    splits = split_universes(cubes, held)
    universes = [{cube.universe for cube in splits[name]} for name in ("train", "valid", "test")]
    assert universes[0]
    assert universes[1]
    assert not universes[0] & universes[1]
    assert not (universes[0] | universes[1]) & universes[2]
    assert len(splits["train"]) + len(splits["valid"]) == sum(u in left for u in train)


@pytest.fixture(scope="module")
def tiny(cache: Path) -> CosmoFlow:
    return CosmoFlow(DataSource(cache=cache)).tiny()


def test_what_is_generated_is_read_as_public_data(tiny: CosmoFlow) -> None:
    own = tiny.loaders()
    public = dataclasses.replace(tiny, data=DataSource("public", tiny.root)).loaders()
    assert (public.n_train, public.n_valid, public.n_test) == (own.n_train, own.n_valid, own.n_test) == (36, 4, 10)
    assert public.sha256 == own.sha256
    for a, b in zip(own.test, public.test, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


def test_a_batch_is_what_was_simulated(tiny: CosmoFlow) -> None:
    survey = Survey(0, tiny.train_universes, tiny.test_universes, tiny.cells, 1, tiny.spacing, tiny.spread)
    x, y = next(iter(tiny.loaders().test))
    count, label = survey.universe(tiny.train_universes)
    assert np.allclose(np.expm1(x[0].permute(1, 2, 3, 0).numpy()), count, atol=1e-4)
    assert y[0].numpy() == pytest.approx(label, abs=1e-6)
    assert x.is_contiguous(memory_format=torch.channels_last_3d)


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    survey = Survey(seed=3, train_universes=3, test_universes=1, cells=4, parts=2, spacing=4.0)
    root = generate(tmp_path, survey)
    files = sorted(root.rglob("*.tfrecord"))
    assert len(files) == 4 * 8
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    files[0].unlink()
    assert generate(tmp_path, survey) == root
    assert files[0].read_bytes() == before[files[0]][0]
    assert all(file.stat().st_mtime_ns == before[file][1] for file in files[8:])


def test_the_parts_of_a_universe_are_its_cubes(tmp_path: Path) -> None:
    survey = Survey(seed=0, train_universes=2, test_universes=1, cells=4, parts=2, spacing=4.0)
    whole, _ = survey.universe(2)
    cubes = find_cubes(generate(tmp_path, survey) / "validation", 4)
    assert len(cubes) == 8
    assert np.array_equal(read_cube(cubes[5], 4)[0], whole[4:, :4, 4:])


def test_samples_follow_index_and_epoch(tiny: CosmoFlow) -> None:
    samples = CubeSamples(tiny.splits["train"], tiny.cells, seed=1, rolls=True)
    first, again, other = (samples.read(0, epoch)[0] for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.sum() == pytest.approx(other.sum().item(), rel=1e-5)
    assert collate([samples.read(0, 0), samples.read(1, 0)])[0].shape == (2, 4, 8, 8, 8)


def test_fresh_universes_are_seen_once(tiny: CosmoFlow) -> None:
    few = dataclasses.replace(tiny, train_universes=6, test_universes=2, batch_size=2)
    fresh = dataclasses.replace(few, fresh=True)
    epochs = []
    for epoch in (0, 1, 2, 1):
        fresh.loaders().train.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        epochs.append(np.concatenate([y.numpy() for _, y in fresh.loaders().train]))
    assert np.array_equal(epochs[1], epochs[3])
    labels = {tuple(row) for epoch in epochs[:3] for row in epoch.tolist()}
    assert len(labels) == sum(map(len, epochs[:3]))
    assert torch.equal(next(iter(fresh.loaders().test))[1], next(iter(few.loaders().test))[1])


def test_a_damaged_cube_is_skipped_when_asked(tiny: CosmoFlow, tmp_path: Path) -> None:
    for folder in ("train", "validation"):
        for seed in range(3):
            write(tmp_path / folder, "tfrecord 2", seed, f"{folder}_{seed:03d}x_000")
    damaged = tmp_path / "validation" / "validation_001x_000.tfrecord"
    damaged.write_bytes(damaged.read_bytes()[:30])
    for on_error, survivors in (("skip", 2), ("fatal", None)):
        data = DataSource("public", tmp_path, on_error=on_error)
        workload = dataclasses.replace(tiny, data=data, cells=4, channels=(4,))
        if survivors is None:
            with pytest.raises(DataError, match="validation_001x"):
                list(workload.loaders().test)
        else:
            assert sum(len(y) for _, y in workload.loaders().test) == survivors
            assert set(workload.baselines()) == {"constant", "ridge_on_power_and_counts"}


def test_scores_are_worked_out_by_hand() -> None:
    labels = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0]])
    scores = errors(np.array([[0.5, 1, 0, 0], [0.5, 1, 0, 0]]), labels)
    assert scores["MSE"] == pytest.approx((0.25 + 0.25 + 1) / 8)
    assert scores["MAE"] == pytest.approx(2 / 8)
    assert scores["R2 omega_m"] == pytest.approx(0)
    assert [key for key in scores if key.startswith("R2")] == [f"R2 {name}" for name in PARAMETERS]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"cells": 30}, "multiple of 8"),
        ({"channels": []}, "workload.channels"),
        ({"hidden": [0]}, "workload.hidden"),
        ({"train_universes": 1}, "at least 2"),
        ({"parts": 10}, "at most 9"),
        ({"spacing": 0.0}, "workload.spacing"),
        ({"spread": 0.6}, "workload.spread=0.6"),
        ({"fresh": True, "parts": 2}, "workload.fresh"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict, match: str) -> None:
    with pytest.raises(DataError, match=match):
        CosmoFlow(**settings)
