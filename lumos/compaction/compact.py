"""The cut: a smaller model without the closed units of a gated one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lumos.compaction.constant_folding import find_constants
from lumos.compaction.layers import ATTENTION_WEIGHTS, Resized, convert_layers
from lumos.compaction.model import CompactModel, Selection
from lumos.compaction.plan import Plan, attribute_sizes, is_inside, literal_sizes
from lumos.compaction.surgery import multiply, replace_tensors, set_attributes
from lumos.errors import CompactionError
from lumos.gating.gated_model import GatedModel
from lumos.gating.layers import along, ungated_copy
from lumos.shapes import Bool
from lumos.tracing.modules import named_tensors
from lumos.tracing.structure import Structure


def compact(gated: GatedModel, select: bool = True) -> CompactModel:
    """Cut every unit whose gate is closed at test time; fractional gates are folded into the weights.

    The gated model is left as it is. The result computes what the gated model computes in eval mode
    (:func:`lumos.verify` shows it) and has the gated model's mode.

    Args:
        gated: The model with gates.
        select: Whether the result takes the model's full inputs and selects what it needs; without, it takes inputs
            that have the kept features and nothing else.

    Returns:
        The smaller model, of the user's own class, and the names of the features that it needs.

    Raises:
        CompactionError: A pruner has cut the closed units of this model already.

    Example:
        >>> import torch, lumos
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> gated = lumos.gate(model, torch.randn(8, 3), features=["rho", "u", "T"]).eval()
        >>> gated.gates.log_alpha.data[1] = -8.0  # as a training does that finds u useless
        >>> small = lumos.compact(gated)
        >>> small.features, small.model[0].in_features
        (['rho', 'T'], 2)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(small(x), gated(x), atol=1e-6)
        True
    """
    if gated.is_cut:
        raise CompactionError(
            "the closed units of this model are cut already, and gated and compact were compared then; "
            "expected a model with gates: take what Pruner.finish returned"
        )
    return cut_closed_units(gated, select)


def cut_closed_units(
    gated: GatedModel,
    select: bool = True,
    constant_outputs: dict[str, Tensor] | None = None,
    share_storage: bool = False,
) -> CompactModel:
    """Do what :func:`compact` does, with what a caller knows already.

    Args:
        gated: The model with gates.
        select: As in :func:`compact`.
        constant_outputs: Outputs of the modules that no longer depend on the input, where a run of the gated model gave
            them (:func:`lumos.compaction.constant_folding.run_recording`); else it runs once more.
        share_storage: What is not cut is the gated model's very tensor, for a result that is only run.
    """
    structure, is_open = gated.structure, gated.gates.is_open().cpu()
    keep = structure.with_placeholders(is_open)
    plan = Plan.of(structure, keep)
    gates = _with_scales(structure, keep, gated.multipliers())
    model = ungated_copy(gated.model)
    own = named_tensors(model)
    new = {n: plan.cut(n, t.detach()) for n, t in own.items()}
    for n, m in gates.items():
        m = plan.cut(n, m)
        if not bool((m == 1).all()):
            new[n] = multiply(new[n], m, in_place=new[n].data_ptr() != own[n].data_ptr())
    layers, more = _changed_layers(gated, plan)
    for path, numbers in literal_sizes(structure, keep).items():
        module = model.get_submodule(path)
        whole = module.then(**numbers) if isinstance(module, Resized) else numbers
        layers.setdefault(path, {"kind": "resized", **whole})
    constants = find_constants(gated, keep, constant_outputs)
    attributes = attribute_sizes(structure, keep, constants)
    layers = {path: facts for path, facts in layers.items() if not is_inside(path, constants)}
    more = {name: t for name, t in more.items() if not is_inside(name, constants)}
    for path, (dim, value) in constants.items():
        layers[path], more[f"{path}.value"] = {"kind": "constant", "dim": dim}, value
    convert_layers(model, layers)
    replace_tensors(model, new | more, share_storage)
    set_attributes(model, attributes)
    features = structure.kept_features(keep)
    small = CompactModel(model, _selections(structure, keep), features, select, attributes, layers)
    device = next((p.device for p in gated.model.parameters()), torch.device("cpu"))
    if any(t.device != device for t in (*own.values(), *small.buffers(recurse=False))):
        small.to(device)
    return small.train(gated.training)


def _selections(structure: Structure, keep: Bool[Tensor, " units"]) -> list[Selection]:
    """What stays of each input of which something goes."""
    padded = torch.cat([torch.ones(1, dtype=torch.bool), keep])
    return [
        Selection(i.path, i.dim, padded[i.units].nonzero().squeeze(1), len(i.units) if i.whole else None)
        for i in structure.inputs
        if not padded[i.units].all()
    ]


def _with_scales(structure: Structure, keep: Bool[Tensor, " units"], gates: dict[str, Tensor]) -> dict[str, Tensor]:
    """What multiplies the weights, and what makes up for dividing scores by the root of fewer dimensions."""
    for scale in structure.scales:
        left = int(structure.padded(keep)[scale.units].sum())
        for (name, dim), places in scale.places.items() if scale.dynamic and left < len(scale.units) else ():
            known = gates.get(name, torch.ones(()))
            factor = torch.ones(len(places), dtype=known.dtype, device=known.device)
            factor[places.to(known.device)] = math.sqrt(left / len(scale.units))
            gates[name] = known * along(factor, dim, len(structure.shapes[name]))
    return gates


def _changed_layers(gated: GatedModel, plan: Plan) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """The layers that need another class now that units of theirs are gone, and the buffers that this brings."""
    layers: dict[str, dict[str, Any]] = {}
    buffers: dict[str, Tensor] = {}
    at_inputs = gated.input_gates()
    for path, kind in gated.structure.layers.items():
        if kind == "norm" and path in at_inputs and bool((at_inputs[path] != 1).any()):
            values = at_inputs[path]
            layers[path] = {"kind": kind, "width": len(values)}
            buffers[f"{path}.scale"] = values[values > 0]
        elif kind == "stream" and path in at_inputs and bool((at_inputs[path] != 1).any()):
            values = at_inputs[path]
            dim = next(dim for name, dim in gated.structure.sites if name == path and dim < 0)
            layers[path] = {"kind": kind, "width": len(values), "dim": dim}
            buffers[f"{path}.scale"] = values[values > 0]
        elif kind == "selected" and plan.shrinks(f"{path}.weight", 1):
            layers[path] = {"kind": kind}
            buffers[f"{path}.index"] = plan.kept[f"{path}.weight", 1]
        elif kind == "attention" and any(
            plan.shrinks(f"{path}.{name}", dim) for name in ATTENTION_WEIGHTS for dim in (0, 1)
        ):
            layers[path] = {"kind": kind}
    return layers, buffers
