"""Norms over a stream of which channels are gone, in whatever way a module writes them.

Gated, a closed channel is zero where the module reads it, and holds one value as long as each channel is treated alike.
So a mean over what is left makes up for what is gone, with that value as often as channels are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lumos.compaction.derived_class import Derived
from lumos.tracing.calls import Call, plain_name, tensor_leaves
from lumos.tracing.rules import ELEMENTWISE
from lumos.tracing.rules.mixing import reduced_dims
from lumos.tracing.rules.streams import MEANS, MOVES


class StreamModule(Derived):
    """A module that normalises over channels of which some are gone: it does so as if they were there, and zero.

    ``width`` is the number of channels that there were, ``dim`` their dimension in the input (from the end), ``scale``
    (channels,) the gates of those that are left.
    """

    prefix = "Stream"
    width: int
    dim: int
    scale: Tensor

    def init_pruned(self, width: int, dim: int) -> None:
        """Remember the original width."""
        self.width, self.dim = width, dim
        self.register_buffer("scale", torch.ones(width))

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Compute what the module does; its means know the width."""
        shape = [1] * input.ndim
        shape[self.dim] = -1
        x = input * self.scale.view(shape)
        with _FullWidth(x, self.dim, self.width):
            return super().forward(x, *args, **kwargs)


class _Channels:
    """A tensor, the value of a channel of it that is gone (of size one along the channels), and their dimension."""

    def __init__(self, x: Tensor, gone: Tensor, dim: int, count: int) -> None:
        self.x, self.gone, self.dim, self.count = x, gone, dim, count

    def sum(self, dims: list[int], of: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
        """Sum over dimensions (counted from the first), these kept, with the channels that are gone."""
        return of(self.x).sum(dims, keepdim=True) + self.count * of(self.gone).sum(dims, keepdim=True)

    def places(self, dims: list[int]) -> int:
        """How many values there are along dimensions, with those of channels that are gone."""
        found = self.x.shape[self.dim] + self.count
        for d in dims:
            found *= 1 if d == self.dim % self.x.ndim else self.x.shape[d]
        return found

    def mean(self, dims: list[int]) -> Tensor:
        """The mean over dimensions, these kept."""
        return self.sum(dims) / self.places(dims)

    def variance(self, dims: list[int], correction: float) -> Tensor:
        """The variance over dimensions, these kept."""
        mean = self.mean(dims)
        return self.sum(dims, lambda x: (x - mean).square()) / (self.places(dims) - correction)


class _FullWidth(TorchFunctionMode):
    """Within its ``with`` block, calls that take means over channels count those that are gone."""

    def __init__(self, x: Tensor, dim: int, width: int) -> None:
        super().__init__()
        self.count = width - x.shape[dim]
        self.known: dict[int, _Channels] = {}
        self._know(x, torch.zeros_like(x.narrow(dim, 0, 1)), dim)

    def _know(self, x: Tensor, gone: Tensor, dim: int) -> None:
        self.known[id(x)] = _Channels(x, gone, dim, self.count)  # holds the tensor, so that its id stays its own

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = tensor_leaves((args, kwargs), [])
        first = next((self.known[id(t)] for t in operands if id(t) in self.known), None)
        if first is None:
            return func(*args, **kwargs)
        call = Call(plain_name(func), func, tuple(args), kwargs, operands, [])
        if call.name in _NORMS:
            return _NORMS[call.name](call, first)
        dims = reduced_dims(call, first.x.ndim) if call.name in MEANS else []
        if first.dim % first.x.ndim in dims:
            return _reduced(call, first, dims)
        if call.name not in ELEMENTWISE and call.name not in MOVES and not dims:
            return func(*args, **kwargs)
        gone = func(*(self._gone(a) for a in args), **{k: self._gone(v) for k, v in kwargs.items()})
        out = func(*args, **kwargs)
        dim = first.dim
        if call.name in MOVES:  # a tensor of two channels shows where they go
            shape = [1] * first.x.ndim
            shape[dim] = 2
            moved = func(torch.empty(shape, device="meta"), *args[1:], **kwargs)
            dim = list(moved.shape).index(2) - moved.ndim
        if isinstance(out, Tensor) and gone.ndim == out.ndim and gone.shape[dim] == 1:
            self._know(out, gone, dim)
        return out

    def _gone(self, value: Any) -> Any:
        return self.known[id(value)].gone if isinstance(value, Tensor) and id(value) in self.known else value


def _reduced(call: Call, channels: _Channels, dims: list[int]) -> Tensor:
    """A reduction over the channels."""
    if call.name == "normalize":
        length = channels.sum(dims, torch.square).sqrt()
        return channels.x / length.clamp_min(call.arg(3, "eps", 1e-12))
    if call.name == "mean":
        out = channels.mean(dims)
    elif call.name == "sum":
        out = channels.sum(dims)
    elif call.name in ("var", "std"):
        out = channels.variance(dims, _correction(call))
        out = out.sqrt() if call.name == "std" else out
    else:
        out = channels.sum(dims, torch.square).sqrt()
    position = 3 if call.name in ("norm", "vector_norm", "linalg_vector_norm", "var", "std") else 2
    return out if call.arg(position, "keepdim", False) else out.squeeze(dims)


def _correction(call: Call) -> float:
    given = call.kwargs.get("correction", call.kwargs.get("unbiased"))
    if given is None:
        given = next((a for a in call.args[1:3] if isinstance(a, bool)), True)
    return float(given)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, dim: int) -> Tensor:
    shape = [1] * x.ndim
    shape[dim] = -1
    x = x if weight is None else x * weight.view(shape)
    return x if bias is None else x + bias.view(shape)


def _layer_norm(call: Call, channels: _Channels) -> Tensor:
    last = [channels.x.ndim - 1]
    x = (channels.x - channels.mean(last)) * torch.rsqrt(channels.variance(last, 0) + call.arg(4, "eps", 1e-5))
    return _affine(x, call.arg(2, "weight"), call.arg(3, "bias"), -1)


def _rms_norm(call: Call, channels: _Channels) -> Tensor:
    x, eps, last = channels.x, call.arg(3, "eps"), [channels.x.ndim - 1]
    square = channels.sum(last, torch.square) / channels.places(last)
    x = x * torch.rsqrt(square + (torch.finfo(x.dtype).eps if eps is None else eps))
    return _affine(x, call.arg(2, "weight"), None, -1)


def _group_norm(call: Call, channels: _Channels) -> Tensor:
    dims = list(range(1, channels.x.ndim))
    variance = channels.variance(dims, 0)
    x = (channels.x - channels.mean(dims)) * torch.rsqrt(variance + call.arg(4, "eps", 1e-5))
    return _affine(x, call.arg(2, "weight"), call.arg(3, "bias"), 1)


_NORMS: dict[str, Callable[[Call, _Channels], Tensor]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
}
