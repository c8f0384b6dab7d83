"""The library's front door: put gates on anyone's model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lumos.compaction.probe import trace_and_probe
from lumos.errors import StructureError
from lumos.gating.gated_model import GatedModel
from lumos.gating.settings import GateSettings
from lumos.tracing.options import StructureOptions


def gate(
    model: nn.Module,
    example_inputs: Any,
    *,
    features: Sequence[str] | None = None,
    settings: GateSettings | None = None,
    options: StructureOptions | None = None,
) -> GatedModel:
    """Put a gate on every input feature and every removable unit of a model.

    ``example_inputs`` is a tensor or a tuple of positional inputs with at least two samples; ``features`` names the
    input features in order. The model is traced once and probed, so that whatever the training closes can be cut.
    ``options`` makes more of the model removable, at the price of a changed layer.
    Raises StructureError where the model does not run on the example or nothing in it can be removed.
    """
    structure = trace_and_probe(model, example_inputs, features=features, options=options)
    if not structure.groups:
        reasons = "; ".join(dict.fromkeys(f"{f.name}: {f.reason}" for f in structure.fixed)) or "it has no weights"
        raise StructureError(f"nothing in {type(model).__name__} can be removed: {reasons}")
    return GatedModel(model, structure, settings or GateSettings())
