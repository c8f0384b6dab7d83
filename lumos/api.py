"""The library's front door: put gates on anyone's model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lumos.compaction.probe import trace_and_probe
from lumos.errors import StructureError
from lumos.gating.gated_model import GatedModel
from lumos.gating.layers import ungated_copy
from lumos.gating.settings import GateSettings
from lumos.tracing.constraints import Constraints
from lumos.tracing.feature_names import FeatureNames
from lumos.tracing.inputs import as_positional
from lumos.tracing.options import StructureOptions


def gate(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    features: FeatureNames | None = None,
    settings: GateSettings | None = None,
    options: StructureOptions | None = None,
    examples: Sequence[Any] = (),
    keep: Sequence[str] = (),
    exclude: Sequence[str] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    prices: Mapping[str, float] | None = None,
) -> GatedModel:
    """Put a gate on every input feature and every removable unit of a model.

    The model is traced and probed, so that whatever the training closes can be cut. Nothing is written on it.

    Args:
        model: The model.
        example_inputs: A tensor, or a tuple of positional inputs, with at least two samples.
        args: Positional inputs, in place of ``example_inputs``.
        kwargs: Inputs by name, beside ``args`` or ``example_inputs``: those that ``model.forward`` also takes by
            position. ``**batch`` of a tokenizer is ``kwargs=batch``.
        features: The names of the input features, in order; x0, x1… by default. Of several inputs, all names one after
            another, or a list for each: ``{"forcing": ["u", "v"], "state": ["t", "q"]}`` by the arguments of
            ``model.forward``, or the lists in their order. A name that two inputs have is told apart by the input's,
            ``forcing.t``.
        settings: The shape of the gates' distribution.
        options: What more of the model is made removable, at the price of a changed layer.
        examples: Further inputs of the same features, which reach parts of the model that the first ones do not: a
            branch for other sizes, an optional input. Units that a part may read which no example reaches stay.
        keep: Features that stay, and paths of modules whose units stay: ``["dt", "encoder.0"]``.
        exclude: Paths of modules that stay as they are: no weight inside them is cut, at its inputs or its outputs.
        groups: Features that stay or go together, by a name for each group: ``{"crystal": ["a", "b", "c"]}``. They
            share one gate.
        prices: What an open gate costs in the penalty, where the others cost 1: of a feature, of a group of features
            (of one that none is given for, the sum of its features' prices), or of the units of a module.

    Returns:
        The model with its gates, called as the model is.

    Raises:
        StructureError: The model does not run on the example, nothing in it can be removed, or a name is unknown.

    Example:
        >>> import torch, lumos
        >>> model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 1))
        >>> gated = lumos.gate(model, torch.randn(8, 5), features=["a", "b", "c", "d", "e"])
        >>> [(group.name, group.size) for group in gated.structure.groups]
        [('input', 5), ('0', 7)]
        >>> loss = gated(torch.randn(8, 5)).square().mean() + 1e-3 * gated.penalty()
    """
    if example_inputs is not None:
        args = (*(example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)), *args)
    if isinstance(model, GatedModel):
        raise StructureError("the model has gates already; expected the one that they were put on, or a compact one")
    model = ungated_copy(getattr(model, "_orig_mod", model))  # a compiled model has what it was made of
    structure = trace_and_probe(
        model,
        _by_position(model, args, kwargs or {}),
        features=features,
        options=options,
        examples=examples,
        constraints=Constraints(keep, exclude, groups or {}, prices or {}),
    )
    if not structure.groups:
        reasons = "; ".join(dict.fromkeys(f"{f.name}: {f.reason}" for f in structure.fixed)) or "it has no weights"
        raise StructureError(f"nothing in {type(model).__name__} can be removed: {reasons}")
    return GatedModel(model, structure, settings or GateSettings())


def _by_position(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The inputs by position, which is how they are kept."""
    if not args and not kwargs:
        raise StructureError("there is no example; give inputs of the model: gate(model, x), or args=… and kwargs=…")
    try:
        args, left = as_positional(model, args, kwargs)
    except TypeError as error:
        raise StructureError(f"the model does not take these inputs: {error}") from error
    if left:
        raise StructureError(
            f"{type(model).__name__}.forward takes {', '.join(left)} by name alone; expected inputs that may be given "
            "by position; wrap the model in one whose forward takes them so"
        )
    return args
