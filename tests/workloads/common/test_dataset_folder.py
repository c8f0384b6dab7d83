"""data.root takes a data set's own folder, what holds it, and what its archive unpacks to."""

from pathlib import Path

import pytest

from lumos.workloads.common.files import dataset_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "set_v2_small" / "train").mkdir(parents=True)
    (tmp_path / "set_v2_small" / "test").mkdir()
    (tmp_path / ".trash" / "train").mkdir(parents=True)
    return tmp_path


def test_the_folder_of_an_archive_is_found_by_what_it_holds(root: Path) -> None:
    unpacked = root / "set_v2_small"
    assert dataset_folder(root, "set", "train", "test") == unpacked
    assert dataset_folder(unpacked, "set", "train", "test") == unpacked
    assert dataset_folder(root, "set", "train", "validation") == root  # it holds something else
    assert dataset_folder(root / "missing", "set", "train") == root / "missing"


def test_one_by_its_name_comes_first_and_two_are_not_guessed_between(root: Path) -> None:
    (root / "other" / "train").mkdir(parents=True)
    (root / "other" / "test").mkdir()
    assert dataset_folder(root, "set", "train", "test") == root
    (root / "set").mkdir()
    assert dataset_folder(root, "set", "train", "test") == root / "set"
