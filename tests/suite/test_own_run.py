"""A training in a loop of one's own: its record is read as those of the suite's runs are."""

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import lumos
from lumos.errors import ConfigError
from lumos.suite import cli, record

STEPS = 40


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    x = torch.rand(64, 6)
    y = x[:, :1] - 2 * x[:, 3:4]
    dense = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 1))
    gated = lumos.gate(dense, x[:8])
    optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3)
    pruner = lumos.Pruner(gated, optimizer, STEPS, lumos.Target(params=0.3))
    curve = []
    for _ in range(STEPS):
        loss = (gated(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append({**pruner.metrics(), "loss": float(loss.detach())})
    pruner.finish()

    def r2(model):
        return 1 - float((model(x) - y).square().mean().detach() / y.var())

    return pruner, dense, x, r2, curve


@pytest.mark.slow
def test_the_commands_read_the_record(trained, tmp_path):
    pruner, dense, x, score, curve = trained
    folders = [
        lumos.write_record(pruner, dense, x, score, name="toy", metric="R2", seed=seed, curve=curve, results=tmp_path)
        for seed in (0, 1)
    ]
    assert len(set(folders)) == 2
    entry = record.read(folders[0])
    assert entry["gates"] == pruner.decided
    assert entry["compact"]["params"] == sum(p.numel() for p in pruner.small.parameters())
    assert entry["compact"]["score"] == score(pruner.small)
    assert entry["compact"]["phases"] == {"gated": 20, "compact": 20}
    assert lumos.load(folders[0] / "compact.pt", dense).features == pruner.small.features
    rows = (folders[0] / "curve.csv").read_text().splitlines()
    assert (len(rows), "phase" in rows[0]) == (STEPS + 1, True)
    assert {p.name for p in folders[0].glob("*.csv")} == {"curve.csv", "features.csv"}
    for words in (["list", str(tmp_path)], ["compare", *(str(folder) for folder in folders)]):
        found = CliRunner().invoke(cli.lumos, words)
        assert found.exit_code == 0, found.output
        assert "toy" in found.output


@pytest.mark.slow
def test_report_and_figures_have_the_record(trained, tmp_path):
    pruner, dense, x, score, curve = trained
    lumos.write_record(pruner, dense, x, score, name="toy", metric="R2", curve=curve, results=tmp_path)
    page = tmp_path / "report.html"
    found = CliRunner().invoke(cli.lumos, ["report", "--results", str(tmp_path), "--out", str(page)])
    assert found.exit_code == 0, found.output
    assert "toy" in page.read_text()
    words = ["figures", "--results", str(tmp_path), "--out", str(tmp_path / "figures")]
    found = CliRunner().invoke(cli.lumos, words)
    assert found.exit_code == 0, found.output
    assert "1 finished runs of 1 workloads" in found.output
    assert any("toy" in table.read_text() for table in (tmp_path / "figures").glob("*.csv"))


def test_what_cannot_be_recorded_says_so(trained, tmp_path):
    pruner, dense, x, score, _ = trained
    with pytest.raises(ConfigError, match=r"name=a/b: expected letters, digits, dots, _ and -"):
        lumos.write_record(pruner, dense, x, score, name="a/b", results=tmp_path)
    gated = lumos.gate(dense, x[:8])
    early = lumos.Pruner(gated, torch.optim.SGD(gated.parameters(), lr=0.1), 10)
    with pytest.raises(ConfigError, match=r"it has cut nothing yet; expected one after pruner.finish"):
        lumos.write_record(early, dense, x, score, name="toy", results=tmp_path)


def test_features_as_a_table(trained):
    table = trained[0].features()
    assert list(table.index) == [f"x{i}" for i in range(6)]
    assert set(table.index[table["kept"]]) == set(trained[0].small.features)
    assert table["closed_at"].dtype == "Int64"
