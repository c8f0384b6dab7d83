"""The house keeps its shape: what the import contracts of pyproject.toml cannot say, and that they hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

from tests.dependencies import PROJECT, declared, distributions

SCRIPTS = {p.stem for folder in ("scripts", "docs/examples") for p in (PROJECT / folder).rglob("*.py")}
OWN = {"lumos", "tests", "benchmarks", "scripts"} | SCRIPTS
ENGINE_TESTS = ("tracing", "gating", "compaction", "pruning")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("lumos", cache_dir=None)


def test_imports_point_one_way():
    """In a process of its own: import-linter disables the loggers of the one that it runs in."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workloads_import_only_the_contract(graph):
    allowed = {
        "lumos.suite.workload",
        "lumos.suite.data_size",
        "lumos.suite.dependence",
        "lumos.suite.simulation",
        "lumos.errors",
        "lumos.scaling",
    }
    allowed |= {f"lumos.tabular.{name}" for name in ("categories", "files", "network", "predictor")}
    for workload in graph.find_children("lumos.workloads"):
        for module in {workload, *graph.find_descendants(workload)}:
            imported = {
                m for m in graph.find_modules_directly_imported_by(module) if not m.startswith("lumos.workloads")
            }
            assert imported <= allowed, f"{module} imports {imported - allowed}"


def test_the_package_knows_no_workload_by_name():
    # "table" is a word; that one has a command of its own, `lumos fit`.
    names = "|".join(p.stem for p in (PROJECT / "conf" / "workload").glob("*.yaml") if p.stem != "table")
    for path in python_files("lumos"):
        code = re.sub(r'"""[\s\S]*?"""|#.*', "", path.read_text())
        found = re.search(rf"\b({names})\b", code)
        assert not found, f"{path} names {found[0]}"


def test_records_and_tables_need_no_torch():
    code = "import sys; sys.modules['torch'] = None; import lumos, lumos.suite.record, lumos.suite.report"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


def test_tests_of_the_engine_need_only_the_engine():
    """They run with the lowest versions of its dependencies, where the suite's are not installed."""
    for room in ENGINE_TESTS:
        for path in python_files(f"tests/{room}"):
            used = {
                m for m, _ in imports(path) if re.match(r"lumos\.(suite|workloads)|tests\.(suite|workloads|run)", m)
            }
            assert not used, f"{path} imports {used}"


# ---- dependencies ---------------------------------------------------------------------------------------------------

DOORS = ("sklearn", "lightning", "transformers")
"""Modules for users of another library, each with an extra of its name."""
NOT_IMPORTED = {"hydra-submitit-launcher", "ogb", "h5netcdf"}
"""A plug-in, which Hydra finds by itself; what xarray reads NetCDF with; and ogb, of which Molhiv runs one file by its
path, since importing the package asks the index for a newer version."""


def test_what_is_imported_is_declared():
    """The engine's imports in the dependencies, the suite's in its extra, those of a door to another library in the
    extra of its name; what a file imports only where it is used, in some extra."""
    engine, suite = declared(), declared("suite")
    doors = {f"{name}.py": engine | declared(name) for name in DOORS}
    everything, developer = declared("all"), declared("dev", "trackers", "fuzz")
    for path in (*python_files("lumos"), *python_files("workloads")):
        room = path.relative_to(PROJECT).parts
        of_suite = room[0] == "workloads" or room[1] in ("suite", "__main__.py")
        for module, always in third_party(path):
            allowed = (suite if of_suite else doors.get(room[1], engine)) if always else everything
            assert distributions(module) & allowed, f"{path}: {module} is not declared"
    for folder in ("tests", "scripts", "benchmarks"):
        for path in python_files(folder):
            for module, always in third_party(path):
                # Libraries whose models a benchmark takes where they are there cannot all be had at once.
                if always or folder != "benchmarks":
                    assert distributions(module) & developer, f"{path}: {module} is not declared"


def test_what_is_declared_is_imported():
    used = {name for folder in ("lumos", "workloads", "scripts") for path in python_files(folder)
            for module, _ in third_party(path) for name in distributions(module)}  # fmt: skip
    assert declared("all") - NOT_IMPORTED <= used


# ---- reading imports ------------------------------------------------------------------------------------------------


def python_files(folder: str) -> list[Path]:
    """The Python files of a folder of the project, without those behind symbolic links."""
    return sorted(p for p in (PROJECT / folder).rglob("*.py") if p.resolve() == p)


@cache
def third_party(path: Path) -> set[tuple[str, bool]]:
    """The top-level packages of others that a file imports, and whether it does so whenever it is imported."""
    found = {(module.split(".")[0], always) for module, always in imports(path)}
    return {(m, always) for m, always in found if m not in sys.stdlib_module_names and m not in OWN}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    yield from _imports(ast.parse(path.read_text()).body, True)


def _imports(body: Iterable[ast.AST], always: bool) -> Iterator[tuple[str, bool]]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, always) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((f"{node.module}.{alias.name}", always) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "importorskip"):
                yield str(node.args[0].value), False
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Try)
        typing = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        yield from _imports(ast.iter_child_nodes(node), always and not (later or typing))
