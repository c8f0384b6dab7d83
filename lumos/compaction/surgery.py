"""Gives a model tensors of other sizes, and lets the sizes follow that its modules keep beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lumos.shapes import Int
from lumos.tracing.modules import named_modules, named_tensors


def replace_tensors(model: nn.Module, tensors: dict[str, Tensor], share_storage: bool = False) -> None:
    """Give parameters and buffers new values of any shape, and let the modules' own sizes follow.

    Shared parameters stay shared; what does not require gradients still does not.

    Args:
        model: The model that is changed.
        tensors: The new values, by the names of parameters and buffers.
        share_storage: A new value that is the old one stays that very tensor, for a model that is only run; else it is
            copied.
    """
    owners: dict[int, list[tuple[dict[str, Any], str]]] = {}
    modules = [m for _, m in named_modules(model)]
    for module in modules:
        for store in (module._parameters, module._buffers):
            for key, t in store.items():
                if t is not None:
                    owners.setdefault(id(t), []).append((store, key))
    current = named_tensors(model)
    for name, value in tensors.items():
        if name not in current:  # the second name of a shared parameter
            continue
        old = current[name]
        new = value.detach().to(old.device)
        new = new.clone() if not share_storage and new.data_ptr() == old.data_ptr() else new
        last = _channels_last(old)
        new = new.contiguous(memory_format=last) if last is not None and new.ndim == old.ndim else new
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        for store, key in owners[id(old)]:
            store[key] = new
    for module in modules:
        _follow_sizes(module)


def _channels_last(t: Tensor) -> torch.memory_format | None:
    """The format of a tensor that has its channels last; None for any other."""
    kind = {4: torch.channels_last, 5: torch.channels_last_3d}.get(t.ndim)
    return kind if kind and not t.is_contiguous() and t.is_contiguous(memory_format=kind) else None


_SIZES: dict[type[nn.Module], dict[str, tuple[str, int]]] = {
    nn.Linear: {"in_features": ("weight", 1), "out_features": ("weight", 0)},
    nn.Embedding: {"num_embeddings": ("weight", 0), "embedding_dim": ("weight", 1)},
    nn.modules.batchnorm._NormBase: {"num_features": ("weight", 0)},
    nn.PReLU: {"num_parameters": ("weight", 0)},
    nn.RNNBase: {"input_size": ("weight_ih_l0", 1)},
    nn.RNNCellBase: {"input_size": ("weight_ih", 1), "hidden_size": ("weight_hh", 1)},
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
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)
    if isinstance(module, nn.Embedding) and (module.padding_idx or 0) >= module.num_embeddings:
        module.padding_idx = None  # its row is gone
    if isinstance(module, nn.RNNBase):
        blocks = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        _set(module, "hidden_size", module.get_parameter("weight_ih_l0").shape[0] // blocks)
        module._init_flat_weights()
        module.flatten_parameters()  # for cuDNN; nothing elsewhere
    if isinstance(module, nn.modules.conv._ConvNd):
        _follow_convolution(module)
    elif isinstance(module, nn.GroupNorm) and module.affine:
        _follow_groups(module)


def _follow_groups(module: nn.GroupNorm) -> None:
    """Channels from the weight, in groups of one size; one group for all channels stays one."""
    block = module.num_channels // module.num_groups
    module.num_channels = module.weight.shape[0]
    if module.num_groups > 1:
        module.num_groups = module.num_channels // block


def _set(module: nn.Module, attribute: str, value: int) -> None:
    if getattr(module, attribute) != value:  # asking is quicker than a module's assignment, which looks for tensors
        setattr(module, attribute, value)


def _follow_convolution(module: nn.modules.conv._ConvNd) -> None:
    """Channels from the weight; a depthwise convolution has as many groups as inputs."""
    out_dim, in_dim = (1, 0) if module.transposed else (0, 1)
    if module.groups > 1 and module.groups == module.in_channels:
        each = module.out_channels // module.groups
        _set(module, "groups", module.weight.shape[0] // (1 if module.transposed else each))
        _set(module, "in_channels", module.groups)
        _set(module, "out_channels", module.groups * each)
    else:
        _set(module, "in_channels", module.weight.shape[in_dim] * (1 if module.transposed else module.groups))
        _set(module, "out_channels", module.weight.shape[out_dim] * (module.groups if module.transposed else 1))


def select_rows_and_columns(value: Tensor, rows: Int[Tensor, " rows"], columns: Int[Tensor, " columns"]) -> Tensor:
    """Select along the first two dimensions, a few rows at a time: what a whole large one leaves in between costs more.

    Args:
        value: The tensor (all rows, all columns, ...).
        rows: Indices of the rows that stay.
        columns: Indices of the columns that stay.

    Returns:
        The selection (rows, columns, ...).
    """
    step = max(1, _AT_ONCE * len(value) // max(1, value.numel()))
    if len(rows) <= step:
        return value.index_select(0, rows).index_select(1, columns)
    out = value.new_empty(len(rows), len(columns), *value.shape[2:])
    for start in range(0, len(rows), step):
        few = value.index_select(0, rows[start : start + step])
        torch.index_select(few, 1, columns, out=out[start : start + step])
    return out


_AT_ONCE = 2**16
"""Elements of a tensor that are selected at once, which a processor's cache holds."""


def multiply(value: Tensor, gates: Tensor, in_place: bool) -> Tensor:
    """Multiply a weight with its gates, which broadcast to it.

    Gates of rows and columns alone are multiplied along long lines, which is faster than along short ones.
    """
    repeats = gates.ndim > 2 and gates.shape[1] > 1 and gates.shape[2:].numel() == 1
    if repeats and value.ndim > 2 and value.is_contiguous():
        gates = gates.expand(*gates.shape[:2], *value.shape[2:]).reshape(len(gates), -1)
        return multiply(value.view(len(value), -1), gates, in_place).view(value.shape)
    return value.mul_(gates) if in_place else value * gates


def set_attributes(model: nn.Module, attributes: dict[str, dict[str, int]]) -> None:
    """Set whole-number attributes of modules, by module path and name."""
    for path, values in attributes.items():
        for attribute, value in values.items():
            setattr(model.get_submodule(path), attribute, value)
