"""Train once, get a smaller PyTorch model with the same function and the input features that it needs.

:func:`gate` puts an L0 gate on every input feature and every unit of a model that can be removed. The gated model
trains like the model, with a penalty beside its loss. :func:`compact` cuts out what the training closed: a plain,
smaller model of the same class.

Example:
    >>> import torch, lumos
    >>> model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    >>> x = torch.randn(8, 20)
    >>> gated = lumos.gate(model, x)
    >>> loss = gated(x).square().mean() + 1e-3 * gated.penalty()  # in each step of your training
    >>> small = lumos.compact(gated.eval())  # after it
    >>> len(small.features)  # nothing is closed yet
    20
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumos.api import gate
    from lumos.compaction.compact import compact
    from lumos.compaction.explain import explain
    from lumos.compaction.input_relations import Folded, Relation, fold_inputs
    from lumos.compaction.model import CompactModel, load
    from lumos.compaction.verify import verify
    from lumos.errors import CompactionError, ExportError, StructureError
    from lumos.exporting import Exported, export
    from lumos.gating.gated_model import GatedModel
    from lumos.gating.settings import GateSettings
    from lumos.measure.comparison import Comparison, compare
    from lumos.pruning.elimination import Eliminated, eliminate
    from lumos.pruning.fit import FitResult, fit
    from lumos.pruning.pruner import Pruner
    from lumos.pruning.settings import Call, Lambda, Target, Tolerance
    from lumos.suite.own_run import write_record
    from lumos.tabular.encoding import Encoding, encode
    from lumos.tabular.feature_path import FeaturePath, PathStep, feature_path
    from lumos.tabular.screening import Screening, screen
    from lumos.tracing.structure import Structure

__version__ = "0.2.0"

__all__ = [
    "Call",
    "CompactModel",
    "CompactionError",
    "Comparison",
    "Eliminated",
    "Encoding",
    "ExportError",
    "Exported",
    "FeaturePath",
    "FitResult",
    "Folded",
    "GateSettings",
    "GatedModel",
    "Lambda",
    "PathStep",
    "Pruner",
    "Relation",
    "Screening",
    "Structure",
    "StructureError",
    "Target",
    "Tolerance",
    "compact",
    "compare",
    "eliminate",
    "encode",
    "explain",
    "export",
    "feature_path",
    "fit",
    "fold_inputs",
    "gate",
    "load",
    "screen",
    "verify",
    "write_record",
]

_HOME = {
    "Encoding": "tabular.encoding",
    "encode": "tabular.encoding",
    "Folded": "compaction.input_relations",
    "Relation": "compaction.input_relations",
    "fold_inputs": "compaction.input_relations",
    "Screening": "tabular.screening",
    "screen": "tabular.screening",
    "explain": "compaction.explain",
    "Comparison": "measure.comparison",
    "compare": "measure.comparison",
    "FeaturePath": "tabular.feature_path",
    "PathStep": "tabular.feature_path",
    "feature_path": "tabular.feature_path",
    "Exported": "exporting",
    "export": "exporting",
    "ExportError": "errors",
    "gate": "api",
    "CompactModel": "compaction.model",
    "CompactionError": "errors",
    "compact": "compaction.compact",
    "load": "compaction.model",
    "verify": "compaction.verify",
    "write_record": "suite.own_run",
    "GatedModel": "gating.gated_model",
    "GateSettings": "gating.settings",
    "Structure": "tracing.structure",
    "StructureError": "errors",
    "Eliminated": "pruning.elimination",
    "eliminate": "pruning.elimination",
    "FitResult": "pruning.fit",
    "fit": "pruning.fit",
    "Pruner": "pruning.pruner",
    "Call": "pruning.settings",
    "Lambda": "pruning.settings",
    "Target": "pruning.settings",
    "Tolerance": "pruning.settings",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # On demand, so that a command that only reads records does not wait for torch.
    if name not in _HOME:
        raise AttributeError(f"module 'lumos' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lumos.{_HOME[name]}"), name)
