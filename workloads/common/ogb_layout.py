"""The raw layout of OGB's graph property sets: checked, written, and read in bounded memory.

    ogbg_<name>/RELEASE_v1.txt
    ogbg_<name>/raw/{num-node-list,num-edge-list,graph-label}.csv.gz     a line a graph
    ogbg_<name>/raw/{edge,edge-feat}.csv.gz                              a line an edge, stored once, graph by graph
    ogbg_<name>/raw/node-feat.csv.gz                                     a line a node; absent where nodes have none
    ogbg_<name>/split/<split>/{train,valid,test}.csv.gz                  a line a graph: its number, from 0

No file has a header.
"""

from __future__ import annotations

import gzip
import io
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from lumos.errors import DataError, reads
from lumos.workloads.common import checksums
from lumos.workloads.common.arrays import cached, digest, remove_folder
from lumos.workloads.common.compressed import lines_of, unpacked
from lumos.workloads.common.files import cannot_write, dataset_folder
from lumos.workloads.common.graphs import SPLITS, Graph, Graphs, GraphSet
from lumos.workloads.common.parallel import run_all
from lumos.workloads.common.progress import track

log = logging.getLogger("lumos")

VERSION = 1
SHARD_EDGES = 1_000_000
"""Edges of one shard, at most (a graph is never split): about 0.3 GB of memory while it is read."""


@dataclass(frozen=True)
class Layout:
    """What a data set of this layout holds.

    ``node_values`` and ``edge_values`` are how many values each integer column can take; ``edge_channels`` counts real
    columns instead. ``classes`` is how many labels there are.
    """

    name: str
    split: str
    classes: int
    node_values: tuple[int, ...] = ()
    edge_values: tuple[int, ...] = ()
    edge_channels: int = 0

    @property
    def title(self) -> str:
        """The name as OGB writes it."""
        return self.name.replace("_", "-")

    @property
    def edge_dtype(self) -> np.dtype:
        """Of the edges' features, as stored."""
        return np.dtype(np.float32 if self.edge_channels else np.uint8)

    @property
    def raw(self) -> tuple[str, ...]:
        """Names of the files under ``raw``."""
        return ("num-node-list", "num-edge-list", "graph-label", "edge", "edge-feat") + ("node-feat",) * bool(
            self.node_values
        )

    def files(self, folder: Path) -> list[Path]:
        """List every file of the data set. Raises DataError naming those that are missing."""
        files = [folder / "raw" / f"{name}.csv.gz" for name in self.raw]
        files += [folder / "split" / self.split / f"{split}.csv.gz" for split in SPLITS]
        missing = [str(file.relative_to(folder)) for file in files if not file.exists()]
        if missing:
            raise DataError(
                f"{folder}: missing {', '.join(missing)}; expected the unpacked download of {self.title}, with raw/ "
                f"and split/{self.split}/ (nothing is downloaded here)"
            )
        return files


def random_chain(layout: Layout, rng: np.random.Generator, nodes: int = 12) -> Graph:
    """Draw a graph that is a chain, of features that the layout allows."""

    def columns(rows: int, values: Sequence[int]) -> np.ndarray:
        return rng.integers(0, values, (rows, len(values))).astype(np.uint8)

    place = np.arange(nodes)
    scores = rng.random((nodes - 1, layout.edge_channels), np.float32)
    attr = scores if layout.edge_channels else columns(nodes - 1, layout.edge_values)
    return Graph(columns(nodes, layout.node_values), np.stack([place[:-1], place[1:]], 1), attr, 0.0)


# ---- writing --------------------------------------------------------------------------------------------------------


def write_dataset(
    folder: Path,
    layout: Layout,
    parts: int,
    make: Callable[[int], Graphs],
    finish: Callable[[Path], Mapping[str, np.ndarray]],
    description: str,
) -> Path:
    """Write the data set from parts that are made side by side, as many at once as there are cores.

    A part that is there already is not made again, so that a run that was stopped goes on; the data set appears under
    its name when it is whole. One that is not what was written, by its checksums, is made again.

    Args:
        folder: Where to write it.
        layout: What the data set holds.
        parts: How many parts there are.
        make: Called as ``make(part)``, in a thread; makes the graphs of one part.
        finish: Called with the data set's folder, to which it may add files; returns the numbers of the graphs in each
            split.
        description: What a progress bar says.

    Returns:
        ``folder/<layout.name>``.

    Raises:
        DataError: the folder cannot be written.
    """
    target = folder / layout.name
    if target.is_dir():
        if not (wrong := checksums.damaged(target)):
            return target
        log.warning(f"{target}: damaged (the checksum of {', '.join(wrong)} does not match); made again")
        remove_folder(target)
    work = folder / "parts"
    try:
        work.mkdir(parents=True, exist_ok=True)
        missing = [k for k in range(parts) if not (work / f"{k:05d}").is_dir()]
        run_all([partial(_write_part, work / f"{k:05d}", layout, make, k) for k in missing], description)
        _assemble(target, layout, [work / f"{k:05d}" for k in range(parts)], finish)
        shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        # Another process may have been first with the same data set; then its copy serves.
        if not target.is_dir():
            raise cannot_write(folder, error) from error
    return target


def _write_part(place: Path, layout: Layout, make: Callable[[int], Graphs], part: int) -> None:
    graphs = make(part)
    tables = {
        "num-node-list": graphs.nodes,
        "num-edge-list": graphs.edges,
        "graph-label": graphs.labels.astype(np.int64),
        "edge": graphs.pairs,
        "edge-feat": graphs.edge_attr,
        "node-feat": graphs.x,
    }
    draft = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        draft.mkdir()
        for name in layout.raw:
            write_csv(draft / f"{name}.csv.gz", tables[name])
        if not place.is_dir():
            os.replace(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _assemble(
    target: Path, layout: Layout, parts: Sequence[Path], finish: Callable[[Path], Mapping[str, np.ndarray]]
) -> None:
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        (draft / "raw").mkdir(parents=True)
        (draft / "split" / layout.split).mkdir(parents=True)
        (draft / "RELEASE_v1.txt").write_text("made by the workload's own generator\n")
        for name in layout.raw:
            with (draft / "raw" / f"{name}.csv.gz").open("wb") as whole:
                for part in parts:
                    # gzip members that follow each other are one gzip file.
                    with (part / f"{name}.csv.gz").open("rb") as piece:
                        shutil.copyfileobj(piece, whole)
        for name, numbers in finish(draft).items():
            write_csv(draft / "split" / layout.split / f"{name}.csv.gz", numbers)
        for file in sorted(path for path in draft.rglob("*") if path.is_file()):
            checksums.note(draft, file.relative_to(draft).as_posix(), file)
        if not target.is_dir():
            os.replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_csv(file: Path, array: np.ndarray) -> None:
    """Write the rows of an array as a gzipped table without a header."""
    columns = array.reshape(len(array), -1).T
    table = pa.table({str(k): pa.array(np.ascontiguousarray(column)) for k, column in enumerate(columns)})
    # Level 9 would take more than ten times as long.
    with gzip.GzipFile(file, "wb", compresslevel=2, mtime=0) as sink:
        pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(include_header=False))


# ---- reading --------------------------------------------------------------------------------------------------------


def find_dataset(root: Path, layout: Layout) -> Path:
    """Find the folder of the data set: ``root/<name>``, ``root`` itself, or what the archive unpacks to in it.

    OGB's own loader renames what it unpacks: hiv.zip holds ``hiv/``, ogbg_ppi_medium.zip ``ogbg_ppi_medium/``. Raises
    DataError for what is missing.
    """
    folder = dataset_folder(root, layout.name, "raw", "split")
    if folder == root and not (root / "raw").is_dir():
        raise DataError(
            f"data.root={root}: expected {layout.name}/raw and {layout.name}/split there; download and unpack "
            f"{layout.title} first (nothing is downloaded here)"
        )
    layout.files(folder)
    return folder


def read_dataset(folder: Path, layout: Layout, cache: Path) -> GraphSet:
    """Read the data set into shards of flat arrays under ``cache``, at the first call and in one pass, and map them.

    At no time is more than one shard in memory.

    Raises:
        DataError: a file is missing, damaged, or does not agree with the others; the message names it.
    """
    files = layout.files(folder)
    key: dict[str, object] = {"version": VERSION, "layout": layout.name, "folder": str(folder.resolve())}
    key |= {str(f.relative_to(folder)): checksums.identity(folder, f) for f in files}
    raw = folder / "raw"
    nodes, edges, labels = (_read_all(raw / f"{name}.csv.gz", np.int64) for name in layout.raw[:3])
    if not len(nodes) == len(edges) == len(labels):
        raise DataError(f"{raw}: {len(nodes)} numbers of nodes, {len(edges)} of edges, {len(labels)} labels; "
                        "expected as many of each")  # fmt: skip
    _check(raw / "num-node-list.csv.gz", nodes, 0, 2**31, "a number of nodes")
    _check(raw / "num-edge-list.csv.gz", edges, 0, 2**31, "a number of edges")
    _check(raw / "graph-label.csv.gz", labels, 0, layout.classes, "a label")
    splits = _read_splits(folder / "split" / layout.split, nodes)
    cuts = _cuts(edges)
    tables = _Tables(raw, layout)
    shards = []
    for k, (start, stop) in enumerate(
        track(zip(cuts, cuts[1:], strict=False), f"reading {layout.name}", len(cuts) - 1)
    ):
        here = slice(start, stop)
        first = (int(nodes[:start].sum()), int(edges[:start].sum()))

        def make(here: slice = here, first: tuple[int, int] = first) -> dict[str, np.ndarray]:
            return tables.shard(first, nodes[here], edges[here], labels[here])

        arrays = cached(cache, {**key, "shard": k}, make)
        shards.append(Graphs.from_arrays(arrays))
    tables.check_ends(int(nodes.sum()), int(edges.sum()))
    return GraphSet(shards, splits)


def _cuts(edges: np.ndarray) -> list[int]:
    """Where shards begin and end: as many graphs as have at most SHARD_EDGES edges together, one at least."""
    cuts, total = [0], 0
    for k, count in enumerate(edges.tolist()):
        if total + count > SHARD_EDGES and k > cuts[-1]:
            cuts.append(k)
            total = 0
        total += count
    return [*cuts, len(edges)]


class _Tables:
    """The big tables of the layout, read forward only."""

    def __init__(self, raw: Path, layout: Layout) -> None:
        self.layout = layout
        self.edge = _Lines(raw / "edge.csv.gz", np.int64, 2)
        columns = layout.edge_channels or len(layout.edge_values)
        self.edge_attr = _Lines(raw / "edge-feat.csv.gz", np.float32 if layout.edge_channels else np.int64, columns)
        self.x = _Lines(raw / "node-feat.csv.gz", np.int64, len(layout.node_values)) if layout.node_values else None

    def shard(
        self, first: tuple[int, int], nodes: np.ndarray, edges: np.ndarray, labels: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Read the arrays of the graphs with these numbers of nodes and edges, from these lines on."""
        n, e = int(nodes.sum()), int(edges.sum())
        pairs = self.edge.rows(first[1], e)
        limit = np.repeat(nodes, edges)
        if e and (pairs.min() < 0 or bool((pairs >= limit[:, None]).any())):
            bad = int(np.argmax(((pairs < 0) | (pairs >= limit[:, None])).any(1)))
            raise DataError(f"{self.edge.file}: line {first[1] + bad + 1}: nodes {pairs[bad].tolist()} of a graph with "
                            f"{limit[bad]}")  # fmt: skip
        attr = self.edge_attr.rows(first[1], e)
        for column, values in enumerate(self.layout.edge_values):
            _check(self.edge_attr.file, attr[:, column], 0, values, f"column {column}", first[1])
        if not np.isfinite(attr).all():
            raise DataError(f"{self.edge_attr.file}: a value is not finite; the file is damaged, download it again")
        x = self.x.rows(first[0], n) if self.x else np.zeros((1, 0), np.int64)
        for column, values in enumerate(self.layout.node_values):
            _check(self.x.file, x[:, column], 0, values, f"column {column}", first[0])  # type: ignore[union-attr]
        arrays = {
            "nodes": nodes,
            "edges": edges,
            "labels": labels.astype(np.float64),
            "x": x.astype(np.uint8),
            "pairs": pairs.astype(np.int32),
            "edge_attr": attr.astype(self.layout.edge_dtype),
        }
        return {**arrays, "sha256": np.frombuffer(bytes.fromhex(digest(*arrays.values())), np.uint8)}

    def check_ends(self, nodes: int, edges: int) -> None:
        """Check that the tables have no more lines than the graphs have nodes or edges. Raises DataError."""
        for table, expected in ((self.edge, edges), (self.edge_attr, edges), (self.x, nodes)):
            if table is not None and table.position == expected and table.more():
                raise DataError(f"{table.file}: more than the {expected} lines that the graphs have; the files of the "
                                "data set do not belong together, download it again")  # fmt: skip


class _Lines:
    """Lines of a gzipped table by number, in ascending order."""

    def __init__(self, file: Path, dtype: type, columns: int) -> None:
        self.file, self.dtype, self.columns = file, dtype, columns
        self.position = 0
        self._lines: Iterator[bytes] | None = None

    def rows(self, first: int, count: int) -> np.ndarray:
        """Read ``count`` rows from line ``first`` on: (count, columns)."""
        self._take(first - self.position, keep=False)
        lines = self._take(count, keep=True)
        if len(lines) < count:
            raise DataError(f"{self.file}: ends after {self.position} lines; expected {first + count} or more: it is "
                            "incomplete, download it again")  # fmt: skip
        return _parse(self.file, b"".join(lines), self.dtype, count, self.columns)

    def more(self) -> bool:
        """Say whether there are lines after the last one read."""
        return bool(self._take(1, keep=True))

    def _take(self, count: int, keep: bool) -> list[bytes]:
        if self._lines is None:
            self._lines = lines_of(self.file)
        taken = islice(self._lines, count)
        lines = list(taken) if keep else []
        seen = len(lines) if keep else sum(1 for _ in taken)
        self.position += seen
        return lines


def _parse(file: Path, text: bytes, dtype: type, rows: int, columns: int) -> np.ndarray:
    if not rows:
        return np.zeros((0, columns), dtype)
    try:
        table = pd.read_csv(io.BytesIO(text), header=None, dtype=dtype, skip_blank_lines=False).to_numpy()
    except (ValueError, TypeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{file}: cannot be read ({reason}); expected {columns} columns of numbers, no header"
        ) from error
    if table.shape != (rows, columns):
        raise DataError(f"{file}: {table.shape[1]} columns; expected {columns}")
    return table


@reads("expected one column of numbers")
def _read_all(file: Path, dtype: type) -> np.ndarray:
    """A table of one column, read whole."""
    text = unpacked(file)
    lines = text.count(b"\n") + bool(text and not text.endswith(b"\n"))
    return _parse(file, text, dtype, lines, 1)[:, 0]


def _read_splits(folder: Path, nodes: np.ndarray) -> dict[str, np.ndarray]:
    splits = {split: _read_all(folder / f"{split}.csv.gz", np.int64) for split in SPLITS}
    for split, numbers in splits.items():
        _check(folder / f"{split}.csv.gz", numbers, 0, len(nodes), "the number of a graph")
        if not len(numbers):
            raise DataError(f"{folder / split}.csv.gz: empty; expected the numbers of the split's graphs")
        if len(numbers) and nodes[numbers].min() < 1:
            empty = int(numbers[nodes[numbers] < 1][0])
            raise DataError(f"{folder / split}.csv.gz: graph {empty} has no nodes; leave it out of the split")
    numbers = np.concatenate(list(splits.values()))
    if len(np.unique(numbers)) < len(numbers):
        raise DataError(f"{folder}: a graph stands in the splits twice; expected each at most once")
    return splits


def _check(file: Path, values: np.ndarray, low: int, high: int, what: str, first: int = 0) -> None:
    wrong = (values < low) | (values >= high)
    if wrong.any():
        bad = int(np.argmax(wrong))
        raise DataError(f"{file}: line {first + bad + 1}: {what} is {values[bad]}; expected {low} to {high - 1}")
