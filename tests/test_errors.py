"""The boundary between the bytes of a file and all else."""

import pytest

from lumos.errors import POINTER, DataError, reads


def test_a_pointer_of_git_lfs_is_named_as_what_it_is(tmp_path):
    file = tmp_path / "images.h5"
    file.write_bytes(POINTER + b"v1\noid sha256:0\nsize 3\n")

    @reads("expected numbers")
    def read(path):
        return float(path.read_text())

    with pytest.raises(DataError, match=r"images.h5: a Git LFS pointer, not the file itself; fetch it"):
        read(file)
    file.write_text("x")
    with pytest.raises(DataError, match=r"images.h5: cannot be read .*; expected numbers"):
        read(file)
