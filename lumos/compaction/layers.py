"""Layers that stay exact when units of theirs are gone; torch's own layers are converted to them in a compact model.

A layer changes its class and keeps its parameters, so that names in the saved state stay as they are. Each class adds
to its parent only what a smaller layer needs to know.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, no_type_check

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lumos import gating
from lumos.compaction.derived_class import Derived, derived_class
from lumos.compaction.streams import StreamModule
from lumos.tracing.modules import named_modules
from lumos.tracing.multihead_attention import PrunedAttention


class StreamNorm(nn.LayerNorm):
    """A LayerNorm over a stream of which channels are gone: it normalises as if they were there and zero.

    ``width`` is the number of channels that there were, ``scale`` (channels,) the gates of those that are left.
    """

    width: int
    scale: Tensor

    def init_pruned(self, width: int) -> None:
        """Remember the original width."""
        self.width = width
        self.register_buffer("scale", torch.ones(width))

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over the last dimension: (..., channels) to (..., channels)."""
        x = input * self.scale
        mean = x.sum(-1, keepdim=True) / self.width
        x = x - mean
        gone = self.width - input.shape[-1]
        variance = (x.square().sum(-1, keepdim=True) + gone * mean.square()) / self.width
        x = x * torch.rsqrt(variance + self.eps)
        x = x if self.weight is None else x * self.weight
        return x if self.bias is None else x + self.bias


class SelectedLinear(nn.Linear):
    """A linear layer that reads some of its input's columns, those of ``index``."""

    index: Tensor

    def init_pruned(self) -> None:
        """Read all columns at first."""
        self.register_buffer("index", torch.arange(self.in_features))

    def forward(self, input: Tensor) -> Tensor:
        """Multiply the columns that are read."""
        return super().forward(input.index_select(-1, self.index))


class Constant(nn.Module):
    """What is left of a part of the network that no longer depends on its input: a value for each channel.

    Called with a tensor (and whatever else the part took), it returns one of that shape but for the channels along
    ``_channels``.
    """

    value: Tensor
    _channels: int

    def init_pruned(self, dim: int) -> None:
        """Forget what was here."""
        self._gone = frozenset((*self._parameters, *self._buffers))
        for store in (self._modules, self._parameters, self._buffers):
            store.clear()
        self._channels = dim
        self.value = nn.Parameter(torch.zeros(1))

    def __getattr__(self, name: str) -> Any:
        # No call read these tensors, or the part would still be here: code asks for their type or device at most.
        if name in self.__dict__.get("_gone", ()):
            return self.value.detach().new_empty(0)
        return super().__getattr__(name)

    def forward(self, input: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        """Return the value at every place; a tensor of its own, so that code may write into it."""
        shape = list(input.shape)
        shape[self._channels] = len(self.value)
        view = [1] * input.dim()
        view[self._channels] = len(self.value)
        return self.value.view(view).expand(shape).contiguous()


class Resized(Derived):
    """A module whose code writes numbers as literals: each becomes another one, where the code writes the old one.

    ``sizes``: which of the module's own shaping calls, which dimension of its result, the old size and the new one.
    ``parts``: which of its own calls that split, which of the parts, the old size and the new one.
    ``bounds``: which of its own calls that index, which place in the index, which part of that (0 a position, 1 and 2
    the start and the end of a slice), the old number and the new one.
    """

    prefix = "Resized"
    sizes: list[list[int]]
    bounds: list[list[int]]
    parts: list[list[int]]

    def init_pruned(
        self, sizes: list[list[int]], bounds: list[list[int]] | None = None, parts: list[list[int]] | None = None
    ) -> None:
        """Remember the numbers."""
        self.sizes, self.bounds, self.parts = sizes, bounds or [], parts or []
        self._own_calls: list[bool] = []

    def then(self, **now: list[list[int]]) -> dict[str, list[list[int]]]:
        """Return the numbers of a module that is cut once more: from what its code writes to what is left now.

        Args:
            now: The numbers of that cut, of which the old ones are this module's new ones.
        """
        found = {}
        for name in ("sizes", "bounds", "parts"):
            later = {tuple(fact[:-2]): fact for fact in now.get(name, [])}
            facts = [[*fact[:-1], later.pop(tuple(fact[:-2]), fact)[-1]] for fact in getattr(self, name)]
            found[name] = facts + list(later.values())
        return found

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the module does, with the other numbers."""
        mode = _OtherNumbers(self)
        with mode:
            out = super().forward(*args, **kwargs)
        if not _reads_bytecode():
            self._own_calls = mode.own
        return out


class _OtherNumbers(TorchFunctionMode):
    """Exchanges numbers in the module's own calls that shape, that split and that index.

    ``own`` says of each such call so far whether it is the module's own. An export that reads bytecode sees no frames,
    and goes by what the last run found; whether the file computes the same is checked.
    """

    def __init__(self, module: Resized) -> None:
        super().__init__()
        self.module, self.shaped, self.indexed, self.split = module, 0, 0, 0
        self.own: list[bool] = []

    @no_type_check
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        indexes = func in _INDEXING_CALLS and bool(self.module.bounds)
        splits = func in _SPLITTING_CALLS and bool(self.module.parts)
        if indexes or splits or (func in _SHAPING_CALLS and not kwargs):
            calls = self.module._own_calls if _reads_bytecode() else []
            own = calls[len(self.own)] if len(self.own) < len(calls) else self._own()
            self.own.append(own)
            if own and indexes:
                args, self.indexed = (args[0], self._with_bounds(args[1]), *args[2:]), self.indexed + 1
            elif own and splits:
                args, self.split = self._with_parts(args, kwargs), self.split + 1
            elif own:
                args, self.shaped = self._with_sizes(func in _UNFLATTEN, args), self.shaped + 1
        return func(*args, **kwargs)

    def _own(self) -> bool:
        """Whether the module itself makes the call, and none inside it; what its gates do is not its own."""
        frame = sys._getframe(2)
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith(gating.__name__):
                return False
            owner = frame.f_locals.get("self") if frame.f_code.co_name == "forward" else None
            if isinstance(owner, nn.Module):
                return owner is self.module
            frame = frame.f_back
        return False

    @no_type_check
    def _with_sizes(self, unflatten: bool, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x, first = args[0], args[1] % args[0].dim() if unflatten else 0
        shape = args[2:] if unflatten else args[1:]
        shape = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else list(shape)
        for call, dim, old, new in self.module.sizes:
            if call == self.shaped and 0 <= dim - first < len(shape) and shape[dim - first] == old:
                shape[dim - first] = new
        return (x, args[1], shape) if unflatten else (x, shape)

    @no_type_check
    def _with_parts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        changed = {part: (old, new) for call, part, old, new in self.module.parts if call == self.split}
        if not changed or len(args) < 2:
            return args
        x, given = args[:2]
        if isinstance(given, tuple | list):
            sizes = [changed[n][1] if changed.get(n, (None,))[0] == size else size for n, size in enumerate(given)]
            return (x, sizes, *args[2:])
        whole, sizes = x.shape[args[2] if len(args) > 2 else kwargs.get("dim", 0)], []
        while sum(sizes) < whole or len(sizes) <= max(changed):
            sizes.append(changed[len(sizes)][1] if len(sizes) in changed else min(given, whole - sum(sizes)))
        return (x, sizes, *args[2:])

    @no_type_check
    def _with_bounds(self, index: Any) -> Any:
        items = list(index) if isinstance(index, tuple) else [index]
        given = list(items)
        for call, place, part, old, new in self.module.bounds:
            if call != self.indexed or place >= len(items):
                continue
            was, item = given[place], items[place]
            if part == 0 and type(was) is int and was == old:
                items[place] = new
            elif part == 1 and isinstance(was, slice) and was.start == old:
                items[place] = slice(new, item.stop, item.step)
            elif part == 2 and isinstance(was, slice) and was.stop == old:
                items[place] = slice(item.start, new, item.step)
        return tuple(items) if isinstance(index, tuple) else items[0]


is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
"""Whether torch.export runs the code; torch 2.6 tells it from a compilation no further."""


def _reads_bytecode() -> bool:
    return is_exporting() and torch.compiler.is_dynamo_compiling()


_UNFLATTEN = (Tensor.unflatten, torch.unflatten)
_SHAPING_CALLS = (Tensor.view, Tensor.reshape, torch.reshape, *_UNFLATTEN)
_SPLITTING_CALLS = (Tensor.split, torch.split, Tensor.split_with_sizes, torch.split_with_sizes)
_INDEXING_CALLS = (Tensor.__getitem__, Tensor.__setitem__)

ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")

KINDS: dict[str, Any] = {
    "attention": PrunedAttention,
    "norm": StreamNorm,
    "stream": StreamModule,
    "selected": SelectedLinear,
    "constant": Constant,
    "resized": Resized,
}


def convert_layers(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> None:
    """Give layers of a model the class that is exact with units gone, in place.

    Args:
        model: The model.
        layers: By path, the ``kind`` of each layer (a key of ``KINDS``) and what ``init_pruned`` of its class takes.
    """
    for path, facts in layers.items():
        module = model.get_submodule(path)
        options = {key: value for key, value in facts.items() if key != "kind"}
        kind = KINDS[facts["kind"]]
        if not issubclass(kind, Derived):
            module.__class__ = kind
        elif not isinstance(module, kind):
            module.__class__ = derived_class(kind, type(module))
        module.init_pruned(**options)  # type: ignore[operator]
    if layers:
        _without_fused_layers(model, layers)


def _without_fused_layers(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> None:
    """Let torch's transformer layers run as they are written: fused, they read weights of parts that have changed."""
    for path, module in named_modules(model):
        if not isinstance(module, nn.TransformerEncoder | nn.TransformerEncoderLayer):
            continue
        if any(changed.startswith(f"{path}." if path else "") for changed in layers):
            # The one switch that each of them has: both are read to choose the way, and for nothing else.
            if isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = False
            else:
                module.activation_relu_or_gelu = 0
