"""Runs in one file: nothing is lost, the same bytes each time, damage costs the damaged line alone."""

import errno
import gzip
import json
import logging

import pytest

from lumos.errors import RecordError
from lumos.suite import archive, record
from lumos.suite.cli import main
from lumos.suite.report import build
from lumos.suite.report.results import Results
from tests.records import entry, full, put

RUN = entry("cfd", run_id="abc1")


@pytest.fixture
def results(tmp_path):
    """Two runs with all kinds of files."""
    folder = put(tmp_path / "results", RUN)
    (folder / "train.log").write_text("α ≥ 1\n")
    (folder / "compact.pt").write_bytes(bytes(range(256)))
    (folder / "last.ckpt").write_text("goes")
    (folder / ".lock").write_text("")
    put(tmp_path / "results", entry("fluid", 1, run_id="abd2"), features=False)
    return tmp_path / "results"


def contents(results):
    """Every file below ``runs/``, and what is in it."""
    files = (p for p in (results / "runs").rglob("*") if p.is_file())
    return {str(p.relative_to(results)): p.read_bytes() for p in files if p.name not in (".lock", "last.ckpt")}


@pytest.mark.parametrize("name", ["runs.jsonl", "runs.jsonl.gz"])
def test_unpacked_runs_are_what_was_packed(results, tmp_path, name):
    assert archive.pack([results], tmp_path / name) == 2
    folders = archive.unpack(tmp_path / name, tmp_path / "new")
    assert [f.name for f in folders] == ["abc1", "abd2"]
    assert contents(tmp_path / "new") == contents(results)
    with pytest.raises(RecordError, match="is there already, and 1 more"):
        archive.unpack(tmp_path / name, tmp_path / "new")


def test_the_same_runs_give_the_same_bytes(results, tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        archive.pack([results / "runs" / "fluid" / "abd2", results], tmp_path / name)
    first = (tmp_path / "a.jsonl.gz").read_bytes()
    assert first == (tmp_path / "b.jsonl.gz").read_bytes()
    # An archive packed again, with a run added that it has already, is the same archive.
    archive.pack([tmp_path / "a.jsonl.gz", results], tmp_path / "b.jsonl.gz")
    assert first == (tmp_path / "b.jsonl.gz").read_bytes()


@pytest.mark.slow
def test_tables_are_the_same_from_folders_and_from_an_archive(tmp_path):
    folder = full(tmp_path / "folder")
    archive.pack([folder], tmp_path / "packed" / "all.jsonl.gz")
    (folder / "scaling.csv").rename(tmp_path / "packed" / "scaling.csv")
    build.write_tables(build.evaluation([tmp_path / "packed"]), tmp_path / "new")
    (tmp_path / "packed" / "scaling.csv").rename(folder / "scaling.csv")
    build.write_tables(build.evaluation([folder]), tmp_path / "old")
    old, new = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("old", "new"))
    assert len(old) > 30
    assert old == new


def test_files_of_a_run_in_an_archive(results, tmp_path):
    archive.pack([results], tmp_path / "a.jsonl.gz", without=["*.log"])
    run = archive.find("abc", [tmp_path / "a.jsonl.gz"])
    assert (run.name, run.results, run.record) == ("cfd/abc1", tmp_path, RUN)
    assert run.files == ["compact.pt", "curve.csv", "features.csv"]
    assert run.read("compact.pt") == bytes(range(256))
    assert run.read("train.log") is None
    assert run.table("train.log") == []
    assert run.table()[0] == {"phase": "dense", "epoch": 1.0, "step": 10.0, "loss": 1.0, "valid": 0.0,
                              "open_gates": None}  # fmt: skip
    assert (run.folder / "compact.pt").read_bytes() == bytes(range(256))
    assert archive.find(str(run.folder), []).record == RUN


def test_damaged_lines_are_named_and_the_others_read(results, tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    archive.pack([results], path)
    good = path.read_text().splitlines()
    outside = json.dumps(json.loads(good[0]) | {"files": {"../../outside": ""}})
    old = json.dumps({"record": {"schema": 0}, "files": {}})
    path.write_text("\n".join([good[0][:-9], good[1], "[1]", outside, old, "", good[0]]) + "\n")
    with caplog.at_level(logging.WARNING):
        assert list(Results((path,)).runs) == ["abc1", "abd2"]
    lines = [message.split(": ")[0].rsplit(":", 1)[1] for message in caplog.messages]
    assert lines == ["1", "3", "4", "5"]
    assert "a.jsonl:4: not a run's line ('../../outside' is not a file's name); it is left out" in caplog.text


def test_a_line_that_unpacks_to_more_than_the_memory_holds(results, tmp_path, caplog, monkeypatch):
    archive.pack([results], tmp_path / "a.jsonl.gz")
    monkeypatch.setattr(archive, "LONGEST", 1 << 20)
    with (tmp_path / "a.jsonl.gz").open("ab") as file:
        file.write(gzip.compress(b" " * (1 << 21)))
    assert list(Results((tmp_path,)).runs) == ["abc1", "abd2"]
    assert "a.jsonl.gz: damaged after line 2 (a line of more than 1 MB); the rest is left out" in caplog.text


def test_a_damaged_record_hides_no_other(results, tmp_path, caplog):
    (damaged, *_) = results.glob("runs/*/*/record.json")
    kept = json.loads(damaged.read_text())["run_id"]
    damaged.write_text("{")
    assert list(Results((results,)).runs) == [name for name in ("abc1", "abd2") if name != kept]
    assert f"{damaged}: not a readable record" in caplog.text


@pytest.mark.parametrize("field", ["workload", "run_id"])
def test_a_record_names_no_path(results, field):
    (path, *_) = results.glob("runs/*/*/record.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: "../../outside"}))
    with pytest.raises(RecordError, match=f"{field}: .*'../../outside', expected letters, digits"):
        record.read(path)


def test_an_archive_that_ends_early(results, tmp_path, caplog):
    archive.pack([results], tmp_path / "a.jsonl.gz")
    whole = (tmp_path / "a.jsonl.gz").read_bytes()
    first = gzip.compress(gzip.decompress(whole).splitlines(keepends=True)[0])
    (tmp_path / "a.jsonl.gz").write_bytes(first + whole[:40])
    with caplog.at_level(logging.WARNING):
        assert list(Results((tmp_path,)).runs) == ["abc1"]
    assert "a.jsonl.gz: damaged after line 1 (" in caplog.text


def test_what_cannot_be_packed_or_found_is_said(results, tmp_path):
    with pytest.raises(RecordError, match=r"expected a name that ends in \.jsonl or \.jsonl\.gz"):
        archive.pack([results], tmp_path / "a.zip")
    with pytest.raises(RecordError, match="no run there; give results folders"):
        archive.pack([tmp_path / "nothing"], tmp_path / "a.jsonl")
    with pytest.raises(RecordError, match="there is no such archive"):
        archive.unpack(tmp_path / "a.jsonl", tmp_path)
    archive.pack([results], tmp_path / "a.jsonl")
    with pytest.raises(RecordError, match="no run fff or zzz in it"):
        archive.unpack(tmp_path / "a.jsonl", tmp_path, ["fff", "zzz"])
    assert [p.name for p in archive.unpack(tmp_path / "a.jsonl", tmp_path, ["abd"])] == ["abd2"]
    with pytest.raises(RecordError, match="2 runs begin with it"):
        archive.find("ab", [results])


def test_what_a_full_disk_ended_is_unpacked_by_the_same_call(results, tmp_path, monkeypatch):
    archive.pack([results], tmp_path / "a.jsonl")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(record, "write", full)
        with pytest.raises(OSError, match="No space left"):
            archive.unpack(tmp_path / "a.jsonl", tmp_path / "back")
    assert not contents(tmp_path / "back")
    assert len(archive.unpack(tmp_path / "a.jsonl", tmp_path / "back")) == 2


def test_the_commands_pack_list_and_unpack(results, tmp_path, capsys):
    path = tmp_path / "a.jsonl.gz"
    main(["pack", str(results), "-o", str(path), "--without", "*.pt"])
    assert f"wrote {path}: 2 runs, 0.00 MB" in capsys.readouterr().out
    main(["list", str(path)])
    assert "2 runs" in capsys.readouterr().out
    main(["unpack", str(path), "abc", "-o", str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / 'runs' / 'cfd' / 'abc1'}\n"
    assert not (tmp_path / "runs" / "cfd" / "abc1" / "compact.pt").exists()
