"""At full size: networks are built without samples, and sizes are known, said and refused before there are any."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lumos.errors import DataError
from lumos.suite.config import read
from lumos.suite.data_size import GB, amount, check_limit, describe
from lumos.suite.workload import Loaders, outline
from lumos.suite.workload_class import build_workload
from tests.configurations import composed

WORKLOADS = ("braintumor", "cfd", "cosmoflow", "dms", "em_denoise", "fluid", "molhiv", "optical", "ppa", "puremd",
             "qlknn", "slstr", "stemdl", "synthetic")  # fmt: skip

QUICK = ("cfd", "cosmoflow", "ppa", "qlknn", "synthetic")
"""Generated at scale=tiny within a second."""


def slow_but(*quick: str) -> list[Any]:
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in WORKLOADS]


LARGE = ("cosmoflow", "dms", "em_denoise", "optical", "slstr", "stemdl", "braintumor")


def workload(name: str, scale: str, cache: Path, *words: str) -> Any:
    return build_workload(composed([f"workload={name}", f"scale={scale}", f"paths.cache={cache}", *words]))


@pytest.fixture
def no_samples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing may be generated; the folder stays empty."""

    def refuse(*_: object) -> None:
        raise AssertionError("samples are generated")

    monkeypatch.setattr("lumos.workloads.common.base.BaseWorkload.check_size", refuse)
    monkeypatch.setattr("lumos.workloads.common.files.run_all", refuse)
    yield tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", slow_but(*set(WORKLOADS) - {"braintumor", "stemdl", "cosmoflow"}))
def test_a_network_of_full_size_needs_no_samples(name: str, no_samples: Path) -> None:
    model, inputs = outline(workload(name, "paper", no_samples))
    assert sum(p.numel() for p in model.parameters()) > 10_000
    assert all(isinstance(x, torch.Tensor) and len(x) >= 2 for x in inputs)


@pytest.mark.parametrize("name", slow_but(*QUICK))
def test_an_outline_is_the_network_that_is_trained_but_for_its_scales(name: str, cache: Path) -> None:
    tiny = workload(name, "tiny", cache)
    torch.manual_seed(0)
    model = tiny.model()
    torch.manual_seed(0)
    sketch, inputs = outline(tiny)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), sketch.parameters(), strict=True))
    assert [b.shape for b in model.buffers()] == [b.shape for b in sketch.buffers()]
    assert [x.shape[1:] for x in inputs[:1]] == [x.shape[1:] for x in tiny.example()[:1]]
    with torch.no_grad():
        assert model.eval()(*tiny.example()).shape[1:] == sketch.eval()(*inputs).shape[1:]


@pytest.mark.parametrize("name", WORKLOADS)
def test_one_gigabyte_refuses_full_size_or_is_enough_for_it(name: str, tmp_path: Path) -> None:
    paper = workload(name, "paper", tmp_path, "data.limit_gb=1")
    if sum(paper.split_bytes().values()) <= GB:
        assert name not in LARGE
        return
    with pytest.raises(DataError, match=rf"{name}: .* [GT]B of samples would be generated, .*data.limit_gb=1 refuses"):
        paper.loaders()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cosmoflow", "slstr"])
def test_the_default_refuses_what_fills_a_disk(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.limit_gb=20 refuses that"):
        workload(name, "paper", tmp_path).example() if name == "slstr" else workload(name, "paper", tmp_path).root
    check_limit(name, workload(name, "paper", tmp_path), None)


@pytest.mark.parametrize("name", slow_but(*QUICK))
def test_sizes_are_those_of_what_is_generated(name: str, tmp_path: Path) -> None:
    tiny = workload(name, "tiny", tmp_path)
    loaders: Loaders = tiny.loaders()
    said = tiny.split_bytes()
    counts = {"train": loaders.n_train, "valid": loaders.n_valid, "test": loaders.n_test}
    for split in ("valid", "test"):  # as many bytes a sample in each split; splits by content are near enough
        ratio = (said[split] / said["train"]) / (counts[split] / counts["train"])
        assert 0.5 < ratio < 2, (split, said, counts)
    written = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    if name == "synthetic":  # drawn into memory
        written = sum(t.nbytes for t in (tiny.splits.train.inputs, tiny.splits.train.outputs)) * 3000 // 2000
    assert written / 5 < sum(said.values()) < 6 * written, (amount(sum(said.values())), amount(written))
    assert amount(sum(said.values())) in describe(tiny)


def test_the_limit_is_no_part_of_a_run() -> None:
    one, other = (read(composed(["workload=cfd", f"data.limit_gb={limit}"])) for limit in (1, "null"))
    assert one.run_id == other.run_id
    assert one.baseline_id == other.baseline_id
    assert "limit_gb" not in one.recorded["data"]


@pytest.mark.parametrize("limit", ["0", "-1", "big", "true", "1e400"])
def test_a_limit_that_is_none_is_refused(limit: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.limit_gb=.*: expected a number > 0, or null"):
        workload("cfd", "tiny", tmp_path, f"data.limit_gb={limit}")


def test_more_than_the_limit_is_generated_where_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Set data\.limit_gb=1 "):
        workload("cfd", "tiny", tmp_path, "data.limit_gb=0.0001").loaders()
    assert workload("cfd", "tiny", tmp_path, "data.limit_gb=1").loaders().n_train == 3200
