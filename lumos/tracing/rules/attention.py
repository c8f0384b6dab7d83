"""Rules for products of two activations: what an attention does."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lumos.tracing.calls import Axis, Call
from lumos.tracing.costs import Product
from lumos.tracing.multihead_attention import PrunedAttention
from lumos.tracing.rules.movement import aligned, meet
from lumos.tracing.trace import Contracted, QueryKey, Trace
from lumos.tracing.unit_ids import any_units, no_units, varies_along


def attention(trace: Trace, call: Call) -> None:
    """``softmax(q k^T + mask) v``: the two products of :func:`product`, head by head."""
    tensors = [call.arg(i, name) for i, name in enumerate(("query", "key", "value"))]
    q, k, v = (trace.unit_ids(t) for t in tensors)
    if call.kwargs.get("enable_gqa") and q.ndim > 2:
        # Each head of keys and values serves as many heads of queries, in their order.
        k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], -3) if x.shape[-3] > 1 else x for x in (k, v))
    reason = trace.where(call.name)
    dynamic = call.kwargs.get("scale") is None
    scores = product(trace, q, k.transpose(-2, -1), reason, dynamic)
    mask = call.arg(3, "attn_mask")
    if isinstance(mask, Tensor):
        shape = torch.broadcast_shapes(scores.shape, mask.shape)
        pair = [(call.outputs[0], scores.expand(shape)), (mask, aligned(trace.unit_ids(mask), len(shape)))]
        meet(trace, pair, call.name)
    trace.set_unit_ids(call.outputs[0], product(trace, scores, v, reason))


def product(trace: Trace, a: Tensor, b: Tensor, reason: str, dynamic: bool = False, call: Call | None = None) -> Tensor:
    """Return the unit ids of ``a @ b`` for the unit ids of two activations.

    Along the contracted dimension units are merged in pairs. Where they also vary along a batch-like dimension (the
    heads), each head is one unit, since what is kept must stay a rectangle, and the product carries its head's unit.

    Args:
        trace: The trace.
        a: Unit ids (..., m, k).
        b: Unit ids (..., k, n), of leading dimensions that broadcast with those of ``a``.
        reason: The call, for the message why units are fixed.
        dynamic: Whether the product is divided by the root of the k dimensions that are left.
        call: The call, where it is this product and nothing more: zero once all that it sums over is closed.
    """
    a, b = _shared_among_heads(trace, a, b, reason)
    heads = [d for d in range(a.ndim - 2) if varies_along(a, d) or varies_along(b, d)]
    _record_cost(trace, a, b, heads)
    inner = varies_along(a, a.ndim - 1) or varies_along(b, b.ndim - 2)
    outer = varies_along(a, a.ndim - 2), varies_along(b, b.ndim - 1)
    shape = (*a.shape[:-1], b.shape[-1])
    if not heads:
        if call is not None and varies_along(a, a.ndim - 1) and varies_along(b, b.ndim - 2):
            call.axis = _made_along(trace, trace.units_along(a, -1, "matmul"))
        return _of_one_head(trace, a, b, reason, dynamic, inner, outer)
    if trace.options.query_key and inner and outer == (False, False):
        if varies_along(a, a.ndim - 1) and varies_along(b, b.ndim - 2):
            return _tie_query_dims(trace, a, b, reason, dynamic)
        whole = trace.new_block(f"{trace.module[0] or 'attention'}.dims", "hidden", a.shape[-1])
        trace.fix(whole, f"what makes queries or keys ties the dimensions of each head, before {reason}")
    if trace.options.query_key and outer == (False, True) and not inner and _tie_value_dims(trace, a, b, reason):
        return b[..., :1, :].expand(shape)
    corner_a, corner_b = a[..., :1, :1], b[..., :1, :1]
    head = trace.merge(corner_a, corner_b, reason)
    trace.merge(a, head.expand(a.shape), reason)
    trace.merge(b, head.expand(b.shape), reason)
    # The columns of the second operand are still its own units (tied to their head), so that a reshape finds them.
    return b[..., :1, :].expand(shape) if outer[1] and not inner else head.expand(shape)


def _shared_among_heads(trace: Trace, a: Tensor, b: Tensor, reason: str) -> tuple[Tensor, Tensor]:
    """Bring two operands to the same leading dimensions. Where one of them is the same for all heads of the other (one
    head of keys for many of queries), its own units stay, so that each head can go alone."""
    shape, sides = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), []
    for x, other in ((a, b), (b, a)):
        x, other = (aligned(t, len(shape) + 2) for t in (x, other))
        if any(x.shape[d] == 1 and varies_along(other, d) for d in range(len(shape))):
            trace.fix(x, f"all heads share it: {reason}")
            x = any_units(x.shape)
        sides.append(x.expand(*shape, *x.shape[-2:]))
    return sides[0], sides[1]


def _made_along(trace: Trace, units: Tensor) -> Axis | None:
    """The axis of a weight along which these units and no others are made; None where there is none."""
    units = units.unique()
    return next((axis for axis in trace.producers if torch.equal(trace.maps[axis].unique(), units)), None)


def _record_cost(trace: Trace, a: Tensor, b: Tensor, heads: list[int]) -> None:
    """Note what ``a @ b`` costs: for every unit along the contracted dimension of every head, or else along the columns
    or the rows of the result; where units vary along two of these and there are no heads, for each pair."""
    macs = a.numel() * b.shape[-1]
    inner = next(((x, d) for x, d in ((a, -1), (b, -2)) if varies_along(x, x.ndim + d)), None)
    outer = next(((x, d) for x, d in ((b, -1), (a, -2)) if varies_along(x, x.ndim + d)), None)
    places = [place for place in (inner, outer) if place is not None]
    if heads:
        places = places[:1] or [(x, -1) for x in (a, b) if any(varies_along(x, d) for d in heads)][:1]
    axes = [_grid(x, d, heads) for x, d in places]
    if axes:
        trace.products.append(Product(tuple(axes), macs / math.prod(map(len, axes))))
    else:
        trace.constant_macs += macs


def _grid(x: Tensor, dim: int, heads: list[int]) -> Tensor:
    """The units at every place of the heads and of one dimension more."""
    keep = {*heads, x.ndim + dim}
    for d in range(x.ndim):
        x = x if d in keep else x.narrow(d, 0, 1)
    return x.reshape(-1).clamp(min=0)


def _of_one_head(
    trace: Trace, a: Tensor, b: Tensor, reason: str, dynamic: bool, inner: bool, outer: tuple[bool, bool]
) -> Tensor:
    """The ids of a product whose units vary along no batch-like dimension."""
    shape = (*a.shape[:-1], b.shape[-1])
    for x, dim, other in ((a, -1, b), (b, -2, a)):
        # What is summed over has units on one side alone: places of the other one, as the nodes of a dense graph.
        if outer[int(x is a)] and varies_along(x, x.ndim + dim) and not varies_along(other, other.ndim - 3 - dim):
            trace.fix(trace.units_along(x, dim, "matmul"), f"meets places: {reason}")
            inner = False
    if inner:
        left = trace.units_along(a, -1, "matmul")
        right = trace.units_along(b, -2, "matmul")
        units = trace.merge(left, right, reason)
        if not trace.options.query_key:
            trace.contracted.append(Contracted(units, dynamic, reason))
        elif outer == (False, False) and trace.first:
            none = torch.zeros(1, dtype=torch.int64)
            trace.query_keys.append(QueryKey(left[None], right[None], none, dynamic))
        return no_units(shape)
    if outer == (True, False):
        return a.narrow(-1, 0, 1).expand(shape)
    if outer == (True, True):  # the values are units of the columns; rows are not
        trace.fix(a, f"rows of {reason}")
    if outer[1]:
        return b.narrow(-2, 0, 1).expand(shape)
    return no_units(shape)


# Dimensions of queries and keys within the heads are units that cross those of the heads: a row that makes queries
# stays where its head stays and its dimension does. All heads lose the same dimensions, since what is kept must stay a
# rectangle. Values have the heads' units alone; where one layer makes values beside queries, they lose the dimensions
# that the queries lose, for its rows to stay a rectangle too.


def _tie_query_dims(trace: Trace, a: Tensor, b: Tensor, reason: str, dynamic: bool) -> Tensor:
    """Tie queries (..., n, dims) to keys (..., dims, m), and dimensions across heads.

    Returns:
        The ids of the scores, which carry units of their own for the heads.
    """
    q, k = _one_place(a), _one_place(b.transpose(-2, -1))
    k = k.expand(q.shape)
    first = q.reshape(-1, q.shape[-1])[0]
    trace.merge(q, k, reason)
    trace.merge(q, first.expand(q.shape), reason)
    of_q, of_k = (x.reshape(-1, q.shape[-1]) for x in (q, k))
    known = [x for x in trace.query_keys if torch.equal(x.queries, of_q)]  # a layer that is called twice
    heads = known[0].heads if known else trace.new_block(f"{trace.module[0] or 'attention'}.heads", "hidden", len(of_q))
    trace.query_keys += [] if known else [QueryKey(of_q, of_k, heads, dynamic)]
    trace.units_in_heads += [(grid, heads[:, None].expand(grid.shape)) for grid in (of_q, of_k)]
    return heads.view(*q.shape[:-1], 1).expand(*a.shape[:-1], b.shape[-1])


def _tie_value_dims(trace: Trace, scores: Tensor, b: Tensor, reason: str) -> bool:
    """Let values (..., m, dims) lose the dimensions that the queries of their scores lose.

    Returns:
        False where not one layer makes both.
    """
    head = int(scores[(0,) * scores.ndim])
    found = [x for x in trace.query_keys if head == int(x.heads[0]) > 0]
    v = _one_place(b)
    if not found or isinstance(trace.module[1], PrunedAttention) or v.numel() != found[0].queries.numel():
        return False
    known, grid = found[0], v.reshape(found[0].queries.shape)
    made_by = [[axis for axis in trace.producers if bool((trace.maps[axis] == int(x[0, 0])).any())]
               for x in (known.queries, grid)]  # fmt: skip
    if made_by[0] != made_by[1]:
        return False
    trace.merge(grid, known.queries, reason)
    trace.units_in_heads.append((grid, known.heads[:, None].expand(grid.shape)))
    return True


def _one_place(x: Tensor) -> Tensor:
    """The units (..., 1, dims); dimensions that repeat (samples, and places) have size one."""
    x = x.narrow(-2, 0, 1)
    for d in range(x.ndim - 2):
        if bool((x == x.narrow(d, 0, 1)).all()):
            x = x.narrow(d, 0, 1)
    return x
