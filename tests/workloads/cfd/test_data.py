from dataclasses import replace

import numpy as np
import pytest
import torch

from lumos.errors import DataError
from lumos.suite.workload import DataSource
from lumos.workloads.cfd import CFD, INPUTS, OUTPUTS
from lumos.workloads.cfd.data import SPLITS, held_out, sample
from lumos.workloads.cfd.mesh import WALL, Mesh, box_with_bump, write_domn
from lumos.workloads.cfd.solver import compute_flux, free_stream, gas, inner_flux, run


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return box_with_bump((5, 4, 3))


@pytest.fixture
def tiny(tmp_path) -> CFD:
    return CFD(data=DataSource(cache=tmp_path)).tiny()


@pytest.mark.parametrize(("mach", "angle"), [((0.8, 1.2), (0.0, 4.0)), ((0.5, 0.8, 1.1, 1.4, 1.7), (-4.0, 0.0, 4.0))])
def test_no_flow_is_in_two_splits(mach, angle) -> None:
    splits = held_out(mach, angle)
    everything = [condition for split in SPLITS for condition in splits[split]]
    assert len(everything) == len(set(everything)) == len(mach) * len(angle)
    assert len(splits["train"]) >= len(splits["test"]) >= 1
    assert len(splits["valid"]) >= 1


@pytest.mark.parametrize(("mach", "angle"), [((0.8,), (0.0, 1.0)), ((0.8, 0.8), (0.0, 1.0))])
def test_too_few_or_repeated_flows_are_refused(mach, angle) -> None:
    with pytest.raises(DataError, match="at least four different conditions"):
        held_out(mach, angle)


def test_a_sample_is_what_the_kernel_sees(mesh: Mesh) -> None:
    *_, w = run(mesh, 0.8, 4.0, 3)
    far = free_stream(0.8, 4.0)
    x, y = sample(mesh, w, far, np.arange(mesh.neighbour.size))
    column = dict(zip(INPUTS, x.T, strict=True))
    one, other, inward = gas(x[:, :5]), gas(x[:, 5:10]), x[:, 10:13]
    np.testing.assert_array_equal(inward, -mesh.normal.reshape(-1, 3))
    np.testing.assert_allclose(column["area"], np.linalg.norm(inward, axis=1))
    for state, side in ((one, "i"), (other, "j")):
        for name, value in (("p", state.p), ("speed", state.speed), ("c", state.c)):
            np.testing.assert_allclose(column[f"{name}_{side}"], value, rtol=1e-12)
    np.testing.assert_array_equal(y, compute_flux(mesh, gas(w), gas(far[None])).reshape(-1, 5))

    code = mesh.neighbour.reshape(-1)
    inner = code >= 0
    np.testing.assert_allclose(inner_flux(one, other, inward)[inner], y[inner], atol=1e-13)
    wall = code == WALL
    np.testing.assert_array_equal(x[wall][:, [0, 4]], x[wall][:, [5, 9]])
    np.testing.assert_allclose(np.einsum("fk,fk->f", (one.w + other.w)[wall, 1:4], inward[wall]), 0, atol=1e-14)
    np.testing.assert_array_equal(x[~inner & ~wall, 5:10], np.repeat(far[None], (~inner & ~wall).sum(), 0))


def test_splits_have_the_rows_asked_for(tiny: CFD) -> None:
    loaders = tiny.loaders()
    assert (loaders.n_train, loaders.n_valid, loaders.n_test) == (3200, 400, 400)
    x, y = next(iter(loaders.train))
    assert x.shape == (100, len(INPUTS))
    assert y.shape == (100, len(OUTPUTS))
    assert x.dtype == y.dtype == torch.float32


def test_samples_follow_the_seed_and_come_back_from_the_cache(tiny: CFD, tmp_path) -> None:
    first = tiny.loaders().sha256
    assert replace(tiny, seed=1).loaders().sha256 != first
    assert len(list((tmp_path / "cfd").iterdir())) == 2
    again = replace(tiny)
    assert again.loaders().sha256 == first
    assert replace(tiny, data=DataSource(cache=tmp_path / "other")).loaders().sha256 == first
    assert not list(tmp_path.rglob(".*")), "a draft was left behind"


def test_a_linear_fit_beats_the_mean_and_the_normal_matters_most(tiny: CFD) -> None:
    scores = tiny.baselines()
    assert scores["mean"] < 0.05 < 0.5 < scores["linear_on_normal"] < scores["linear"] + 0.05 < 1.05


def test_public_meshes_give_the_same_kind_of_samples(tiny: CFD, mesh: Mesh, tmp_path) -> None:
    folder = tmp_path / "meshes"
    folder.mkdir()
    for name in ("a.domn", "b.domn.0.4K"):
        write_domn(mesh, folder / name)
    public = replace(tiny, data=DataSource("public", root=folder, cache=tmp_path))
    assert public.loaders().source == "public"
    assert public.loaders().n_train == 3200
    assert str(folder) in public.note


def test_a_bad_mesh_among_good_ones_stops_or_is_skipped(tiny: CFD, mesh: Mesh, tmp_path, caplog) -> None:
    folder = tmp_path / "meshes"
    folder.mkdir()
    write_domn(mesh, folder / "a.domn")
    (folder / "b.domn").write_text("3\n1 2\n")
    source = DataSource("public", root=folder, cache=tmp_path)
    with pytest.raises(DataError, match=r"b\.domn: line 2"):
        _ = replace(tiny, data=source).splits
    assert len(replace(tiny, data=replace(source, on_error="skip")).splits.train) == 3200
    assert "b.domn" in caplog.text


def test_a_folder_without_meshes(tiny: CFD, tmp_path) -> None:
    with pytest.raises(DataError, match=r"no \.domn file"):
        _ = replace(tiny, data=DataSource("public", root=tmp_path, cache=tmp_path)).splits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "workload.rows=0"),
        ({"rows": 10_000_000}, "expected 1 to 1920"),
        ({"snapshots": 9}, "workload.snapshots=9: expected 1 to workload.iterations=6"),
        ({"cells": (4, 4)}, "three numbers"),
        ({"widths": ()}, "one or more whole numbers"),
        ({"data": {"sauce": "generated"}}, "data.sauce: no such key"),
    ],
)
def test_settings_that_cannot_be_used(tiny: CFD, change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _ = replace(tiny, **change).splits


def test_hydra_may_pass_mappings_lists_and_whole_numbers(tmp_path) -> None:
    made = CFD(data={"cache": str(tmp_path)}, angle=[0, 4], mach=[1, 2], cells=[5, 4, 4], widths=[8])
    assert made.data == DataSource(cache=tmp_path)
    assert (made.angle, made.cells) == ((0.0, 4.0), (5, 4, 4))
