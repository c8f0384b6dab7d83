"""Rules for products with a weight: units are consumed along one of its axes and made along another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lumos.tracing.calls import Call
from lumos.tracing.costs import Contraction, Product
from lumos.tracing.trace import Trace
from lumos.tracing.unit_ids import collapse_repeats


def linear(trace: Trace, call: Call) -> None:
    """``x @ W.T + b``: consumes the last dimension, makes the units of W's rows."""
    x, weight, bias = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "bias")
    contract(trace, call, x, weight, bias, x_dim=-1, in_dim=1, out_dim=0)


def convolution(trace: Trace, call: Call) -> None:
    """Consumes channels, makes channels; with groups see :func:`_grouped`."""
    x, weight, bias = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "bias")
    x_dim = 1 - weight.ndim
    if call.arg(6, "groups", 1) == 1:
        contract(trace, call, x, weight, bias, x_dim=x_dim, in_dim=1, out_dim=0)
    else:
        _grouped(trace, call, x, weight, bias, x_dim, call.arg(6, "groups", 1))


def transposed_convolution(trace: Trace, call: Call) -> None:
    """As a convolution, with the weight's first two axes in the other order."""
    x, weight, bias = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "bias")
    if call.arg(6, "groups", 1) == 1:
        contract(trace, call, x, weight, bias, x_dim=1 - weight.ndim, in_dim=0, out_dim=1)
    else:
        _grouped_transposed(trace, call, x, weight, bias, call.arg(6, "groups", 1))


def _grouped(trace: Trace, call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, x_dim: int, groups: int) -> None:
    """Grouped convolutions. Depthwise: outputs are their input's units. Else the groups lose the same places."""
    name = trace.name_of(weight)
    if name is None or (bias is not None and trace.name_of(bias) is None):
        trace.freeze(call)
        return
    units = trace.units_along(trace.unit_ids(x), x_dim, call.name)
    out, reason = call.outputs[0], trace.where(call.name)
    per_input, per_output = len(units) // groups, weight.shape[0] // groups
    if per_input == 1:
        made = units.repeat_interleave(per_output)
        trace.assign(name, 0, made)
    else:
        blocks = units.view(groups, per_input)
        tied = trace.merge(blocks, blocks[:1].expand(blocks.shape), reason)
        trace.assign(name, 1, tied[0])
        trace.consumers[name, 1] = None
        call.axis = (name, 1)
        made = trace.produce(name, 0, weight.shape[0], trace.module[0] or name)
        rows = made.view(groups, per_output)
        trace.merge(rows, rows[:1].expand(rows.shape), reason)
    trace.assign_vector(bias, made)
    trace.set_unit_ids(out, made.view(-1, *[1] * (weight.ndim - 2)))
    macs = out.numel() // len(made) * weight[0, 0].numel()
    trace.contractions.append(Contraction(name, 1, 0, macs, macs, trace.module[0], False))


def _grouped_transposed(trace: Trace, call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    """Grouped transposed convolutions: as grouped ones, but that the weight's first axis has all inputs, and the second
    one the outputs of one group."""
    name = trace.name_of(weight)
    if name is None or (bias is not None and trace.name_of(bias) is None):
        trace.freeze(call)
        return
    units = trace.units_along(trace.unit_ids(x), 1 - weight.ndim, call.name)
    per_input, per_output = len(units) // groups, weight.shape[1]
    trace.assign(name, 0, units)
    if per_input == 1:
        made = units.repeat_interleave(per_output)
    else:
        blocks = units.view(groups, per_input)
        trace.merge(blocks, blocks[:1].expand(blocks.shape), trace.where(call.name))
        trace.consumers[name, 0] = None
        call.axis = (name, 0)
        made = trace.produce(name, 1, per_output, trace.module[0] or name).repeat(groups)
    trace.assign_vector(bias, made)
    out = call.outputs[0]
    trace.set_unit_ids(out, made.view(-1, *[1] * (weight.ndim - 2)))
    macs = x.numel() // len(units) * weight[0, 0].numel()
    trace.contractions.append(Contraction(name, 0, 1, macs, macs, trace.module[0], False))


def contract(
    trace: Trace,
    call: Call,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    x_dim: int,
    in_dim: int,
    out_dim: int,
    made_dim: int | None = None,
    macs: float | None = None,
) -> None:
    """Follow a contraction of an activation with a weight.

    Args:
        trace: The trace.
        call: The call.
        x: The activation.
        weight: The weight: a parameter, or a part or a moved view of one.
        bias: A vector that is added to what is made.
        x_dim: The activation's dimension that is consumed.
        in_dim: The weight's dimension that consumes.
        out_dim: The weight's dimension that makes units.
        made_dim: The result's dimension along which they are; ``x_dim`` by default.
        macs: Multiply-accumulates for each pair of a consumed and a made unit; by default those of a layer's product.
    """
    source, of_bias = trace.source_parameter(weight), [] if bias is None else trace.source_parts(bias)
    if source is None or of_bias is None:
        trace.freeze(call)
        return
    name, axes = source
    of_in, of_out = axes[in_dim], axes[out_dim]
    if of_in is None or of_out is None:
        trace.freeze(call, "part of a parameter is used by")
        return
    path, module = trace.module
    read = trace.units_along(trace.unit_ids(x), x_dim, call.name)
    if where := trace.blended_by(weight, (name, of_in.dim)):  # a row of it is one unit: that of its output
        trace.fix(read, f"the weight that reads it is mixed by {where}")
    trace.assign(name, of_in.dim, read, of_in)
    trace.read_constants(x, x_dim, (name, of_in.dim), of_in.start)
    trace.consumers[name, of_in.dim] = None
    call.axis = (name, of_in.dim)
    units = trace.produce(name, of_out.dim, weight.shape[out_dim], path or name, of_out)
    if where := trace.blended_by(weight, (name, of_out.dim)):
        trace.fix(units, f"its weight is mixed by {where}")
    if trace.blended_by(weight, (name, of_in.dim)):
        rows = trace.unit_ids(weight).movedim(out_dim, 0).reshape(len(units), -1)
        units = trace.merge(units, rows[:, 0], trace.where(call.name))
    trace.assign_vector(bias, units)
    trace.producers |= dict.fromkeys((part[0], 0) for part in of_bias)
    out = call.outputs[0]
    shape = [1] * out.ndim
    shape[x_dim if made_dim is None else made_dim] = len(units)
    trace.set_unit_ids(out, units.view(shape))
    # Every product of one weight element is one multiply-accumulate: places of the output, or of the input where a
    # transposed convolution spreads it.
    spread = x if call.name.startswith("conv_transpose") else out
    places = spread.numel() // max(1, weight.shape[in_dim if spread is x else out_dim])
    inside = weight.numel() // max(1, weight.shape[in_dim] * weight.shape[out_dim])
    macs = places * inside if macs is None else macs
    if (of_in.stop - of_in.start, of_out.stop - of_out.start) != (of_in.size, of_out.size):
        trace.products.append(Product((trace.maps[call.axis][of_in.start : of_in.stop].clamp(min=0), units), macs))
        return
    direct = type(module) is nn.Linear and module._parameters.get("weight") is weight
    trace.contractions.append(Contraction(name, of_in.dim, of_out.dim, macs, places, path, direct))


def weight_norm(trace: Trace, call: Call) -> None:
    """A direction and its length: the weight's elements are the direction's, each line with one length."""
    direction, length = (trace.unit_ids(t) for t in call.tensors[:2])
    trace.set_unit_ids(call.outputs[0], trace.merge(direction, length, trace.where(call.name)))


def embedding(trace: Trace, call: Call) -> None:
    """A table's columns are units. Its rows stay, unless one feature of the input indexes all of them: then they go
    with it."""
    index, weight = call.arg(0, "input"), call.arg(1, "weight")
    name = trace.name_of(weight)
    if name is None:
        trace.freeze(call)
        return
    features = collapse_repeats(trace.unit_ids(index))[0].unique()
    rows = features
    if len(features) > 1:
        trace.fix(features, f"several features index one table: {trace.where(call.name)}")
        rows = torch.zeros(1, dtype=torch.int64)
    trace.assign(name, 0, rows.expand(len(weight)))
    trace.consumers[name, 0] = None
    trace.tables[name, 0] = None
    trace.set_unit_ids(call.outputs[0], trace.produce(name, 1, weight.shape[1], trace.module[0] or name))
