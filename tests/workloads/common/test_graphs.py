"""Graphs stored flat, read back and put together in batches."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lumos.errors import DataError
from lumos.suite.workload import DataSource
from lumos.workloads.common.graphs import Graph, Graphs, GraphSet, collate, inputs, label_entropy, predictions


def graph(rng, nodes, edges, label=0.0, features=2):
    pairs = rng.integers(0, max(nodes, 1), (edges, 2))
    return Graph(
        rng.integers(0, 5, (nodes, features)).astype(np.uint8), pairs, rng.random((edges, 3)).astype(np.float32), label
    )


SIZES = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6)), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(sizes=SIZES, features=st.sampled_from([0, 2]), cut=st.integers(0, 5))
def test_what_is_stacked_is_read_back(sizes, features, cut):
    rng = np.random.default_rng(0)
    made = [graph(rng, n, e, float(k), features) for k, (n, e) in enumerate(sizes)]
    shards = [Graphs.stack(part) for part in (made[:cut], made[cut:]) if part]
    whole = GraphSet(shards, {})
    assert len(whole) == len(made)
    assert whole.labels.tolist() == [g.label for g in made]
    for k, g in enumerate(made):
        back = whole[k]
        assert back.label == g.label
        for name in ("x", "edges", "edge_attr"):
            assert np.array_equal(getattr(back, name), getattr(g, name))
            assert getattr(back, name).shape == getattr(g, name).shape


def test_a_batch_by_hand():
    first = Graph(np.array([[1, 2], [3, 4]], np.uint8), np.array([[0, 1]]), np.array([[7]], np.uint8), 1.0)
    second = Graph(np.array([[5, 6]], np.uint8), np.zeros((0, 2), int), np.zeros((0, 1), np.uint8), 0.0)
    third = Graph(np.zeros((3, 2), np.uint8), np.array([[2, 0], [1, 2]]), np.array([[8], [9]], np.uint8), 0.0)
    batch = collate([first, second, third], edge_dtype=torch.int64, label_dtype=torch.float32)
    assert batch.x.tolist() == [[1, 2], [3, 4], [5, 6], [0, 0], [0, 0], [0, 0]]
    assert batch.edge_index.tolist() == [[0, 1, 5, 3, 4, 5], [1, 0, 3, 5, 5, 4]]
    assert batch.edge_attr.tolist() == [[7], [7], [8], [8], [9], [9]]
    assert batch.batch.tolist() == [0, 0, 1, 2, 2, 2]
    assert batch.ptr.tolist() == [0, 2, 3, 6]
    assert batch.y.tolist() == [[1.0], [0.0], [0.0]]
    assert batch.num_graphs == 3
    assert [t.dtype for t in inputs(batch)] == [torch.int64] * 5


def test_nodes_without_features_are_zeros():
    bare = Graph(np.zeros((3, 0), np.uint8), np.array([[0, 1]]), np.array([[0.5]], np.float32), 2.0)
    batch = collate([bare, bare], edge_dtype=torch.float32, label_dtype=torch.int64)
    assert batch.x.tolist() == [0] * 6
    assert batch.y.tolist() == [2, 2]


def test_a_worker_opens_what_is_mapped_itself(tmp_path):
    rng = np.random.default_rng(0)
    made = Graphs.stack([graph(rng, 50, 4000) for _ in range(20)])
    for name in ("nodes", "edges", "labels", "x", "pairs", "edge_attr"):
        np.save(tmp_path / f"{name}.npy", getattr(made, name))
    np.save(tmp_path / "sha256.npy", np.arange(32, dtype=np.uint8))
    mapped = Graphs.open(tmp_path)
    sent = pickle.dumps(mapped)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent).edge_attr, made.edge_attr)
    assert pickle.loads(sent).sha256 == bytes(range(32)).hex()
    again = pickle.loads(pickle.dumps(made))  # in memory: all of it travels
    assert np.array_equal(again.pairs, made.pairs)
    (tmp_path / "pairs.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot read the cached graphs \(.*\); delete that folder"):
        Graphs.open(tmp_path)


def test_loaders_yield_each_graph_once_and_shuffle_the_training_ones():
    rng = np.random.default_rng(0)
    made = Graphs.stack([graph(rng, 2, 1, float(k)) for k in range(20)])
    splits = {"train": np.arange(0, 12), "valid": np.arange(12, 15), "test": np.arange(15, 20)}
    loaders = GraphSet([made], splits).loaders(4, 0, DataSource(), _collate)
    assert (loaders.n_train, loaders.n_valid, loaders.n_test) == (12, 3, 5)
    orders = []
    for epoch in (0, 0, 1):
        loaders.train.sampler.set_epoch(epoch)
        orders.append(torch.cat([b.y.view(-1) for b in loaders.train]).tolist())
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(12))
    assert torch.cat([b.y.view(-1) for b in loaders.test]).tolist() == [15, 16, 17, 18, 19]


def _collate(graphs):
    return collate(graphs, edge_dtype=torch.float32, label_dtype=torch.float32)


def test_a_limit_takes_evenly_spaced_graphs():
    rng = np.random.default_rng(0)
    made = Graphs.stack([graph(rng, 1, 0, float(k)) for k in range(9)])
    whole = GraphSet([made], {"train": np.arange(9)})
    assert [g.label for g in whole.of("train", 3)] == [0, 4, 8]
    assert len(whole.of("train", 100)) == 9


def test_predictions_cover_a_split_and_name_an_empty_one():
    class Count(nn.Module):
        def forward(self, x, edge_index, edge_attr, batch, ptr):
            return (ptr[1:] - ptr[:-1]).float()[:, None]

    rng = np.random.default_rng(0)
    graphs = [graph(rng, n, 1, float(n)) for n in (1, 2, 3)]
    logits, labels = predictions(Count(), [_collate(graphs[:2]), _collate(graphs[2:])])
    assert logits[:, 0].tolist() == labels.tolist() == [1, 2, 3]
    with pytest.raises(DataError, match="no graphs to score"):
        predictions(Count(), [])


def test_nothing_to_stack():
    with pytest.raises(DataError, match="no graphs to put together"):
        Graphs.stack([])


def test_label_entropy_by_hand():
    assert label_entropy(np.array([0, 1, 0, 1])) == pytest.approx(math.log(2))
    assert label_entropy(np.array([0, 0, 0, 1])) == pytest.approx(2 * math.log(2) - 0.75 * math.log(3))
    assert label_entropy(np.zeros(5)) == 1e-3
