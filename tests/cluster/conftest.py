"""A two-node Slurm on this machine for the tests of this folder: `make test-cluster`, or LUMOS_CLUSTER_TESTS=1."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lumos.suite.paths import PROJECT

TOOL = PROJECT / "slurm" / "local-cluster"
NOT_HERE = 77


class Cluster:
    """The cluster's folder, and commands in its environment."""

    def __init__(self, folder: Path, variables: dict[str, str], home: Path) -> None:
        self.folder, self.home = folder, home
        self.env = {
            **os.environ,
            **variables,
            "LUMOS_HOME": str(PROJECT),
            "LUMOS_RESULTS": str(home / "results"),
            "LUMOS_CACHE": str(home / "data"),
            "PYTHON": sys.executable,
            "PYTHONPATH": str(PROJECT),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }

    def start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=self.home, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def call(self, *command: str, timeout: float = 1200) -> subprocess.CompletedProcess:
        with self.start(*command) as process:
            try:
                out, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, "")

    def sweep(self, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, str(PROJECT / "run.py"), "-m", "hydra/launcher=slurm", *arguments)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if not os.environ.get("LUMOS_CLUSTER_TESTS"):
        pytest.skip("the tests on a Slurm cluster run with `make test-cluster`")
    folder, home = (tmp_path_factory.mktemp(name) for name in ("slurm", "home"))
    up = subprocess.run([TOOL, "up", folder], capture_output=True, text=True, timeout=180, check=False)
    if up.returncode == NOT_HERE:
        pytest.skip(up.stderr.strip())
    assert up.returncode == 0, up.stderr
    variables = dict(word.split("=", 1) for word in up.stdout.split()[1:])
    try:
        yield Cluster(folder, variables, home)
    finally:
        down = subprocess.run([TOOL, "down", folder], capture_output=True, text=True, timeout=180, check=False)
        assert down.returncode == 0, down.stderr
        assert "is left" in down.stdout
