"""The script for a quarter of an hour on a GPU: what it keeps, what it says, and that it goes on."""

import io
import json
import subprocess
import sys
import tarfile
import zipfile

import pytest
import torch

from lumos.errors import ConfigError
from lumos.suite.config import compose, read
from lumos.suite.execution_modes import batches_of, has_part, parts_of
from lumos.suite.report.published import Published
from scripts import gpu_suite, gpu_table, gpu_worker
from tests.dependencies import PROJECT
from tests.records import entry, put


@pytest.mark.slow
def test_all_workloads_of_the_paper_are_there_and_their_words_are_right():
    words = gpu_suite.settings()
    assert set(words) == set(Published.read().workloads)
    for workload, own in words.items():
        config = read(compose([f"workload={workload}", "scale=paper", *own]))
        assert config.lumos.target.params is not None


def test_the_reductions_are_the_papers():
    paper = Published.read()
    average = paper.number("9c", "params_reduction")
    assert average is not None
    for workload, own in gpu_suite.settings().items():
        table3 = paper.number("III", "params_reduction", workload)
        single = paper.number("9c", "params_reduction", workload) if table3 is None else table3
        (word,) = (w for w in own if w.startswith("lumos.target.params="))
        assert 100 * (1 - float(word.partition("=")[2])) == pytest.approx((single or average).point, abs=0.06)


def test_the_archive_has_what_lumos_reads_and_a_new_machine_goes_on_from_it(tmp_path):
    results, archive = tmp_path / "results", tmp_path / "out" / "gpu.tar.gz"
    folder = put(results, entry("cfd", gpu=True))
    (folder / "compact.pt").write_bytes(b"0" * 1000)
    (folder / "gated.ckpt").write_bytes(b"0" * 1000)
    (results / "plans").mkdir()
    (results / "plans" / "cfd-paper.json").write_text(json.dumps({"steps": 120}))
    assert gpu_suite.pack(archive, results, models=True) == archive.stat().st_size
    other = tmp_path / "other"
    gpu_suite.unpack(archive, other)
    kept = sorted(p.name for p in other.rglob("*") if p.is_file())
    assert kept == ["cfd-paper.json", "compact.pt", "curve.csv", "features.csv", "record.json"]
    assert (other / folder.relative_to(results) / "record.json").read_bytes() == (folder / "record.json").read_bytes()


def test_what_is_newer_in_the_results_stays(tmp_path):
    results, archive = tmp_path / "results", tmp_path / "gpu.tar.gz"
    folder = put(results, entry("cfd", gpu=True))
    gpu_suite.pack(archive, results)
    (folder / "curve.csv").write_text("newer")
    gpu_suite.unpack(archive, results)
    assert (folder / "curve.csv").read_text() == "newer"


def test_models_come_along_while_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_suite, "MOST_BYTES", 100_000)
    results, archive = tmp_path / "results", tmp_path / "gpu.tar.gz"
    for workload, size in (("cfd", 20_000), ("fluid", 90_000)):
        folder = put(results, entry(workload, gpu=True))
        (folder / "compact.pt").write_bytes(torch.randint(0, 256, (size,), dtype=torch.uint8).numpy().tobytes())
    assert gpu_suite.pack(archive, results, models=True) <= 100_000
    with tarfile.open(archive) as tar:
        models = [m.name for m in tar.getmembers() if m.name.endswith("compact.pt")]
    assert [name.split("/")[1] for name in models] == ["cfd"]


def test_an_archive_that_would_write_elsewhere_is_refused(tmp_path):
    archive = tmp_path / "gpu.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("../outside.txt")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(ConfigError, match="outside of the results"):
        gpu_suite.unpack(archive, tmp_path / "results")
    archive.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="not an archive of this script"):
        gpu_suite.unpack(archive, tmp_path / "results")


@pytest.mark.parametrize(("words", "line"), [
    (["--minutes", "0"], "--minutes 0: expected a number > 0"),
    (["--device", "tpu"], "--device tpu: expected cuda, cuda:N or cpu"),
    (["--jobs", "0"], "--jobs 0: expected a number of trainings >= 1"),
    (["--only", "cdf"], "--only cdf: there is no such workload; expected cfd, "),
])  # fmt: skip
def test_a_wrong_word_is_one_line(tmp_path, capsys, words, line):
    try:
        code = gpu_suite.main([*words, "--results", str(tmp_path)])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert line in capsys.readouterr().err


def test_missing_packages_are_named_with_the_command_that_collects_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu_suite, "NEEDED", {"no_such_module": "some-package"})
    assert gpu_suite.main(["--results", str(tmp_path), "--site", str(tmp_path)]) == 2
    assert "packages are missing: some-package; where there is a network" in capsys.readouterr().err


def test_wheels_are_unpacked_onto_the_path(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_suite, "NEEDED", {"carried_module": "carried"})
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    with zipfile.ZipFile(tmp_path / "carried-1-py3-none-any.whl", "w") as file:
        file.writestr("carried_module.py", "answer = 42\n")
    gpu_suite.unpack_wheels(tmp_path)
    done = subprocess.run([sys.executable, "-c", "import carried_module; print(carried_module.answer)"],
                          capture_output=True, text=True, cwd=tmp_path)  # fmt: skip
    assert done.stdout.strip() == "42"


def test_what_is_carried_is_what_the_lock_pins():
    assert all("==" in word for word in gpu_suite.pinned())


def test_the_table_names_device_and_averages_beside_the_papers(tmp_path):
    made = [entry(w, gpu=True, factor=f) for w, f in (("cfd", 8.0), ("slstr", 2.0))]
    for one in made:
        one["compact"]["modes"] = {"cuda_graph": {"latency": {"speedup": 1.5}}}
        put(tmp_path, one)
    text = gpu_table.table_of(tmp_path, made)
    assert "NVIDIA A100" in text
    assert "1.50x" in text
    row = next(line for line in text.splitlines() if "Speed-up, GPU" in line)
    assert "6.4" in row
    assert "5.00" in row


def test_parts_of_a_record():
    made = entry("cfd", gpu=True)
    assert has_part(made, "cpu")
    assert not has_part(made, "cuda_graph")
    assert batches_of(made)["throughput"] == {"dense": 64, "compact": 64}
    assert [parts_of(torch.device(d)) for d in ("cpu", "cuda")] == [("compiled",), ("cuda_graph", "compiled", "cpu")]
    assert (gpu_worker.rounded(1987.6), gpu_worker.rounded(42.7), gpu_worker.rounded(0.3)) == (1900, 42, 0)


@pytest.mark.slow
def test_a_rehearsal_measures_and_a_second_call_finds_it_done(tmp_path):
    command = [sys.executable, str(PROJECT / "scripts" / "gpu_suite.py"), "--device", "cpu", "--scale", "tiny",
               "--minutes", "8", "--only", "cfd", "--results", str(tmp_path)]  # fmt: skip
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    (record,) = tmp_path.glob("runs/cfd/*/record.json")
    before = record.read_bytes()
    assert json.loads(before)["training"]["overhead"]
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "1 of 1 workloads" in second.stdout
    assert record.read_bytes() == before
