"""The house keeps its shape: imports point one way, files stay small, the docs say what the configuration says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lumos.gating.settings import GateSettings
from lumos.suite.config import LumosConfig
from lumos.suite.paths import PROJECT

ENGINE = sorted((PROJECT / "lumos").rglob("*.py"))
WORKLOADS = sorted((PROJECT / "workloads").rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", ENGINE, ids=lambda p: p.name)
def test_the_engine_imports_no_workload(path):
    assert not [n for n in imported(path) if n.split(".")[0] == "workloads"]


@pytest.mark.parametrize("path", WORKLOADS, ids=lambda p: str(p.relative_to(PROJECT / "workloads")))
def test_workloads_import_only_the_contract(path):
    of_lumos = [n for n in imported(path) if n.split(".")[0] == "lumos"]
    assert all(n.startswith("lumos.workload") for n in of_lumos)
    own = path.relative_to(PROJECT / "workloads").parts[0]
    others = [n for n in imported(path) if n.startswith("workloads.") and n.split(".")[1] not in (own, "common")]
    assert not others


@pytest.mark.parametrize("path", ENGINE, ids=lambda p: p.name)
def test_only_the_command_line_and_config_know_hydra(path):
    if path.name not in ("cli.py", "config.py", "__main__.py"):
        assert not [n for n in imported(path) if n.split(".")[0] in ("hydra", "omegaconf")]


def test_the_engine_knows_no_workload_by_name():
    names = [p.stem for p in (PROJECT / "conf" / "workload").glob("*.yaml")]
    for path in ENGINE:
        code = re.sub(r'"""[\s\S]*?"""|#.*', "", path.read_text())
        assert not [n for n in names if re.search(rf"\b{n}\b", code)], path


def test_reports_need_no_torch():
    code = "import sys; sys.modules['torch'] = None; import lumos.report, lumos.record"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


@pytest.mark.parametrize("path", [*ENGINE, *WORKLOADS], ids=lambda p: str(p.relative_to(PROJECT)))
def test_no_file_holds_two_rooms(path):
    assert len(path.read_text().splitlines()) <= 370


def test_library_defaults_are_the_configurations():
    conf = yaml.safe_load((PROJECT / "conf" / "lumos" / "default.yaml").read_text())
    conf = {("lambda_" if k == "lambda" else k): v for k, v in conf.items()}
    modes = {k: conf.pop(k) for k in ("lambda_", "target", "tolerance", "streams", "private", "query_key", "align")}
    assert set(modes.pop("target").values()) | set(modes.values()) == {None}
    numbers = {"lambda_": None} | {k: v if k == "penalty" else float(v) for k, v in conf.items()}
    ours, library = LumosConfig(**numbers).gates, GateSettings()
    assert (ours.t_l, ours.t_u, ours.gamma, ours.zeta, ours.initial_open) == (
        library.t_l, library.t_u, library.gamma, library.zeta, library.initial_open,
    )  # fmt: skip
    assert ours.tau == pytest.approx(library.tau, abs=1e-4)


def test_docs_say_what_the_configuration_says():
    script = PROJECT / "scripts" / "config_docs.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
