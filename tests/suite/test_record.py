"""Records: whole or not at all, one process at a time, readable without torch."""

import json
import subprocess

import pytest

from lumos.errors import RecordError
from lumos.files import atomic
from lumos.suite import paths, record, report
from lumos.suite.report.results import Results


def entry(**changes):
    side = {"score": 0.9, "params": 200, "macs": 180, "bytes": 1000, "latency_ms": {"p50": 0.2, "p95": 0.3, "batch": 1},
            "throughput": 100.0, "throughput_batch": 64, "peak_mb": 1.0, "energy_j": None, "train_seconds": 10.0,
            "steps": 5}  # fmt: skip
    base = {
        "schema": record.SCHEMA, "run_id": "abc", "status": "finished", "error": None, "workload": "w", "scale": "tiny",
        "seed": 0, "metric": {"name": "R2", "unit": "", "higher_is_better": True}, "baselines": {"mean": 0.0},
        "dense": side, "compact": {**side, "params": 50, "train_seconds": 20.0}, "note": None,
        "data": {"source": "generated"},
        "gates": {"open": 1, "total": 4, "features_kept": ["a"], "features_total": 4,
                  "groups": {"g": {"open": 1, "total": 4}}},
        "equivalence": {"max_abs_diff": 0.0, "max_rel_diff": 1e-16, "dtype": "float64"},
        "provenance": {"started_utc": "2026-01-01T00:00:00+00:00"},
    }  # fmt: skip
    return {**base, **changes}


def test_round_trip(tmp_path):
    """What a record does not say comes back as the default that its fields have, and nothing else does."""
    made = entry()
    record.write(tmp_path, made)
    whole = made | {"provenance": made["provenance"] | {"command": ""}, "gates": made["gates"] | {"fixed": []}}
    assert record.read(tmp_path) == whole
    assert record.finished(tmp_path) == whole


def test_only_a_finished_run_counts(tmp_path):
    assert record.finished(tmp_path) is None
    record.write(tmp_path, entry(status="failed"))
    assert record.finished(tmp_path) is None
    (tmp_path / record.FILE).write_text('{"schema": 1, "sta')
    assert record.finished(tmp_path) is None


def test_bad_records_say_what_to_do(tmp_path):
    with pytest.raises(RecordError, match="there is no record; run it first"):
        record.read(tmp_path)
    (tmp_path / record.FILE).write_text("{")
    with pytest.raises(RecordError, match="not a readable record"):
        record.read(tmp_path)
    record.write(tmp_path, entry(schema=99))
    with pytest.raises(RecordError, match="record of schema 99, expected 1"):
        record.read(tmp_path)


def test_what_json_cannot_say_becomes_null(tmp_path):
    record.write(tmp_path, entry(extra=[float("nan"), float("inf"), tmp_path]))
    assert json.loads((tmp_path / record.FILE).read_text())["extra"] == [None, None, str(tmp_path)]


def test_a_run_is_held_by_one_process(tmp_path):
    with record.locked(tmp_path), pytest.raises(RecordError, match="another process"), record.locked(tmp_path):
        pass
    with record.locked(tmp_path):
        pass


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted():
        with atomic(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_records_oldest_first(tmp_path):
    for i, started in enumerate(("2026-02-01", "2026-01-01")):
        record.write(
            tmp_path / "runs" / "w" / str(i), entry(seed=i, run_id=str(i), provenance={"started_utc": started})
        )
    assert [r["seed"] for r in Results((tmp_path,)).records] == [1, 0]


def test_the_table_of_a_run():
    rows = {name: values for name, *values in report.run_rows(entry())}
    assert rows["parameters"] == ["200", "50", "-75.0%"]
    assert rows["training time [s]"] == ["10.0", "20.0", "2.00x slower"]
    assert rows["test R2 (higher is better)"] == ["0.9000", "0.9000", "+0.0000"]
    assert rows["input features"] == ["4", "1", "-75.0%"]


def test_the_curve(tmp_path):
    record.write_curve(tmp_path, [{"step": 1, "loss": 2.0}, {"step": 2, "open": 3}])
    assert (tmp_path / "curve.csv").read_text().splitlines() == ["step,loss,open", "1,2.0,", "2,,3"]


def test_all_runs_as_a_table():
    table = report.runs_table([entry(), entry(status="failed", run_id="def")])
    assert table.row_count == 2
    cells = [list(column.cells) for column in table.columns]
    assert cells[4] == ["finished", "failed"]
    assert cells[8] == ["-75.0%", ""]


def test_a_run_is_dirty_where_code_differs_and_not_where_records_do(tmp_path, monkeypatch):
    def git(*command):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True, capture_output=True)

    for file in ("lumos/record.py", "results/record.json"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("1")
    git("init")
    monkeypatch.setattr(paths, "CHECKOUT", tmp_path)
    assert record.provenance("cpu")["dirty"] is None
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "results/record.json").write_text("2")
    assert record.provenance("cpu")["dirty"] is False
    (tmp_path / "lumos/record.py").write_text("2")
    assert record.provenance("cpu")["dirty"] is True
    monkeypatch.setattr(paths, "CHECKOUT", None)  # an installed package, whatever repository it lies in
    assert record.provenance("cpu")["git"] is None
