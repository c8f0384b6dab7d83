"""OGB's raw layout: read as OGB reads it, in shards of a bounded size, with clear errors; written and resumed."""

import gzip
import tracemalloc

import numpy as np
import pytest

from lumos.errors import DataError
from lumos.workloads.common import ogb_layout
from lumos.workloads.common.graphs import Graph, Graphs
from lumos.workloads.common.ogb_layout import Layout, find_dataset, read_dataset, write_dataset

LAYOUT = Layout(name="ogbg_small", split="scaffold", classes=2, node_values=(10, 3), edge_values=(4,))
REAL = Layout(name="ogbg_real", split="species", classes=3, edge_channels=2)

FILES = {
    "raw/num-node-list": "3\n1\n2\n",
    "raw/num-edge-list": "2\n0\n1\n",
    "raw/graph-label": "1\n0\n1\n",
    "raw/edge": "0,1\n2,1\n1,0\n",
    "raw/edge-feat": "3\n0\n1\n",
    "raw/node-feat": "9,0\n1,2\n2,2\n3,0\n4,1\n5,1\n",
    "split/scaffold/train": "2\n",
    "split/scaffold/valid": "0\n",
    "split/scaffold/test": "1\n",
}


def tree(root, changes=(), name="ogbg_small"):
    """The layout as a person would write it: three graphs of 3, 1 and 2 nodes."""
    folder = root / name
    for file, text in {**FILES, **dict(changes)}.items():
        path = folder / f"{file}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_bytes(gzip.compress(text.encode()))
    return folder


def test_reads_a_tree_made_by_hand(tmp_path):
    whole = read_dataset(find_dataset(tree(tmp_path).parent, LAYOUT), LAYOUT, tmp_path / "cache")
    assert {split: numbers.tolist() for split, numbers in whole.splits.items()} == {
        "train": [2],
        "valid": [0],
        "test": [1],
    }
    assert whole.labels.tolist() == [1, 0, 1]
    assert [whole[k].x.tolist() for k in range(3)] == [[[9, 0], [1, 2], [2, 2]], [[3, 0]], [[4, 1], [5, 1]]]
    assert [whole[k].edges.tolist() for k in range(3)] == [[[0, 1], [2, 1]], [], [[1, 0]]]
    assert [whole[k].edge_attr.tolist() for k in range(3)] == [[[3], [0]], [], [[1]]]
    assert find_dataset(tmp_path / "ogbg_small", LAYOUT) == tmp_path / "ogbg_small"
    (tmp_path / "ogbg_small").rename(tmp_path / "small_medium")  # as OGB's archives call it
    assert find_dataset(tmp_path, LAYOUT) == tmp_path / "small_medium"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"raw/edge": None, "split/scaffold/test": None}, r"missing raw/edge.csv.gz, split/scaffold/test.csv.gz; exp"),
        ({"raw/num-edge-list": "2\n0\n"}, "3 numbers of nodes, 2 of edges, 3 labels; expected as many"),
        ({"raw/graph-label": "1\n0\n2\n"}, r"graph-label.csv.gz: line 3: a label is 2; expected 0 to 1"),
        ({"raw/graph-label": "1\n\n0\n"}, r"graph-label.csv.gz: cannot be read \(.*\); expected 1 columns of numbers"),
        ({"raw/edge": "0,1\n2,3\n1,0\n"}, r"edge.csv.gz: line 2: nodes \[2, 3\] of a graph with 3"),
        ({"raw/edge": "0,1\n2,1\n"}, r"edge.csv.gz: ends after 2 lines; expected 3 or more"),
        ({"raw/edge": "0,1\n2,1\n1,0\n0,0\n"}, r"edge.csv.gz: more than the 3 lines that the graphs have"),
        ({"raw/edge": "0\n2\n1\n"}, r"edge.csv.gz: 1 columns; expected 2"),
        ({"raw/edge": "a,b\n0,1\n2,1\n"}, r"edge.csv.gz: cannot be read \(.*\); expected 2 columns of numbers, no hea"),
        ({"raw/edge-feat": "3\n4\n1\n"}, r"edge-feat.csv.gz: line 2: column 0 is 4; expected 0 to 3"),
        (
            {"raw/node-feat": "9,0\n1,2\n2,2\n3,0\n4,3\n5,1\n"},
            r"node-feat.csv.gz: line 5: column 1 is 3; expected 0 to",
        ),
        ({"split/scaffold/test": "3\n"}, r"test.csv.gz: line 1: the number of a graph is 3; expected 0 to 2"),
        ({"split/scaffold/test": "0\n"}, "a graph stands in the splits twice"),
        ({"split/scaffold/valid": ""}, "valid.csv.gz: empty; expected the numbers"),
        ({"raw/num-node-list": "3\n0\n3\n"}, "test.csv.gz: graph 1 has no nodes; leave it out"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, changes, message):
    folder = tree(tmp_path, changes)
    with pytest.raises(DataError, match=message) as error:
        read_dataset(folder, LAYOUT, tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_a_damaged_archive_is_named(tmp_path):
    folder = tree(tmp_path)
    for name in ("raw/edge", "raw/graph-label"):
        file = folder / f"{name}.csv.gz"
        whole = file.read_bytes()
        file.write_bytes(whole[:-6])
        with pytest.raises(DataError, match=rf"{name}.csv.gz: cannot be read \(.*\); it is damaged, fetch it again"):
            read_dataset(folder, LAYOUT, tmp_path / "cache")
        file.write_bytes(whole)


def test_a_root_without_the_data_set(tmp_path):
    with pytest.raises(DataError, match=r"expected ogbg_small/raw and ogbg_small/split there; download and unpack"):
        find_dataset(tmp_path, LAYOUT)


# ---- real channels, many graphs --------------------------------------------------------------------------------------


def real_graphs(count, edges, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Graph(
            np.zeros((6, 0), np.uint8),
            rng.integers(0, 6, (edges, 2)),
            rng.random((edges, 2)).round(3).astype(np.float32),
            k % 3,
        )
        for k in range(count)
    ]


def written(root, parts=3, count=4, edges=5, layout=REAL):
    def finish(_draft):
        numbers = np.arange(parts * count)
        return {"train": numbers[2:], "valid": numbers[:1], "test": numbers[1:2]}

    return write_dataset(root, layout, parts, lambda k: Graphs.stack(real_graphs(count, edges, k)), finish, "making")


def expected(parts=3, count=4, edges=5):
    return [g for k in range(parts) for g in real_graphs(count, edges, k)]


def assert_same(whole, graphs):
    assert len(whole) == len(graphs)
    for k, g in enumerate(graphs):
        assert np.array_equal(whole[k].edges, g.edges)
        assert np.array_equal(whole[k].edge_attr, g.edge_attr)
        assert whole[k].label == g.label
        assert whole[k].x.shape == g.x.shape


def test_what_is_written_is_read_back(tmp_path):
    folder = written(tmp_path)
    assert (folder / "RELEASE_v1.txt").exists()
    assert not (folder / "raw" / "node-feat.csv.gz").exists()
    assert_same(read_dataset(folder, REAL, tmp_path / "cache"), expected())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "ogbg_real"]


@pytest.mark.filterwarnings("ignore")  # ogb's own reader, as it is
def test_ogb_reads_the_same_graphs(tmp_path, capsys, ogb):
    ours = expected()
    theirs = ogb.read_csv_graph_raw(str(written(tmp_path) / "raw"), add_inverse_edge=True)
    capsys.readouterr()
    for graph, other in zip(ours, theirs, strict=True):
        both = np.stack([graph.edges, graph.edges[:, ::-1]], 1).reshape(-1, 2).T
        assert np.array_equal(other["edge_index"], both)
        assert np.array_equal(other["edge_feat"], graph.edge_attr.repeat(2, 0))
        assert other["num_nodes"] == len(graph.x)


def test_shards_are_read_in_one_pass_kept_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(ogb_layout, "SHARD_EDGES", 20)
    folder, cache = written(tmp_path), tmp_path / "cache"
    whole = read_dataset(folder, REAL, cache)
    assert [len(shard) for shard in whole.shards] == [4, 4, 4]
    assert_same(whole, expected())
    made = []
    shard = ogb_layout._Tables.shard
    monkeypatch.setattr(ogb_layout._Tables, "shard", lambda *a: made.append(a[1]) or shard(*a))
    read_dataset(folder, REAL, cache)
    assert not made
    lost = next(p for p in cache.iterdir() if '"shard": 1' in (p / "key.json").read_text())
    for file in lost.iterdir():
        file.unlink()
    lost.rmdir()
    assert_same(read_dataset(folder, REAL, cache), expected())
    assert made == [(24, 20)]  # the first node and edge of the shard that was lost


def test_a_graph_larger_than_a_shard_is_not_split(tmp_path, monkeypatch):
    monkeypatch.setattr(ogb_layout, "SHARD_EDGES", 3)
    whole = read_dataset(written(tmp_path), REAL, tmp_path / "cache")
    assert [len(shard) for shard in whole.shards] == [1] * 12
    assert_same(whole, expected())


@pytest.mark.slow
def test_memory_is_bounded_by_the_shard(tmp_path, monkeypatch):
    folder = written(tmp_path, parts=4, count=20, edges=1000)
    peaks = []
    for shard in (10**9, 8_000):
        monkeypatch.setattr(ogb_layout, "SHARD_EDGES", shard)
        tracemalloc.start()
        whole = read_dataset(folder, REAL, tmp_path / f"cache-{shard}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert_same(whole, expected(4, 20, 1000))
    assert peaks[1] < peaks[0] / 5


def test_a_stopped_writer_goes_on_where_it_was(tmp_path):
    calls = []

    def make(k):
        calls.append(k)
        if k == 1 and len(calls) < 4:
            raise RuntimeError("stopped")
        return Graphs.stack(real_graphs(2, 3, k))

    def finish(_draft):
        return {"train": np.array([0]), "valid": np.array([1]), "test": np.array([2, 3, 4, 5])}

    def write():
        return write_dataset(tmp_path, REAL, 3, make, finish, "making")

    with pytest.raises(RuntimeError, match="stopped"):
        write()
    assert not (tmp_path / "ogbg_real").exists()
    kept = {int(p.name) for p in (tmp_path / "parts").iterdir() if not p.name.startswith(".")}
    calls[:] = [9, 9, 9]
    assert_same(read_dataset(write(), REAL, tmp_path / "cache"), expected(3, 2, 3))
    assert set(calls[3:]) == {0, 1, 2} - kept
    assert write() == tmp_path / "ogbg_real"  # there already: nothing is made
    assert len(calls) == 3 + len({0, 1, 2} - kept)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the cache .* set data.cache to another folder"):
        written(tmp_path / "file")
