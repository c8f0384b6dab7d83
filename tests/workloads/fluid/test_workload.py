import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lumos.errors import DataError
from lumos.workloads.fluid import INPUTS, OUTPUTS, Fluid
from lumos.workloads.fluid.data import (
    CYCLE,
    SPRAY_DENSITY,
    Schedule,
    falling_block,
    in_the_fluid,
    pair_inputs,
    read_fluid,
    write_fluid,
)
from lumos.workloads.fluid.solver import (
    BOX_MAX,
    BOX_MIN,
    Kernel,
    State,
    advance,
    densities,
    gather_pairs,
    move,
    neighbour_pairs,
    pair_terms,
)

KERNEL = Kernel.at(70.0)


@pytest.fixture(scope="module")
def state() -> State:
    """A small block just after it has hit the floor."""
    state = falling_block(70.0, np.random.default_rng(0))
    advance(state, KERNEL, 80)
    return state


def test_pairs_are_those_closer_than_h(state: State) -> None:
    d = state.x[:, None] - state.x[None]
    close = (d**2).sum(-1) < KERNEL.h**2
    expected = {(i, j) for i, j in np.argwhere(close) if i < j}
    found = neighbour_pairs(state.x, KERNEL.h)
    assert {tuple(sorted(pair)) for pair in found.tolist()} == expected
    assert len(found) == len(expected)


def test_a_crowd_needs_more_room_than_was_guessed() -> None:
    x = np.random.default_rng(0).normal(0, 1e-4, (100, 3))
    assert len(neighbour_pairs(x, KERNEL.h)) == 100 * 99 // 2


def test_density_agrees_with_the_sum_over_all_pairs(state: State) -> None:
    square = ((state.x[:, None] - state.x[None]) ** 2).sum(-1)
    brute = KERNEL.density * np.maximum(KERNEL.h**2 - square, 0).__pow__(3).sum(1)
    rho = densities(state.x, neighbour_pairs(state.x, KERNEL.h), KERNEL)
    np.testing.assert_allclose(rho, brute, rtol=1e-13)


def test_pair_terms_cancel_over_the_fluid(state: State) -> None:
    pairs = neighbour_pairs(state.x, KERNEL.h)
    terms = pair_terms(state.x, state.v, densities(state.x, pairs, KERNEL), pairs, KERNEL)
    total = gather_pairs(terms, pairs, len(state.x))
    assert np.abs(total.sum(0)).max() < 1e-13 * np.abs(total).sum()


def test_the_term_of_a_pair_is_the_formula(state: State) -> None:
    """Written out once more, with the project's inputs alone: they are all that the kernel needs."""
    pairs = neighbour_pairs(state.x, KERNEL.h)
    rho = densities(state.x, pairs, KERNEL)
    row = dict(zip(INPUTS, pair_inputs(state, KERNEL, rho, pairs).T, strict=True))
    for axis, out in zip("xyz", pair_terms(state.x, state.v, rho, pairs, KERNEL).T, strict=True):
        push = row[f"d{axis}"] * KERNEL.pressure * row["h_minus_r"] ** 2 / row["r"] * (row["rho_sum"] - 2000)
        drag = (row[f"v{axis}_j"] - row[f"v{axis}_i"]) * KERNEL.viscosity * row["h_minus_r"]
        np.testing.assert_allclose(out, (push + drag) / (row["rho_i"] * row["rho_j"]), rtol=1e-9, atol=1e-9)


def test_a_compressed_pair_repels_and_a_loose_one_attracts() -> None:
    x = np.array([[0.0, 0.0, 0.0], [0.004, 0.0, 0.0]])
    pairs = neighbour_pairs(x, KERNEL.h)
    i, j = pairs[0]
    for rho, sign in ((1200.0, 1.0), (800.0, -1.0)):
        (term,) = pair_terms(x, np.zeros((2, 3)), np.full(2, rho), pairs, KERNEL)
        assert sign * term[0] * (x[i, 0] - x[j, 0]) > 0
        np.testing.assert_array_equal(term[1:], 0.0)


def test_a_moving_neighbour_drags_along() -> None:
    x = np.array([[0.0, 0.0, 0.0], [0.004, 0.0, 0.0]])
    pairs = neighbour_pairs(x, KERNEL.h)
    v = np.zeros((2, 3))
    v[pairs[0, 1], 2] = 1.0
    (term,) = pair_terms(x, v, np.full(2, 1000.0), pairs, KERNEL)
    assert term[2] > 0


def test_particles_in_one_place_are_no_division_by_zero() -> None:
    x = np.zeros((2, 3))
    pairs = neighbour_pairs(x, KERNEL.h)
    terms = pair_terms(x, np.zeros((2, 3)), densities(x, pairs, KERNEL), pairs, KERNEL)
    np.testing.assert_array_equal(terms, 0.0)


def test_free_fall_gains_g() -> None:
    state = State(np.zeros((1, 3)), np.zeros((1, 3)), np.zeros((1, 3)))
    for _ in range(10):
        move(state, np.zeros((1, 3)))
    np.testing.assert_allclose(state.half_v, [[0, -9.8 * 0.010, 0]], atol=1e-12)


def test_nobody_leaves_the_box() -> None:
    state = falling_block(70.0, np.random.default_rng(3))
    state.v[:, 0] += 2.0
    state.half_v[:, 0] += 2.0
    for _ in range(150):
        advance(state, KERNEL)
        assert (state.x >= BOX_MIN).all()
        assert (state.x <= BOX_MAX).all()


def test_a_lost_particle_is_an_error() -> None:
    state = State(np.zeros((2, 3)), np.full((2, 3), 1e4), np.zeros((2, 3)))
    with pytest.raises(FloatingPointError, match="left the box"):
        advance(state, KERNEL)


def test_the_same_seed_gives_the_same_block() -> None:
    one, same, other = (falling_block(70.0, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.x, same.x)
    assert one.x.shape != other.x.shape or not np.array_equal(one.x, other.x)
    assert (one.x > BOX_MIN).all()
    assert (one.x < BOX_MAX).all()


@pytest.mark.parametrize("rest", [0.0, -1.0, float("nan")])
def test_a_resolution_that_is_none_is_refused(rest: float) -> None:
    with pytest.raises(ValueError, match="rest_per_metre"):
        Kernel.at(rest)


def test_only_spray_is_left_out() -> None:
    pairs = np.array([[0, 1], [1, 2], [0, 2]], dtype=np.int32)
    rho = np.array([SPRAY_DENSITY - 1, SPRAY_DENSITY - 100, SPRAY_DENSITY], dtype=np.float64)
    np.testing.assert_array_equal(in_the_fluid(pairs, rho), pairs[1:])


@pytest.mark.parametrize("turn", range(len(CYCLE)))
def test_splits_never_touch_and_share_the_rows(turn: int) -> None:
    schedule = Schedule(23, 1, {"train": 101, "valid": 10, "test": 7}, turn)
    splits = schedule.splits()
    for one, after in zip(splits, splits[1:], strict=False):
        assert one == after or one is None or after is None
    for split, rows in schedule.rows.items():
        assert sum(n for n, s in zip(schedule.shares(), splits, strict=True) if s == split) == rows


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_fluid_file_reads_back(tmp_path: Path, state: State) -> None:
    write_fluid(tmp_path / "a.fluid", 70.0, state)
    rest, back = read_fluid(tmp_path / "a.fluid")
    assert rest == 70.0
    for name in ("x", "half_v", "v"):
        np.testing.assert_array_equal(getattr(back, name), getattr(state, name).astype(np.float32))
    assert [file.name for file in tmp_path.iterdir()] == ["a.fluid"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc", "byte 3: the file ends in its header"),
        (struct.pack("<fi", 204.0, -3), "byte 4: -3 particles"),
        (struct.pack("<fi", 204.0, 2) + b"\0" * 70, "78 bytes, but 2 particles take 80"),
        (struct.pack("<fi18f", 204.0, 2, *[0.0] * 10, float("nan"), *[0.0] * 7), "byte 48: a value that is not"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.fluid").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_fluid(tmp_path / "a.fluid")
    assert "a.fluid" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_fluid(tmp_path / "none.fluid")
    with pytest.raises(DataError, match="cannot write"):
        write_fluid(tmp_path / "no" / "a.fluid", 70.0, State(*[np.zeros((2, 3))] * 3))


# --- the workload ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(cache: Path) -> Fluid:
    return Fluid(data={"cache": cache}).tiny()


def test_samples_have_the_named_columns(tiny: Fluid) -> None:
    train = tiny.splits.train
    assert train.inputs.shape == (2400, len(INPUTS)) == (2400, 15)
    assert train.outputs.shape == (2400, len(OUTPUTS)) == (2400, 3)
    row = dict(zip(INPUTS, train.inputs.T, strict=True))
    torch.testing.assert_close(row["r_squared"], row["dx"] ** 2 + row["dy"] ** 2 + row["dz"] ** 2, rtol=1e-4, atol=0)
    torch.testing.assert_close(row["rho_sum"], row["rho_i"] + row["rho_j"])


def test_generation_is_deterministic_and_cached(tiny: Fluid, tmp_path: Path) -> None:
    again = Fluid(data={"cache": tmp_path}).tiny()
    assert again.loaders().sha256 == tiny.loaders().sha256
    shards = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.h5")}
    assert len(shards) == 1
    assert Fluid(data={"cache": tmp_path}).tiny().loaders().sha256 == tiny.loaders().sha256
    assert {file: file.stat().st_mtime_ns for file in shards} == shards


def test_a_file_is_simulated_on(tmp_path: Path) -> None:
    write_fluid(tmp_path / "in.fluid", 70.0, falling_block(70.0, np.random.default_rng(5)))
    for root in (tmp_path, tmp_path / "in.fluid"):
        workload = Fluid(data={"source": "public", "root": root, "cache": tmp_path / "cache"}).tiny()
        assert workload.loaders().source == "public"
        assert workload.loaders().n_test == 300


def test_a_bad_file_among_good_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_fluid(tmp_path / "good.fluid", 70.0, falling_block(70.0, np.random.default_rng(5)))
    write_fluid(tmp_path / "frame.fluid", 0.0, falling_block(70.0, np.random.default_rng(5)))
    data = {"source": "public", "root": tmp_path, "cache": tmp_path / "cache"}
    with pytest.raises(DataError, match="start from an in_"):
        _ = Fluid(data=data).tiny().splits
    assert len(Fluid(data={**data, "on_error": "skip"}).tiny().splits.train) == 2400
    assert "left out" in caplog.text
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="file there could be read"):
        _ = Fluid(data={**data, "root": tmp_path / "empty"}).tiny().splits


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, "workload.rows=0"),
        ({"conditions": 0}, "workload.conditions=0"),
        ({"widths": ()}, "workload.widths"),
        ({"particles_per_metre": 5000.0}, "particles_per_metre"),
        ({"snapshots": 5}, "workload.snapshots=5: expected at least 10"),
        ({"steps": 0}, "workload.steps=0"),
        ({"data": {"sauce": "public"}}, "data.sauce"),
    ],
)
def test_settings_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Fluid(**settings)


def test_more_rows_than_pairs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rows of one snapshot"):
        _ = Fluid(data={"cache": tmp_path}, conditions=1, particles_per_metre=70.0, snapshots=10).splits
    assert not list(tmp_path.rglob("*.h5*"))
