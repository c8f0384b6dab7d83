"""The dense baseline's schedule: what each does to the rate, which runs it makes, and which one is kept."""

import json

import pytest
import torch

from lumos.errors import DataError
from lumos.suite import baseline
from lumos.suite.config import compose, read
from lumos.suite.finished_run import recorded_config
from lumos.suite.runner import run
from lumos.suite.training.optimizer import plain_rate
from lumos.suite.workload import Recipe
from lumos.suite.workload_class import build_workload
from tests.records import entry


def words(tmp_path, *more):
    return ["workload=synthetic", "scale=tiny", "trainer.max_steps=8", "trainer.device=cpu", "method=dense",
            f"paths.results={tmp_path}/results", f"paths.cache={tmp_path}/data", *more]  # fmt: skip


def done(tmp_path, *more):
    cfg = compose(words(tmp_path, *more))
    return run(read(cfg), build_workload(cfg))


def test_a_plain_training_can_stay_at_its_peak_as_long_as_a_gated_one():
    assert [plain_rate("hold", step, 100) for step in (0, 49, 50)] == [1.0, 1.0, 1.0]
    assert plain_rate("hold", 75, 100) == pytest.approx(plain_rate("decay", 50, 100)) == pytest.approx(0.5)
    assert plain_rate("hold", 0, 1) == 1.0


def test_ids_of_decay_are_those_of_runs_before_there_was_a_choice():
    ids = {}
    for schedule in ("decay", "hold", "better", "given"):
        config = read(compose(["workload=cfd", f"workload.schedule={schedule}"]))
        ids[schedule] = config
        assert ("schedule" in config.recorded["workload"]) == (schedule != "decay")
    assert len({c.run_id for c in ids.values()}) == len({c.baseline_id for c in ids.values()}) == 4
    assert ids["better"].baseline_of("decay") == ids["decay"].baseline_id
    assert ids["better"].baseline_of("hold") == ids["hold"].baseline_id


def test_a_record_without_the_key_was_made_by_decay():
    values = {"data": {"source": "generated"}, "scale": "tiny", "seed": 0, "lumos": {}, "trainer": {}}
    kept = {**entry(), "workload": "ppa", "config": {**values, "workload": {"_target_": "workloads.ppa.PPA"}}}
    cfg = recorded_config(kept, ["workload.test_species=3"])
    assert (cfg.workload.schedule, cfg.workload.valid_species, cfg.workload.test_species) == ("decay", None, 3)


def test_the_better_one_on_validation_is_kept_and_the_record_says_so(tmp_path):
    found = {name: done(tmp_path, f"workload.schedule={name}")["dense"] for name in ("decay", "hold")}
    assert all(f["schedule"] == name and list(f["schedules"]) == [name] for name, f in found.items())
    scores = {name: f["valid_score"] for name, f in found.items()}
    assert scores["decay"] != scores["hold"]
    both = done(tmp_path, "workload.schedule=better")["dense"]
    assert both["schedules"] == scores
    assert both["schedule"] == max(scores, key=lambda name: scores[name])
    assert both["score"] == found[both["schedule"]]["score"]
    # Both were there already: nothing was trained again, and the curve is kept with the network.
    folders = sorted((tmp_path / "results/baselines/synthetic").iterdir())
    assert len(folders) == len(baseline.SCHEDULES)
    for folder in folders:
        curve = json.loads((folder / "dense.json").read_text())["curve"]
        assert [(row["step"], type(row["valid"])) for row in curve] == [(8, float)]


def test_done_anew_both_take_the_place_of_what_there_was(tmp_path):
    first = done(tmp_path, "workload.schedule=better")
    again = done(tmp_path, "workload.schedule=better", "force=true")
    assert again["dense"]["schedules"] == first["dense"]["schedules"]
    assert len(list((tmp_path / "results/baselines/synthetic").glob("*/dense.pt"))) == 2
    assert not list((tmp_path / "results/runs").glob("*/*/dense"))


def test_a_given_network_is_not_trained(tmp_path):
    torch.manual_seed(77)
    given = build_workload(compose(words(tmp_path))).model().state_dict()
    torch.save(given, tmp_path / "weights.pt")

    def gated(*more):
        asked = [f"init_from={tmp_path / 'weights.pt'}", "workload.schedule=given", "lumos.tolerance=0.9", *more]
        cfg = compose([word for word in words(tmp_path, *asked) if word != "method=dense"])
        return run(read(cfg), build_workload(cfg))

    found = gated()
    dense = found["dense"]
    assert (dense["steps"], dense["train_seconds"], dense["schedules"]) == (0, 0.0, {"given": dense["valid_score"]})
    assert found["compact"]["steps"] == 8
    assert found["steering"]["line"] == dense["valid_score"] - 0.9 * abs(dense["valid_score"])
    (kept,) = (tmp_path / "results/baselines/synthetic").glob("*/dense.pt")
    for name, tensor in torch.load(kept, weights_only=True).items():
        assert torch.equal(tensor, given[name])
    assert gated("force=true")["dense"]["score"] == dense["score"]
    assert not list((tmp_path / "results/runs").glob("*/*/dense"))


def test_another_word_is_refused():
    with pytest.raises(DataError, match=r"workload\.schedule=step: expected decay, hold, better or given"):
        Recipe(1, 1e-3, schedule="step")  # type: ignore[arg-type]
