"""Loads states from after a cut into a gated model that is still whole: the cut is made first."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lumos.compaction.compact import compact
from lumos.compaction.model import CompactModel
from lumos.gating.gated_model import GatedModel


def compact_of(gated: GatedModel) -> CompactModel | None:
    """Return the compact model that a gated one goes on as; None before the cut."""
    owner = getattr(gated.__dict__["_selected"], "__self__", None)
    return owner if isinstance(owner, CompactModel) else None


def cut_when_loaded(gated: GatedModel) -> Any:
    """Let ``gated.load_state_dict`` make the cut first, where the state is one of after it; returns a handle.

    Trainers of other libraries load a model before its optimizer is there, and so before there is a pruner.
    """
    return gated.register_load_state_dict_pre_hook(_cut_first)


def _cut_first(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    assert isinstance(module, GatedModel)
    log_alpha = state.get(f"{prefix}gates.log_alpha")
    if log_alpha is None or compact_of(module) is not None:
        return
    own = {f"{prefix}{name}": p.shape for name, p in module.named_parameters()}
    if all(name in state and state[name].shape == shape for name, shape in own.items()):
        return
    with torch.no_grad():
        module.gates.log_alpha.copy_(log_alpha)
    module.gates.fixed = True
    small = compact(module.train())
    module.become(small.model, small.selected)
