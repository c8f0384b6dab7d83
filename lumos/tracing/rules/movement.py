"""Rules for calls that move values or act on each of them alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lumos.tracing.calls import SHAPING, Call
from lumos.tracing.trace import Trace
from lumos.tracing.unit_ids import ANY_UNIT, any_units, has_values, varies_along

_WRITES_SIZES = {"view", "reshape", "unflatten", "expand", "split", "split_with_sizes", "narrow", "broadcast_to"}


def move(trace: Trace, call: Call) -> None:
    """Data movement: the very same call, applied to the unit ids."""
    moved = _moved(trace, call, lambda ids: ids)
    for t, ids in zip(call.outputs, moved, strict=True) if moved else ():
        trace.set_unit_ids(t, ids)
    if call.name in _WRITES_SIZES:
        for t in call.outputs:
            trace.record_sizes(t, call.name in SHAPING)


def move_as_float(trace: Trace, call: Call) -> None:
    """Data movement that exists for floating point only (exact: units stay far below 2^53); padding fits anything."""
    if call.name == "pad" and call.arg(2, "mode", "constant") == "constant":
        call.kwargs = {"pad": call.arg(1, "pad"), "mode": "constant", "value": float(ANY_UNIT)}
        call.args = call.args[:1]
    moved = _moved(trace, call, torch.Tensor.double)
    for t, ids in zip(call.outputs, moved, strict=True) if moved else ():
        trace.set_unit_ids(t, ids.round().long())


def _moved(trace: Trace, call: Call, prepare: Any) -> list[Tensor]:
    data = [t for t in call.tensors if has_values(t)] or call.tensors[:1]
    # Whole numbers are indices, not values: an index stays what it is, and moving one has no ids to move.
    if not any(has_values(t) or trace.has_unit_ids(t) for t in data):
        return []
    moving = {id(t) for t in data}

    def swap(x: Any) -> Any:
        return prepare(trace.unit_ids(x)) if isinstance(x, Tensor) and id(x) in moving else x

    args, kwargs = pytree.tree_map(swap, (call.args, call.kwargs))
    return pytree.tree_leaves(call.func(*args, **kwargs))


def as_real(trace: Trace, call: Call) -> None:
    """Complex numbers as pairs: both halves belong to the unit."""
    trace.set_unit_ids(call.outputs[0], trace.unit_ids(call.tensors[0]).unsqueeze(-1))


def as_complex(trace: Trace, call: Call) -> None:
    """Pairs as complex numbers."""
    trace.set_unit_ids(call.outputs[0], trace.unit_ids(call.tensors[0]).select(-1, 0))


def same(trace: Trace, call: Call) -> None:
    """Elementwise with one operand: the units go through. Without any (``torch.normal``) it is a fresh constant."""
    if not call.tensors:
        constant(trace, call)
        return
    for t in call.outputs:
        trace.set_unit_ids(t, trace.unit_ids(call.tensors[0]))


def elementwise(trace: Trace, call: Call) -> None:
    """Elementwise with several operands: units that meet stay or go together. This is what a residual is."""
    out = call.outputs[0]
    operands = [(t, _aligned(trace.unit_ids(t), out.ndim)) for t in call.tensors]
    if len({(s.data_ptr(), s.shape, s.stride()) for _, s in operands}) == 1:
        trace.set_unit_ids(out, operands[0][1])
        return
    # Whole operands first: what repeats along an axis of units is judged by the axis that it repeats along.
    operands.sort(key=lambda pair: -pair[1].numel())
    merged = operands[0][1] if operands else any_units()
    for t, ids in operands[1:]:
        axes = [d for d in range(merged.ndim) if merged.shape[d] > 1 and varies_along(merged, d)]
        repeats = [d for d in axes if ids.shape[d] == 1]
        if len(repeats) < len(axes) or not axes:
            merged = trace.merge(merged, ids, trace.where(call.name))
        elif trace.name_of(t) is None:
            trace.fix(ids, f"spread over other units by {trace.where(call.name)}")
    trace.set_unit_ids(out, merged)


def constant(trace: Trace, call: Call) -> None:
    """A fresh constant or noise: it fits whatever it meets."""
    for t in call.outputs:
        trace.set_unit_ids(t, any_units())


def setitem(trace: Trace, call: Call) -> None:
    """An assignment into a tensor: the assigned values bring their units along."""
    x, index, value = call.args
    ids = trace.unit_ids(x).clone()
    new = trace.unit_ids(value) if isinstance(value, Tensor) else any_units()
    ids[index] = new.expand(ids[index].shape)
    trace.set_unit_ids(x, ids)
    trace.record_sizes(x)


def scatter(trace: Trace, call: Call) -> None:
    """Rows added into rows (message passing, graph pooling): columns keep their units, rows are not units."""
    x, dim = call.args[0], call.arg(1, "dim", 0)
    source = call.arg(3, "src", call.kwargs.get("source"))
    if not isinstance(source, Tensor) or not isinstance(dim, int):
        trace.freeze(call)
        return
    reason = trace.where(call.name)
    ids = trace.unit_ids(source)
    row = ids.narrow(dim, 0, 1)
    if varies_along(ids, dim):
        trace.merge(ids, row, reason)
    out = call.outputs[0]
    if row.shape[:dim] + row.shape[dim + 1 :] != out.shape[:dim] + out.shape[dim + 1 :]:
        trace.freeze(call)
        return
    trace.set_unit_ids(out, trace.merge(trace.unit_ids(x), row.expand(out.shape), reason))


def _aligned(ids: Tensor, ndim: int) -> Tensor:
    """Return the ids with leading dimensions of size one, as broadcasting adds them."""
    return ids.view([1] * (ndim - ids.ndim) + list(ids.shape)) if ids.ndim < ndim else ids
