"""A run's compact model as a file, and C and Fortran programs that call the CFD surrogate."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import lumos
from lumos.errors import ConfigError, ExportError, RecordError
from lumos.suite import archive
from lumos.suite.export_run import export_run
from lumos.suite.paths import PROJECT
from lumos.workloads.common.mlp import ScaledMLP

REFERENCE = PROJECT / "results" / "reference"
needs_compiler = pytest.mark.skipif(not (shutil.which("cc") and shutil.which("make")), reason="no C compiler here")
# What onnxscript and onnx do when they are imported is theirs.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:`torch.jit.script` is deprecated")


def reference_cfd() -> lumos.CompactModel:
    """The CFD surrogate of the reference run: its file has all numbers, means and deviations included."""
    x, y = torch.randn(10, 20), torch.randn(10, 5)
    run = archive.find("13d7bcc5a9d4", [REFERENCE / "main_job.jsonl.gz"])
    return lumos.load(run.folder / "compact.pt", ScaledMLP(x, y, (784, 300, 100))).eval()


@pytest.fixture(scope="module")
def flux(tmp_path_factory) -> tuple[Path, str, str, torch.Tensor]:
    """The CFD surrogate as ONNX, onnxruntime's library, and a hundred faces: as text for a program, and the result."""
    import onnxruntime

    folder = tmp_path_factory.mktemp("flux")
    model = reference_cfd()
    lumos.export(model, torch.randn(4, 20), folder / "cfd.onnx")
    x = torch.randn(100, 20, generator=torch.Generator().manual_seed(3))
    rows = "\n".join(" ".join(f"{v:.9g}" for v in row) for row in x.tolist())
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.*"))
    with torch.no_grad():
        return folder, str(library), rows + "\n", model(x)


def build(folder: Path, target: str) -> None:
    source = PROJECT / "docs" / "examples" / "deploy"
    made = subprocess.run(["make", "-s", "-C", source, f"BUILD={folder}", "CFLAGS=-O1 -Werror", target],
                          capture_output=True, text=True)  # fmt: skip
    assert made.returncode == 0, made.stderr


@pytest.mark.slow
@needs_compiler
def test_a_c_program_calls_the_surrogate(flux):
    folder, library, rows, want = flux
    build(folder, "all")
    ran = subprocess.run([folder / "flux", library, folder / "cfd.onnx", "20", "5"], input=rows, capture_output=True,
                         text=True)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    got = np.array([line.split() for line in ran.stdout.splitlines()], dtype=np.float32)
    torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-5, atol=1e-5)
    for arguments, message in (
        ([library, folder / "cfd.onnx", "10", "5"], "Got: 10 Expected: 20"),
        ([library, folder / "none.onnx", "20", "5"], "File doesn't exist"),
        (["none.so", folder / "cfd.onnx", "20", "5"], "cannot load onnxruntime"),
        ([library, folder / "cfd.onnx", "7", "5"], "2000 numbers are no rows of 7"),
    ):
        wrong = subprocess.run([folder / "flux", *arguments], input=rows, capture_output=True, text=True)
        assert wrong.returncode == 1
        assert message in wrong.stderr


@needs_compiler
@pytest.mark.skipif(not shutil.which("gfortran"), reason="no Fortran compiler here")
def test_a_fortran_program_calls_the_surrogate(flux):
    folder, library, rows, want = flux
    build(folder, "fortran")
    ran = subprocess.run([folder / "flux_fortran", library, folder / "cfd.onnx"], input=rows, capture_output=True,
                         text=True)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    got = np.array([line.split() for line in ran.stdout.splitlines()], dtype=np.float32)
    torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-5, atol=1e-5)
    wrong = subprocess.run([folder / "flux_fortran", library, "none.onnx"], input=rows, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "File doesn't exist" in wrong.stderr


def test_a_run_is_exported(tmp_path):
    """The record alone says which workload a compact model belongs to."""
    (kept,) = (r for r in archive.runs(REFERENCE / "known_truth.jsonl.gz") if r.record["seed"] == 0)
    run, features = kept.folder, kept.record["gates"]["features_kept"]
    done = export_run(run / "compact.pt", tmp_path / "run.pt2", [f"data.cache={tmp_path}"], reduce=True)
    (shape,) = done.inputs.values()
    assert list(done.features) == features
    assert shape == ("batch", len(features))
    with pytest.raises(ConfigError, match=r"workload.rows=5: .* expected data.KEY=VALUE"):
        export_run(run, tmp_path / "run.pt2", ["workload.rows=5"])
    with pytest.raises(ExportError, match="there is no such file; give the folder of a finished run"):
        export_run(tmp_path, tmp_path / "run.pt2")
    (tmp_path / "compact.pt").write_bytes((run / "compact.pt").read_bytes())
    with pytest.raises(RecordError, match="there is no record"):
        export_run(tmp_path, tmp_path / "run.pt2")
