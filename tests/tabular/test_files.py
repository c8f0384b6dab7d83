"""Tables from files of every kind, and what is said of those that are none."""

import h5py
import numpy as np
import pandas as pd
import pyarrow
import pytest
import xarray
from pyarrow import parquet

from lumos.errors import DataError
from lumos.tabular.files import read_columns

FRAME = pd.DataFrame({
    "T": [1.5, np.nan, 3.0, 4.0], "n": [1, 2, 3, 4], "on": [True, False, True, True], "metal": ["Al", None, "Cu", "Al"],
    "when": pd.to_datetime(["2000-01-01", "2000-01-03", None, "2001-01-01"]),
})  # fmt: skip


def write_csv(path, **how):
    FRAME.rename(columns={"T": "T [K]"}).to_csv(path, index=False, **how)


def write_parquet(path):
    table = pyarrow.Table.from_pandas(FRAME)
    fields = [f.with_metadata({"units": "K"}) if f.name == "T" else f for f in table.schema]
    parquet.write_table(pyarrow.table(table.columns, schema=pyarrow.schema(fields)), path)


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("run/7")
        group["T"], group["n"], group["on"] = FRAME["T"], FRAME["n"], FRAME["on"]
        group["T"].attrs["units"] = "K"
        group["metal"] = np.array([b"Al", b"", b"Cu", b"Al"])
        group["when"] = [0.0, 2.0, np.nan, 366.0]
        group["B"] = np.arange(8.0).reshape(4, 2)


def write_netcdf(path):
    data = xarray.Dataset.from_dataframe(FRAME.drop(columns=["metal", "on"]))
    data["T"].attrs["units"] = "K"
    data.to_netcdf(path, engine="h5netcdf")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.txt", "a.parquet", "a.h5", "a.nc"])
def test_columns_have_names_kinds_and_units(tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        write_parquet(path)
    elif name.endswith("h5"):
        write_hdf5(path)
    elif name.endswith("nc"):
        write_netcdf(path)
    else:
        write_csv(path, sep={"a.tsv": "\t", "a.txt": ";"}.get(name, ","))
    found = read_columns(path, "run/7" if name == "a.h5" else "")
    assert len(found) == 4
    assert found.units == {"T": "K"}
    np.testing.assert_array_equal(found.values["T"], [1.5, np.nan, 3, 4])
    assert found.values["n"].dtype == np.float64
    if name != "a.nc":
        assert found.values["on"].tolist() == [1, 0, 1, 1]
        assert found.values["metal"].tolist()[0::2] == ["Al", "Cu"]
    np.testing.assert_array_equal(found.values["when"], [0, 2, np.nan, 366])
    if name == "a.h5":
        assert found.values["B_1"].tolist() == [1, 3, 5, 7]


def test_a_table_of_numbers_needs_no_names(tmp_path):
    (tmp_path / "a.dat").write_text("  1.0   2.0\n  3.0 4.0\n")
    found = read_columns(tmp_path / "a.dat").values
    assert {name: column.tolist() for name, column in found.items()} == {"x0": [1, 3], "x1": [2, 4]}
    (tmp_path / "old.csv").write_bytes(b"a,b\r1,2\r3,4\r")
    assert read_columns(tmp_path / "old.csv").values["b"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", None, "there is no such file"),
        ("a.xyz", b"1", "a file of an unknown kind; expected one of .csv"),
        ("a.parquet", b"no parquet", "cannot be read"),
        ("a.h5", b"no hdf5", "cannot be read"),
        ("a.csv", b"", "cannot be read"),
        ("a.csv", b"T [K],T\n1,2\n", "a column name stands there twice"),
    ],
)
def test_what_is_no_table_is_said_in_a_line(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as error:
        read_columns(tmp_path / name)
    assert "\n" not in str(error.value)


def test_columns_of_different_lengths_are_no_table(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"], file["b"] = [1.0, 2.0], [1.0]
    with pytest.raises(DataError, match=r"columns of different lengths \(a 2, b 1\)"):
        read_columns(tmp_path / "a.h5")
    with pytest.raises(DataError, match="there is no group other; it has a, b"):
        read_columns(tmp_path / "a.h5", "other")
