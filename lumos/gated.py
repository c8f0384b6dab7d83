"""A model and its gates as one module.

A gate multiplies where its unit is read: ``W_eff = W * m`` along the input axis of each weight that reads the unit
(equations 7-11). That costs as much as the weight and not as the activations, and it stands behind normalisation, so
that closing it really removes the unit. Where a step has fewer rows than a linear layer has outputs, the layer's input
is multiplied instead: the same function, and cheaper.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lumos.gates import Gates, median
from lumos.settings import GateSettings, Penalty
from lumos.structure import Axis, Structure


class GatedModel(nn.Module):
    """The user's model with one gate per removable unit; called as the model is.

    In training mode gates are sampled at each call, in eval mode they have their test-time values. The model's own
    code and parameters stay as they are: ``gated.model`` is the very module that was given.
    """

    _flat: Tensor

    def __init__(self, model: nn.Module, structure: Structure, settings: GateSettings) -> None:
        super().__init__()
        self.model = model
        self.structure = structure
        self.gates = Gates(structure.groups, settings)
        self._axes: list[Axis] = list(structure.sites)
        lengths = [len(units) for units in structure.sites.values()]
        self._lengths = lengths
        flat = torch.cat([*structure.sites.values(), torch.zeros(0, dtype=torch.int64)])
        self.register_buffer("_flat", flat, persistent=False)
        self._direct = _direct_layers(model, structure)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.to(device)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output with every gate applied."""
        by_input, by_weight = self._split(self._values_at_sites(self.gates()), args)
        # Hooks live for one call only, so that the user's model stays untouched.
        handles = [layer.register_forward_pre_hook(_multiply_input(values)) for layer, values in by_input]
        try:
            return functional_call(self.model, self._effective(by_weight), args, kwargs)
        finally:
            for handle in handles:
                handle.remove()

    def effective_parameters(self) -> dict[str, Tensor]:
        """The weights with the test-time gates folded in: the parameters of the function that eval mode computes."""
        with torch.no_grad():
            return {name: self.model.get_parameter(name) * m for name, m in self.multipliers().items()}

    def multipliers(self) -> dict[str, Tensor]:
        """For each gated weight, what the test-time gates multiply it with, broadcastable to its shape."""
        with torch.no_grad():
            values = self._values_at_sites(median(self.gates.log_alpha, self.gates.settings))
        out: dict[str, Tensor] = {}
        for (name, dim), value in values.items():
            shape = [1] * len(self.structure.shapes[name])
            shape[dim] = len(value)
            out[name] = out.get(name, torch.ones((), device=value.device)) * value.view(shape)
        return out

    def _values_at_sites(self, gates: Float[Tensor, " units"]) -> dict[Axis, Tensor]:
        """Each site's multiplier, one per position; positions without a unit get a one."""
        padded = torch.cat([gates.new_ones(1), gates])
        return dict(zip(self._axes, padded.index_select(0, self._flat).split(self._lengths), strict=True))

    def _split(
        self, values: dict[Axis, Tensor], args: tuple[Any, ...]
    ) -> tuple[list[tuple[nn.Module, Tensor]], dict[Axis, Tensor]]:
        """Which layers' inputs to multiply and which weights, by cost, for a call with these inputs."""
        first = next((a for a in args if isinstance(a, Tensor) and a.ndim), None)
        scale = 1.0 if first is None else first.shape[0] / max(1, self.structure.example_rows)
        by_input: list[tuple[nn.Module, Tensor]] = []
        by_weight = dict(values)
        for axis, (layer, rows, outputs) in self._direct.items():
            if rows * scale < outputs:
                by_input.append((layer, by_weight.pop(axis)))
        return by_input, by_weight

    def _effective(self, values: dict[Axis, Tensor]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for (name, dim), value in values.items():
            weight = out[name] if name in out else self.model.get_parameter(name)
            shape = [1] * weight.ndim
            shape[dim] = len(value)
            out[name] = weight * value.view(shape).to(weight.dtype)
        return out

    def penalty(self, kind: Penalty = "gates") -> Float[Tensor, ""]:
        """The complexity L_C of equation 6, in units of gates: the full network always counts the number of its gates.

        ``gates``: the expected number of open gates (equations 4 and 5). ``params`` and ``macs``: the expected
        share of the dense network's parameters or multiply-accumulates, times the number of gates.
        """
        probability = self.gates.open_probability()
        if kind == "gates":
            return probability.sum()
        which = {"params": 0, "macs": 1}[kind]
        share = self.structure.expected_sizes(probability)[which] / self.structure.dense_sizes[which]
        return share * self.structure.units

    def kept_features(self) -> list[str]:
        """Names of the input features whose gates are open at test time."""
        return self.structure.kept_features(self.gates.is_open())


def _direct_layers(model: nn.Module, structure: Structure) -> dict[Axis, tuple[nn.Module, int, int]]:
    """Gated linear layers that are called once and do nothing but their product: (layer, rows, outputs)."""
    calls: dict[Axis, list[Any]] = {}
    for c in structure.contractions:
        calls.setdefault((c.weight, c.in_dim), []).append(c)
    return {
        axis: (model.get_submodule(found[0].module), found[0].rows, structure.shapes[found[0].weight][0])
        for axis, found in calls.items()
        if axis in structure.sites and len(found) == 1 and found[0].direct
    }


def _multiply_input(values: Tensor) -> Any:
    def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * values.to(inputs[0].dtype), *inputs[1:])

    return hook
