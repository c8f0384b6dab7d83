"""The workload PPA: its association graphs, OGB's layout from end to end, baselines, batch statistics."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lumos.errors import DataError
from lumos.suite.config import read
from lumos.suite.run import run
from lumos.suite.workload import DataSource
from lumos.workloads.ppa import CHANNELS, PPA
from lumos.workloads.ppa.data import (
    LAYOUT,
    NODES,
    RATES,
    SIGNAL,
    Size,
    Species,
    Taxon,
    association_graph,
    mean_channels,
    species_graphs,
    species_split,
)
from tests.workloads.ogb_trees import composed, run_on, scores_fresh_and_stale, write_tree


@pytest.fixture(scope="module")
def tiny(cache):
    return PPA(data={"cache": cache}).tiny()


# ---- graphs ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), taxon=st.integers(0, 36))
def test_every_graph_is_a_graph(seed, taxon):
    rng = np.random.default_rng([seed, 1])
    graph, module = association_graph(Species.of(Taxon.of(seed, taxon), rng), taxon, rng)
    n = len(graph.x)
    assert NODES[0] <= n <= NODES[1]
    assert len(module) == n
    pairs = {tuple(sorted(pair)) for pair in graph.edges.tolist()}
    assert len(pairs) == len(graph.edges)
    assert all(a != b for a, b in pairs)
    assert set(graph.edges.ravel().tolist()) == set(range(n))  # no protein is left alone
    assert graph.edge_attr.shape == (len(graph.edges), 7)
    assert graph.edge_attr.min() >= 0
    assert graph.edge_attr.max() < 1
    assert (graph.edge_attr > 0).any(1).all()


def pooled(taxon, count=200):
    """Edges of many species of one taxon: scores (edges, 7) and whether an edge stays within a module."""
    attr, same = [], []
    for k in range(count):
        rng = np.random.default_rng([5, k])
        graph, module = association_graph(Species.of(taxon, rng), 0, rng)
        attr.append(graph.edge_attr)
        same.append(module[graph.edges[:, 0]] == module[graph.edges[:, 1]])
    return np.concatenate(attr), np.concatenate(same)


def test_modules_are_denser_and_channels_without_signal_do_not_know_them():
    taxon = replace(Taxon.of(0, 0), inside=0.5, outside=0.05, modules=3.0)
    attr, same = pooled(taxon)
    assert same.mean() > 0.7  # of all pairs only a third are within a module
    rates = {True: (attr[same] > 0).mean(0), False: (attr[~same] > 0).mean(0)}
    for k, name in enumerate(CHANNELS):
        if name not in SIGNAL:
            assert rates[True][k] == pytest.approx(rates[False][k], abs=0.05)
    strongest = int(np.abs(taxon.within).argmax())
    assert np.sign(rates[True][strongest] - rates[False][strongest]) == np.sign(taxon.within[strongest])


def test_rates_are_those_of_the_superkingdom():
    """Without what taxa and modules add, a channel supports the share of associations that the table says."""
    for number, (name, rates) in enumerate(RATES.items()):
        odds = np.log(np.array(rates) / (1 - np.array(rates)))
        taxon = replace(Taxon.of(0, number), odds=odds, within=np.zeros(7))
        # The mean of a sigmoid over species is drawn towards a half by their spread.
        assert (pooled(taxon)[0] > 0).mean(0) == pytest.approx(rates, abs=0.06), name


def test_taxa_of_one_superkingdom_share_the_channels_without_signal():
    first, second = Taxon.of(0, 0), Taxon.of(0, 3)
    for k, name in enumerate(CHANNELS):
        assert (first.odds[k] == second.odds[k]) == (name not in SIGNAL)
        assert (first.within[k] == 0) == (name not in SIGNAL)


def test_graphs_do_not_depend_on_how_many_there_are():
    few, many = (species_graphs(0, 1, 2, count) for count in (2, 5))
    assert all(np.array_equal(a.edge_attr, b.edge_attr) for a, b in zip(few, many[:2], strict=True))
    other = species_graphs(1, 1, 2, 2)
    assert len(other[0].edges) != len(few[0].edges) or not np.array_equal(other[0].edges, few[0].edges)


def test_more_species_to_test_on_leave_the_training_graphs_as_they_are(tmp_path):
    few, more = (PPA(taxa=2, species=5, graphs_each=2, data=DataSource(cache=tmp_path / f"{test}"), valid_species=3,
                     test_species=test) for test in (1, 4))  # fmt: skip
    assert [len(few.graphs.of(split)) for split in ("train", "valid", "test")] == [12, 12, 4]
    assert [len(more.graphs.of(split)) for split in ("train", "valid", "test")] == [12, 12, 16]
    for split in ("train", "valid"):
        pairs = zip(few.graphs.of(split), more.graphs.of(split), strict=True)
        assert all(np.array_equal(a.edge_attr, b.edge_attr) for a, b in pairs)
    single = replace(more, held_out_graphs_each=1)
    assert [len(single.graphs.of(split)) for split in ("train", "valid", "test")] == [12, 6, 8]
    pairs = zip(few.graphs.of("train"), single.graphs.of("train"), strict=True)
    assert all(np.array_equal(a.edge_attr, b.edge_attr) for a, b in pairs)
    assert [len(np.unique(workload.test_groups())) for workload in (single, more)] == [8, 8]
    with pytest.raises(DataError, match=r"workload\.test_species=0: expected at least 1, or null for a fifth"):
        PPA(test_species=0)


def test_splits_have_no_species_in_common():
    size = Size(taxa=3, species=10, graphs=4)
    species = {split: set((numbers // 4).tolist()) for split, numbers in species_split(size).items()}
    assert [len(s) for s in species.values()] == [18, 6, 6]
    assert set.union(*species.values()) == set(range(30))
    assert len(set.union(*species.values())) == sum(map(len, species.values()))
    for found in species.values():
        assert {k // 10 for k in found} == {0, 1, 2}  # every taxon in every split


def test_mean_channels_by_hand():
    graph = species_graphs(0, 0, 0, 1)[0]
    assert mean_channels([graph])[0] == pytest.approx(graph.edge_attr.sum(0) / len(graph.edges))


# ---- the workload ----------------------------------------------------------------------------------------------------


def test_features_table_and_true_features(tiny):
    assert list(tiny.features()) == list(CHANNELS)
    assert set(tiny.true_features()) < set(CHANNELS)
    x, y = tiny.table()
    assert x.shape == (tiny.loaders().n_train, 7)
    assert y.shape == (len(x), 4)
    assert y.sum(1).tolist() == [1] * len(x)


def test_scores_by_hand_and_by_ogbs_evaluator(tiny, ogb):
    class Always(torch.nn.Module):
        def forward(self, x, edge_index, edge_attr, batch, ptr):
            return torch.nn.functional.one_hot(torch.ones(len(ptr) - 1, dtype=torch.long), 4).float()

    scores = tiny.scores(Always(), tiny.loaders().test)
    # Of four equally frequent taxa one is always said: precision 1/4, recall 1, F1 2/5, and 0 for the others.
    assert scores == {"accuracy": 0.25, "macro_f1": pytest.approx(0.1)}
    assert tiny.score(Always(), tiny.loaders().test) == 0.25
    truth = np.concatenate([batch.y.numpy() for batch in tiny.loaders().test])[:, None]
    assert ogb.Evaluator("ogbg-ppa").eval({"y_true": truth, "y_pred": np.ones_like(truth)}) == {"acc": 0.25}
    assert tiny.baselines()["majority"] == 0.25


def test_default_data_have_ogbs_layout_and_read_back_the_same(tiny, tmp_path):
    """What is generated is read by the loader of the published data, here as data=public."""
    own = tiny.loaders()
    root = next(tiny.cache.rglob("ogbg_ppa")).parent
    public = replace(tiny, data={"source": "public", "root": root, "cache": tmp_path})
    assert public.loaders().sha256 == own.sha256
    assert public.outputs == 37
    assert public.true_features() == []
    assert public.metric.target == 0.6839
    assert not (root / "ogbg_ppa" / "raw" / "node-feat.csv.gz").exists()
    for k in (0, len(tiny.graphs) - 1):
        assert np.array_equal(public.graphs[k].edge_attr, tiny.graphs[k].edge_attr)


def raw_tree(root, graphs=30):
    """ogbg_ppa as OGB packs it, line by line: rings of 5 to 9 proteins, of three taxa."""
    rng = np.random.default_rng(0)
    sizes = [5 + k % 5 for k in range(graphs)]
    files = {
        "raw/num-node-list": sizes,
        "raw/num-edge-list": sizes,
        "raw/graph-label": [k % 3 for k in range(graphs)],
        "raw/edge": [f"{k},{(k + 1) % size}" for size in sizes for k in range(size)],
        "raw/edge-feat": [",".join(f"{v:.3f}" for v in rng.random(7)) for size in sizes for _ in range(size)],
        "split/species/train": range(18),
        "split/species/valid": range(18, 24),
        "split/species/test": range(24, graphs),
    }
    write_tree(root / "ogbg_ppa", files)


@pytest.mark.slow
def test_a_tree_in_ogbs_raw_layout_goes_end_to_end(tmp_path, monkeypatch):
    raw_tree(tmp_path / "root")
    record = run_on("ppa", tmp_path / "root", tmp_path, monkeypatch)
    assert record["status"] == "finished"
    assert [record["data"][f"n_{split}"] for split in ("train", "valid", "test")] == [18, 6, 6]
    assert record["equivalence"]["max_rel_diff"] < 1e-10
    assert record["note"] == "ogbg-ppa; tested on species not trained on"
    assert sorted(p.name for p in (tmp_path / "root" / "ogbg_ppa").iterdir()) == ["raw", "split"]


def test_paper_scale_is_the_reference_network():
    cfg = composed("ppa", "scale=paper").workload
    workload = PPA(**{k: v for k, v in cfg.items() if k not in ("_target_", "data")})
    assert sum(p.numel() for p in workload.model().parameters()) == 479_437
    assert (workload.recipe.epochs, workload.recipe.weight_decay, workload.batch_size) == (100, 5e-4, 64)
    assert workload.size.taxa == LAYOUT.classes == 37


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"taxa": 1}, "workload.taxa=1: expected 2 to 37"),
        ({"species": 2}, "workload.species=2: expected 3 or more"),
        ({"graphs_each": 0}, "workload.graphs_each=0"),
        ({"batch_size": 0}, "workload.batch_size=0"),
        ({"knowledge": "all"}, "workload.knowledge=all"),
    ],
)
def test_settings_that_cannot_be_used(change, message):
    with pytest.raises(DataError, match=message):
        PPA(**change)


# ---- batch statistics ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_batch_statistics_are_taken_anew_before_a_score_counts(tmp_path, monkeypatch):
    """All nodes enter alike, gates are sampled, the rate is constant: the running statistics of training mislead."""
    wide = {"width": 16, "layers": 3, "dropout": 0.5, "batch_size": 12, "epochs": 4, "learning_rate": 3e-2}
    workload = replace(PPA(data={"cache": tmp_path}).tiny(), taxa=3, species=6, graphs_each=10, **wide)
    config = read(composed("ppa", "scale=tiny", "lumos.freeze_at=0.9"))

    fresh, stale = scores_fresh_and_stale(workload, config, monkeypatch)
    assert min(fresh[:3]) > 0.7
    assert np.mean(stale[:3]) < 0.6  # a third is chance


@pytest.mark.slow
def test_small_is_far_above_logistic_regression_and_compact(tmp_path):
    record = run(composed("ppa", f"paths.cache={tmp_path}", f"paths.results={tmp_path}", "trainer.device=cpu"))
    assert record["compact"]["score"] > record["baselines"]["logistic_on_mean_channels"] + 0.05
    assert record["compact"]["score"] > record["dense"]["score"] - 0.015
    assert record["compact"]["params"] < 0.6 * record["dense"]["params"]
