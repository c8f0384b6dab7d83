"""What pip installs: the engine alone, and the suite from a wheel, used in a folder that is no checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.dependencies import PROJECT, declared, distributions, installed

BUILT_FROM = ("lumos", "workloads", "conf", "pyproject.toml", "README.md", "LICENSE")
OF_TORCH = {"filelock", "jinja2", "markupsafe", "networkx"}
"""Declared for the suite, and needed by torch itself."""


def call(*command: str | Path, cwd: Path, **environment: str) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith("LUMOS_")} | {"COLUMNS": "160"} | environment
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def without_the_suite() -> str:
    """Code that makes the modules of the extras, and POSIX's fcntl, impossible to import."""
    of_extras = declared("all") - declared() - OF_TORCH
    modules = {m for m in installed() if distributions(m) & of_extras} | {"fcntl"}
    return f"import sys; sys.modules.update(dict.fromkeys({sorted(modules)}))\n"


# ---- the engine alone -----------------------------------------------------------------------------------------------


def test_the_engine_needs_nothing_of_the_suite(tmp_path):
    """The README's example (with fewer steps), explaining, checking, saving and loading."""
    example = re.search(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.S)
    assert example is not None
    steps, replaced = re.subn(r"range\(\d+\)", "range(30)", example[1])
    assert replaced == 1
    code = without_the_suite() + steps + (
        "print(lumos.explain(model, x[:8]))\n"
        "lumos.verify(lumos.gate(model, x[:8]), (x,))\n"
        "small.save('compact.pt')\n"
        "assert torch.equal(lumos.load('compact.pt', model)(x), small(x))\n"
    )  # fmt: skip
    assert "fixed:" in call(sys.executable, "-W", "error", "-c", code, cwd=tmp_path, PYTHONPATH=str(PROJECT))


def test_the_command_says_what_it_needs(tmp_path):
    code = without_the_suite() + "import runpy; runpy.run_module('lumos', run_name='__main__')"
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert re.fullmatch(r"lumos: .*pip install 'lumos-sciml\[suite\]'\n", done.stderr)


def test_names_of_the_package_are_listed_and_there():
    import lumos

    assert set(lumos.__all__) <= set(dir(lumos))
    assert all(getattr(lumos, name).__module__.startswith("lumos.") for name in lumos.__all__)
    with pytest.raises(AttributeError, match="no attribute 'gates_of'"):
        _ = lumos.gates_of


# ---- a wheel --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The files that a distribution is built from, where a build may leave its own beside them."""
    folder = tmp_path_factory.mktemp("source")
    for name in BUILT_FROM:
        if (PROJECT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PROJECT / name, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(PROJECT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    """Built from a source distribution that is built from the checkout's files."""
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=source)
    return next(out.glob("*.whl"))


def environment_with(folder: Path, *what: str | Path) -> Path:
    """A new environment with lumos, which sees all other packages of this one."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "packages.pth").write_text(sysconfig.get_path("purelib"))
    call(sys.executable, "-m", "pip", "--python", python, "install", "--ignore-installed", "--no-deps", "--no-index",
         "--no-build-isolation", *what, cwd=folder)  # fmt: skip
    return folder / "bin"


@pytest.mark.slow
def test_a_wheel_has_all_files_and_one_top_level_package(wheel):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert {n.split("/")[0] for n in names} == {"lumos"}
    tracked = call("git", "ls-files", "lumos", "workloads", "conf", cwd=PROJECT).split()
    files = {re.sub("^(workloads|conf)/", r"lumos/\1/", name) for name in tracked if not (PROJECT / name).is_symlink()}
    assert files <= names


@pytest.mark.slow
def test_a_wheel_runs_in_another_folder(wheel, tmp_path):
    here = tmp_path / "elsewhere"
    here.mkdir()
    lumos = environment_with(tmp_path / "environment", wheel) / "lumos"
    assert "fixed:" in call(lumos, "explain", "workload=cfd", "scale=tiny", cwd=here)
    printed = call(lumos, "run", "workload=cfd", "scale=tiny", cwd=here)
    assert "compact == gated" in printed
    (record,) = (here / "results" / "runs" / "cfd").glob("*/record.json")
    assert record.parent.name in call(lumos, "list", cwd=here)

    in_checkout = tmp_path / "checkout"
    call(sys.executable, PROJECT / "run.py", "workload=cfd", "scale=tiny", cwd=tmp_path, LUMOS_RESULTS=str(in_checkout))
    (other,) = (in_checkout / "runs" / "cfd").glob("*/record.json")
    assert other.parent.name == record.parent.name
    assert json.loads(other.read_text())["config"].keys() == json.loads(record.read_text())["config"].keys()


@pytest.mark.slow
def test_an_editable_install_is_the_checkout(source, tmp_path):
    python = environment_with(tmp_path / "environment", "-e", source)
    code = "import lumos.workloads.cfd, lumos.suite.paths as p; print(lumos.__file__, p.CONF, sep='\\n')"
    module, conf = call(python / "python", "-c", code, cwd=tmp_path).split()
    assert Path(module) == source / "lumos" / "__init__.py"
    assert (Path(conf) / "config.yaml").samefile(source / "conf" / "config.yaml")
