"""trainer.compile: the same training through torch.compile, repeated as exactly as without."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from lumos.suite.paths import PROJECT
from lumos.suite.training.objective import of_one_shape
from tests.run.test_command_line import start

compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler here")


@compiler
@pytest.mark.slow
def test_compiled_is_the_same_training_and_goes_on_to_the_same_numbers(tmp_path):
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.run.compiled", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=PROJECT, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["compiled"] == pytest.approx(found["eager"], rel=1e-3)
    assert found["resumed"] == found["compiled"]
    assert found["sizes"][1] == pytest.approx(found["sizes"][0], rel=1e-5)


@pytest.mark.slow
def test_without_a_compiler_a_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    done = start("workload=synthetic", "scale=tiny", "trainer.device=cpu", "trainer.compile=true", home=tmp_path)
    assert done.returncode == 1
    assert "trainer.compile=true: torch cannot compile the loss of synthetic" in done.stderr
    assert "trainer.compile=null trains without" in done.stderr
    assert "Traceback" not in done.stderr


def test_only_tensors_of_the_same_sizes_are_of_one_shape():
    x, y = torch.zeros(8, 3), torch.zeros(8)
    assert of_one_shape((x, y), (x + 1, y))
    assert of_one_shape({"x": x}, {"x": x})
    assert not of_one_shape((x, y), (x[:5], y[:5]))
    assert not of_one_shape((x, "a"), (x, "a"))
    assert not of_one_shape(object(), object())
