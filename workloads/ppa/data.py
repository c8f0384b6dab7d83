"""Protein association graphs: taxa that differ in their modules, their hubs and in how associations show.

A graph stands for the neighbourhood of a protein in the association network of one species. ``README.md`` has the
model; all that is random follows from the seed, the taxon, the species and the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lumos.errors import DataError
from lumos.workloads.common.graphs import Graph, Graphs
from lumos.workloads.common.ogb_layout import Layout, write_dataset

VERSION = 1

CHANNELS = ("neighborhood", "fusion", "cooccurrence", "coexpression", "experimental", "database", "textmining")
"""STRING's channels of evidence, in its order."""

SIGNAL = ("neighborhood", "cooccurrence", "coexpression", "textmining")
"""Channels whose rates follow the taxon and the modules; the others follow the species alone."""

LAYOUT = Layout(name="ogbg_ppa", split="species", classes=37, edge_channels=len(CHANNELS))

RATES = {
    #             neighborhood fusion cooccurrence coexpression experimental database textmining
    "bacteria": (0.85, 0.06, 0.60, 0.72, 0.40, 0.14, 0.84),
    "archaea": (0.78, 0.06, 0.45, 0.60, 0.40, 0.14, 0.78),
    "eukaryota": (0.05, 0.06, 0.05, 0.84, 0.40, 0.14, 0.96),
}
"""Share of the associations that a channel supports, by superkingdom: of the order of STRING's own."""

NODES = (30, 70)
GRAPH_BYTES = 5000
"""Of an average graph: 130 associations, of two int32 and seven float32."""
TAXON_SPREAD, SPECIES_SPREAD, MODULE_SPREAD = 0.3, 0.4, 1.5
"""Standard deviations of a channel's log odds: between taxa, between species, and of what a shared module adds."""
STRENGTH, STRENGTH_SPREAD = 0.45, 0.04
"""Mean score where a channel supports an association, and its standard deviation between species."""


@dataclass(frozen=True)
class Size:
    """How many of each there are. Raises DataError where the splits cannot be filled.

    ``species`` of each taxon, of which a fifth validates and a fifth tests (one at least); or as many as
    ``valid_species`` and ``test_species`` say, beside the same ones to train on. Each has ``graphs``, or those that
    validate and test ``held_out_graphs``: graphs of one species are alike, so that many species say more.
    """

    taxa: int
    species: int
    graphs: int
    valid_species: int | None = None
    test_species: int | None = None
    held_out_graphs: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.taxa <= LAYOUT.classes:
            raise DataError(f"workload.taxa={self.taxa}: expected 2 to {LAYOUT.classes}")
        if self.species < 3:
            raise DataError(f"workload.species={self.species}: expected 3 or more, one for each split at least")
        if self.graphs < 1:
            raise DataError(f"workload.graphs_each={self.graphs}: expected at least 1")

        for key in ("valid_species", "test_species"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise DataError(f"workload.{key}={getattr(self, key)}: expected at least 1, or null for a fifth")
        held = self.held_out_graphs
        if held is not None and held < 1:
            raise DataError(f"workload.held_out_graphs_each={held}: expected at least 1, or null for as many as train")

    @property
    def split(self) -> dict[str, int]:
        """Species of each taxon in each split; they are numbered in this order."""
        fifth = max(1, self.species // 5)
        valid, test = (fifth if given is None else given for given in (self.valid_species, self.test_species))
        return {"train": self.species - 2 * fifth, "valid": valid, "test": test}

    @property
    def graphs_of(self) -> dict[str, int]:
        """Graphs of each species, by the split that it is in."""
        held = self.graphs if self.held_out_graphs is None else self.held_out_graphs
        return {"train": self.graphs, "valid": held, "test": held}

    @property
    def graphs_by_species(self) -> np.ndarray:
        """Graphs of each species of a taxon, in order."""
        return np.concatenate([np.full(count, self.graphs_of[split]) for split, count in self.split.items()])


@dataclass(frozen=True)
class Taxon:
    """What the species of one taxon share.

    Topology: the mean number of modules, the density of a module and of the rest, and the shape of the gamma
    distribution of the proteins' propensities (small: few large hubs). Channels: the log odds of each, and what a
    shared module adds to them.
    """

    modules: float
    inside: float
    outside: float
    hub_shape: float
    odds: np.ndarray
    within: np.ndarray

    @classmethod
    def of(cls, seed: int, number: int) -> Taxon:
        """Draw the taxon of that number."""
        rng = np.random.default_rng([seed, 0, number])
        rates = np.array(RATES[list(RATES)[number % len(RATES)]])
        signal = np.isin(CHANNELS, SIGNAL)
        modules, ratio, density = rng.uniform(2, 8), rng.uniform(0.01, 0.5), rng.uniform(0.10, 0.15)
        # The overall density is much the same, so that the number of associations says little.
        inside = density / (1 / modules + (1 - 1 / modules) * ratio)
        return cls(
            modules=modules,
            inside=inside,
            outside=ratio * inside,
            hub_shape=float(np.exp(rng.uniform(np.log(0.7), np.log(20)))),
            odds=np.log(rates / (1 - rates)) + signal * rng.normal(0, TAXON_SPREAD, len(CHANNELS)),
            within=signal * rng.normal(0, MODULE_SPREAD, len(CHANNELS)),
        )


@dataclass(frozen=True)
class Species:
    """What the graphs of one species share: a shift of the channels' log odds, and their mean scores."""

    taxon: Taxon
    shift: np.ndarray
    strength: np.ndarray

    @classmethod
    def of(cls, taxon: Taxon, rng: np.random.Generator) -> Species:
        """Draw a random species of the taxon."""
        shift, strength = rng.normal(0, (SPECIES_SPREAD, STRENGTH_SPREAD), (len(CHANNELS), 2)).T
        return cls(taxon, shift, STRENGTH + strength)


def association_graph(species: Species, label: int, rng: np.random.Generator) -> tuple[Graph, np.ndarray]:
    """Draw one graph of 30 to 70 proteins, and the module of each.

    Proteins i and j, of propensities t (gamma, mean 1), are associated with probability 1 - exp(-t_i t_j d), where d is
    the density of their module or of the rest; one left alone is associated with one of its module. A channel supports
    an association with probability sigmoid(taxon + species + half of what a module adds), minus that half between two
    modules; its score is Beta distributed.
    """
    taxon = species.taxon
    n = int(rng.integers(NODES[0], NODES[1] + 1))
    count = max(1, min(n // 3, round(taxon.modules + rng.normal(0, 0.7))))
    module = rng.integers(0, count, n)
    propensity = rng.gamma(taxon.hub_shape, 1 / taxon.hub_shape, n)
    i, j = np.triu_indices(n, 1)
    same = module[i] == module[j]
    density = np.where(same, taxon.inside, taxon.outside)
    linked = rng.random(len(i)) < 1 - np.exp(-propensity[i] * propensity[j] * density)
    pairs = np.concatenate(
        [np.stack([i, j], 1)[linked], _first_links(n, i[linked], j[linked], module, propensity, rng)]
    )
    i, j = pairs.T
    same = module[i] == module[j]
    odds = taxon.odds + species.shift + taxon.within * np.where(same, 0.5, -0.5)[:, None]
    rate = 1 / (1 + np.exp(-odds))
    present = rng.random(rate.shape) < rate
    bare = np.flatnonzero(~present.any(1))
    # Without a channel there would be no association: the likeliest one supports it.
    present[bare, rate[bare].argmax(1)] = True
    score = rng.beta(4 * species.strength, 4 * (1 - species.strength), rate.shape)
    attr = np.where(present, np.clip(np.round(score, 3), 0.001, 0.999), 0.0).astype(np.float32)
    order = rng.permutation(n)  # a protein's number says nothing
    graph = Graph(np.zeros((n, 0), np.uint8), np.stack([order[i], order[j]], 1), attr, label)
    return graph, module[np.argsort(order)]


def _first_links(
    n: int, i: np.ndarray, j: np.ndarray, module: np.ndarray, propensity: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """An association for each protein without one, drawn by propensity from its module, or from all if it is alone."""
    degree = np.bincount(np.concatenate([i, j]), minlength=n)
    links = []
    for alone in np.flatnonzero(degree == 0).tolist():
        if degree[alone]:
            continue
        others = np.flatnonzero((module == module[alone]) & (np.arange(n) != alone))
        others = others if len(others) else np.delete(np.arange(n), alone)
        weight = propensity[others] + 1e-9
        partner = int(rng.choice(others, p=weight / weight.sum()))
        degree[[alone, partner]] += 1
        links.append((alone, partner))
    return np.array(links, np.int64).reshape(-1, 2)


def species_graphs(seed: int, taxon: int, number: int, count: int) -> list[Graph]:
    """Draw the first ``count`` graphs of one species."""
    rng = np.random.default_rng([seed, 1, taxon, number])
    species = Species.of(Taxon.of(seed, taxon), rng)
    return [association_graph(species, taxon, rng)[0] for _ in range(count)]


def species_split(size: Size) -> dict[str, np.ndarray]:
    """Split the graphs, by number: of every taxon the last species validate and test, the others train."""
    species = species_numbers(size) % len(size.graphs_by_species)
    split = np.digitize(species, np.cumsum(list(size.split.values())))
    return {name: np.flatnonzero(split == k) for k, name in enumerate(size.split)}


def species_numbers(size: Size) -> np.ndarray:
    """Number the species of each graph: those of the first taxon, then those of the second, and so on."""
    return np.repeat(np.arange(size.taxa * len(size.graphs_by_species)), np.tile(size.graphs_by_species, size.taxa))


def write_associations(folder: Path, size: Size, seed: int) -> Path:
    """Write ``folder/ogbg_ppa`` in OGB's raw layout, one taxon after another."""

    def make(taxon: int) -> Graphs:
        counts = enumerate(size.graphs_by_species.tolist())
        return Graphs.stack([g for species, count in counts for g in species_graphs(seed, taxon, species, count)])

    return write_dataset(folder, LAYOUT, size.taxa, make, lambda _: species_split(size), "making association graphs")


def mean_channels(graphs: Graphs | list[Graph]) -> np.ndarray:
    """Compute the mean score of each channel over a graph's edges: (graphs, 7)."""
    return np.stack([g.edge_attr.mean(0) if len(g.edge_attr) else np.zeros(len(CHANNELS)) for g in graphs])
