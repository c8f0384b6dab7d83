"""Products that a trace does not compute: where units go depends on shapes, seldom on values.

Costly products give zeros of their result's shape instead. Where the model's own code then reads values, so that its
course could depend on them, the trace is made again with every product computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_PRODUCTS = {"linear"} | {f"conv{kind}{n}d" for n in (1, 2, 3) for kind in ("", "_transpose")}
_COSTLY = 2**21
"""Multiply-accumulates above which not computing a product pays for finding its result's shape."""
_OF_SHAPES = frozenset(
    """iter size stride dim ndimension numel nelement len storage_offset element_size get_device hash is_same_size
    is_contiguous is_floating_point is_complex is_signed is_conj is_neg is_inference is_pinned is_shared
    is_tensor repr format set register_hook backward retain_grad""".split()  # noqa: SIM905
)
"""Calls without a rule that tell nothing about values."""


class ValuesRead(Exception):
    """The model's own code reads values after products were not computed."""


def zeros_like_output(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return zeros in place of a costly product with a weight; None where the call is to be computed."""
    if name not in _PRODUCTS or len(args) < 2:
        return None
    x, weight = args[:2]
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor) or weight.ndim < 2 or x.is_complex():
        return None
    if x.numel() * (weight.numel() // max(1, weight.shape[1])) < _COSTLY:
        return None
    return torch.zeros(product_shape(name, func, args, kwargs), dtype=x.dtype, device=x.device)


def product_shape(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """Return the shape of a product of an input with a weight, without computing it.

    Args:
        name: The call's plain name: ``linear``, ``conv2d``…
        func: The function.
        args: Its positional arguments, the input and the weight first.
        kwargs: Its keyword arguments.
    """
    x, weight = args[:2]
    if name == "linear":
        return [*x.shape[:-1], weight.shape[0]]
    if kwargs or len(args) != (8 if "transpose" in name else 7):
        shapes = [_on_meta(a) for a in args], {k: _on_meta(a) for k, a in kwargs.items()}
        return list(func(*shapes[0], **shapes[1]).shape)
    # One channel in and out tells the places that there are, far sooner than tensors without values do.
    dim, groups = x.ndim + 1 - weight.ndim, args[6]
    more = [*args[3:6], 1, *args[7:]]
    shape = list(func(x.narrow(dim, 0, 1), weight[:1, :1], None, *more).shape)
    shape[dim] = weight.shape[1] * groups if "transpose" in name else weight.shape[0]
    return shape


def reads_values(name: str, func: Any, args: tuple[Any, ...], operands: list[Tensor], has_rule: bool) -> bool:
    """Return whether a call may tell the model's code of values: a number, or a shape that depends on them.

    Args:
        name: The call's plain name.
        func: The function.
        args: Its positional arguments.
        operands: The tensors among all its arguments.
        has_rule: Whether there is a rule for the call.
    """
    if not operands:
        return False
    if not has_rule:
        return name not in _OF_SHAPES and not name.startswith("get_")
    if name == "getitem":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in index)
    if name == "repeat_interleave":
        return len(operands) > 1
    number = getattr(func, "__name__", "") in ("__bool__", "__int__", "__float__", "__complex__")
    return number or name == "one_hot" or (name == "where" and len(args) == 1)


def _on_meta(value: Any) -> Any:
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if isinstance(value, Tensor) else value
