"""Tables from files: CSV, Parquet, HDF5 and NetCDF, as columns by name with their units.

What reads a format is imported when a file of it is read: pandas, pyarrow, h5py, xarray.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lumos.errors import DataError, reads
from lumos.tabular.categories import is_missing

ENDINGS = {
    ".csv": "text", ".tsv": "text", ".txt": "text", ".dat": "text",
    ".parquet": "parquet", ".pq": "parquet",
    ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5",
    ".nc": "netcdf", ".nc4": "netcdf", ".cdf": "netcdf",
}  # fmt: skip
"""What a file holds, by the end of its name; ``.gz``, ``.bz2``, ``.xz`` and ``.zst`` may follow that of a text."""
PACKED = (".gz", ".bz2", ".xz", ".zst")
SEPARATORS = ",;\t|"
NAMED_UNIT = re.compile(r"(.*\S)\s*\[([^\[\]]*)\]")
"""A column's name with its unit, ``T [K]``."""
DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]|$)")
DAY_ZERO = np.datetime64("2000-01-01")


@dataclass(frozen=True)
class Columns:
    """A table: its columns by name, all of one length.

    Attributes:
        values: For each name an array (rows,): float64 with NaN for missing numbers, or objects (text, None).
        units: The units of those columns whose file says them.
    """

    values: dict[str, np.ndarray]
    units: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.values.values()), ()))


def read_columns(path: str | Path, group: str = "") -> Columns:
    """Read a table.

    Numbers and truth values become float64; times, and text as 2001-12-31, days since 2000; all else categories. A
    column ``T [K]`` of a text file is named ``T`` and has the unit K; Parquet, HDF5 and NetCDF have units in their
    metadata (``units``).

    Args:
        path: The file; the end of its name says the format.
        group: The group of an HDF5 or NetCDF file that holds the table.

    Returns:
        The columns.

    Raises:
        DataError: The file is not there or cannot be read, or its columns do not make a table.
    """
    return _columns(Path(path), group)


@reads("expected a table")
def _columns(path: Path, group: str) -> Columns:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    endings = [s.lower() for s in path.suffixes]
    ending = endings[-2] if len(endings) > 1 and endings[-1] in PACKED else (endings or [""])[-1]
    kind = ENDINGS.get(ending)
    if kind is None:
        raise DataError(f"{path}: a file of an unknown kind; expected one of {' '.join(ENDINGS)}")
    try:
        values, units = READERS[kind](path, group)
    except ImportError as error:
        raise DataError(f"{path}: reading it needs the package {error.name}; pip install {error.name}") from error
    if not values:
        raise DataError(f"{path}: no columns; expected a table, or workload.group=NAME of one in the file")
    lengths = {name: len(column) for name, column in values.items()}
    if len(set(lengths.values())) > 1:
        some = ", ".join(f"{name} {rows}" for name, rows in list(lengths.items())[:5])
        raise DataError(f"{path}: columns of different lengths ({some}); expected as many rows in each")
    return Columns({name: _typed(column) for name, column in values.items()}, units)


Found = tuple[dict[str, Any], dict[str, str]]


def _text(path: Path, _group: str) -> Found:
    pandas = importlib.import_module("pandas")
    first = _first_line(path)
    separator = _separator(first)
    nameless = all(map(_is_number, re.split(re.escape(separator) if len(separator) == 1 else separator, first)))
    header = {"header": None} if nameless else {}
    frame = pandas.read_csv(path, sep=separator, skipinitialspace=True, **header)
    names = [f"x{name}" if nameless else str(name).strip() for name in frame.columns]
    units = {}
    for k, name in enumerate(names):
        found = NAMED_UNIT.fullmatch(name)
        if found:
            names[k], units[found[1]] = found[1], found[2].strip()
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a column name stands there twice; expected one name for each")
    return {name: frame.iloc[:, k].to_numpy() for k, name in enumerate(names)}, units


def _first_line(path: Path) -> str:
    handles = importlib.import_module("pandas.io.common")
    with handles.get_handle(path, "r", compression="infer", errors="replace") as opened:
        return (opened.handle.read(65_536).strip().splitlines() or [""])[0]


def _separator(line: str) -> str:
    """What stands between the parts of a line; blanks where nothing else does."""
    counts = {s: line.count(s) for s in SEPARATORS}
    best = max(counts, key=lambda s: counts[s])
    return best if counts[best] else r"\s+" if len(line.split()) > 1 else ","


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parquet(path: Path, _group: str) -> Found:
    table = importlib.import_module("pyarrow.parquet").read_table(path)
    units = {}
    for entry in table.schema:
        metadata = entry.metadata or {}
        unit = metadata.get(b"units", metadata.get(b"unit"))
        if unit:
            units[entry.name] = unit.decode()
    frame = table.to_pandas().reset_index(drop=True)
    return {str(name): frame[name].to_numpy() for name in frame.columns}, units


def _hdf5(path: Path, group: str) -> Found:
    h5py = importlib.import_module("h5py")
    values: dict[str, Any] = {}
    units: dict[str, str] = {}
    with h5py.File(path) as file:
        if group and group not in file:
            raise DataError(f"{path}: there is no group {group}; it has {', '.join(file) or 'none'}")
        place = file[group] if group else file
        for name, item in ({place.name: place} if isinstance(place, h5py.Dataset) else dict(place)).items():
            if not isinstance(item, h5py.Dataset) or not item.ndim:
                continue
            name, data = name.rsplit("/", 1)[-1], item[()]
            parts = {field: data[field] for field in data.dtype.names} if data.dtype.names else {name: data}
            for part, column in parts.items():
                flat = column.reshape(len(column), -1)
                names = [part] if flat.shape[1] == 1 else [f"{part}_{k}" for k in range(flat.shape[1])]
                values |= dict(zip(names, flat.T, strict=True))
                unit = item.attrs.get("units", item.attrs.get("unit"))
                if unit is not None:
                    units |= dict.fromkeys(names, unit.decode() if isinstance(unit, bytes) else str(unit))
    return values, units


def _netcdf(path: Path, group: str) -> Found:
    xarray = importlib.import_module("xarray")
    with path.open("rb") as file:
        classic = file.read(3) == b"CDF"
    source = (
        {"filename_or_obj": path, "group": group or None} if classic else {"filename_or_obj": _netcdf4(path, group)}
    )
    with xarray.open_dataset(**source) as found:
        frame = found.to_dataframe().reset_index()
        units = {str(n): str(v.attrs["units"]) for n, v in found.variables.items() if "units" in v.attrs}
    return {str(name): frame[name].to_numpy() for name in frame.columns if name != "index"}, units


def _netcdf4(path: Path, group: str) -> Any:
    """What xarray reads of an HDF5 file."""
    h5netcdf, backends = importlib.import_module("h5netcdf"), importlib.import_module("xarray.backends")

    class Read(h5netcdf.File):
        """A file that is read: of one that cannot be opened h5netcdf's destructor asks whether it was written."""

        _writable = False

    file = Read(path, "r", decode_vlen_strings=True)
    return backends.H5NetCDFStore(file[group] if group else file)


READERS = {"text": _text, "parquet": _parquet, "hdf5": _hdf5, "netcdf": _netcdf}


def _typed(column: Any) -> np.ndarray:
    """A column as float64, or as objects that are text or None."""
    array = np.asarray(column)
    if array.dtype.kind == "M":
        return _days(array)
    if array.dtype.kind == "m":
        return np.where(np.isnat(array), np.nan, array / np.timedelta64(1, "D")).astype(np.float64)
    if array.dtype.kind in "biuf":
        return array.astype(np.float64)
    objects = np.array([None if is_missing(v) else _decoded(v) for v in array.tolist()], dtype=object)
    if all(v is None or isinstance(v, int | float) for v in objects):
        return np.array([np.nan if v is None else v for v in objects], np.float64)
    text = [None if v is None else str(v) for v in objects]
    if all(v is None or DATE.match(v) for v in text):
        try:
            return _days(np.array(["NaT" if v is None else v for v in text], "datetime64[ns]"))
        except ValueError:
            pass  # it only begins as a date does
    return np.array(text, dtype=object)


def _days(times: np.ndarray) -> np.ndarray:
    return np.where(np.isnat(times), np.nan, (times - DAY_ZERO) / np.timedelta64(1, "D")).astype(np.float64)


def _decoded(value: Any) -> Any:
    return value.decode(errors="replace").rstrip("\0") if isinstance(value, bytes) else value
