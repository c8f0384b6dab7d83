"""A disk that is full while HDF5 files are made: an error, a process that lives on, and no half file."""

import os
import resource
import sys

import h5py
import numpy as np
import pytest

from lumos.errors import DataError
from lumos.suite.training.loading import readable_worker_errors
from lumos.workloads.common.hdf5 import writing_hdf5
from lumos.workloads.common.shards import make_shards


def test_the_bytes_are_those_that_hdf5_writes(tmp_path):
    """So that digests of files stay what they were."""
    arrays = {"a": np.arange(1000.0).reshape(10, 100), "group/b": np.arange(5)}
    for name, opened in (("ours", writing_hdf5(tmp_path / "ours")), ("its", h5py.File(tmp_path / "its", "w"))):
        with opened as file:
            for key, array in arrays.items():
                file.create_dataset(key, data=array, chunks=(5,) * array.ndim, compression="lzf")
        assert (tmp_path / name).stat().st_size
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "its").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_full_disk_is_a_line_and_no_segmentation_fault(tmp_path):
    """A limit on the size of files stands for the disk; in a child, which would die of it."""

    def rows(name):
        for _ in range(20):
            yield {"x": np.random.default_rng(0).standard_normal((1000, 25))}

    pid = os.fork()
    if not pid:
        code = 3
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            make_shards(tmp_path, {"key": 1}, ["one", "two"], rows, "making")
        except DataError as error:
            code = 0 if "cannot write the cache" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not list(tmp_path.rglob("*.h5*"))
    assert len(make_shards(tmp_path, {"key": 1}, ["one", "two"], rows, "making")) == 2


def test_a_message_of_several_lines_keeps_its_beginning():
    with pytest.raises(DataError, match=r"(?s)^a\.h5: cannot be read \(first\nsecond\)$"), readable_worker_errors():
        raise DataError("a.h5: cannot be read (first\nsecond)")
