"""What the documentation shows is run: its code does what stands below it, its commands are ones that exist."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lumos
from lumos.suite.paths import PROJECT

TUTORIALS = ["own-loop", "graph", "pretrained", "from-c"]
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.S | re.M)
NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e-?\d+)?")


def agree(shown: str, got: str) -> bool:
    """Whether two texts have the same words and, roughly, the same numbers: those depend on the machine."""
    first, second = ([float(n.replace(",", "")) for n in NUMBER.findall(text)] for text in (shown, got))
    words = [" ".join(NUMBER.sub("#", text).split()) for text in (shown, got)]
    return words[0] == words[1] and first == pytest.approx(second, rel=0.25, abs=0.05)


def run_page(path: Path) -> dict:
    """Run a page's Python and shell blocks in order; what they print is what its ``text`` blocks show."""
    shell = {**os.environ, "LUMOS": str(PROJECT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    page = path.read_text()
    for package in re.findall(r"^import (timm|sklearn|torch_geometric|onnxruntime)", page, re.M):
        pytest.importorskip(package)
    torch.manual_seed(0)
    names: dict = {"__name__": "page"}
    said, results = "", 0
    for language, code in BLOCK.findall(page):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(code, path.name, "exec"), names)
            said += out.getvalue()
        elif language == "sh":
            if not (shutil.which("make") and shutil.which("cc")):
                pytest.skip("no C compiler here; what stands before the program was run")
            said += subprocess.run(["bash", "-ec", code], env=shell, capture_output=True, text=True, check=True).stdout
        elif language == "text":
            assert agree(code, said), f"{path.name} shows\n{code}\nbut the code before it printed\n{said}"
            said, results = "", results + 1
    assert results, f"{path.name} shows no result of its code"
    assert not said, f"{path.name} does not show what its last code prints:\n{said}"
    return names


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_does_what_it_shows(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(PROJECT / "docs" / "tutorials" / f"{name}.md")


def test_the_version_is_one():
    cited = re.search(r"^version: (.*)$", (PROJECT / "CITATION.cff").read_text(), re.M)
    assert cited is not None
    assert cited[1] == lumos.__version__
    assert f"## [{lumos.__version__}]" in (PROJECT / "CHANGELOG.md").read_text()
