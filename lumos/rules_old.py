"""The rule table: what each kind of call does to the units that its operands carry.

One row per kind of call; a new kind is a new row. Names are plain (``lumos.trace.plain_name``), so that one row serves
a function, its method, its operator and its in-place form. A call without a row freezes the units that enter it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lumos.structure import Contraction
from lumos.trace import ANY, SHADOW, Call, Trace, varies

Rule = Callable[[Trace, Call], None]


def rule_for(name: str) -> Rule:
    """The rule of a call; ``freeze`` where there is none."""
    return RULES.get(name, freeze)


# ---- rules ------------------------------------------------------------------------------------------------------


def freeze(trace: Trace, call: Call) -> None:
    """An unknown call: whatever enters keeps its size, and what comes out has no units."""
    if not call.outputs and call.name not in _READS_VALUES:
        return
    reason = f"there is no rule for {trace.where(call.name)}"
    for t in call.tensors:
        trace.fix(trace.shadow(t), reason)
    for t in call.outputs:
        trace.set(t, torch.zeros((), dtype=torch.int64))


def move(trace: Trace, call: Call) -> None:
    """Data movement: the very same call, applied to the shadows."""

    data = [t for t in call.tensors if t.is_floating_point()] or call.tensors[:1]
    # Whole numbers are places, not values: an index stays what it is, and moving one has no shadow to move.
    if not any(t.is_floating_point() or hasattr(t, SHADOW) for t in data):
        return
    moving = {id(t) for t in data}

    def swap(x: Any) -> Any:
        return trace.shadow(x) if isinstance(x, Tensor) and id(x) in moving else x

    args, kwargs = pytree.tree_map(swap, (call.args, call.kwargs))
    shadows = pytree.tree_leaves(call.func(*args, **kwargs))
    for t, s in zip(call.outputs, shadows, strict=True):
        trace.set(t, s)


def same(trace: Trace, call: Call) -> None:
    """Elementwise with one operand: the units go through."""
    for t in call.outputs:
        trace.set(t, trace.shadow(call.tensors[0]))


def elementwise(trace: Trace, call: Call) -> None:
    """Elementwise with several operands: units that meet live and die together. This is what a residual is."""
    out = call.outputs[0]
    operands = [(t, _aligned(trace.shadow(t), out.ndim)) for t in call.tensors]
    merged = torch.full((), ANY)
    # Whole operands first: what repeats along an axis of units is judged by the axis that it repeats along.
    for t, shadow in sorted(operands, key=lambda pair: -pair[1].numel()):
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


def reduce(trace: Trace, call: Call) -> None:
    """Mixes positions along dimensions: where those hold units, they are fixed; elsewhere one position speaks."""
    x = call.tensors[0]
    shadow = trace.shadow(x)
    dims = _dims(call, x.ndim)
    mixed = [d for d in dims if varies(shadow, d)]
    if mixed:
        trace.fix(shadow, f"mixed by {trace.where(call.name)}")
    keeps_shape = call.outputs and call.outputs[0].shape == x.shape
    for t in call.outputs:
        if keeps_shape:
            trace.set(t, shadow)
            continue
        line = shadow
        for d in sorted(dims, reverse=True):
            line = line.narrow(d, 0, 1) if t.ndim == x.ndim else line.select(d, 0)
        trace.set(t, torch.zeros_like(line) if mixed else line)


def linear(trace: Trace, call: Call) -> None:
    """``x @ W.T + b``: consumes the last dimension, makes the units of W's rows."""
    x, weight, bias = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "bias")
    contract(trace, call, x, weight, bias, x_dim=-1, in_dim=1, out_dim=0)


def matmul(trace: Trace, call: Call) -> None:
    """A product with a parameter on one side; of two activations, all that enters is fixed."""
    a, b, bias = call.args[0], call.args[1], None
    if call.name == "addmm":
        bias, a, b = call.args[:3]
    if trace.name_of(b) and b.ndim == 2:
        contract(trace, call, a, b, bias, x_dim=-1, in_dim=0, out_dim=1)
    elif trace.name_of(a) and a.ndim == 2 and b.ndim >= 2 and bias is None:
        contract(trace, call, b, a, None, x_dim=-2, in_dim=1, out_dim=0)
    else:
        freeze(trace, call)


def contract(
    trace: Trace, call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, *, x_dim: int, in_dim: int, out_dim: int
) -> None:
    """A contraction of an activation with a weight: units are consumed along one axis and made along the other."""
    name = trace.name_of(weight)
    if name is None or (bias is not None and trace.name_of(bias) is None):
        freeze(trace, call)
        return
    path, module = trace.module
    trace.assign(name, in_dim, trace.line(trace.shadow(x), x_dim, call.name))
    trace.consumers[name, in_dim] = None
    units = trace.produce(name, out_dim, weight.shape[out_dim], path or name)
    if bias is not None and bias.ndim == 1:
        trace.assign(trace.names[id(bias)], 0, units)
        trace.producers[trace.names[id(bias)], 0] = None
    out = call.outputs[0]
    shape = [1] * out.ndim
    shape[x_dim] = len(units)
    trace.set(out, units.view(shape))
    rows = x.numel() // max(1, x.shape[x_dim])
    macs = rows * weight.numel() // max(1, weight.shape[in_dim] * weight.shape[out_dim])
    direct = type(module) is nn.Linear and module.weight is weight
    trace.contractions.append(Contraction(name, in_dim, out_dim, macs, rows, path, direct))


def embedding(trace: Trace, call: Call) -> None:
    """A table's columns are units; its rows always stay."""
    weight = call.arg(1, "weight")
    name = trace.name_of(weight)
    if name is None:
        freeze(trace, call)
        return
    units = trace.produce(name, 1, weight.shape[1], trace.module[0] or name)
    trace.set(call.outputs[0], units)


def batch_norm(trace: Trace, call: Call) -> None:
    """Per-channel affine: statistics, weight and bias follow the units of dimension 1."""
    x = call.arg(0, "input")
    shadow = trace.shadow(x)
    units = trace.line(shadow, 1, call.name)
    for position, key in enumerate(("running_mean", "running_var", "weight", "bias"), start=1):
        t = call.arg(position, key)
        if t is None:
            continue
        name = trace.name_of(t)
        if name is None:
            freeze(trace, call)
            return
        trace.assign(name, 0, units)
    trace.set(call.outputs[0], shadow)


def layer_norm(trace: Trace, call: Call) -> None:
    """Mean and variance over the units: all of them are fixed."""
    x, shape = call.arg(0, "input"), call.arg(1, "normalized_shape")
    shadow = trace.shadow(x)
    if any(varies(shadow, x.ndim - 1 - d) for d in range(len(shape))):
        trace.fix(shadow, f"mixed by {trace.where(call.name)}")
    trace.set(call.outputs[0], shadow)


def setitem(trace: Trace, call: Call) -> None:
    """An assignment into a tensor: the assigned values bring their units along."""
    x, index, value = call.args
    shadow = trace.shadow(x).clone()
    new = trace.shadow(value) if isinstance(value, Tensor) else torch.full((), ANY)
    shadow[index] = new.expand(shadow[index].shape)
    trace.set(x, shadow)


def extremum(trace: Trace, call: Call) -> None:
    """``max`` and ``min``: elementwise with two tensors, a reduction with one."""
    (elementwise if len(call.tensors) > 1 else reduce)(trace, call)


# ---- helpers ----------------------------------------------------------------------------------------------------


def _aligned(shadow: Tensor, ndim: int) -> Tensor:
    """The shadow with leading dimensions of size one, as broadcasting adds them."""
    return shadow.view([1] * (ndim - shadow.ndim) + list(shadow.shape)) if shadow.ndim < ndim else shadow


def _dims(call: Call, ndim: int) -> list[int]:
    """The dimensions of a reduction: all of them where none is named."""
    dim = call.kwargs.get("dim", call.kwargs.get("axis"))
    if dim is None and len(call.args) > 1 and not isinstance(call.args[1], bool):
        dim = call.args[1] if isinstance(call.args[1], int | tuple | list) else None
    if dim is None:
        return list(range(ndim))
    return [d % ndim for d in ([dim] if isinstance(dim, int) else dim)]


# ---- the table --------------------------------------------------------------------------------------------------

_READS_VALUES = {"item", "tolist", "numpy"}

_ROWS: list[tuple[Rule, str]] = [
    (move, """view reshape flatten unflatten permute transpose swapaxes swapdims t get_T get_mT get_data movedim
        moveaxis squeeze unsqueeze expand expand_as view_as reshape_as contiguous clone detach cat concat
        concatenate stack hstack vstack chunk split split_with_sizes tensor_split
        unbind getitem index_select narrow select repeat tile
        repeat_interleave roll flip fliplr flipud take_along_dim gather diagonal broadcast_to ravel atleast_2d
        meshgrid broadcast_tensors unsafe_chunk unsafe_split adjoint"""),
    (same, """relu relu6 leaky_relu rrelu elu selu celu gelu silu mish sigmoid hardsigmoid hardswish hardtanh logsigmoid
        softplus softsign tanh tanhshrink softshrink hardshrink threshold abs absolute neg negative sign sgn exp exp2
        expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sin cos tan asin acos atan sinh cosh asinh acosh atanh
        erf erfc floor ceil round trunc frac nan_to_num isnan isfinite isinf logical_not bitwise_not invert to float
        double half bfloat16 long int bool type_as cpu cuda requires_grad_ zeros_like ones_like full_like empty_like
        rand_like randn_like bernoulli dropout alpha_dropout feature_alpha_dropout feature_dropout dropout1d dropout2d
        dropout3d clip clamp_min clamp_max alias positive conj real imag fill zero normal uniform exponential"""),
    (elementwise, """add sub subtract mul multiply div divide true_divide truediv floordiv floor_divide remainder fmod
        mod pow float_power atan2 hypot where maximum minimum fmax fmin lerp addcmul addcdiv clamp masked_fill eq ne lt
        le gt ge greater less logical_and logical_or logical_xor and or xor copy logaddexp rsub copysign prelu_
        xlogy nextafter heaviside"""),
    (constant, """zeros ones full empty rand randn arange linspace new_zeros new_ones new_full new_empty eye tensor
        scalar_tensor new_tensor as_tensor from_numpy randint"""),
    (reduce, """sum mean prod var std norm logsumexp softmax log_softmax gumbel_softmax softmin normalize cumsum cumprod
        amax amin argmax argmin any all sort argsort topk median nanmean nansum vector_norm std_mean var_mean"""),
    (extremum, "max min"),
    (linear, "linear"),
    (matmul, "matmul mm addmm"),
    (embedding, "embedding"),
    (batch_norm, "batch_norm"),
    (layer_norm, "layer_norm rms_norm"),
    (setitem, "setitem"),
]  # fmt: skip

RULES: dict[str, Rule] = {name.rstrip("_"): rule for rule, names in _ROWS for name in names.split()}
