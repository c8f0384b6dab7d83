"""The library's front door: put gates on anyone's model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lumos.compaction.probe import trace_and_probe
from lumos.errors import StructureError
from lumos.gating.gated_model import GatedModel
from lumos.gating.layers import ungated_copy
from lumos.gating.settings import GateSettings
from lumos.tracing.options import StructureOptions


def gate(
    model: nn.Module,
    example_inputs: Any,
    *,
    features: Sequence[str] | None = None,
    settings: GateSettings | None = None,
    options: StructureOptions | None = None,
    examples: Sequence[Any] = (),
) -> GatedModel:
    """Put a gate on every input feature and every removable unit of a model.

    The model is traced and probed, so that whatever the training closes can be cut. Nothing is written on it.

    Args:
        model: The model.
        example_inputs: A tensor, or a tuple of positional inputs, with at least two samples.
        features: The names of the input features, in order; x0, x1… by default.
        settings: The shape of the gates' distribution.
        options: What more of the model is made removable, at the price of a changed layer.
        examples: Further inputs of the same features, which reach parts of the model that the first ones do not: a
            branch for other sizes, an optional input. Units that a part may read which no example reaches stay.

    Returns:
        The model with its gates, called as the model is.

    Raises:
        StructureError: The model does not run on the example, or nothing in it can be removed.

    Example:
        >>> import torch, lumos
        >>> model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 1))
        >>> gated = lumos.gate(model, torch.randn(8, 5), features=["a", "b", "c", "d", "e"])
        >>> [(group.name, group.size) for group in gated.structure.groups]
        [('input', 5), ('0', 7)]
        >>> loss = gated(torch.randn(8, 5)).square().mean() + 1e-3 * gated.penalty()
    """
    if isinstance(model, GatedModel):
        raise StructureError("the model has gates already; expected the one that they were put on, or a compact one")
    model = ungated_copy(getattr(model, "_orig_mod", model))  # a compiled model has what it was made of
    structure = trace_and_probe(model, example_inputs, features=features, options=options, examples=examples)
    if not structure.groups:
        reasons = "; ".join(dict.fromkeys(f"{f.name}: {f.reason}" for f in structure.fixed)) or "it has no weights"
        raise StructureError(f"nothing in {type(model).__name__} can be removed: {reasons}")
    return GatedModel(model, structure, settings or GateSettings())
