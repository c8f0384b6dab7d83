"""The command: what it takes, what it says, and that reading records needs no torch."""

import subprocess
import sys

import pytest

from lumos.suite import run as runs
from lumos.suite.cli import lumos, main
from lumos.suite.paths import CONF, PROJECT


def said(capsys, *words):
    main(words)
    return capsys.readouterr().out


def test_help_names_every_command_and_choice(capsys):
    text = said(capsys, "--help")
    assert all(name in text for name in lumos.commands)
    text = said(capsys, "run", "--help")
    for group in ("workload", "method", "experiment"):
        assert all(path.stem in text for path in (CONF / group).glob("*.yaml"))


def test_run_hands_every_word_to_hydra(monkeypatch):
    handed = []
    monkeypatch.setattr(runs, "_start", lambda: handed.append(list(sys.argv)))
    words = ["-m", "workload=cfd,fluid", "+experiment=sweep", "lumos.lambda=-1", "--cfg", "job", "hydra/launcher=slurm"]
    monkeypatch.setattr(sys, "argv", ["before"])
    main(["run", *words])
    main(["run", *words], program="run.py")
    assert handed == [["lumos run", *words], ["run.py", *words]]


@pytest.mark.parametrize("words", [["--help"], ["list", "results/reference"], ["compare", "--help"]])
def test_what_reads_records_starts_without_torch_and_hydra(words):
    absent = "import sys; sys.modules['torch'] = sys.modules['hydra'] = None"
    code = f"{absent}; from lumos.suite.cli import main; main({words})"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_explain(capsys):
    text = said(capsys, "explain", "workload=synthetic", "scale=tiny")
    assert "layers.0" in text


def test_without_the_suites_packages_a_line_says_so():
    code = "import sys; sys.modules['click'] = None; from lumos.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "lumos: the command needs the package click; pip install 'lumos-sciml[suite]'\n"
