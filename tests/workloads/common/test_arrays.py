"""Arrays that are kept on disk under a hash of what they depend on."""

import numpy as np
import pytest

from lumos.errors import DataError
from lumos.workloads.common.arrays import cached, digest


def test_digest_follows_values_shape_and_type() -> None:
    a = np.arange(6, dtype=np.float32)
    different = [a, a + 1, a.reshape(2, 3), a.astype(np.float64), a.view(np.int32)]
    assert len({digest(array) for array in different}) == len(different)
    assert digest(a.reshape(2, 3).T.copy().T) == digest(a.reshape(2, 3))


def test_cache_makes_each_key_once_and_keeps_the_file_as_it_was(tmp_path) -> None:
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"x": np.arange(4.0, dtype=np.float32)}

    first = cached(tmp_path, {"rows": 4}, make)
    first["x"][0] = 9
    assert cached(tmp_path, {"rows": 4}, make)["x"].tolist() == [0, 1, 2, 3]
    assert len(made) == 1
    cached(tmp_path, {"rows": 5}, make)
    assert len(made) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_cache_leaves_nothing_behind_where_making_or_writing_fails(tmp_path) -> None:
    def make() -> dict[str, np.ndarray]:
        raise DataError("not physical")

    with pytest.raises(DataError, match="not physical"):
        cached(tmp_path, {}, make)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the cache"):
        cached(tmp_path / "file", {}, lambda: {"x": np.zeros(1)})


@pytest.mark.parametrize("checked", [True, False], ids=["with a checksum", "of an older version"])
def test_what_is_damaged_is_made_again(tmp_path, caplog, checked) -> None:
    cached(tmp_path, {}, lambda: {"x": np.zeros(9)})
    (file,) = tmp_path.rglob("x.npy")
    file.write_bytes(file.read_bytes()[:20])
    if not checked:
        (file.parent / "checksums").unlink()
    assert cached(tmp_path, {}, lambda: {"x": np.ones(9)})["x"].tolist() == [1.0] * 9
    assert [record.message for record in caplog.records] == [caplog.messages[0]]
    assert caplog.messages[0].startswith(f"{file.parent}: damaged (")
    assert [path.name for path in tmp_path.iterdir()] == [file.parent.name]
