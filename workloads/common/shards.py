"""Samples in HDF5 shards: one file a condition, made in parallel, kept on disk, resumed where a run stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from lumos.errors import DataError
from lumos.workloads.common.files import make_files
from lumos.workloads.common.hdf5 import writing_hdf5

Rows = Mapping[str, np.ndarray]
"""Arrays by name; in each, axis 0 counts rows, and the other axes do not change from one chunk to the next."""

CHUNK_ROWS = 4096


def make_shards(
    folder: Path,
    key: Mapping[str, object],
    names: Sequence[str],
    make: Callable[[str], Iterable[Rows]],
    description: str,
) -> list[Path]:
    """Make those of the shards ``folder/<hash of key>/<name>.h5`` that are not there yet, as many at once as cores.

    At no time is more than one chunk of rows a core in memory. A run that was stopped goes on with the shards that are
    missing.

    Args:
        folder: The cache.
        key: All that the rows depend on, as JSON.
        names: Names of the shards.
        make: Called as ``make(name)``, in a thread; yields a shard's rows in chunks.
        description: What a progress bar says.

    Returns:
        The files of all shards, in the order of their names.

    Raises:
        DataError: the folder cannot be written.
    """
    place = make_files(
        folder, key, [f"{name}.h5" for name in names], lambda file, draft: _write(draft, make(file[:-3])), description
    )
    return [place / f"{name}.h5" for name in names]


def _write(draft: Path, chunks: Iterable[Rows]) -> None:
    with writing_hdf5(draft) as file:
        for rows in chunks:
            for name, array in rows.items():
                _append(file, name, array)


def _append(file: h5py.File, name: str, array: np.ndarray) -> None:
    if name not in file:
        file.create_dataset(
            name,
            shape=(0, *array.shape[1:]),
            maxshape=(None, *array.shape[1:]),
            chunks=(max(1, min(CHUNK_ROWS, len(array))), *array.shape[1:]),
            dtype=array.dtype,
        )
    dataset = _dataset(file, name)
    dataset.resize(len(dataset) + len(array), axis=0)
    dataset[len(dataset) - len(array) :] = array


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise OSError(f"{name} is not a dataset")
    return dataset


def read_shards(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Read all rows of the shards in order into memory, array by array; returns the arrays by name.

    Raises:
        DataError: a shard is damaged.
    """
    sizes: dict[str, int] = {}
    shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    for file in files:
        for name, dataset in _datasets(file):
            sizes[name] = sizes.get(name, 0) + len(dataset)
            shapes[name] = (dataset.shape[1:], dataset.dtype)
    arrays = {name: np.empty((sizes[name], *shape), dtype) for name, (shape, dtype) in shapes.items()}
    filled = dict.fromkeys(arrays, 0)
    for file in files:
        for name, dataset in _datasets(file):
            start = filled[name]
            if len(dataset):
                dataset.read_direct(arrays[name], dest_sel=np.s_[start : start + len(dataset)])
            filled[name] += len(dataset)
    return arrays


def _datasets(file: Path) -> Iterator[tuple[str, h5py.Dataset]]:
    try:
        with h5py.File(file, "r") as shard:
            for name in list(shard.keys()):
                yield name, _dataset(shard, name)
    except (OSError, KeyError) as error:
        raise DataError(f"{file}: cannot read the cached samples ({error}); delete that file") from error
