"""``lumos compare`` and ``lumos list``."""

import pytest

from lumos.errors import RecordError
from lumos.suite import archive
from lumos.suite.cli import main
from lumos.suite.report import compare
from tests.records import entry, put


@pytest.fixture
def results(tmp_path):
    put(tmp_path, entry("cfd", run_id="abc1", cut=0.5))
    put(tmp_path, entry("cfd", 1, run_id="abd2", cut=0.75, lumos={"lambda": 5e-3}))
    put(tmp_path, entry("fluid", run_id="ffff", status="failed"))
    return tmp_path


def test_a_record_is_found_by_id_folder_and_file(results):
    folder = results / "runs" / "cfd" / "abc1"
    for name in ("abc1", "abc", str(folder), str(folder / "record.json")):
        assert archive.find(name, [results]).record["run_id"] == "abc1"
    with pytest.raises(RecordError, match="2 runs begin with it"):
        archive.find("ab", [results])
    with pytest.raises(RecordError, match="no such file, folder or run id"):
        archive.find("zzz", [results])


def test_two_runs_side_by_side(results, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    main(["compare", "abc1", "abd2", "--results", str(results)])
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "compact: parameters" in line)
    assert [cell.strip() for cell in row.split("│")[2:5]] == ["50,000", "25,000", "-25,000"]
    assert "lumos.lambda: 0.001 | 0.005" in printed
    assert "seed: 0 | 1" in printed


def test_the_same_run_twice(results):
    run = archive.find("abc1", [results]).record
    assert compare.lines(run, run) == ["the same configuration"]
    with pytest.raises(RecordError, match="ffff: the run is failed"):
        compare.table(run, archive.find("ffff", [results]).record)


def test_list_filters(results, capsys):
    main(["list", str(results)])
    everything = capsys.readouterr().out
    assert all(run in everything for run in ("abc1", "abd2", "ffff"))
    main(["list", str(results), "--workload", "cfd", "--pareto"])
    front = capsys.readouterr().out
    assert "abd2" in front  # as good with half the parameters
    assert "abc1" not in front
    main(["list", str(results), "--status", "failed"])
    assert "1 run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["lsit"], "lsit: there is no such command (did you mean list?); expected one of run, fit, predict, explain"),
        (["list", "--patero"], "No such option"),
        (["list", "/no/such/folder"], "/no/such/folder: there is no such folder"),
        (["compare", "abc1"], "Missing argument 'RUN'"),
    ],
)
def test_a_wrong_word_is_one_clear_line(arguments, line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"lumos: {line}")
