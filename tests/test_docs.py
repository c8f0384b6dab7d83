"""What the documentation shows is run: its code does what stands below it, its commands are ones that exist."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

import lumos
from lumos.suite.config import compose, read
from lumos.suite.paths import PROJECT

SLOW = ("table", "sklearn", "graph", "pretrained", "from-c")
TUTORIALS = [pytest.param(name, marks=pytest.mark.slow) for name in ("own-loop", *SLOW)]
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.S | re.M)
PACKAGES = "timm|sklearn|skorch|torch_geometric|onnxruntime|lightning|transformers|accelerate"
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
    for package in re.findall(rf"^(?:import|from) ({PACKAGES})\b", page, re.M):
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


IGNORED = pytest.mark.filterwarnings("ignore")
"""Other libraries warn of each other."""


DOORS = ("own-loop", "fit", "lightning", "huggingface", "accelerate", "geometric", "skorch")
FRONT_DOORS = [*(f"how-to/{name}" for name in DOORS), "tutorials/sklearn", "tutorials/table"]
"""The page for each library, or each place, that people come from."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["target", "features", "own-loop", "fit", *(pytest.param(name, marks=IGNORED) for name in DOORS[2:])]
)
def test_a_short_page_does_what_it_shows(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = PROJECT / "docs" / "how-to" / f"{name}.md"
    run_page(path)


@pytest.mark.parametrize("name", FRONT_DOORS)
def test_a_front_door_is_twenty_lines_of_code_at_most(name):
    """From the top of the page to the first result; blank lines are none."""
    page, lines = (PROJECT / "docs" / f"{name}.md").read_text(), 0
    for language, code in BLOCK.findall(page):
        if language == "text":
            break
        lines += len([line for line in code.splitlines() if line.strip()])
    assert 0 < lines <= 20


def test_the_version_is_one():
    cited = re.search(r"^version: (.*)$", (PROJECT / "CITATION.cff").read_text(), re.M)
    assert cited is not None
    assert cited[1] == lumos.__version__
    assert f"## [{lumos.__version__}]" in (PROJECT / "CHANGELOG.md").read_text()


PAGES = [p for p in (PROJECT / "README.md", PROJECT / "results" / "README.md") if p.exists()]
PAGES += sorted(p for place in ("docs", "workloads") for p in (PROJECT / place).rglob("*.md"))
COMMAND = re.compile(r"(?:lumos run|python run\.py|\bmake \w+ ARGS=\"|sbatch slurm/\w+\.sbatch)([^`|#\n\"]*)")


def commands() -> list[str]:
    """The words of every command on a page that starts a run and sets more than its workload."""
    found = [match[1].strip() for page in PAGES for match in COMMAND.finditer(page.read_text())]
    # Values to be filled in, the example of a package of one's own, and sweeps that tests/suite/test_experiments.py has
    left_out = re.compile(r"=NAME\b|RUN_ID|workload=heat|\+experiment=table3")
    return sorted({words for words in found if words.count("=") > 1 and not left_out.search(words)})


def first_values(words: str) -> list[str]:
    """A command's keys as a single run would have them: the first value of each sweep, and nothing of Hydra's own."""
    keys = [w for w in shlex.split(words) if "=" in w and not re.match(r"\+?hydra[./]|paths\.|init_from=|freeze_", w)]
    out = []
    for override in OverridesParser.create().parse_overrides(keys):
        sweep = override.is_sweep_override()
        key = str(override.input_line).split("=")[0]
        out.append(f"{key}={next(override.sweep_string_iterator())}" if sweep else str(override.input_line))
    return out


def commands_of_each_kind() -> list:
    """All commands; of those that set the same keys, all but the first are slow."""
    kinds, out = set(), []
    for words in commands():
        kind = frozenset(value.split("=")[0] for value in first_values(words))
        out.append(pytest.param(words, marks=[pytest.mark.slow] if kind in kinds else []))
        kinds.add(kind)
    return out


@pytest.mark.parametrize("words", commands_of_each_kind())
def test_a_command_names_what_exists(words):
    keys = first_values(words)
    read(compose(keys if any(k.startswith("workload=") for k in keys) else ["workload=cfd", *keys]))
