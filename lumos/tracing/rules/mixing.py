"""Rules for calls that mix values: reductions, normalisations, pooling, Fourier transforms."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from torch import Tensor, nn

from lumos.tracing.calls import Call, tensor_leaves
from lumos.tracing.rules.movement import elementwise
from lumos.tracing.rules.streams import MEANS, makes_up
from lumos.tracing.trace import Trace
from lumos.tracing.unit_ids import collapse_repeats, no_units, varies_along


def reduce(trace: Trace, call: Call) -> None:
    """Mixes positions along dimensions: units along them are fixed, unless whole blocks of them can go."""
    x = call.tensors[0]
    dims = reduced_dims(call, x.ndim)
    if call.name == "sum" and _sum_of_scaled(trace, call, x, dims):
        return
    if call.name in MEANS and makes_up(trace, call, x, dims):
        line = collapse_repeats(trace.unit_ids(x))[0]
        for t in call.outputs:
            trace.set_unit_ids(t, line.expand(x.shape) if t.shape == x.shape else no_units())
        return
    ids = mixed(trace, trace.unit_ids(x), dims, trace.where(call.name))
    for t in call.outputs:
        if t.shape == x.shape:
            trace.set_unit_ids(t, ids)
            continue
        line = ids
        for d in sorted(dims, reverse=True):
            line = line.narrow(d, 0, 1) if t.ndim == x.ndim else line.select(d, 0)
        fits = all(a in (1, b) for a, b in zip(line.shape, t.shape, strict=True)) if line.ndim == t.ndim else False
        trace.set_unit_ids(t, line if fits else no_units())


def _sum_of_scaled(trace: Trace, call: Call, x: Tensor, dims: list[int]) -> bool:
    """Follow the sum of what was multiplied with a vector of parameters: a product that makes no units.

    Returns:
        False where it is no such sum, or several dimensions have units.
    """
    ids = trace.unit_ids(x)
    along = [d for d in range(x.ndim) if varies_along(ids, d)]
    scaled = trace.scaled.get(x)
    if len(along) != 1 or along[0] not in dims or scaled is None or scaled[1][along[0]] is None:
        return False
    name, part = scaled[0], scaled[1][along[0]]
    assert part is not None
    axis = (name, part.dim)
    trace.assign(name, part.dim, trace.units_along(ids, along[0], call.name), part)
    trace.consumers[axis] = None
    call.axis = axis
    for t in call.outputs:
        trace.set_unit_ids(t, no_units())
    return True


def mixed(trace: Trace, ids: Tensor, dims: list[int], where: str) -> Tensor:
    """Return the unit ids after a call that mixes along dimensions.

    Where units vary along them, what is mixed together is merged: if blocks along another dimension stay apart (the
    heads of an attention, the channels of a spatial mean), each block is one unit; otherwise all of it is fixed.

    Args:
        trace: The trace.
        ids: The operand's unit ids.
        dims: The dimensions.
        where: The call, for the message why units are fixed.
    """
    along = [d for d in dims if varies_along(ids, d)]
    if not along:
        return ids
    trace.blend(ids, along, where)
    first = ids
    for d in along:
        first = first.narrow(d, 0, 1)
    if any(d not in dims and _apart(first, d) for d in range(ids.ndim)):
        trace.merge(ids, first.expand(ids.shape), where)
        return first.expand(ids.shape)
    trace.fix(ids, f"mixed by {where}")
    return no_units(ids.shape)


def _apart(ids: Tensor, dim: int) -> bool:
    """Return whether every position along a dimension holds another unit."""
    if ids.shape[dim] <= 1 or ids.stride(dim) == 0:
        return False
    line = collapse_repeats(ids, keep=dim)[0].movedim(dim, 0).reshape(ids.shape[dim], -1)[:, 0]
    return bool((line > 0).all()) and len(line.unique()) == len(line)


def reduced_dims(call: Call, ndim: int) -> list[int]:
    """The dimensions of a reduction: all of them where none is named."""
    dim = call.kwargs.get("dim", call.kwargs.get("axis"))
    if dim is None and call.name in ("norm", "topk", "vector_norm", "linalg_vector_norm", "normalize"):
        dim = call.arg(2, "dim", {"topk": -1, "normalize": 1}.get(call.name))
    elif dim is None and len(call.args) > 1 and not isinstance(call.args[1], bool):
        dim = call.args[1] if isinstance(call.args[1], int | tuple | list) else None
    if dim is None and call.name in ("sort", "argsort", "median") and call.outputs[0].ndim:
        dim = -1
    if dim is None or (isinstance(dim, tuple | list) and not dim):
        return list(range(ndim))
    return [d % ndim for d in ([dim] if isinstance(dim, int) else dim)]


def extremum(trace: Trace, call: Call) -> None:
    """``max`` and ``min``: elementwise with two tensors, a reduction with one."""
    (elementwise if len(call.tensors) > 1 else reduce)(trace, call)


def pool(trace: Trace, call: Call) -> None:
    """Acts on space, channel by channel: the units of one place are those of every place."""
    x, out = call.tensors[0], call.outputs[0]
    trace.hold_values(call.tensors[1:], call)  # the places that a grid asks for
    ids = trace.unit_ids(x)
    digit = re.search(r"pool(\d)d", call.name)
    space = int(digit[1]) if digit else x.ndim - 2
    dims = range(x.ndim - space, x.ndim)
    place = ids
    for d in dims:
        if varies_along(ids, d):
            place = trace.merge(place, place.narrow(d, 0, 1).expand(place.shape), trace.where(call.name))
    for d in dims:
        place = place.narrow(d, 0, 1)
    trace.keep_one_of_parts(place, call)
    for t in call.outputs:
        trace.set_unit_ids(t, place.expand(out.shape))


def batch_norm(trace: Trace, call: Call) -> None:
    """Per-channel affine: statistics, weight and bias follow the units of dimension 1.

    A weight that is standardised so is mixed along its other dimensions.
    """
    ids = trace.unit_ids(call.arg(0, "input"))
    others = [d for d in range(ids.ndim) if d != 1 and varies_along(ids, d)]
    if others and call.arg(1, "running_mean") is None:
        trace.blend(ids, others, trace.where(call.name))
    units = trace.units_along(ids, 1, call.name)
    for position, key in enumerate(("running_mean", "running_var", "weight", "bias"), start=1):
        if not trace.assign_vector(call.arg(position, key), units):
            trace.freeze(call)
            return
    trace.set_unit_ids(call.outputs[0], ids)


def group_norm(trace: Trace, call: Call) -> None:
    """Normalises blocks of channels: a block goes as a whole, and its channels are merged."""
    x, groups = call.arg(0, "input"), call.arg(1, "num_groups")
    units = trace.units_along(trace.unit_ids(x), 1, call.name)
    if len(units) > groups and not (groups == 1 and makes_up(trace, call, x, list(range(1, x.ndim)))):
        if groups == 1:
            trace.fix(units, f"mixed by {trace.where(call.name)}")
        blocks = units.view(groups, -1)
        trace.merge(blocks, blocks[:, :1].expand(blocks.shape), trace.where(call.name))
    if not all(trace.assign_vector(call.arg(i, key), units) for i, key in ((2, "weight"), (3, "bias"))):
        trace.freeze(call)
        return
    trace.set_unit_ids(call.outputs[0], units.view(1, -1, *[1] * (x.ndim - 2)))


def layer_norm(trace: Trace, call: Call) -> None:
    """Mean and variance over the units: all of them are fixed, unless they form blocks that stay apart, or the layer
    can be made to know its original width (``streams``)."""
    x, shape = call.arg(0, "input"), call.arg(1, "normalized_shape")
    path, module = trace.module
    plain = isinstance(module, nn.LayerNorm) and len(shape) == 1 and x is trace.module_input
    ids = trace.unit_ids(x)
    once = path not in trace.stream_norms or not trace.first
    if trace.options.streams and plain and once and varies_along(ids, x.ndim - 1):
        units = trace.units_along(ids, -1, call.name)
        units = trace.merge(units, trace.stream_norms.get(path, units), trace.where(call.name))
        if all(trace.assign_vector(call.arg(i, key), units) for i, key in ((2, "weight"), (3, "bias"))):
            trace.stream_norms[path] = units
            trace.set_unit_ids(call.outputs[0], units)
            return
    dims = list(range(x.ndim - len(shape), x.ndim))
    if len(shape) == 1 and makes_up(trace, call, x, dims):
        units = trace.units_along(ids, -1, call.name)
        vectors = ((2, "weight"), (3, "bias")) if call.name == "layer_norm" else ((2, "weight"),)
        if all(trace.assign_vector(call.arg(i, key), units) for i, key in vectors):
            trace.set_unit_ids(call.outputs[0], ids)
            return
    trace.set_unit_ids(call.outputs[0], mixed(trace, ids, dims, trace.where(call.name)))


def derivative(trace: Trace, call: Call) -> None:
    """Derivatives with respect to a tensor are as that tensor is. What is differentiated is summed: its units stay."""
    reason = f"differentiated by {trace.where(call.name)}"
    for t in tensor_leaves(call.arg(0, "outputs"), []):
        trace.fix(trace.unit_ids(t), reason)
    # A derivative passes through every product so far once more.
    trace.contractions = [replace(c, macs=2 * c.macs) for c in trace.contractions]
    trace.products = [replace(p, macs=2 * p.macs) for p in trace.products]
    trace.constant_macs *= 2
    of = tensor_leaves(call.arg(1, "inputs"), [])
    if len(of) != len(call.outputs) or any(x.shape != t.shape for x, t in zip(of, call.outputs, strict=True)):
        if call.outputs:
            trace.freeze(call)
        return
    for x, t in zip(of, call.outputs, strict=True):
        trace.set_unit_ids(t, trace.unit_ids(x))


def prelu(trace: Trace, call: Call) -> None:
    """One slope a channel follows dimension 1; a single slope follows nothing."""
    x, weight = call.args[0], call.arg(1, "weight")
    ids = trace.unit_ids(x)
    if weight.numel() > 1 and not trace.assign_vector(weight, trace.units_along(ids, 1, call.name)):
        trace.freeze(call)
        return
    trace.set_unit_ids(call.outputs[0], ids)


def glu(trace: Trace, call: Call) -> None:
    """One half is a gate for the other: a unit is a position in both."""
    x, dim = call.args[0], call.arg(1, "dim", -1)
    one, other = trace.unit_ids(x).chunk(2, dim)
    trace.set_unit_ids(call.outputs[0], trace.merge(one, other, trace.where(call.name)))


def fold(trace: Trace, call: Call) -> None:
    """Patches as an image: all positions of a patch of one channel are one unit."""
    x, kernel = call.arg(0, "input"), call.arg(2, "kernel_size")
    places = kernel * kernel if isinstance(kernel, int) else math.prod(kernel)
    units = trace.units_along(trace.unit_ids(x), -2, call.name).view(-1, places)
    trace.merge(units, units[:, :1].expand(units.shape), trace.where(call.name))
    trace.set_unit_ids(call.outputs[0], units[:, :1, None])


def fourier(trace: Trace, call: Call) -> None:
    """Transforms mix along space; channels beside it keep their units."""
    x, out = call.args[0], call.outputs[0]
    dims = call.arg(2, "dim")
    if dims is None:
        dims = {"2": (-2, -1), "n": range(x.ndim)}.get(call.name[-1], -1)
    dims = [d % x.ndim for d in ((dims,) if isinstance(dims, int) else dims)]
    ids = mixed(trace, trace.unit_ids(x), dims, trace.where(call.name))
    for d in dims:
        ids = ids.narrow(d, 0, 1)
    trace.set_unit_ids(out, ids.expand(out.shape))
