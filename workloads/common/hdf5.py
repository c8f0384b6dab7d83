"""Writing HDF5 files so that a full disk is an error, and not the end of the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py


@contextmanager
def writing_hdf5(path: Path) -> Iterator[h5py.File]:
    """Build a new HDF5 file in memory and write it when it is whole.

    Where HDF5 itself finds the disk full, it cannot close what is open, and ends the process by a segmentation fault.
    The bytes are those that it would have written.

    Args:
        path: The file; one that is there is replaced.

    Raises:
        OSError: The file cannot be written.
    """
    with h5py.File(path, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(image)
