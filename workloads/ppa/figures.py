"""A contact sheet of the generated data: association graphs of four taxa, two species each."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from lumos.workloads.common.sheets import save_sheet
from lumos.workloads.ppa.data import CHANNELS, RATES, SIGNAL, Species, Taxon, association_graph

TAXA = (0, 1, 5, 8)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f", "#bcbd22", "#17becf")


def contact_sheet(folder: Path) -> Path:
    """Draw eight graphs by springs, coloured by module, with each channel's mean; returns the path of the PNG."""
    figure = Figure(figsize=(12, 7.4), dpi=100)
    for column, number in enumerate(TAXA):
        taxon = Taxon.of(0, number)
        for row in range(2):
            rng = np.random.default_rng([0, 9, number, row])
            graph, module = association_graph(Species.of(taxon, rng), number, rng)
            axes = figure.add_axes((0.008 + 0.248 * column, 0.5 - 0.45 * row, 0.165, 0.37))
            _draw(axes, graph.edges, module)
            if row == 0:
                kingdom = list(RATES)[number % len(RATES)]
                axes.set_title(f"taxon {number} ({kingdom})", fontsize=11, loc="left")
            bars = figure.add_axes((0.203 + 0.248 * column, 0.54 - 0.45 * row, 0.038, 0.28))
            _bars(bars, graph.edge_attr)
    figure.suptitle(
        "ppa, generated: association graphs of two species (rows) of four taxa (columns), coloured by module\n"
        "bars: mean score of each channel; the grey ones say nothing of the taxon",
        fontsize=12,
    )
    return save_sheet(figure, folder / "ppa.png")


def _draw(axes: Axes, edges: np.ndarray, module: np.ndarray) -> None:
    net = nx.Graph(edges.tolist())
    net.add_nodes_from(range(len(module)))
    spring = nx.spring_layout(net, k=2.2 / np.sqrt(len(module)), iterations=150, seed=0)
    places = np.array([spring[k] for k in range(len(module))])
    axes.add_collection(LineCollection(list(places[edges]), colors="#555555", linewidths=0.35, alpha=0.6, zorder=1))
    degree = np.bincount(edges.ravel(), minlength=len(module))
    colours = [COLOURS[k % len(COLOURS)] for k in module]
    axes.scatter(*places.T, s=8 + 5 * degree, c=colours, edgecolors="white", linewidths=0.4, zorder=2)
    axes.text(0, -0.05, f"{len(module)} proteins, {len(edges)} associations", transform=axes.transAxes, fontsize=8)
    axes.set_axis_off()


def _bars(axes: Axes, channels: np.ndarray) -> None:
    colours = ["#33658a" if name in SIGNAL else "#bbbbbb" for name in CHANNELS]
    axes.barh(range(len(CHANNELS)), channels.mean(0), color=colours)
    axes.set_xlim(0, 0.5)
    axes.set_xticks([0, 0.5], ["0", "0.5"], fontsize=7)
    axes.set_yticks(range(len(CHANNELS)), [name[:5] + "." for name in CHANNELS], fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(False)
