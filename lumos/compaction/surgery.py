"""Giving a model tensors of other sizes, and letting the sizes follow that its modules keep beside them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from lumos.shapes import Bool, Int
from lumos.tracing.modules import own_tensors, walk
from lumos.tracing.structure import Structure


def without_copies(model: nn.Module) -> nn.Module:
    """A copy of a model's modules that still has the very tensors of the model: give it others before using it."""
    known: dict[int, Any] = {id(t): t for t in own_tensors(model).values()}
    modules = [m for _, m in walk(model)]
    if not all(_copies_plainly(type(m)) for m in modules):
        return copy.deepcopy(model, known)
    # Modules are many and their attributes mostly simple: a deep copy takes ten times as long.
    known |= {id(m): object.__new__(type(m)) for m in modules}
    for module in modules:
        known[id(module)].__dict__.update({k: _copied(v, known) for k, v in module.__dict__.items()})
    return known[id(model)]


def _copies_plainly(kind: type) -> bool:
    """Whether a deep copy of such a module is a copy of its attributes."""
    own = {n for c in kind.__mro__ if not c.__module__.startswith("torch.nn.") and c is not object for n in vars(c)}
    return own.isdisjoint(("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__new__"))


def _copied(value: Any, known: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _NEVER_CHANGE:
        return value
    if kind in _STORES and not value:  # most of a module's attributes are hooks that it does not have
        return kind()
    if id(value) in known:
        return known[id(value)]
    if kind in (dict, OrderedDict):
        return kind((k, _copied(v, known)) for k, v in value.items())
    if kind is tuple and all(type(item) in _NEVER_CHANGE for item in value):
        return value
    return copy.deepcopy(value, known)


_NEVER_CHANGE = {type(None), bool, int, float, str}
_STORES = {dict, OrderedDict, set}


def replace_tensors(model: nn.Module, tensors: dict[str, Tensor], lend: bool = False) -> None:
    """Give parameters and buffers new values of any shape, and let the modules' own sizes follow.

    Shared parameters stay shared; what does not require gradients still does not. A tensor that is given to itself is
    copied, unless the model is only to read it (``lend``).
    """
    owners: dict[int, list[tuple[dict[str, Any], str]]] = {}
    modules = [m for _, m in walk(model)]
    for module in modules:
        for store in (module._parameters, module._buffers):
            for key, t in store.items():
                if t is not None:
                    owners.setdefault(id(t), []).append((store, key))
    current = own_tensors(model)
    for name, value in tensors.items():
        if name not in current:  # the second name of a shared parameter
            continue
        old = current[name]
        new = value.detach().to(old.device)
        new = new.clone() if not lend and new.data_ptr() == old.data_ptr() else new
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        for store, key in owners[id(old)]:
            store[key] = new
    for module in modules:
        _follow_sizes(module)


_SIZES: dict[type[nn.Module], dict[str, tuple[str, int]]] = {
    nn.Linear: {"in_features": ("weight", 1), "out_features": ("weight", 0)},
    nn.Embedding: {"num_embeddings": ("weight", 0), "embedding_dim": ("weight", 1)},
    nn.modules.batchnorm._NormBase: {"num_features": ("weight", 0)},
    nn.PReLU: {"num_parameters": ("weight", 0)},
}


def _follow_sizes(module: nn.Module) -> None:
    """Set the sizes that a layer keeps beside its tensors to what the tensors say."""
    if not module._parameters and not module._buffers:
        return
    for kind, sizes in _SIZES.items():
        if isinstance(module, kind):
            for attribute, (name, dim) in sizes.items():
                t = getattr(module, name, None)
                if t is None and name == "weight":
                    t = getattr(module, "running_mean", None)
                if t is not None:
                    _set(module, attribute, t.shape[dim])
    if isinstance(module, nn.LayerNorm) and module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)
    if isinstance(module, nn.Embedding) and (module.padding_idx or 0) >= module.num_embeddings:
        module.padding_idx = None  # its row is gone
    if isinstance(module, nn.modules.conv._ConvNd):
        _follow_convolution(module)
    elif isinstance(module, nn.GroupNorm) and module.affine:
        block = module.num_channels // module.num_groups
        module.num_channels = module.weight.shape[0]
        module.num_groups = module.num_channels // block


def _set(module: nn.Module, attribute: str, value: int) -> None:
    if getattr(module, attribute) != value:  # asking is quicker than a module's assignment, which looks for tensors
        setattr(module, attribute, value)


def _follow_convolution(module: nn.modules.conv._ConvNd) -> None:
    """Channels from the weight; a depthwise convolution has as many groups as inputs."""
    out_dim, in_dim = (1, 0) if module.transposed else (0, 1)
    if module.groups > 1 and module.groups == module.in_channels:
        each = module.out_channels // module.groups
        _set(module, "groups", module.weight.shape[0] // each)
        _set(module, "in_channels", module.groups)
        _set(module, "out_channels", module.weight.shape[0])
    else:
        _set(module, "in_channels", module.weight.shape[in_dim] * (1 if module.transposed else module.groups))
        _set(module, "out_channels", module.weight.shape[out_dim] * (module.groups if module.transposed else 1))


def rectangle(value: Tensor, rows: Int[Tensor, " rows"], columns: Int[Tensor, " columns"]) -> Tensor:
    """Rows and columns of a tensor, a few rows at a time: what a whole large one leaves in between costs more."""
    step = max(1, _AT_ONCE * len(value) // max(1, value.numel()))
    if len(rows) <= step:
        return value.index_select(0, rows).index_select(1, columns)
    out = value.new_empty(len(rows), len(columns), *value.shape[2:])
    for start in range(0, len(rows), step):
        few = value.index_select(0, rows[start : start + step])
        torch.index_select(few, 1, columns, out=out[start : start + step])
    return out


def times(value: Tensor, m: Tensor, in_place: bool) -> Tensor:
    """A weight times its gates; those of rows and columns along long lines, which is faster than along short ones."""
    if value.ndim > 2 and value.is_contiguous() and m.ndim > 2 and m.shape[1] > 1 and m.shape[2:].numel() == 1:
        shape, m = value.shape, m.expand(*m.shape[:2], *value.shape[2:]).reshape(len(m), -1)
        value = value.view(len(value), -1)
        return (value.mul_(m) if in_place else value * m).view(shape)
    return value.mul_(m) if in_place else value * m


_AT_ONCE = 2**16
"""Elements of a tensor that are cut at once, which a processor's cache holds."""


def to_double(model: nn.Module) -> nn.Module:
    """The model with every real tensor in float64 and every complex one in complex128."""
    return model._apply(lambda t: t.double() if t.is_floating_point() else t.to(_WIDE) if t.is_complex() else t)


_WIDE = torch.complex128


class wide(TorchFunctionMode):
    """For as long as it lasts, single precision that a model's own code asks for is double precision."""

    def __enter__(self) -> wide:
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.set_default_dtype(self._default)
        super().__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = pytree.tree_map(lambda x: _WIDER.get(x, x) if isinstance(x, torch.dtype) else x, (args, kwargs))
        return _WIDER_CALLS.get(func, func)(*args, **(kwargs or {}))


_WIDER = {torch.float32: torch.float64, torch.complex64: torch.complex128}
_WIDER_CALLS: dict[Any, Any] = {Tensor.float: Tensor.double, Tensor.cfloat: Tensor.cdouble}  # pyright: ignore


def own_sizes(structure: Structure, keep: Bool[Tensor, " units"]) -> dict[str, dict[str, int]]:
    """New values of the whole numbers with which modules write sizes, by module path and attribute.

    An attribute that holds the old size gets the new one; whether that was right, the probe decides.
    """
    found: dict[str, dict[str, int]] = {}
    for size in structure.sizes:
        new = structure.size_after(size, keep)
        for attribute in size.attributes if new != size.size else ():
            found.setdefault(size.module, {}).setdefault(attribute, new)
    return found


def written_sizes(structure: Structure, keep: Bool[Tensor, " units"]) -> dict[str, list[list[int]]]:
    """New values of the sizes that modules' code writes as literals: by path, call, dimension, old size and new."""
    found: dict[str, list[list[int]]] = {}
    for size in structure.sizes:
        new = structure.size_after(size, keep) if size.literal and size.place else size.size
        if size.place and new != size.size:
            found.setdefault(size.module, []).append([*size.place, size.size, new])
    return found


def set_attributes(model: nn.Module, attributes: dict[str, dict[str, int]]) -> None:
    """Set whole-number attributes, by module path and name."""
    for path, values in attributes.items():
        for attribute, value in values.items():
            setattr(model.get_submodule(path), attribute, value)
