"""The README's example runs, and its numbers are those of the records."""

import subprocess
import sys

import pytest
import torch

from lumos.suite.paths import PROJECT
from tests.test_docs import run_page


def test_the_example_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page(PROJECT / "README.md")
    assert names["small"].features == ["x0", "x1"]
    small, dense = (sum(p.numel() for p in names[key].parameters()) for key in ("small", "model"))
    assert small < 0.5 * dense
    x, y = names["x"], names["y"]
    with torch.no_grad():
        error = (names["small"](x) - y).square().mean() / y.var()
    assert float(error) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["SGD(P, lr=0.05, momentum=0.9)", "AdamW(P, lr=3e-3, weight_decay=0.01)"])
def test_the_example_finds_the_same_features_with_another_optimizer(optimizer, tmp_path):
    text = (PROJECT / "README.md").read_text()
    line = "Adam(gated.parameters(), lr=3e-3)"
    assert line in text
    page = tmp_path / "README.md"
    page.write_text(text.replace(line, optimizer.replace("P", "gated.parameters()")))
    assert run_page(page)["small"].features == ["x0", "x1"]


def test_the_numbers_are_the_records():
    script = PROJECT / "scripts" / "readme.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
