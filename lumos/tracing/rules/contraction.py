"""Rules for products: with a weight, units are consumed and made; of two activations, they are tied."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lumos.tracing.attention import Query, cross_queries, cross_values
from lumos.tracing.rules.movement import freeze
from lumos.tracing.structure import Contraction
from lumos.tracing.tracer import Call, Trace, squash, varies


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
        freeze(trace, call, "grouped transposed convolutions are not followed:")


def _grouped(trace: Trace, call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, x_dim: int, groups: int) -> None:
    """Grouped convolutions. Depthwise: outputs are their input's units. Else the groups lose the same places."""
    name = trace.name_of(weight)
    if name is None or (bias is not None and trace.name_of(bias) is None):
        freeze(trace, call)
        return
    units = trace.line(trace.shadow(x), x_dim, call.name)
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
        trace.reading = (name, 1)
        made = trace.produce(name, 0, weight.shape[0], trace.module[0] or name)
        rows = made.view(groups, per_output)
        trace.merge(rows, rows[:1].expand(rows.shape), reason)
    trace.follow(bias, made)
    trace.set(out, made.view(-1, *[1] * (weight.ndim - 2)))
    if per_input > 1:
        macs = out.numel() // len(made) * weight[0, 0].numel()
        trace.contractions.append(Contraction(name, 1, 0, macs, macs, trace.module[0], False))


def matmul(trace: Trace, call: Call) -> None:
    """A product with a parameter on one side, or of two activations (an attention written out)."""
    bias = None
    if call.name in ("addmm", "baddbmm"):
        bias, a, b = call.args[:3]
    else:
        a, b = call.args[0], call.arg(1, "other", call.kwargs.get("mat2"))
    if a.ndim < 2 or b.ndim < 2:
        freeze(trace, call)
    elif trace.origin(b) and b.ndim == 2:
        contract(trace, call, a, b, bias, x_dim=-1, in_dim=0, out_dim=1)
    elif trace.origin(a) and a.ndim == 2 and bias is None:
        contract(trace, call, b, a, None, x_dim=-2, in_dim=1, out_dim=0)
    elif bias is None:
        out = call.outputs[0]
        shape = [*out.shape[:-2]]
        a, b = (trace.shadow(t).expand(*shape, *t.shape[-2:]) for t in (a, b))
        trace.set(out, product(trace, a, b, trace.where(call.name)))
    else:
        freeze(trace, call)


def product(trace: Trace, a: Tensor, b: Tensor, reason: str, folded: bool = False) -> Tensor:
    """The shadow of ``a @ b`` for two activations' shadows (..., m, k) and (..., k, n).

    Along the contracted dimension units are tied in pairs. Where they also vary along a batch-like dimension (the
    heads), each head is one unit, since what is kept must stay a rectangle, and the product carries its head's unit.
    """
    heads = [d for d in range(a.ndim - 2) if varies(a, d) or varies(b, d)]
    inner = varies(a, a.ndim - 1) or varies(b, b.ndim - 2)
    outer = varies(a, a.ndim - 2), varies(b, b.ndim - 1)
    nothing = torch.zeros((), dtype=torch.int64).expand(*a.shape[:-1], b.shape[-1])
    if not heads:
        if inner:
            left = trace.line(a, -1, "matmul")
            right = trace.line(b, -2, "matmul")
            trace.merge(left, right, reason)
            if trace.options.query_key and outer == (False, False):
                trace.queries.append(Query(left[None], right[None], torch.zeros(1, dtype=torch.int64), folded))
        if outer == (True, False):
            return a.narrow(-1, 0, 1).expand(nothing.shape) if not inner else nothing
        if outer == (False, True):
            return b.narrow(-2, 0, 1).expand(nothing.shape) if not inner else nothing
        return nothing
    if trace.options.query_key and inner and outer == (False, False):
        if varies(a, a.ndim - 1) and varies(b, b.ndim - 2):
            return cross_queries(trace, a, b, reason, folded)
        whole = trace.new_block(f"{trace.module[0] or 'attention'}.dims", "hidden", a.shape[-1])
        trace.fix(whole, f"what makes queries or keys ties the dimensions of each head, before {reason}")
    if trace.options.query_key and outer == (False, True) and not inner and cross_values(trace, a, b, reason):
        return b[..., :1, :].expand(nothing.shape)
    corner_a, corner_b = a[..., :1, :1], b[..., :1, :1]
    head = trace.merge(corner_a, corner_b, reason)
    trace.merge(a, head.expand(a.shape), reason)
    trace.merge(b, head.expand(b.shape), reason)
    # The columns of the second operand are still its own units (tied to their head), so that a reshape finds them.
    return b[..., :1, :].expand(nothing.shape) if outer[1] and not inner else head.expand(nothing.shape)


def attention(trace: Trace, call: Call) -> None:
    """``softmax(q k^T) v``: the two products of :func:`product`, head by head."""
    q, k, v = (trace.shadow(call.arg(i, name)) for i, name in enumerate(("query", "key", "value")))
    if q.shape[:-2] != k.shape[:-2]:
        freeze(trace, call, "grouped queries are not followed:")
        return
    reason = trace.where(call.name)
    scores = product(trace, q, k.transpose(-2, -1), reason, folded=call.kwargs.get("scale") is None)
    trace.set(call.outputs[0], product(trace, scores, v, reason))


def einsum(trace: Trace, call: Call) -> None:
    """A product with one parameter, written with letters (the spectral convolution of a Fourier operator)."""
    equation, operands = call.args[0], call.args[1:]
    operands = operands[0] if len(operands) == 1 and isinstance(operands[0], tuple | list) else operands
    named = [trace.origin(t) is not None for t in operands]
    written_out = isinstance(equation, str) and "->" in equation and "." not in equation
    if not written_out or len(operands) != 2 or sum(named) != 1:
        freeze(trace, call)
        return
    left, to = equation.replace(" ", "").split("->")
    of = left.split(",")
    w = named.index(True)
    x, weight, of_x, of_w = operands[1 - w], operands[w], of[1 - w], of[w]
    ins = [letter for letter in of_w if letter in of_x and letter not in to]
    outs = [letter for letter in of_w if letter in to and letter not in of_x]
    shadow = trace.shadow(x)
    beside = [i for i, letter in enumerate(of_x) if letter not in ins and varies(shadow, i)]
    if len(ins) != 1 or len(outs) != 1 or beside:
        freeze(trace, call)
        return
    dims = {"x_dim": of_x.index(ins[0]), "in_dim": of_w.index(ins[0]), "out_dim": of_w.index(outs[0])}
    contract(trace, call, x, weight, None, **dims, made_dim=to.index(outs[0]))


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
) -> None:
    """A contraction of an activation with a weight: units are consumed along one axis and made along the other."""
    origin, of_bias = trace.origin(weight), None if bias is None else trace.origin(bias)
    if origin is None or (bias is not None and (of_bias is None or bias.ndim != 1)):
        freeze(trace, call)
        return
    name, axes = origin
    of_in, of_out = axes[in_dim], axes[out_dim]
    if of_in is None or of_out is None:
        freeze(trace, call, "part of a parameter is used by")
        return
    path, module = trace.module
    trace.assign(name, of_in.dim, trace.line(trace.shadow(x), x_dim, call.name), of_in)
    trace.consumers[name, of_in.dim] = None
    trace.reading = (name, of_in.dim)
    units = trace.produce(name, of_out.dim, weight.shape[out_dim], path or name, of_out)
    trace.follow(bias, units)
    if of_bias:
        trace.producers[of_bias[0], 0] = None
    out = call.outputs[0]
    shape = [1] * out.ndim
    shape[x_dim if made_dim is None else made_dim] = len(units)
    trace.set(out, units.view(shape))
    # Every product of one weight element is one multiply-accumulate: places of the output, or of the input where a
    # transposed convolution spreads it.
    spread = x if call.name.startswith("conv_transpose") else out
    places = spread.numel() // max(1, weight.shape[in_dim if spread is x else out_dim])
    inside = weight.numel() // max(1, weight.shape[in_dim] * weight.shape[out_dim])
    macs = places if call.name == "einsum" else places * inside
    direct = type(module) is nn.Linear and module.weight is weight
    trace.contractions.append(Contraction(name, of_in.dim, of_out.dim, macs, places, path, direct))


def embedding(trace: Trace, call: Call) -> None:
    """A table's columns are units. Its rows stay, unless one feature of the input indexes all of them: then they go
    with it."""
    index, weight = call.arg(0, "input"), call.arg(1, "weight")
    name = trace.name_of(weight)
    if name is None:
        freeze(trace, call)
        return
    features = squash(trace.shadow(index))[0].unique()
    rows = features
    if len(features) > 1:
        trace.fix(features, f"several features index one table: {trace.where(call.name)}")
        rows = torch.zeros(1, dtype=torch.int64)
    trace.assign(name, 0, rows.expand(len(weight)))
    trace.consumers[name, 0] = None
    trace.tables[name, 0] = None
    trace.set(call.outputs[0], trace.produce(name, 1, weight.shape[1], trace.module[0] or name))
