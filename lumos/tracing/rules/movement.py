"""Rules for calls that move values or act on each of them alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lumos.compaction.layers import SHAPING
from lumos.tracing.tracer import ANY, SHADOW, Call, Trace, has_values, varies

_READS_VALUES = {"item", "tolist", "numpy"}
_WRITES_SIZES = {"view", "reshape", "unflatten", "expand", "split", "split_with_sizes", "narrow", "broadcast_to"}


def freeze(trace: Trace, call: Call, why: str = "there is no rule for") -> None:
    """A call that cannot be followed: whatever enters keeps its size, and what comes out has no units."""
    if not call.outputs and call.name not in _READS_VALUES:
        return
    reason = f"{why} {trace.where(call.name)}"
    for t in call.tensors:
        trace.fix(trace.shadow(t), reason)
    for t in call.outputs:
        trace.set(t, torch.zeros((), dtype=torch.int64))


def move(trace: Trace, call: Call) -> None:
    """Data movement: the very same call, applied to the shadows."""
    shadows = _moved(trace, call, lambda shadow: shadow)
    for t, s in zip(call.outputs, shadows, strict=True) if shadows else ():
        trace.set(t, s)
    if call.name in _WRITES_SIZES:
        for t in call.outputs:
            trace.note_sizes(t, call.name in SHAPING)


def move_as_float(trace: Trace, call: Call) -> None:
    """Data movement that exists for floating point only (exact: units stay far below 2^53); padding fits anything."""
    if call.name == "pad" and call.arg(2, "mode", "constant") == "constant":
        call.kwargs = {"pad": call.arg(1, "pad"), "mode": "constant", "value": float(ANY)}
        call.args = call.args[:1]
    shadows = _moved(trace, call, torch.Tensor.double)
    for t, s in zip(call.outputs, shadows, strict=True) if shadows else ():
        trace.set(t, s.round().long())


def _moved(trace: Trace, call: Call, prepare: Any) -> list[Tensor]:
    data = [t for t in call.tensors if has_values(t)] or call.tensors[:1]
    # Whole numbers are places, not values: an index stays what it is, and moving one has no shadow to move.
    if not any(has_values(t) or hasattr(t, SHADOW) for t in data):
        return []
    moving = {id(t) for t in data}

    def swap(x: Any) -> Any:
        return prepare(trace.shadow(x)) if isinstance(x, Tensor) and id(x) in moving else x

    args, kwargs = pytree.tree_map(swap, (call.args, call.kwargs))
    return pytree.tree_leaves(call.func(*args, **kwargs))


def as_real(trace: Trace, call: Call) -> None:
    """Complex numbers as pairs: both halves belong to the unit."""
    trace.set(call.outputs[0], trace.shadow(call.tensors[0]).unsqueeze(-1))


def as_complex(trace: Trace, call: Call) -> None:
    """Pairs as complex numbers."""
    trace.set(call.outputs[0], trace.shadow(call.tensors[0]).select(-1, 0))


def same(trace: Trace, call: Call) -> None:
    """Elementwise with one operand: the units go through."""
    for t in call.outputs:
        trace.set(t, trace.shadow(call.tensors[0]))


def elementwise(trace: Trace, call: Call) -> None:
    """Elementwise with several operands: units that meet live and die together. This is what a residual is."""
    out = call.outputs[0]
    operands = [(t, _aligned(trace.shadow(t), out.ndim)) for t in call.tensors]
    if len({(s.data_ptr(), s.shape, s.stride()) for _, s in operands}) == 1:
        trace.set(out, operands[0][1])
        return
    # Whole operands first: what repeats along an axis of units is judged by the axis that it repeats along.
    operands.sort(key=lambda pair: -pair[1].numel())
    merged = operands[0][1] if operands else torch.full((), ANY)
    for t, shadow in operands[1:]:
        axes = [d for d in range(merged.ndim) if merged.shape[d] > 1 and varies(merged, d)]
        repeats = [d for d in axes if shadow.shape[d] == 1]
        if len(repeats) < len(axes) or not axes:
            merged = trace.merge(merged, shadow, trace.where(call.name))
        elif trace.name_of(t) is None:
            trace.fix(shadow, f"spread over other units by {trace.where(call.name)}")
    trace.set(out, merged)


def constant(trace: Trace, call: Call) -> None:
    """A fresh constant or noise: it fits whatever it meets."""
    for t in call.outputs:
        trace.set(t, torch.full((), ANY))


def setitem(trace: Trace, call: Call) -> None:
    """An assignment into a tensor: the assigned values bring their units along."""
    x, index, value = call.args
    shadow = trace.shadow(x).clone()
    new = trace.shadow(value) if isinstance(value, Tensor) else torch.full((), ANY)
    shadow[index] = new.expand(shadow[index].shape)
    trace.set(x, shadow)
    trace.note_sizes(x)


def scatter(trace: Trace, call: Call) -> None:
    """Rows added into rows (message passing, graph pooling): columns keep their units, rows are not units."""
    x, dim = call.args[0], call.arg(1, "dim", 0)
    source = call.arg(3, "src", call.kwargs.get("source"))
    if not isinstance(source, Tensor) or not isinstance(dim, int):
        freeze(trace, call)
        return
    reason = trace.where(call.name)
    shadow = trace.shadow(source)
    row = shadow.narrow(dim, 0, 1)
    if varies(shadow, dim):
        trace.merge(shadow, row, reason)
    out = call.outputs[0]
    if row.shape[:dim] + row.shape[dim + 1 :] != out.shape[:dim] + out.shape[dim + 1 :]:
        freeze(trace, call)
        return
    trace.set(out, trace.merge(trace.shadow(x), row.expand(out.shape), reason))


def _aligned(shadow: Tensor, ndim: int) -> Tensor:
    """The shadow with leading dimensions of size one, as broadcasting adds them."""
    return shadow.view([1] * (ndim - shadow.ndim) + list(shadow.shape)) if shadow.ndim < ndim else shadow
