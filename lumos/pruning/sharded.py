"""A gated model whose weights lie in shards on several processes (FSDP2, ``fully_shard``), put together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lumos.errors import ConfigError
from lumos.gating.gated_model import GatedModel
from lumos.tracing.modules import structural_copy

_HOOKS = (
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)  # fmt: skip

_STATES = "__composable_api"
"""How the attributes begin in which torch keeps what it put on a module."""


def is_sharded(tensor: Tensor) -> bool:
    """Tell whether a tensor is a process's part of a larger one (a DTensor)."""
    return hasattr(tensor, "placements")


def has_shards(model: nn.Module) -> bool:
    """Tell whether weights of a model are in shards."""
    return any(is_sharded(p) for p in model.parameters())


def expect_whole_gates(gated: GatedModel) -> None:
    """Raise ConfigError unless the model was sharded as a whole, and its gates left out."""
    if is_sharded(gated.gates.log_alpha) or not _is_wrapped(gated):
        raise ConfigError(
            "gated: its weights are in shards; expected fully_shard(gated, ignored_params={gated.gates.log_alpha}), "
            "after its layers"
        )


def put_together(gated: GatedModel) -> GatedModel:
    """Copy a gated model with its weights whole, without what ``fully_shard`` put on it; all processes have to call it.

    Args:
        gated: A gated model that is sharded; it stays as it is.
    """
    whole: dict[int, Any] = {id(gated.structure): gated.structure}
    for tensor in (*gated.parameters(), *gated.buffers()):
        value: Any = tensor.detach()
        value = value.full_tensor() if is_sharded(value) else value.clone()
        whole[id(tensor)] = nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value
    with _unwrapped(gated):
        return structural_copy(gated, (), whole)  # pyright: ignore[reportReturnType]


@contextmanager
def _unwrapped(model: nn.Module) -> Iterator[None]:
    """Give the modules their own classes back, and no hooks of torch's, for the length of a copy."""
    before = []
    for module in model.modules():
        hooks = {name: module.__dict__[name] for name in _HOOKS}
        states = {key: module.__dict__.pop(key) for key in list(module.__dict__) if key.startswith(_STATES)}
        before.append((module, type(module), hooks | states))
        if _is_wrapped(module):
            module.__class__ = type(module).__bases__[1]
        theirs = {key for name in _HOOKS for key, hook in hooks[name].items() if _of_torch(hook)}
        for name, found in hooks.items():
            module.__dict__[name] = type(found)((k, v) for k, v in found.items() if k not in theirs)
    try:
        yield
    finally:
        for module, kind, attributes in before:
            module.__class__ = kind
            module.__dict__.update(attributes)


def _is_wrapped(module: nn.Module) -> bool:
    return type(module).__bases__[0].__name__ == "FSDPModule"  # class FSDPLinear(FSDPModule, Linear)


def _of_torch(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed")
