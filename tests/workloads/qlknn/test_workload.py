"""The workload whose dense network comes trained: its samples, and runs that start from it."""

import json

import numpy as np
import pytest
import torch

from lumos.errors import DataError
from lumos.suite.cli import main
from lumos.suite.finished_run import read_run
from lumos.workloads.qlknn import INPUTS, OUTPUTS, QLKNN
from lumos.workloads.qlknn.network import drawn_network
from lumos.workloads.qlknn.ranges import REGIONS, box_of
from tests.workloads.qlknn.files import graph_of, write


def workload(cache, **settings):
    return QLKNN(data={"cache": cache, **settings.pop("data", {})}, **settings).tiny()


def test_outputs_are_those_of_the_given_network(cache):
    made = workload(cache)
    scores = made.scores(made.model().eval(), made.loaders().test)
    assert list(scores) == ["R2", *OUTPUTS]
    assert all(score == pytest.approx(1, abs=1e-9) for score in scores.values())
    assert scores["R2"] == made.score(made.model().eval(), made.loaders().test)
    assert -0.1 < made.baselines()["mean"] < 0.1
    assert made.recipe.schedule == "given"
    assert made.note.startswith("the outputs of a network of drawn weights, which stands for QLKNN")


def test_inputs_stay_in_their_region(cache):
    made = workload(cache, region="edge", ranges={"q": [3, 4]})
    x = made.splits.train.inputs
    for name, column in zip(INPUTS, x.T, strict=True):
        low, high = (np.float32(b) for b in made.box[name])
        assert low <= column.min() <= column.max() <= high
        assert high == low or column.max() - column.min() > 0.9 * (high - low)
    assert made.box["q"] == (3.0, 4.0)
    assert not torch.equal(x, workload(cache, region="edge", ranges={"q": [3, 4]}, seed=1).splits.train.inputs)
    assert set(REGIONS) == {"core", "edge", "hmode"}
    for name, (low, high) in REGIONS["hmode"].items():
        assert REGIONS["core"][name][0] <= low < high <= REGIONS["core"][name][1]


@pytest.mark.parametrize(("region", "ranges", "line"), [
    ("sun", None, "workload.region=sun: expected core, edge, hmode"),
    ("core", {"Te": [0, 1]}, "workload.ranges.Te: there is no such input; expected Ati, Ate"),
    ("core", {"q": [3, 1]}, r"workload.ranges.q=\[3, 1\]: expected \[least, largest\]"),
    ("core", {"q": 3}, r"workload.ranges.q=3: expected \[least, largest\]"),
    ("core", {"q": [0, float("inf")]}, r"workload.ranges.q=\[0, inf\]: expected"),
])  # fmt: skip
def test_ranges_that_are_none_are_refused(region, ranges, line):
    with pytest.raises(DataError, match=line):
        box_of(region, ranges)
    with pytest.raises(DataError, match=line):
        QLKNN(region=region, ranges=ranges)


def test_a_file_of_the_published_form_is_taken(tmp_path):
    file = write(graph_of(drawn_network((7, 9))), tmp_path / "own.onnx")
    made = workload(tmp_path, data={"source": "public", "root": file})
    assert made.files() == [file]
    assert made.note.startswith("the outputs of QLKNN_7_11")
    assert [p.shape[0] for p in made.model().parameters()] == [7, 7, 9, 9, 8, 8]
    assert made.loaders().source == "public"
    with pytest.raises(DataError, match=r"there is no such file"):
        workload(tmp_path, data={"source": "public", "root": tmp_path / "no.onnx"}).model()


SMALL = ("workload=qlknn", "scale=tiny", "workload.rows=5000", "workload.epochs=12", "trainer.device=cpu",
         "trainer.threads=1")  # fmt: skip


def run(folder, capsys, *words):
    main(["run", *SMALL, f"paths.results={folder}", f"paths.cache={folder / 'cache'}", *words])
    found = [json.loads(path.read_text()) for path in (folder / "runs" / "qlknn").glob("*/record.json")]
    return max(found, key=lambda record: record["provenance"]["started_utc"]), capsys.readouterr().out


def test_the_dense_network_is_the_given_one_and_is_not_trained(tmp_path, capsys):
    entry, out = run(tmp_path, capsys, "lumos.target.params=0.5")
    dense, compact = entry["dense"], entry["compact"]
    assert dense["score"] == pytest.approx(1, abs=1e-9)
    assert (dense["steps"], dense["train_seconds"], dense["schedule"]) == (0, 0.0, "given")
    assert dense["scores"]["efiITG"] == pytest.approx(1, abs=1e-9)
    assert compact["params"] <= 0.5 * dense["params"]
    assert 0.5 < compact["score"] < 1
    assert compact["steps"] == 12 * 40
    assert "dense: the given network, not trained; compact trained for" in out
    assert "training time [s]" not in out
    kept = read_run(str(tmp_path / "runs" / "qlknn" / entry["run_id"])).dense
    assert kept is not None
    for name, tensor in drawn_network((32, 32)).state_dict().items():
        assert torch.equal(kept.state_dict()[name], tensor)
    again, _ = run(tmp_path, capsys, "lumos.target.params=0.5", "force=true")
    assert again["compact"]["score"] == compact["score"]


def test_a_tolerance_is_held_against_the_given_network(tmp_path, capsys):
    entry, _ = run(tmp_path, capsys, "lumos.tolerance=0.2", "lumos.penalty=macs")
    steering = entry["steering"]
    assert steering["line"] == pytest.approx(0.8)
    assert steering["met"]
    assert entry["compact"]["params"] < entry["dense"]["params"]


def test_from_scratch_the_weights_are_fresh_ones(tmp_path, capsys):
    entry, _ = run(tmp_path, capsys, "method=scratch", "method.target=0.5")
    assert entry["dense"]["schedule"] == "given"
    assert entry["compact"]["steps"] == 12 * 40
    assert entry["compact"]["score"] < 0.99
