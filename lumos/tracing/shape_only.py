"""Products that a trace need not compute: where units go depends on shapes, seldom on values.

Costly products give zeros of their result's shape instead. Where the model's own code reads values afterwards, so that
its course could depend on them, or keeps some, the trace is made again with every product computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_PRODUCTS = {"linear"} | {f"conv{kind}{n}d" for n in (1, 2, 3) for kind in ("", "_transpose")}
_COSTLY = 2**21
"""Multiply-accumulates above which sparing them pays for finding the result's shape."""
_OF_SHAPES = (
    "iter size stride dim ndimension numel nelement len storage_offset element_size get_device hash is_same_size "
    "is_contiguous is_floating_point is_complex is_signed is_conj is_neg is_inference is_pinned is_shared is_tensor"
)
"""Calls without a rule that tell nothing about values."""


class ValuesRead(Exception):
    """The model's own code reads or keeps values after products were spared."""


def stand_in(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Zeros in place of a costly product with a weight; None where it is to be computed."""
    if name not in _PRODUCTS or len(args) < 2:
        return None
    x, weight = args[:2]
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor) or weight.ndim < 2 or x.is_complex():
        return None
    if x.numel() * (weight.numel() // max(1, weight.shape[1])) < _COSTLY:
        return None
    return torch.zeros(product_shape(name, func, args, kwargs), dtype=x.dtype, device=x.device)


def product_shape(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """The shape of a product of an input with a weight, without computing it."""
    x, weight = args[:2]
    if name == "linear":
        return [*x.shape[:-1], weight.shape[0]]
    if kwargs or len(args) != (8 if "transpose" in name else 7):
        shapes = [_shape_only(a) for a in args], {k: _shape_only(a) for k, a in kwargs.items()}
        return list(func(*shapes[0], **shapes[1]).shape)
    # One channel in and out tells the places that there are, far sooner than tensors without values do.
    dim, groups = x.ndim + 1 - weight.ndim, args[6]
    more = [*args[3:6], 1, *args[7:]]
    shape = list(func(x.narrow(dim, 0, 1), weight[:1, :1], None, *more).shape)
    shape[dim] = weight.shape[1] * groups if "transpose" in name else weight.shape[0]
    return shape


def reads_values(name: str, func: Any, args: tuple[Any, ...], operands: list[Tensor], followed: bool) -> bool:
    """Whether a call may tell the model's code something about values: a number, or a shape that depends on them.

    ``followed``: there is a rule for the call.
    """
    if not operands:
        return False
    if not followed:
        return name not in _OF_SHAPES.split() and not name.startswith("get_")
    if name == "getitem":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in index)
    if name == "repeat_interleave":
        return len(operands) > 1
    number = getattr(func, "__name__", "") in ("__bool__", "__int__", "__float__", "__complex__")
    return number or name == "one_hot" or (name == "where" and len(args) == 1)


def keeps_values(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], owned: bool) -> bool:
    """Whether a call writes into a tensor of the model's, its first operand where it is ``owned``."""
    if name == "batch_norm":
        return bool(args[5] if len(args) > 5 else kwargs.get("training", False))
    raw = getattr(func, "__name__", "")
    in_place = raw.endswith("_") and not raw.endswith("__")
    return owned and (in_place or raw == "__setitem__" or (raw.startswith("__i") and raw != "__invert__"))


def held(model: nn.Module) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What every module holds, store by store: the store, and a copy of it."""
    return [(store, dict(store)) for m in model.modules() for store in (vars(m), m._buffers)]


def given_back(stores: list[tuple[dict[str, Any], dict[str, Any]]]) -> bool:
    """Whether modules were given tensors to hold since :func:`held`, which they then do no more."""
    changed = False
    for store, before in stores:
        new = [k for k, v in store.items() if isinstance(v, Tensor) and v is not before.get(k)]
        for key in new:
            if key in before:
                store[key] = before[key]
            else:
                del store[key]
        changed = changed or bool(new)
    return changed


def _shape_only(value: Any) -> Any:
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if isinstance(value, Tensor) else value
