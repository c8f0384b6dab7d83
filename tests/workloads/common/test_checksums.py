"""A damaged cache is seen by its checksums and made again, whichever workload's it is."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumos.suite.config import compose
from lumos.suite.workload_class import build_workload
from lumos.workloads.common import checksums
from lumos.workloads.common.files import make_files

GENERATED = ("braintumor", "cfd", "cosmoflow", "dms", "em_denoise", "fluid", "molhiv", "optical", "ppa", "puremd",
             "qlknn", "slstr", "stemdl")  # fmt: skip
"""Workloads that keep what they generate."""


def loaders(name: str, cache: Path) -> Any:
    """The splits of a workload at its smallest, made or read."""
    workload: Any = build_workload(compose([f"workload={name}", "scale=tiny", f"paths.cache={cache}"]))
    return workload.tiny().loaders()


def flip_a_bit(file: Path, seed: int) -> None:
    content = bytearray(file.read_bytes())
    content[random.Random(seed).randrange(len(content))] ^= 1
    file.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATED)
def test_every_file_of_a_cache_is_checked_and_made_again(name, tmp_path, caplog):
    sound = loaders(name, tmp_path).sha256
    known = {folder / line.split(maxsplit=2)[2]
             for folder in (path.parent for path in tmp_path.rglob(checksums.FILE))
             for line in (folder / checksums.FILE).read_text().splitlines()}  # fmt: skip
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    left_out = {path.name for path in files - known}
    assert left_out <= {"key.json", checksums.FILE, ".lock"}
    before = {path: path.read_bytes() for path in sorted(known & files)}
    for number, path in enumerate(random.Random(0).sample(sorted(before), min(6, len(before)))):
        caplog.clear()
        flip_a_bit(path, number)
        assert loaders(name, tmp_path).sha256 == sound
        assert {p: p.read_bytes() for p in before} == before
        assert len([said for said in caplog.messages if "made again" in said]) == 1


def test_a_file_is_read_once_for_it(tmp_path, monkeypatch):
    def write(name, draft):
        draft.write_text(name)

    place = make_files(tmp_path, {"a": 1}, ["x", "y/z"], write, "making")
    reads = []
    monkeypatch.setattr(checksums, "crc32", lambda file: reads.append(file) or 0)
    checksums.damaged(place)
    assert len(reads) == 2
    monkeypatch.undo()
    assert checksums.damaged(place) == []
    monkeypatch.setattr(checksums, "crc32", lambda file: reads.append(file) or 0)
    assert checksums.damaged(place) == []
    assert len(reads) == 2


def test_a_damaged_file_is_made_again_and_no_other(tmp_path, caplog):
    made = []

    def write(name, draft):
        made.append(name)
        draft.write_text(name)

    place = make_files(tmp_path, {"a": 1}, ["x", "y/z"], write, "making")
    flip_a_bit(place / "y" / "z", 0)
    make_files(tmp_path, {"a": 1}, ["x", "y/z"], write, "making")
    assert made == ["x", "y/z", "y/z"]
    assert (place / "y" / "z").read_text() == "y/z"
    assert caplog.messages == [f"{place / 'y' / 'z'}: damaged, its checksum does not match; made again"]


def test_a_file_that_is_made_again_is_the_same_and_one_that_is_changed_is_not(tmp_path):
    file = tmp_path / "a"
    file.write_text("one")
    before = checksums.identity(tmp_path, file)
    os.utime(file, ns=(1, 1))
    assert checksums.identity(tmp_path, file) != before  # nothing but size and time is known of it
    checksums.note(tmp_path, "a", file)
    noted = checksums.identity(tmp_path, file)
    os.utime(file, ns=(2, 2))
    assert checksums.identity(tmp_path, file) == noted
    file.write_text("two")
    assert checksums.identity(tmp_path, file) != noted


def test_checksums_may_be_missing_damaged_or_of_two_writers(tmp_path):
    for k in range(4):
        (tmp_path / f"{k}").write_bytes(np.arange(k + 1).tobytes())
        checksums.note(tmp_path, str(k), tmp_path / str(k))
    lines = (tmp_path / checksums.FILE).read_bytes().splitlines(keepends=True)
    other = tmp_path / "other"
    other.write_text("what another machine made, a last digit apart")
    checksums.note(tmp_path, "0", other)
    (tmp_path / "0").write_bytes(other.read_bytes())
    assert checksums.damaged(tmp_path) == []
    (tmp_path / checksums.FILE).write_bytes(b"\xff\x00zz 1\n" + lines[1][:7])
    (tmp_path / "3").write_bytes(b"")
    assert checksums.damaged(tmp_path, ["0", "1", "2", "3"]) == []  # nothing is known of them
    (tmp_path / checksums.FILE).write_bytes(b"".join(lines))
    (tmp_path / "2").unlink()
    assert checksums.damaged(tmp_path) == ["3"]
