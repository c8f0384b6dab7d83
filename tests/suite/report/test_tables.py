"""Tables from records: what was published, which runs count, means by hand, dashes where there is nothing."""

import csv
import json

import pytest

from lumos.errors import RecordError
from lumos.suite.report import build, run_tables
from lumos.suite.report import quantities as q
from lumos.suite.report.published import Number, Published
from lumos.suite.report.results import Results, pareto_front
from lumos.suite.report.sweeps import find_sweeps
from lumos.suite.report.table import Cell, Table, difference, latex, number, published, write
from tests.records import entry, full, put


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---- what was published ---------------------------------------------------------------------------------------------


def test_numbers_and_ranges():
    assert Number.parse("71.45").point == 71.45
    assert Number.parse("-1.59..-0.69").point is None
    assert Number.parse("-1.59..-0.69").less(-1.0) == 0
    assert Number.parse("-1.59..-0.69").less(0.0) == pytest.approx(0.69)
    assert Number.parse(">90").less(95) == 0
    assert Number.parse(">90").less(85) == -5
    assert Number.parse("yes") is None
    assert Number.parse("") is None


def test_the_papers_numbers_are_there():
    paper = Published.read()
    assert len(paper.workloads) == 13
    assert paper.number("9c", "params_reduction").point == 71.45
    assert paper.number("9d", "macs_reduction").point == 69.6
    assert [paper.number("9a", f"speedup_{d}").point for d in ("gpu", "cpu")] == [6.4, 7.6]
    assert paper.number("11a", "energy_reduction").point == 50.7
    assert paper.number("11b", "memory_reduction").point == 23
    assert paper.number("III", "score", "cfd", "oto").point == 0.5933
    assert paper.number("III", "params_reduction", "braintumor", "depgraph") is None
    minutes = [paper.number("IV", "train_minutes", "cfd", m).point for m in ("dense", "lumos")]
    assert paper.number("IV", "train_overhead", "cfd").point == pytest.approx(
        100 * (minutes[1] / minutes[0] - 1), abs=0.01
    )
    assert {r["workload"] for r in paper.rows} - {"", "cifar10"} == set(paper.workloads)
    assert all(r["source"] for r in paper.rows)


def test_a_damaged_paper_csv(tmp_path):
    with pytest.raises(RecordError, match="cannot be read"):
        Published.read(tmp_path / "paper.csv")
    (tmp_path / "paper.csv").write_text("table,value\nII,3\n")
    with pytest.raises(RecordError, match="no column workload"):
        Published.read(tmp_path / "paper.csv")


# ---- which runs count -----------------------------------------------------------------------------------------------


def test_seeds_of_one_configuration_are_one_group(tmp_path):
    for seed in range(3):
        put(tmp_path, entry("cfd", seed, score=0.9 + 0.01 * seed))
    put(tmp_path, entry("cfd", 0, lumos={"lambda": 5e-3}))
    results = Results((tmp_path,))
    assert sorted(len(g.runs) for g in results.groups) == [1, 3]
    head = results.headline("cfd")
    assert [r["seed"] for r in head.runs] == [0, 1, 2]
    assert head.mean(q.field("compact", "score")) == pytest.approx(0.91)


def test_the_machine_does_not_make_a_group(tmp_path):
    there = entry("cfd", 1)
    there["config"]["trainer"] |= {"device": "cuda", "checkpoint_seconds": 300}
    put(tmp_path, entry("cfd", 0))
    put(tmp_path, there)
    assert len(Results((tmp_path,)).groups) == 1


def test_the_suite_decides_and_scores_do_not(tmp_path, caplog):
    put(tmp_path, entry("cfd", run_id="aaa", score=0.5))
    put(tmp_path, entry("cfd", 5, run_id="bbb", score=0.99, lumos={"lambda": 5e-3}))
    assert Results((tmp_path,)).headline("cfd").ids == ("bbb",)  # the latest
    (tmp_path / "suite.json").write_text(json.dumps({"runs": [{"workload": "cfd", "run_id": "aaa"}]}))
    assert Results((tmp_path,)).headline("cfd").ids == ("aaa",)
    (tmp_path / "suite.json").write_text("{")
    assert Results((tmp_path,)).headline("cfd").ids == ("bbb",)
    assert "suite.json: not a suite's list" in caplog.text
    (tmp_path / "suite.json").write_text(json.dumps({"runs": [{"workload": "cfd"}, {"run_id": []}, 1]}))
    assert Results((tmp_path,)).headline("cfd").ids == ("bbb",)


def test_a_run_in_two_folders_counts_once_and_failed_ones_not(tmp_path):
    put(tmp_path / "mine", entry("cfd", run_id="aaa", score=0.7))
    put(tmp_path / "reference", entry("cfd", run_id="aaa", score=0.8))
    put(tmp_path / "reference", entry("fluid", run_id="bbb", status="failed"))
    results = Results((tmp_path / "mine", tmp_path / "reference"))
    assert [r["compact"]["score"] for r in results.finished] == [0.7]
    assert len(results.records) == 2
    assert Results((tmp_path / "mine",), "paper").records == []


def test_the_front(tmp_path):
    runs = [entry(cut=c, score=s, run_id=i) for c, s, i in ((0.5, 0.9, "a"), (0.7, 0.9, "b"), (0.6, 0.95, "c"))]
    assert [r["run_id"] for r in pareto_front(runs)] == ["b", "c"]
    lower = [{**r, "metric": {**r["metric"], "higher_is_better": False}} for r in runs]
    assert [r["run_id"] for r in pareto_front(lower)] == ["b"]


# ---- quantities -----------------------------------------------------------------------------------------------------


def test_quantities_by_hand():
    made = entry(cut=0.75, score=0.874, factor=4.0)
    assert q.params_reduction(made) == pytest.approx(75)
    assert q.score_change(made) == pytest.approx(-5)
    assert q.best_speedup("cpu")(made) == 4.0
    assert q.best_speedup("gpu")(made) is None
    assert q.memory_mb("dense")(made) == pytest.approx(10 + 0.4)
    assert q.memory_saved_mb(made) == pytest.approx(10.4 - (2.5 + 0.1))
    assert q.step_overhead(made) == pytest.approx(5)
    assert q.gate_share(made) == pytest.approx(0.3)
    assert q.energy_reduction(made) is None
    assert q.training_memory_reduction(made) == pytest.approx(75)
    lower = {**made, "metric": {**made["metric"], "higher_is_better": False}}
    assert q.score_change(lower) == pytest.approx(5)


def test_quantities_of_a_gpus_run_and_of_an_old_one():
    there = entry(gpu=True, factor=4.0)
    assert q.best_speedup("gpu")(there) == 4.0
    assert q.best_speedup("cpu")(there) == 4.0
    assert q.energy_reduction(there) == pytest.approx(75)
    old = entry(old=True, factor=4.0)
    assert q.speedup("dynamic", "cpu")(old) is None
    assert q.best_speedup("cpu")(old) == pytest.approx(4.0)
    assert q.speedup("latency", "cpu")(old) == pytest.approx(4.0)
    assert q.step_overhead(old) is None


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_averages_are_over_exactly_the_workloads_with_a_record(tmp_path):
    put(tmp_path, entry("cfd", cut=0.9))
    put(tmp_path, entry("fluid", cut=0.5))
    put(tmp_path, entry("notinthepaper", cut=0.0))
    build.write_tables(build.evaluation([tmp_path]), tmp_path / "out")
    (row, *_) = read(tmp_path / "out" / "averages.csv")
    assert row["Average of"] == "Parameters, reduction"
    assert float(row["Published"]) == 71.45
    assert float(row["Ours"]) == pytest.approx(70)
    assert float(row["Difference"]) == pytest.approx(-1.45)
    assert row["Workloads"] == "2"
    energy = next(r for r in read(tmp_path / "out" / "averages.csv") if r["Average of"].startswith("Energy"))
    assert (energy["Published"], energy["Ours"], energy["Difference"]) == ("50.7", "-", "-")
    sizes = {r["Workload"]: r for r in read(tmp_path / "out" / "fig9c_parameters.csv")}
    assert sizes["PPA"]["Reduction, published [%]"] == "37.4"
    assert sizes["PPA"]["Reduction, ours [%]"] == "-"
    assert float(sizes["CFD"]["Difference"]) == pytest.approx(90 - 99.9)
    assert "notinthepaper" in sizes


def test_every_table_can_be_made_of_everything_and_of_nothing(tmp_path):
    tables = build.all_tables(build.evaluation([full(tmp_path / "a")]))
    assert {"table2_workloads", "table3_peers", "sweep_lambda", "sweep_t_l_t_u", "pareto", "runs"} <= {
        t.name for t in tables
    }
    assert len({t.name for t in tables}) == len(tables)
    for table in tables:
        write(table, tmp_path / "out")
        rows = read(tmp_path / "out" / f"{table.name}.csv")
        assert len(rows) == len(table.rows)
        assert all(cell not in ("", None) for row in rows for cell in row.values()), table.name
        assert (tmp_path / "out" / f"{table.name}.tex").read_text().count(r"\\") == len(table.rows) + 1
    nothing = {t.name: t for t in build.all_tables(build.evaluation([tmp_path / "none"]))}
    assert len(nothing["table2_workloads"].rows) == 13
    assert nothing["averages"].rows[0][-1].text == "0 of 13"


def test_peers_beside_the_published_ones(tmp_path):
    data = build.evaluation([full(tmp_path)])
    rows = {(r[0].text, r[1].text): r for r in data.peers().rows}
    l1 = rows["CFD", "L1"]
    assert l1[3].value == 99.12
    assert l1[4].value == pytest.approx(70)
    assert l1[5].value == pytest.approx(70 - 99.12)
    assert rows["CFD", "scratch"][3].text == "–"
    assert rows["BrainTumor", "DepGraph"][3].text == "–"


def test_sweeps_hold_all_else_equal(tmp_path):
    found = find_sweeps(build.evaluation([full(tmp_path)]))
    by_key = {s.keys: s for s in found}
    assert [v for v, _ in by_key["lumos.lambda",].groups] == [(1e-4,), (1e-3,), (1e-2,), (1e-1,)]
    assert by_key["lumos.lambda",].workload == "cfd"
    assert [v for v, _ in by_key["lumos.t_l", "lumos.t_u"].groups] == [(0.0, 1.0), (0.1, 0.9), (0.2, 0.8)]
    assert len(found) == 2


def test_a_grid_is_a_line_for_each_second_value(tmp_path):
    for low in (0.0, 0.2):
        for high in (0.8, 1.0):
            made = entry("cfd", 0, cut=low + 0.1, score=high)
            made["config"] |= {"lumos": {"t_l": low, "t_u": high}}
            put(tmp_path, made | {"run_id": f"{low}{high}"})
    (grid,) = [s for s in find_sweeps(build.evaluation([tmp_path])) if len(s.keys) == 2]
    assert {name: [v for v, _ in line] for name, line in grid.lines().items()} == {
        "t_u = 0.8": [(0.0, 0.8), (0.2, 0.8)], "t_u = 1": [(0.0, 1.0), (0.2, 1.0)]
    }  # fmt: skip


def test_score_against_size_shows_the_problem_that_most_methods_were_tried_on(tmp_path):
    for scale, method, score in (("small", "lumos", 0.9), ("bench", "lumos", 0.7), ("bench", "l1", 0.6)):
        put(tmp_path, entry("dms", 0, cut=0.5, score=score, method=method, scale=scale) | {"run_id": scale + method})
    found = run_tables.points(build.evaluation([tmp_path]), "dms")
    assert {(p.method, p.score) for p in found if p.method != "dense"} == {("lumos", 0.7), ("l1", 0.6)}


def test_smoothing_keeps_constants_and_straight_lines():
    assert run_tables.smoothed([2.0] * 5) == pytest.approx([2.0] * 5)
    falling = [10.0**-i for i in range(9)]
    assert run_tables.smoothed(falling)[4] == pytest.approx(falling[4])
    assert run_tables.smoothed([1.0, -1.0, 1.0])[1] == pytest.approx((2 * 0.60653066 - 1) / (2 * 0.60653066 + 1))


def test_scaling_without_its_columns(tmp_path):
    (tmp_path / "scaling.csv").write_text("workload,processes\ncfd,2\n")
    with pytest.raises(RecordError, match="no column method, samples_per_second"):
        run_tables.scaling(build.evaluation([tmp_path]))


def test_cells():
    assert number(None).text == "–"
    assert number(float("nan")).text == "–"
    assert number(-0.001, "+.2f").text == "0.00"
    assert number(-1.5, "+.1f", "%").text == "−1.5%"
    assert published(Number.parse(">90"), unit="%").text == "> 90%"
    assert published(Number.parse("30..60")).text == "30 to 60"
    assert difference(95.0, Number.parse(">90")).text == "within"
    assert difference(None, Number.parse("3")).text == "–"


def test_latex_escapes():
    rows = ((Cell("a_b"), Cell("<1>")), (Cell("Mean"), Cell("2")))
    body = latex(Table("t_1", "A & B", ("x_1", "50%"), rows, "#", footer=1)).splitlines()[2:-2]
    assert body == [
        r"\caption{A \& B. \#}", r"\label{tab:t_1}", r"\begin{tabular}{@{}lr@{}}", r"\toprule", r"x\_1 & 50\% \\",
        r"\midrule", r"a\_b & $<$1$>$ \\", r"\midrule", r"Mean & 2 \\", r"\bottomrule",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="a row of 1 cells"):
        Table("t", "T", ("a", "b"), ((Cell("1"),),))


def test_peers_are_compared_on_one_problem_at_one_target(tmp_path):
    def run(method, seed, target, score, scale="bench", **more):
        made = entry("dms", seed, cut=1 - target, score=score, method=method, scale=scale, **more)
        made["config"] |= {"method": {"name": method, "target": target}} if method != "lumos" else {
            "lumos": {"target": {"params": target}}}  # fmt: skip
        return made | {"run_id": f"{method}{seed}{target}{scale}"}

    for seed, score in ((0, 0.80), (1, 0.90)):
        put(tmp_path, run("lumos", seed, 0.09, score))
        put(tmp_path, run("l1", seed, 0.09, score - 0.1))
        put(tmp_path, run("scratch", seed, 0.09, score - 0.2))
    put(tmp_path, run("l1", 0, 0.5, 0.99))
    put(tmp_path, run("lumos", 0, 0.09, 0.99, scale="small"))
    no = run("slimming", 0, 0.09, 0.5, status="unsupported", error={"line": "no batch norm", "traceback": ""})
    put(tmp_path, {k: v for k, v in no.items() if k not in ("dense", "compact", "gates")}, curve=False, features=False)
    rows = {(r[0].text, r[1].text): r for r in build.evaluation([tmp_path]).peers().rows}
    ours, l1, slimming = (rows["DMS", name] for name in ("LUMOS", "L1", "NEURAL"))
    # In percent, as the published ones, and so is what was not published.
    assert [c.value for c in (ours[7], l1[7], rows["DMS", "scratch"][7])] == pytest.approx([85.0, 75.0, 65.0])
    assert ours[9].value == pytest.approx(50**0.5)
    assert [ours[10].text, ours[11].value, slimming[7].text] == ["2", 10.0, "unsupported"]
    assert slimming[4].text == "–"


def test_what_the_paper_measured_on_a_gpu_is_taken_from_a_gpus_record(tmp_path):
    """The suite's own record, made on a CPU, stands for the workload; speed, energy and memory are the GPU's."""
    here, there = entry(factor=2.0), entry(gpu=True, factor=8.0, scale="paper", run_id="0123456789ab")
    there["compact"]["train_seconds"] = 15.0
    there["compact"]["modes"] = {"cuda_graph": {"latency": {"speedup": 3.0}, "throughput": {"error": "no room"}}}
    for made in (here, there):
        put(tmp_path, made)
    (tmp_path / "suite.json").write_text(json.dumps({"runs": [{"workload": "cfd", "run_id": here["run_id"]}]}))
    data = build.evaluation([tmp_path])
    assert data.headlines["cfd"].ids == (here["run_id"],)
    assert data.gpu_first.headlines["cfd"].ids == (there["run_id"],)
    tables = {table.name: table for table in data.tables()}

    def cell(table, column):
        found = tables[table]
        row = next(r for r in found.rows if r[0].text == data.paper.title("cfd"))
        return row[found.columns.index(column)]

    assert cell("fig9a_speedup", "GPU, ours").value == 8.0
    assert cell("fig9a_speedup", "CPU, ours").value == 2.0
    assert cell("fig11a_energy", "Reduction, ours [%]").value == pytest.approx(87.5)
    assert cell("fig11b_memory", "Dense [MB]").runs == (there["run_id"],)
    assert cell("table4_training_time", "Device").text == "NVIDIA A100"
    assert cell("table4_training_time", "Overhead, ours [%]").value == pytest.approx(50)
    assert cell("fig9a_modes", "one sample, eager").value == 8.0
    assert cell("fig9a_modes", "one sample, CUDA graph").value == 3.0
    assert cell("fig9a_modes", "best batch, CUDA graph").value is None
    averages = {row[0].text: row for row in data.averages().rows}
    assert averages["Speed-up, GPU"][2].value == 8.0
    assert averages["Speed-up, CPU"][2].value == 2.0
    assert averages["Energy, reduction"][2].value == pytest.approx(87.5)


def test_runs_at_the_papers_sizes_have_a_column_of_their_own_and_do_not_stand_for_the_workload(tmp_path):
    put(tmp_path, entry(run_id="aaa", cut=0.9, lumos={"tolerance": 0.01}))
    put(tmp_path, entry(seed=5, run_id="bbb", cut=0.5))  # the latest
    runs = [{"workload": "cfd", "run_id": "aaa", "question": "tolerance"},
            {"workload": "cfd", "run_id": "bbb", "question": "reductions"}]  # fmt: skip
    (tmp_path / "suite.json").write_text(json.dumps({"runs": runs}))
    data = build.evaluation([tmp_path])
    assert data.headlines["cfd"].ids == ("aaa",)
    assert data.at_the_papers_sizes.headlines["cfd"].ids == ("bbb",)
    columns = data.averages().columns
    row = next(row for row in data.averages().rows if row[0].text == "Parameters, reduction")
    assert row[columns.index("Ours")].value == pytest.approx(90)
    assert row[columns.index("Ours, at the paper's reductions")].value == pytest.approx(50)


def test_without_a_record_that_has_them_there_is_no_table_of_ways_to_call(tmp_path):
    put(tmp_path, entry())
    assert "fig9a_modes" not in {table.name for table in build.evaluation([tmp_path]).tables()}


def test_a_choice_of_features_is_tabulated_beside_what_is_known_of_them(tmp_path):
    put(tmp_path, entry("puremd"))
    assert "choices" not in {table.name for table in build.all_tables(build.evaluation([tmp_path]))}
    choice = {
        "needed": ["a", "c"],
        "lost": ["c"],
        "repeats": [],
        "repeated": [],
        "idle": ["b", "d"],
        "idle_kept": ["b"],
    }
    put(tmp_path, entry("cfd", choice=choice))
    put(tmp_path, entry("fluid", choice=choice | {"idle": [], "repeats": []}))  # all are needed: nothing is chosen
    (table,) = (t for t in build.all_tables(build.evaluation([tmp_path])) if t.name == "choices")
    assert [[cell.text for cell in row] for row in table.rows] == [
        [build.evaluation([tmp_path]).paper.title("cfd"), "0", "2", "4", "2", "1", "c", "2", "b", "none"]
    ]
