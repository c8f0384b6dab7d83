"""Computes what a gated model does at test time, quickly: for the probe, which runs many of them once.

``GatedModel`` multiplies weights. Here the model runs as it is, and calls that read a gated weight are caught: a
product multiplies its input where that is the smaller side, and gives its bias where every gate of its input is closed.
A weight counts as gated where it is read as ``GatedModel`` gates it: what reads it past that (``parameters()``, say)
reads it as it is. All that this takes for granted is that products are linear; it knows nothing of what is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from lumos.gating.gated_model import GatedModel
from lumos.gating.hard_concrete import median
from lumos.gating.layers import along
from lumos.tracing.calls import plain_name, tensor_leaves
from lumos.tracing.modules import named_tensors
from lumos.tracing.shape_only import product_shape

_CHANNELS = {"linear": -1, "conv1d": -2, "conv2d": -3, "conv3d": -4}
"""The products whose input may be multiplied: the dimension of its channels. All read dimension 1 of their weight."""


class Reference(TorchFunctionMode):
    """For as long as it lasts, calls of a gated model's inner one read its weights as its test-time gates have them."""

    def __init__(self, gated: GatedModel) -> None:
        super().__init__()
        with torch.no_grad():
            values = gated.structure.at_sites(median(gated.gates.log_alpha, gated.gates.settings))
        self.gated = gated
        self.inputs = [(gated.model.get_submodule(path), v, dim) for (path, dim), v in values.items() if dim < 0]
        self.gates: dict[int, dict[int, Tensor]] = {}
        own = named_tensors(gated.model)
        self.read: dict[int, Tensor] = {}
        """For each weight that is not wholly open, by its identity, what its readers get."""
        for (name, dim), v in values.items():
            if dim >= 0:
                weight = own[name]
                alias = self.read.setdefault(id(weight), weight.detach())
                self.gates.setdefault(id(alias), {})[dim] = v
        self.made: dict[int, Tensor] = {}

    def run(self, *inputs: Any) -> Any:
        """Compute the gated model's output in eval mode."""
        handles = [module.register_forward_pre_hook(_multiply(values, dim)) for module, values, dim in self.inputs]
        try:
            reader = self.gated.without_gates(lambda weight: self.read.get(id(weight), weight))
            with torch.set_grad_enabled(self.gated.structure.gradients), reader, self:
                return self.gated.model(*inputs)
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = tensor_leaves((args, kwargs), [])
        if all(id(t) not in self.gates for t in operands):
            return func(*args, **kwargs)
        dim = _CHANNELS.get(plain_name(func))
        weight = args[1] if len(args) > 1 else None
        rest = [*operands[:1], *operands[2:]]
        if dim is not None and isinstance(weight, Tensor) and all(id(t) not in self.gates for t in rest):
            found = self._product(func, args, kwargs, dim, self.gates[id(weight)])
            if found is not None:
                return found
        swapped = pytree.tree_map(lambda t: self._effective(t) if isinstance(t, Tensor) else t, (args, kwargs))
        return func(*swapped[0], **swapped[1])

    def _product(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dim: int, gates: dict[int, Tensor]
    ) -> Tensor | None:
        """A product whose input is multiplied; None where it is the weight that is to be."""
        x, weight = args[:2]
        if list(gates) != [1] or x.shape[dim] != weight.shape[1] or x.dtype != weight.dtype:
            return None
        if not gates[1].any():
            return _bias_only(func, x, weight, args[2:], kwargs, dim)
        if x.numel() > weight.numel():
            return None
        return func(x * gates[1].to(x.dtype).view(-1, *[1] * (-1 - dim)), weight, *args[2:], **kwargs)

    def _effective(self, t: Tensor) -> Tensor:
        """A weight with its gates, made once."""
        if id(t) not in self.gates:
            return t
        if id(t) not in self.made:
            new = t
            for dim, v in self.gates[id(t)].items():
                new = new * along(v, dim, t.ndim).to(t.dtype)
            self.made[id(t)] = new
        return self.made[id(t)]


def _bias_only(
    func: Any, x: Tensor, weight: Tensor, more: tuple[Any, ...], kwargs: dict[str, Any], dim: int
) -> Tensor | None:
    """A product of zeros: its bias at every place; None for a call in another form than torch's own layers have."""
    if kwargs or not more:
        return None
    out = weight.new_empty(product_shape(plain_name(func), func, (x, weight, *more), kwargs))
    return out.copy_(more[0].view(-1, *[1] * (-1 - dim))) if more[0] is not None else out.zero_()


def _multiply(values: Tensor, dim: int) -> Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]:
    def hook(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        return (x * along(values, dim % x.ndim, x.ndim).to(x.dtype), *inputs[1:])

    return hook
