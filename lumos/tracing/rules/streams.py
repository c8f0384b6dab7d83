"""Norms over the channels of a stream, in whatever way a module writes them.

A gate multiplies what such a module reads, so that a closed channel is zero there. As long as each channel is treated
alike (``x * x``, ``x - mean``), closed channels all hold one value; a mean over the channels that are left can then
make up for those that are gone (:class:`lumos.compaction.streams.StreamModule`). Here is noted of which tensors inside
a module that holds.
"""

from __future__ import annotations

from torch import Tensor, nn

from lumos.tracing.calls import Call
from lumos.tracing.trace import Trace
from lumos.tracing.unit_ids import varies_along

MEANS = frozenset("mean sum var std norm vector_norm linalg_vector_norm normalize".split())  # noqa: SIM905
"""Reductions that can make up for channels that are gone."""
MOVES = frozenset(
    "permute transpose swapaxes swapdims movedim moveaxis unsqueeze contiguous clone detach".split()  # noqa: SIM905
)
"""Movement that keeps the channels of a tensor along one dimension, all of them."""


def enter(trace: Trace, module: nn.Module, inputs: tuple[object, ...]) -> None:
    """Note that a closed channel is zero in what a module reads: its input is multiplied by gates."""
    x = inputs[0] if inputs else None
    if not trace.options.streams or not isinstance(x, Tensor) or not x.is_floating_point() or any(module.children()):
        return
    dim = channels_of(trace, x)
    if dim is not None and trace.module[0]:
        trace.alike.set(x, (trace.module[0], dim))
        trace.stream_inputs[trace.module[0]] = (dim, trace.unit_ids(x))


def channels_of(trace: Trace, x: Tensor) -> int | None:
    """The one dimension along which a tensor's units vary, counted from the end; None: there are none, or several."""
    ids = trace.unit_ids(x)
    along = [d - x.ndim for d in range(x.ndim) if varies_along(ids, d)]
    return along[0] if len(along) == 1 else None


def carry(trace: Trace, call: Call, elementwise: frozenset[str]) -> None:
    """Note of what a call returns whether its closed channels all hold one value.

    Args:
        trace: The trace.
        call: The call; its rule has given units to what it returned.
        elementwise: The names of calls that treat each value alone.
    """
    if not trace.options.streams:
        return
    known = [(t, trace.alike.get(t)) for t in call.tensors]
    of = [(t, mark) for t, mark in known if mark is not None and mark[0] == trace.module[0]]
    if not of or len(call.outputs) != 1:
        return
    (x, (path, dim)), out = of[0], call.outputs[0]
    if call.name in elementwise:
        others = [t for t, mark in known if mark != (path, dim)]
        if out.ndim + dim >= 0 and all(t.ndim + dim < 0 or t.shape[dim] == 1 for t in others):
            trace.alike.set(out, (path, dim))
    elif call.name in MOVES or (call.name in MEANS and out.ndim == x.ndim):
        new = channels_of(trace, out)
        if new is not None:
            trace.alike.set(out, (path, new))


def makes_up(trace: Trace, call: Call, x: Tensor, dims: list[int]) -> bool:
    """Whether a reduction can make up for the channels that are gone; then it fixes none. Its module is noted."""
    mark = trace.alike.get(x) if trace.options.streams else None
    if mark is None or mark[0] != trace.module[0]:
        return False
    ids = trace.unit_ids(x)
    if [d - x.ndim for d in dims if varies_along(ids, d)] != [mark[1]] or not _of_order_two(call):
        return False
    path = mark[0]
    dim, units = trace.stream_inputs[path]
    line = trace.units_along(units, dim, call.name)
    known = trace.stream_modules.get(path)
    if known is not None:
        line = trace.merge(line, known[1], trace.where(call.name))
    trace.stream_modules[path] = (dim, line)
    return True


def _of_order_two(call: Call) -> bool:
    """Whether a norm is the Euclidean one."""
    if call.name not in ("norm", "vector_norm", "linalg_vector_norm", "normalize"):
        return True
    name = "ord" if "vector_norm" in call.name else "p"
    return call.arg(1, name, 2) in (2, 2.0, "fro")
