"""Dimensions of queries and keys within heads: units that come in pairs, and what scores are divided by."""

from __future__ import annotations

import torch
from torch import Tensor

from lumos.shapes import Int
from lumos.tracing.structure import ScoreScale
from lumos.tracing.trace import Trace


def query_and_key_units(trace: Trace) -> tuple[Int[Tensor, " queries"], Int[Tensor, " keys"]]:
    """Return the units of all queries that are multiplied by keys, and those of the keys."""
    none = torch.zeros(0, dtype=torch.int64)
    return (torch.cat([none, *(x.queries.flatten() for x in trace.query_keys)]),
            torch.cat([none, *(x.keys.flatten() for x in trace.query_keys)]))  # fmt: skip


def pair_units(trace: Trace, gates: Int[Tensor, " units"]) -> tuple[Int[Tensor, " units"], Int[Tensor, "pairs 2"]]:
    """Find the units that go with one of two gates: their dimension's and their head's.

    Args:
        trace: The trace.
        gates: The 1-based gate of every unit; 0 where it has none.

    Returns:
        The place of every unit in ``Structure.padded``, negative for a pair; and the pairs.
    """
    places, pairs = gates.clone(), torch.zeros(0, 2, dtype=torch.int64)
    for units, heads in trace.units_in_heads:
        units, heads = units[units > 0], heads[units > 0]
        both = torch.stack([gates[units], gates[heads]], 1)
        real = (both > 0).all(1)
        places[units] = both.amax(1)
        every = torch.unique(torch.cat([pairs, both[real]]), dim=0)
        places = _renumber(places, pairs, every)
        places[units[real]] = -1 - _rows(both[real], every)
        pairs = every
    return places, pairs


def score_scales(trace: Trace, gates: Int[Tensor, " units"]) -> tuple[ScoreScale, ...]:
    """Return the dimensions of every attention's queries, and where they are made."""
    found = []
    for known in trace.query_keys:
        places = {axis: torch.isin(trace.maps[axis], known.queries) for axis in trace.producers if axis in trace.maps}
        units = gates[known.queries[0]]
        if units.any():
            found.append(ScoreScale(units, {axis: at for axis, at in places.items() if at.any()}, known.dynamic))
    return tuple(found)


def _rows(some: Tensor, every: Tensor) -> Tensor:
    """Where in sorted, unique pairs each of some pairs is."""
    base = int(every.max()) + 1 if every.numel() else 1
    return torch.searchsorted(every[:, 0] * base + every[:, 1], some[:, 0] * base + some[:, 1])


def _renumber(places: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Pairs' places, when there are more pairs."""
    old = places < 0
    places[old] = -1 - _rows(before[-places[old] - 1], after)
    return places
