"""Which units stay or go together: those that met, and those that a shape ties."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from lumos.shapes import Bool, Int
from lumos.tracing.trace import Block, Rectangle, Spread, Trace
from lumos.tracing.unit_ids import ANY_UNIT, NO_UNIT


class UnitClasses:
    """Equivalence classes of merged units: what must stay or go together. Each has a number, its label.

    Args:
        trace: The trace whose units are merged.

    Attributes:
        label: The class of every unit.
        reason: Why a class is fixed, for those that are.
    """

    label: Int[Tensor, " units"]
    reason: dict[int, str]

    def __init__(self, trace: Trace) -> None:
        self._trace, self._merges = trace, list(trace.merges)
        self._held: dict[str, list[Tensor]] = {}
        self._relabel()
        spreads = list(trace.spreads)
        while self._tie_shapes() or self._tie_contracted() or self._tie_spread_parameters(spreads):
            self._relabel()
        for contracted in trace.contracted:
            if contracted.dynamic and not self._consumed(contracted.units).any():
                self.fix(self.label[contracted.units], f"their number scales the scores of {contracted.where}")
        for spread in spreads:
            self.fix(self.label[spread.elements.reshape(-1)], f"spread over blocks of units by {spread.where}")

    def of(self, block: Block) -> Int[Tensor, " units"]:
        """Return the class of each unit of a block."""
        return self.label[block.first : block.stop]

    def fix(self, labels: Tensor, reason: str) -> None:
        """Fix classes, unless they are fixed for another reason already."""
        self._stays[labels] = True
        for label in labels.unique().tolist():
            self.reason.setdefault(label, reason)

    def tie(self, units: Tensor) -> None:
        """Make one class of those of some units."""
        labels = self.label[units].unique()
        first = int(labels[0])
        reasons = [self.reason.pop(label) for label in labels.tolist() if label in self.reason]
        self._stays[labels] = False
        if reasons:
            self.reason[first], self._stays[first] = reasons[0], True
        self._made[first] = self._made[labels].any()
        self.label[torch.isin(self.label, labels)] = first

    def removable(self) -> Bool[Tensor, " classes"]:
        """Return whether each class has a place in the network and no reason to stay."""
        return self.can_go(torch.arange(len(self._made)))

    def can_go(self, labels: Tensor) -> Bool[Tensor, ...]:
        """Do what :meth:`removable` does, for some classes: a network may have millions."""
        return self._made[labels] & ~self._stays[labels] & (labels != self.label[0])

    # ---- what shapes tie ----------------------------------------------------------------------------------------

    def _relabel(self) -> None:
        """Find the classes of what is merged by now."""
        trace = self._trace
        pairs = torch.cat([*self._merges, torch.zeros(0, 2, dtype=torch.int64)]).numpy()
        labels = connected(pairs[:, 0], pairs[:, 1], trace.next_unit)
        self.label = torch.from_numpy(labels)
        self._one_of = torch.from_numpy(np.unique(labels, return_index=True)[1])
        self.reason = {}
        self._stays = torch.zeros(trace.next_unit, dtype=torch.bool)
        for reason, units in (*trace.reasons.items(), *self._held.items()):
            self.fix(self.label[torch.cat(units)], reason)
        self._made = torch.zeros(trace.next_unit, dtype=torch.bool)
        for block in trace.blocks:
            self._made[self.of(block)] = True
        self._free = self.removable()

    def _free_labels(self, ids: Tensor) -> Tensor:
        """The classes of unit ids; zero for those that stay, which the class of no unit is."""
        labels = self.label[ids.clamp(min=NO_UNIT)]
        return torch.where(self._free[labels], labels, 0)

    def _tie_shapes(self) -> bool:
        """Tie what every tensor's shape ties; return whether that was anything new."""
        new = [self._keep_rectangular(rectangle) for rectangle in self._trace.rectangles]
        return any(new)

    def _keep_rectangular(self, rectangle: Rectangle) -> bool:
        """Merge units so that what stays of a tensor is a rectangle, whatever goes: along one of its dimensions, the
        units at each position go together. That one is chosen of which most positions can go on their own."""
        ids = rectangle.units
        labels = self._free_labels(ids)
        if not labels.any():
            return False
        labels = torch.where(ids == ANY_UNIT, -1, labels)
        lines = [labels.movedim(d, 0).reshape(labels.shape[d], -1) for d in range(ids.ndim) if ids.shape[d] > 1]
        # What a fresh constant leaves open has the size of its line.
        lines = [torch.where(x < 0, x.amax(1, keepdim=True), x) for x in lines]
        if any(bool((x == x[:, :1]).all()) for x in lines):
            return False
        best = max(lines, key=_positions_that_can_go)
        stays = (best == 0).any(1)
        if stays.any():
            held = best[stays].unique()
            reason = f"what stands beside it in one shape stays: {rectangle.where}"
            self._held.setdefault(reason, []).append(self._one_of[held[held > 0]])
        free = best[~stays]
        pairs = torch.stack([free[:, :1].expand(free.shape).reshape(-1), free.reshape(-1)], 1)
        self._merges.append(self._one_of[torch.unique(pairs, dim=0)])
        return True

    def _tie_contracted(self) -> bool:
        """Tie units that are summed over with the gates elsewhere, where a weight reads them, or with a sum that is
        divided by the root of their number: closed one by one they would count on. Return whether that is anything new.
        """
        new = False
        for contracted in self._trace.contracted:
            labels = self._free_labels(contracted.units)
            apart = bool((labels != labels[:1]).any())
            if apart and (contracted.dynamic or self._consumed(contracted.units).any()):
                pairs = torch.stack([contracted.units[:1].expand(len(labels)), contracted.units], 1)
                held = self._one_of[labels[labels > 0]] if bool((labels == 0).any()) else labels[:0]
                if len(held):
                    reason = f"what is summed with it stays: {contracted.where}"
                    self._held.setdefault(reason, []).append(held)
                self._merges.append(pairs[(pairs > NO_UNIT).all(1)])
                new = True
        return new

    def _consumed(self, units: Tensor) -> Bool[Tensor, " units"]:
        """Whether a weight reads units of the same class."""
        read = [self._trace.maps[axis] for axis in self._trace.consumers]
        return torch.isin(self.label[units], self.label[torch.cat([*read, units[:0]])]) & (units > NO_UNIT)

    def _tie_spread_parameters(self, spreads: list[Spread]) -> bool:
        """Let parameters that are spread over units go along with them, unless the units along each of their
        dimensions go together: then they stay as they are. Return whether that was anything new."""
        tied = [spread for spread in spreads if not self._goes_by_blocks(spread)]
        for spread in tied:
            spreads.remove(spread)
            units, elements = torch.broadcast_tensors(spread.units, spread.elements)
            self._merges.append(torch.stack([units.reshape(-1), elements.reshape(-1)], 1))
        return bool(tied)

    def _goes_by_blocks(self, spread: Spread) -> bool:
        labels = self._free_labels(spread.units)
        along = [d for d, size in enumerate(spread.elements.shape) if size > 1]
        return all(bool((labels == labels.narrow(d, 0, 1)).all()) for d in along)


def connected(left: np.ndarray, right: np.ndarray, count: int) -> np.ndarray:
    """Return the connected component of each of ``count`` nodes, whose edges go from ``left`` to ``right``."""
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _positions_that_can_go(lines: Int[Tensor, "positions places"]) -> int:
    """How many parts there are that can go apart from one another when each position goes as a whole."""
    labels, places = torch.unique(lines, return_inverse=True)
    first = places[:, :1].expand(places.shape)
    parts = connected(first.reshape(-1).numpy(), places.reshape(-1).numpy(), len(labels))
    return len(np.unique(parts)) - bool(labels[0] == 0)
