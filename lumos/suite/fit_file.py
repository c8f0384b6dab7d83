"""``lumos fit`` and ``lumos predict``: a table in a file, from its columns to a network and to predictions."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumos.errors import ConfigError, DataError, RecordError
from lumos.suite import archive, record
from lumos.suite.archive import Run
from lumos.suite.config import compose, quoted, read
from lumos.suite.paths import RESULTS

WORKLOAD = "table"

ROWS_OF_A_CALL = 1024
"""Rows of the call whose latency is asked for: of a few rows most of the time is not the network's."""


def words_of(file: Path, targets: str, goal: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Make what ``lumos run`` takes.

    Args:
        file: The table.
        targets: Names of the columns to predict, with commas between them.
        goal: At most one of ``tolerance``, ``target.features``, ``target.params``, ``target.latency`` and ``lambda``
            that is not None; a tolerance of 1% where none is given.
        settings: Keys of the workload, ``keep`` and ``seed``; those that are None are left out.

    Returns:
        ``KEY=VALUE`` in Hydra's grammar.

    Raises:
        ConfigError: Several goals are given, or no column to predict.

    Example:
        >>> words_of(Path("/data/flux.csv"), "fx, fy", {"target.features": 9}, {})[1:]
        ["data.root='/data/flux.csv'", "workload.targets=['fx','fy']", 'lumos.target.features=9']
    """
    names = [name.strip() for name in targets.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"--targets {targets}: expected names of columns, with commas between them")
    given = {key: value for key, value in goal.items() if value is not None} or {"tolerance": 0.01}
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are given: expected one of {', '.join(goal)}")
    words = [f"workload={WORKLOAD}", f"data.root={quoted(str(file.expanduser().absolute()))}",
             f"workload.targets={quoted(names)}"]  # fmt: skip
    words += [f"lumos.{key}={value}" for key, value in given.items()]
    if "target.latency" in given:
        words.append(f"lumos.call.batch={ROWS_OF_A_CALL}")
    for key, value in settings.items():
        if value not in (None, "", []):
            words.append(f"{_PREFIX.get(key, 'workload.')}{key}={quoted(value)}")
    return words


_PREFIX = {"seed": "", "keep": "lumos."}
"""What stands before a key that is none of the workload."""


def report_of(words: Sequence[str]) -> list[str]:
    """Say what became of each column in the run that these words made, and what can be done with it.

    Args:
        words: What :func:`words_of` returned, and more.

    Returns:
        Lines: the kept columns first, then the others, the last to close before the first.

    Raises:
        RecordError: The run is not finished.
    """
    folder = read(compose(words)).folder(WORKLOAD)  # without the workload, which would read the table again
    entry = record.finished(folder)
    if entry is None:
        raise RecordError(f"{folder}: there is no finished run")
    run = Run(entry, folder)
    rows: list[dict[str, Any]] = list(run.table("features.csv"))
    rows.sort(key=lambda row: (not row["kept"], -int(row["order"] or 0)))
    shown: list[tuple[str, ...]] = [("column", "kept", "closed at step", "|Pearson|", "mutual information [nat]")]
    for row in rows:
        closed = f"{row['closed_at']:.0f}" if row["closed_at"] not in (None, "") else ""
        beside = [str(row.get(key, "")) for key in ("abs_pearson", "mutual_information")]
        shown.append((str(row["feature"]), "yes" if row["kept"] else "", closed, *beside))
    widths = [max(len(row[k]) for row in shown) for k in range(len(shown[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in shown]
    name = run.record["run_id"]
    return [*lines, "", f"lumos predict {name} NEW_FILE       predictions for other rows",
            f"lumos export {name} --to FILE.onnx   raw columns in, physical units out",
            f"lumos feature-report {name}          the path of the selection"]  # fmt: skip


def predict_file(name: str, file: Path, out: Path | None, group: str) -> list[str]:
    """Predict the rows of a file with the network of a run on a table.

    Args:
        name: The run: its folder, or the beginning of its id.
        file: The rows. They need the columns that the run kept, and no others.
        out: The CSV or Parquet file to write; beside the process, by default.
        group: The group of an HDF5 or NetCDF file that holds the table.

    Returns:
        What to print.

    Raises:
        DataError: The file cannot be read or lacks a column, or the run has no predictor.
    """
    from lumos.tabular.files import read_columns
    from lumos.tabular.predictor import read_predictor

    run: Run = archive.find(name, RESULTS)
    predictor = read_predictor(run.folder)
    columns = read_columns(file, group)
    if not len(columns):
        raise DataError(f"{file} has a header and no rows; expected rows to predict")
    try:
        found = predictor.predict(columns.values)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    out = out or Path(f"{file.name.split('.')[0]}_predicted.csv")
    _write(out, found, predictor.schema.units)
    lines = [f"wrote {out}: {len(columns)} rows of {', '.join(found)}"]
    for target in predictor.schema.targets:
        if target in columns.values:
            lines.append(_agreement(target, columns.values[target], found[target], predictor.schema.classes))
    return lines


def _agreement(name: str, truth: Any, guess: Any, classes: Any) -> str:
    """How far predictions are from what the file itself has."""
    import numpy as np

    if classes is not None:
        known = np.array([v is not None for v in truth])
        return (
            f"{name}: {float((truth[known] == guess[known]).mean()):.4f} of {int(known.sum())} known classes are right"
        )
    known = np.isfinite(truth)
    gap, total = (truth - guess)[known], truth[known] - truth[known].mean() if known.any() else truth[known]
    r2 = 1 - float(np.square(gap).sum() / max(np.square(total).sum(), 1e-300))
    rms = np.sqrt(np.square(gap).mean())
    return f"{name}: R2 {r2:.4f}, root mean square error {rms:.4g} on {int(known.sum())} known values"


def _write(path: Path, columns: Mapping[str, Any], units: Mapping[str, str]) -> None:
    names = {name: f"{name} [{units[name]}]" if name in units else name for name in columns}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".parquet", ".pq"):
        import pyarrow
        from pyarrow import parquet

        fields = [pyarrow.field(n, pyarrow.array(v).type, metadata={"units": units[n]} if n in units else None)
                  for n, v in columns.items()]  # fmt: skip
        parquet.write_table(pyarrow.table(dict(columns), schema=pyarrow.schema(fields)), path)
        return
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names.values())
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
