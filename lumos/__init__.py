"""LUMOS: L0 gates on every input feature and unit; train once, cut the closed ones out, keep the same function.

>>> gated = lumos.gate(model, example_inputs)      # train it like the model, adding lambda * gated.penalty()
>>> small = lumos.compact(gated)                   # a plain, smaller model and the features that it needs
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumos.api import gate
    from lumos.compaction.compact import compact
    from lumos.compaction.explain import explain
    from lumos.compaction.model import CompactModel, load
    from lumos.compaction.verify import verify
    from lumos.errors import CompactionError, ExportError, StructureError
    from lumos.exporting import Exported, export
    from lumos.gating.gated_model import GatedModel
    from lumos.gating.settings import GateSettings
    from lumos.tracing.structure import Structure

__version__ = "0.2.0"

__all__ = [
    "CompactModel",
    "CompactionError",
    "ExportError",
    "Exported",
    "GateSettings",
    "GatedModel",
    "Structure",
    "StructureError",
    "compact",
    "explain",
    "export",
    "gate",
    "load",
    "verify",
]

_HOME = {
    "explain": "compaction.explain",
    "Exported": "exporting",
    "export": "exporting",
    "ExportError": "errors",
    "gate": "api",
    "CompactModel": "compaction.model",
    "CompactionError": "errors",
    "compact": "compaction.compact",
    "load": "compaction.model",
    "verify": "compaction.verify",
    "GatedModel": "gating.gated_model",
    "GateSettings": "gating.settings",
    "Structure": "tracing.structure",
    "StructureError": "errors",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # On demand, so that a command that only reads records does not wait for torch.
    if name not in _HOME:
        raise AttributeError(f"module 'lumos' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lumos.{_HOME[name]}"), name)
