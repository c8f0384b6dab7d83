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


def judged(first, second, *, errors=(0.01, 0.01), **changes):
    """Two runs of one network each, and what is said of their scores."""
    made = []
    for score, error in zip((first, second), errors, strict=True):
        made.append(entry(score=score, **changes))
        made[-1]["compact"]["standard_error"] = error
    return [line for line in compare.verdicts(*made) if line.startswith("compact: second")]


def test_a_difference_is_judged_by_its_standard_error():
    assert judged(0.90, 0.95) == [
        "compact: second less first +0.05, standard error 0.014 (an upper bound: both saw the same test samples): "
        "larger than that, 3.5 times"
    ]
    assert judged(0.90, 0.91)[0].endswith("not larger than that")
    assert judged(0.90, 0.95, errors=(0.01, None)) == ["compact: second less first +0.05: no standard error is known"]


def test_within_a_run_both_networks_saw_the_same_samples():
    a = entry(difference={"score": -0.02, "standard_error": 0.005})
    assert compare.verdicts(a, entry())[0] == (
        "first: compact less dense -0.02, standard error 0.005 (of the test split): larger than that, 4.0 times"
    )


@pytest.mark.parametrize(
    ("seeds", "said"),
    [((0, 1, 2), "+0.02, standard error 0.0058 (3 seeds of both): larger than that, 3.5 times"),
     ((3, 4, 5), "+0.02, standard error 0.012 (3 and 3 seeds): larger than that, 1.7 times")],
)  # fmt: skip
def test_of_several_seeds_the_means_are_compared(tmp_path, capsys, seeds, said):
    for seed, score in zip((0, 1, 2), (0.90, 0.91, 0.92), strict=True):
        put(tmp_path, entry("cfd", seed, run_id=f"a{seed}", score=score))
    for seed, score in zip(seeds, (0.91, 0.94, 0.94), strict=True):
        put(tmp_path, entry("cfd", seed, run_id=f"b{seed}", score=score, lumos={"lambda": 5e-3}))
    main(["compare", "a1", f"b{seeds[1]}", "--results", str(tmp_path)])
    assert f"compact: second less first {said}" in capsys.readouterr().out


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
