"""Tables in files: what is read, held out, learnt, and predicted in another file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lumos.errors import ConfigError, DataError
from lumos.suite.cli import main
from lumos.suite.fit_file import words_of
from lumos.suite.training.evaluation import evaluate
from lumos.suite.workload import DataSource
from lumos.workloads.table import TableFile
from lumos.workloads.table.generated import generate
from lumos.workloads.table.split import by_group, by_row, by_time

CPU = torch.device("cpu")


def frame(rows=400, seed=0):
    """Two columns of five matter, one of them a category; one does not vary, one is dust in the first rows."""
    rng = np.random.default_rng(seed)
    x = pd.DataFrame({
        "T [K]": rng.normal(300, 50, rows), "metal": rng.choice(["Al", "Cu", "Fe"], rows), "p": rng.normal(size=rows),
        "same": 7.0, "shot": np.arange(rows) // 20,
    })  # fmt: skip
    y = (x["T [K]"] - 300) / 50 + x["metal"].map({"Al": -2.0, "Cu": 0.0, "Fe": 2.0})
    x.loc[rng.random(rows) < 0.05, "p"] = np.nan
    return x.assign(**{"q [W/m2]": 1e5 * y, "hot": np.where(y > 0, "yes", "no")})


def table(tmp_path, content=None, **settings):
    path = tmp_path / "shots.csv"
    (frame() if content is None else content).to_csv(path, index=False)
    return TableFile(data=DataSource(root=path), **{"targets": ["q"], "drop": ["hot"], "widths": (16,), **settings})


def test_columns_of_a_file_become_numbers_and_categories(tmp_path, caplog):
    workload = table(tmp_path, split_by="shot")
    assert workload.schema.numbers == ["T", "p", "same"]
    assert workload.schema.categories == {"metal": ["Al", "Cu", "Fe"]}
    assert workload.schema.units == {"T": "K", "q": "W/m2"}
    assert workload.features() == ["T", "p", "same", "metal"]
    loaders = workload.loaders()
    assert loaders.source == "file"
    assert loaders.n_train + loaders.n_valid + loaders.n_test == 400
    assert workload.baselines()["linear"] > 0.99
    assert abs(workload.baselines()["mean"]) < 0.3
    x, y = workload.table()
    assert np.isfinite(x).all()
    assert y.shape == (loaders.n_train, 1)
    assert workload.files() == [tmp_path / "shots.csv"]


def test_rows_without_a_target_are_left_out(tmp_path):
    content = frame()
    content.loc[:9, "q [W/m2]"] = np.nan
    loaders = table(tmp_path, content).loaders()
    assert loaders.n_train + loaders.n_valid + loaders.n_test == 390


def test_a_column_that_varies_in_the_test_alone_says_nothing(tmp_path):
    """In every column of training dust, 1e-38 wide or constant, the last rows hold large values."""
    content = frame().sort_values("shot")
    content["dust"] = 1e-38 * np.arange(400)
    content.loc[content["shot"] > 15, ["dust", "same"]] = 1e6
    workload = table(tmp_path, content, split_time="shot")
    torch.manual_seed(0)
    model = workload.model().eval()
    batches = [(x, y) for x, y in workload.loaders().test]
    plain = [model(x) for x, _ in batches]
    place = [workload.features().index(name) for name in ("dust", "same")]
    for (x, _), before in zip(batches, plain, strict=True):
        x[:, place] = -3e8
        assert torch.equal(model(x), before)
    assert evaluate(workload, model, workload.loaders().test, CPU) > -10


@pytest.mark.parametrize("target", ["hot", "metal"])
def test_a_target_of_text_is_classified(tmp_path, target):
    workload = table(tmp_path, targets=[target], drop=["q"])
    assert workload.metric.name == ("ROC-AUC" if target == "hot" else "balanced accuracy")
    model = workload.model()
    assert evaluate(workload, model, workload.loaders().valid, CPU) <= 1
    loss = workload.loss(model, next(iter(workload.loaders().train)))
    assert 0.5 < float(loss.detach()) < 3
    base = workload.baselines()
    assert base["logistic"] > base["constant"] - 0.2
    assert set(workload.scores(model, workload.loaders().test)) >= {"accuracy", "cross entropy"}


def test_groups_and_times_are_in_one_split():
    groups = np.repeat(np.arange(40), 7)
    split = by_group(groups, 0.15, 0.15, seed=1)
    parts = [set(groups[rows]) for rows in split.values()]
    assert sum(map(len, parts)) == 40 == len(set.union(*parts))
    assert all(len(rows) >= 28 for rows in split.values())
    times = np.random.default_rng(0).random(100)
    split = by_time(times, 0.1, 0.2)
    assert times[split["train"]].max() < times[split["valid"]].min()
    assert times[split["valid"]].max() < times[split["test"]].min()
    assert sorted(np.concatenate(list(by_row(50, 0.2, 0.2, 0).values()))) == list(range(50))
    sizes = np.repeat([0, 1, 2], [1000, 1, 1])
    assert all(len(rows) for rows in by_group(sizes, 0.15, 0.15, 0).values())
    with pytest.raises(DataError, match="2 groups; expected three or more"):
        by_group(np.repeat([0, 1], 50), 0.1, 0.1, 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"targets": ["Q"]}, "there is no column Q in shots.csv; it has T, metal, p"),
        ({"targets": None}, "workload.targets says nothing: expected the columns to predict"),
        ({"targets": ["metal"], "task": "regression"}, "metal is text; expected numbers, or workload.task="),
        ({"targets": ["metal", "q"]}, r"expected one column of classes"),
        ({"split_by": "shot", "split_time": "p"}, "split_by and workload.split_time are set"),
        ({"split_time": "metal"}, "workload.split_time: .*expected a column of numbers or dates"),
        ({"inputs": ["q"]}, "has no column to learn from beside q"),
        ({"valid_share": 0.0}, "expected shares above 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said_in_a_line(tmp_path, settings, said):
    with pytest.raises(DataError, match=said):
        _ = table(tmp_path, **settings).loaders()


def test_the_generated_table_is_known():
    columns, true = generate(3000, 40, 0)
    assert len(columns.values) == 41
    assert len(true) == 9
    text = [name for name, column in columns.values.items() if column.dtype == object]
    assert len(text) == 6
    assert len(set(text) & set(true)) == 2
    gaps = np.mean([pd.isna(column).mean() for name, column in columns.values.items() if name != "y"])
    assert gaps == pytest.approx(0.03, abs=0.002)
    assert set(TableFile(rows=200, columns=16).true_features()) == set(generate(200, 16, 0)[1])


def test_words_are_quoted_for_hydra():
    words = words_of(Path("/a b/it's.csv"), "T [K]", {"tolerance": 0.1}, {"drop": ["a,b"], "seed": 3, "group": None})
    assert words[1:] == [r"data.root='/a b/it\'s.csv'", "workload.targets=['T [K]']", "lumos.tolerance=0.1",
                         "workload.drop=['a,b']", "seed=3"]  # fmt: skip
    words = words_of(Path("a.csv"), "y", {"target.latency": 0.5}, {"keep": ["a", "b"]})
    assert words[3:] == ["lumos.target.latency=0.5", "lumos.call.batch=1024", "lumos.keep=['a','b']"]
    with pytest.raises(ConfigError, match="tolerance and lambda are given: expected one of"):
        words_of(Path("a.csv"), "y", {"tolerance": 0.1, "lambda": 1e-3}, {})


@pytest.fixture
def fitted(tmp_path, monkeypatch, capsys):
    """What `lumos fit` prints, and the folder of its run."""
    from lumos.suite import fit_file, paths

    monkeypatch.chdir(tmp_path)
    for module in (paths, fit_file):
        monkeypatch.setattr(module, "RESULTS", (tmp_path / "results",))
    frame().to_csv(tmp_path / "shots it's.csv", index=False)
    main(["fit", "shots it's.csv", "--targets", "q", "--drop", "hot", "--split-by", "shot", "--features", "2",
          "--keep", "T", "lumos.prices={metal: 0.5}", "scale=tiny",
          "workload.epochs=40", "workload.widths=[16]",
          "trainer.threads=1", "trainer.device=cpu", f"paths.results={tmp_path / 'results'}",
          f"paths.cache={tmp_path / 'cache'}"])  # fmt: skip
    return capsys.readouterr().out, next((tmp_path / "results" / "runs" / "table").iterdir())


@pytest.mark.slow
def test_one_command_finds_the_columns_and_the_next_predicts(fitted, tmp_path, capsys):
    said, folder = fitted
    rows = [line.split() for line in said.splitlines()]
    kept = [row[0] for row in rows if len(row) > 1 and row[1] == "yes"]
    assert sorted(kept) == ["T", "metal"]
    entry = json.loads((folder / "record.json").read_text())
    assert entry["data"]["source"] == entry["config"]["data"]["source"] == "file"
    assert "generated" not in (folder / "record.json").read_text()
    assert entry["compact"]["score"] > 0.9

    new = frame(50, seed=1)
    new[["T [K]", "metal", "q [W/m2]"]].to_csv(tmp_path / "new.csv", index=False)  # what it does not need is not there
    main(["predict", str(folder), "new.csv"])
    assert "q: R2 0.9" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "new_predicted.csv")
    assert list(found.columns) == ["q [W/m2]"]
    assert len(found) == 50
    main(["predict", str(folder), "new.csv", "-o", "out.parquet"])
    assert pd.read_parquet("out.parquet")["q"].to_numpy() == pytest.approx(found["q [W/m2]"])
    new[["metal"]].to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(SystemExit):
        main(["predict", str(folder), "less.csv"])
    assert "less.csv: there is no column T; expected T, metal" in capsys.readouterr().err
    new[:0].to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(SystemExit):
        main(["predict", str(folder), "none.csv"])
    assert "none.csv has a header and no rows; expected rows to predict" in capsys.readouterr().err
    assert not (tmp_path / "none_predicted.csv").exists()


def test_what_can_be_removed_from_its_network_is_explained(capsys):
    main(["explain", "workload=table", "scale=tiny", "workload.rows=200", "lumos.keep=[layers.0]"])
    said = capsys.readouterr().out
    assert "16 gates in 1 groups" in said
    assert "keep asks for layers.0" in said


@pytest.mark.parametrize(
    ("name", "target", "least"), [("concrete-dataset.csv", "CCS", 0.5), ("UCI_PowerPlant.csv", "PE", 0.9)]
)
def test_published_tables_are_read(name, target, least, reference_folder):
    path = reference_folder / "real" / "tables" / name
    if not path.exists():
        pytest.skip(f"real/tables/{name} is not in the reference data")
    workload = TableFile(data=DataSource(root=path), targets=[target])
    assert least < workload.baselines()["linear"] < 1
