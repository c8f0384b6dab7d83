"""Dimensions of queries and keys within the heads of an attention: units that cross those of the heads.

A row that makes queries stays where its head stays and its dimension does. All heads lose the same dimensions, since
what is kept must stay a rectangle. Values have the heads' units alone; where one layer makes values beside queries,
they lose the dimensions that the queries lose, for its rows to stay a rectangle too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lumos.tracing.attention_steps import PrunedAttention
from lumos.tracing.structure import Scale
from lumos.tracing.tracer import Trace


@dataclass
class Query:
    """An attention's queries and keys, units (heads, dims) of each, and the heads' own units (heads,).

    ``folded``: their scores are divided by the root of the dimensions that are left.
    """

    queries: Tensor
    keys: Tensor
    heads: Tensor
    folded: bool


def cross_queries(trace: Trace, a: Tensor, b: Tensor, reason: str, folded: bool) -> Tensor:
    """Tie queries (..., n, dims) to keys (..., dims, m), and dimensions across heads; the scores carry heads of their
    own."""
    q, k = _one_place(a), _one_place(b.transpose(-2, -1))
    k = k.expand(q.shape)
    first = q.reshape(-1, q.shape[-1])[0]
    trace.merge(q, k, reason)
    trace.merge(q, first.expand(q.shape), reason)
    of_q, of_k = (x.reshape(-1, q.shape[-1]) for x in (q, k))
    known = [x for x in trace.queries if torch.equal(x.queries, of_q)]  # a layer that is called twice
    heads = known[0].heads if known else trace.new_block(f"{trace.module[0] or 'attention'}.heads", "hidden", len(of_q))
    trace.queries += [] if known else [Query(of_q, of_k, heads, folded)]
    trace.crossed += [(grid, heads[:, None].expand(grid.shape)) for grid in (of_q, of_k)]
    return heads.view(*q.shape[:-1], 1).expand(*a.shape[:-1], b.shape[-1])


def cross_values(trace: Trace, scores: Tensor, b: Tensor, reason: str) -> bool:
    """Let values (..., m, dims) lose the dimensions that the queries of their scores lose, where one layer makes both;
    False where that is not so."""
    head = int(scores[(0,) * scores.ndim])
    found = [x for x in trace.queries if head == int(x.heads[0]) > 0]
    v = _one_place(b)
    if not found or isinstance(trace.module[1], PrunedAttention) or v.numel() != found[0].queries.numel():
        return False
    query, grid = found[0], v.reshape(found[0].queries.shape)
    made_by = [[axis for axis in trace.producers if bool((trace.maps[axis] == int(x[0, 0])).any())]
               for x in (query.queries, grid)]  # fmt: skip
    if made_by[0] != made_by[1]:
        return False
    trace.merge(grid, query.queries, reason)
    trace.crossed.append((grid, query.heads[:, None].expand(grid.shape)))
    return True


def _one_place(x: Tensor) -> Tensor:
    """The units (..., 1, dims), dimensions that repeat (samples, and places) cut to one."""
    x = x.narrow(-2, 0, 1)
    for d in range(x.ndim - 2):
        if bool((x == x.narrow(d, 0, 1)).all()):
            x = x.narrow(d, 0, 1)
    return x


def every_query(trace: Trace) -> tuple[Tensor, Tensor]:
    """The units of all queries that are multiplied by keys, and those of the keys."""
    none = torch.zeros(0, dtype=torch.int64)
    return (torch.cat([none, *(x.queries.flatten() for x in trace.queries)]),
            torch.cat([none, *(x.keys.flatten() for x in trace.queries)]))  # fmt: skip


def crossings(trace: Trace, of_unit: Tensor) -> tuple[Tensor, Tensor]:
    """The place of every unit in ``Structure.padded``, those that cross heads among the pairs; and the pairs."""
    of_both, pairs = of_unit.clone(), torch.zeros(0, 2, dtype=torch.int64)
    for units, heads in trace.crossed:
        units, heads = units[units > 0], heads[units > 0]
        both = torch.stack([of_unit[units], of_unit[heads]], 1)
        real = (both > 0).all(1)
        of_both[units] = both.amax(1)
        every = torch.unique(torch.cat([pairs, both[real]]), dim=0)
        of_both = _renamed(of_both, pairs, every)
        of_both[units[real]] = -1 - _rows(both[real], every)
        pairs = every
    return of_both, pairs


def _rows(some: Tensor, every: Tensor) -> Tensor:
    """Where in sorted, unique pairs each of some pairs is."""
    base = int(every.max()) + 1 if every.numel() else 1
    return torch.searchsorted(every[:, 0] * base + every[:, 1], some[:, 0] * base + some[:, 1])


def _renamed(of_unit: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Pairs' places, when there are more pairs."""
    old = of_unit < 0
    of_unit[old] = -1 - _rows(before[-of_unit[old] - 1], after)
    return of_unit


def scales(trace: Trace, of_unit: Tensor) -> tuple[Scale, ...]:
    """The dimensions of every attention's queries, and where they are made."""
    found = []
    for query in trace.queries:
        places = {axis: torch.isin(trace.maps[axis], query.queries) for axis in trace.producers if axis in trace.maps}
        units = of_unit[query.queries[0]]
        if units.any():
            found.append(Scale(units, {axis: at for axis, at in places.items() if at.any()}, query.folded))
    return tuple(found)
