"""Rules for calls that move values or act on each of them alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lumos.tracing.calls import SHAPING, SPLITTING, Call, tensor_leaves
from lumos.tracing.trace import Fresh, Spread, Trace, indexed_dims
from lumos.tracing.unit_ids import (
    ANY_UNIT,
    NO_UNIT,
    any_units,
    collapse_repeats,
    expanded_repeats,
    has_values,
    varies_along,
)

_WRITES_SIZES = {"view", "reshape", "unflatten", "expand", "narrow", "broadcast_to"}


_PUTS_TOGETHER = {"cat", "concat", "concatenate"}
_EQUAL_PARTS = {"chunk", "stack"}
"""Calls whose parts have one size."""
_INDEXED = {"getitem", "index_select", "gather", "take_along_dim", "repeat_interleave"}
"""Calls whose first tensor moves to where the others say."""


def move(trace: Trace, call: Call) -> None:
    """Data movement: the very same call, applied to the unit ids."""
    if call.name == "getitem":
        trace.record_bounds(trace.unit_ids(call.args[0]), call.args[1])
    moved = _moved(trace, call, lambda ids: ids)
    for t, ids in zip(call.outputs, moved, strict=True) if moved else ():
        trace.set_unit_ids(t, ids)
    if call.name in _PUTS_TOGETHER:
        _keep_constants(trace, call)
    if call.name in _WRITES_SIZES:
        for t in call.outputs:
            trace.record_sizes(t, call.name in SHAPING)
    elif call.name in SPLITTING:
        trace.record_parts(call.outputs, call.arg(2, "dim", 0))
    if call.name in SHAPING or call.name in _EQUAL_PARTS:
        trace.record_rectangle(_in_parts(trace, call), call.name)


def _in_parts(trace: Trace, call: Call) -> Tensor:
    """The unit ids of what a call gave a shape; of equal parts, those of all of them, along a dimension of its own."""
    shapes = {t.shape for t in call.outputs}
    if call.name == "chunk" and len(shapes) == 1:
        return torch.stack([trace.unit_ids(t) for t in call.outputs])
    return trace.unit_ids(call.outputs[0])


def _keep_constants(trace: Trace, call: Call) -> None:
    """Remember where fresh constants stand in what ``cat`` made of them and others."""
    out = call.outputs[0]
    dim, start, found = call.arg(1, "dim", 0) % out.ndim, 0, []
    for t in call.tensors:
        size = t.shape[dim]
        whole = [f for f in trace.constants.get(t) or () if f.dim is None]
        found += [Fresh(f.module, dim, start, size) for f in whole]
        start += size
    if found:
        trace.constants.set(out, tuple(found))


def _hold_picked(trace: Trace, call: Call) -> None:
    """Fix units that an index picks by their number, where it depends on the input: another one picks others."""
    if trace.source_parameter(call.args[0]):  # its rows are no units
        return
    ids = trace.unit_ids(call.args[0])
    if call.name == "getitem":
        items = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
        dims = [dim for _, dim, item in indexed_dims(items, ids.ndim) if isinstance(item, Tensor)]
    else:
        dims = [call.arg({"index_select": 1, "gather": 1}.get(call.name, 2), "dim", 0)]
    for dim in dims:
        if isinstance(dim, int) and varies_along(ids, dim % ids.ndim):
            trace.fix(ids, f"picked by its number by {trace.where(call.name)}")


def move_as_float(trace: Trace, call: Call) -> None:
    """Data movement that exists for floating point only (exact: units stay far below 2^53); padding fits anything."""
    mode = call.arg(2, "mode", "constant") if call.name == "pad" else None
    if mode in ("reflect", "replicate"):
        trace.keep_one_of_parts(trace.unit_ids(call.tensors[0]), call)
    if mode == "constant":
        call.kwargs = {"pad": call.arg(1, "pad"), "mode": "constant", "value": float(ANY_UNIT)}
        call.args = call.args[:1]
    moved = _moved(trace, call, torch.Tensor.double)
    for t, ids in zip(call.outputs, moved, strict=True) if moved else ():
        trace.set_unit_ids(t, ids.round().long())


def _moved(trace: Trace, call: Call, prepare: Any) -> list[Tensor]:
    # An index stays what it is: its values say what goes where.
    data, index = (call.tensors[:1], call.tensors[1:]) if call.name in _INDEXED else (call.tensors, [])
    trace.hold_values(index, call)
    if index and trace.recorder.values_of(index):
        _hold_picked(trace, call)
    # Whole numbers without ids have none to move.
    if not any(has_values(t) or trace.has_unit_ids(t) for t in data):
        return []
    moving = {id(t) for t in data}

    def swap(x: Any) -> Any:
        return prepare(trace.unit_ids(x)) if isinstance(x, Tensor) and id(x) in moving else x

    args, kwargs = pytree.tree_map(swap, (call.args, call.kwargs))
    # A reshape may have written out what repeated.
    return [expanded_repeats(ids) for ids in pytree.tree_leaves(call.func(*args, **kwargs))]


def as_real(trace: Trace, call: Call) -> None:
    """Complex numbers as pairs: both halves belong to the unit."""
    trace.set_unit_ids(call.outputs[0], trace.unit_ids(call.tensors[0]).unsqueeze(-1))


def as_complex(trace: Trace, call: Call) -> None:
    """Pairs as complex numbers."""
    trace.set_unit_ids(call.outputs[0], trace.unit_ids(call.tensors[0]).select(-1, 0))


_BOUNDED = {"clip", "clamp_min", "clamp_max", "normal", "fill"}
"""Calls of which other operands may be tensors too."""


def same(trace: Trace, call: Call) -> None:
    """Elementwise with one operand: the units go through. Without any (``torch.normal``) it is a fresh constant."""
    if not call.tensors:
        constant(trace, call)
    elif len(call.tensors) > 1 and call.name in _BOUNDED:
        elementwise(trace, call)
    else:
        for t in call.outputs:
            trace.set_unit_ids(t, trace.unit_ids(call.tensors[0]))


def elementwise(trace: Trace, call: Call) -> None:
    """Elementwise with several operands: units that meet stay or go together. This is what a residual is."""
    out = call.outputs[0]
    tensors = sorted(call.tensors, key=lambda t: not has_values(t))  # flags cannot be multiplied by gates
    operands = [(t, aligned(_mask_ids(trace, t, tensors), out.ndim)) for t in tensors]
    if len({(s.data_ptr(), s.shape, s.stride()) for _, s in operands}) == 1:
        trace.set_unit_ids(out, operands[0][1])
        return
    ids = meet(trace, operands, call.name)
    for t in call.tensors:
        trace.record_made_sizes(t, ids)
    trace.set_unit_ids(out, ids)
    if call.name in ("mul", "multiply") and len(call.tensors) == 2:
        _keep_scale(trace, call)


def _mask_ids(trace: Trace, t: Tensor, operands: list[Tensor]) -> Tensor:
    """The unit ids of an operand; flags that a module keeps for the elements of a parameter go with these."""
    name = trace.name_of(t)
    if name is None or has_values(t):
        return trace.unit_ids(t)
    masked = any(o.shape == t.shape and trace.source_parameter(o) is not None for o in operands if o is not t)
    return trace.element_ids(name, t) if masked else trace.unit_ids(t)


def meet(trace: Trace, operands: list[tuple[Tensor, Tensor]], call: str) -> Tensor:
    """Merge the units of operands that are combined element by element.

    Args:
        trace: The trace.
        operands: The tensors, each with its unit ids, of as many dimensions as the result.
        call: The call's plain name.

    Returns:
        The unit ids of the result.
    """
    # Whole operands first: what repeats along an axis of units is judged by the axis that it repeats along.
    operands = sorted(operands, key=lambda pair: -pair[1].numel())
    merged = operands[0][1] if operands else any_units()
    for t, ids in operands[1:]:
        axes = [d for d in range(merged.ndim) if merged.shape[d] > 1 and varies_along(merged, d)]
        repeats = [d for d in axes if ids.shape[d] == 1]
        if 0 < len(repeats) < len(axes) and _lies_across(trace, merged, ids):
            units, elements = collapse_repeats(*torch.broadcast_tensors(merged, ids))
            trace.spreads.append(Spread(units, collapse_repeats(elements)[0], trace.where(call)))
        elif len(repeats) < len(axes) or not axes:
            merged = trace.merge(merged, ids, trace.where(call))
            if axes and not repeats:
                _take_units(trace, t, ids, merged)
        elif trace.name_of(t) is None:
            trace.fix(ids, f"spread over other units by {trace.where(call)}")
    return merged


def _keep_scale(trace: Trace, call: Call) -> None:
    """Remember a product with a parameter: its sum is a product with a vector."""
    sources = [trace.source_parameter(t) for t in call.tensors]
    of, out = [source for source in sources if source is not None], call.outputs[0]
    if len(of) == 1:
        (name, axes), weight = of[0], call.tensors[0 if sources[0] is not None else 1]
        trace.scaled.set(out, (name, [None] * (out.ndim - weight.ndim) + axes))


def constant(trace: Trace, call: Call) -> None:
    """A fresh constant or noise: it fits whatever it meets. Values that it is filled with are read."""
    trace.hold_values(call.tensors[call.name.startswith("new_") :], call)
    for t in call.outputs:
        trace.set_unit_ids(t, any_units())
        trace.constants.set(t, (Fresh(trace.module[0]),))


def setitem(trace: Trace, call: Call) -> None:
    """An assignment into a tensor: the assigned values bring their units along.

    A mask of the tensor's own values is elementwise; other masks and indices say with their values what is written.
    """
    x, index, value = call.args
    trace.record_bounds(trace.unit_ids(x), index)
    if not isinstance(value, Tensor) and isinstance(index, Tensor) and _same_units(trace, x, index):
        return
    trace.hold_values(tensor_leaves(index, []), call)
    if not isinstance(value, Tensor):  # a number has no unit: it stands where it is written
        return
    ids, new = trace.unit_ids(x).clone(), trace.unit_ids(value)
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
    trace.hold_values([t for t in call.tensors if t is not x and t is not source], call)
    reason = trace.where(call.name)
    ids = trace.unit_ids(source)
    ids = ids if ids.shape[dim] else collapse_repeats(ids)[0]  # nothing is written, and would have these units
    if not ids.numel():
        trace.set_unit_ids(call.outputs[0], trace.unit_ids(x))
        return
    row = ids.narrow(dim, 0, 1)
    if varies_along(ids, dim):
        trace.merge(ids, row, reason)
    out = call.outputs[0]
    if row.shape[:dim] + row.shape[dim + 1 :] != out.shape[:dim] + out.shape[dim + 1 :]:
        trace.freeze(call)
        return
    trace.set_unit_ids(out, trace.merge(trace.unit_ids(x), row.expand(out.shape), reason))


def _take_units(trace: Trace, t: Tensor, ids: Tensor, met: Tensor) -> None:
    """Give a fresh constant the units that it met: what meets it later has the same number of them."""
    if ids.numel() and bool((collapse_repeats(ids)[0] == ANY_UNIT).all()) and bool((met > NO_UNIT).any()):
        for d, size in enumerate(ids.shape):
            met = met.narrow(d, 0, 1) if size == 1 else met
        trace.set_unit_ids(t, met.reshape(met.shape[met.ndim - t.ndim :]))


def _lies_across(trace: Trace, units: Tensor, ids: Tensor) -> bool:
    """Return whether what meets units of activations everywhere is made of parameters alone."""
    made = bool((collapse_repeats(units)[0] > 0).all()) and not trace.of_parameters(units)
    return made and trace.of_parameters(ids)


def _same_units(trace: Trace, x: Tensor, mask: Tensor) -> bool:
    return mask.dtype == torch.bool and mask.shape == x.shape and torch.equal(trace.unit_ids(x), trace.unit_ids(mask))


def aligned(ids: Tensor, ndim: int) -> Tensor:
    """Return the ids with leading dimensions of size one, as broadcasting adds them."""
    return ids.view([1] * (ndim - ids.ndim) + list(ids.shape)) if ids.ndim < ndim else ids
