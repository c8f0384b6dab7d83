"""A model and its gates as one module.

A gate multiplies where its unit is read: ``W_eff = W * m`` along the input axis of each weight that reads the unit
(equations 7-11). That costs as much as the weight and not as the activations, and it stands behind normalisation, so
that closing it really removes the unit. Where a step has fewer rows than a linear layer has outputs, the layer's input
is multiplied instead: the same function, and cheaper. Not so at a layer that reads the model's input: the gradient of
gates there would need that of the input, a product as large as the layer's own, which nothing else asks for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lumos.gating.gates import Gates, rounded_up
from lumos.gating.hard_concrete import median
from lumos.gating.settings import GateSettings, Penalty
from lumos.shapes import Float
from lumos.tracing.inputs import input_tensors
from lumos.tracing.structure import INPUT, Axis, Structure

FIRST_ROWS = 64
"""Rows from which on a product with the weight of a layer that reads the input costs more than passes over it."""


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
        flat = flat % (1 + structure.units + len(structure.pairs))
        self.register_buffer("_flat", flat, persistent=False)
        self._in_order = torch.equal(flat, torch.arange(1, structure.units + 1))
        self._may_close = any(group.optional for group in structure.groups)
        self._direct = _direct_layers(model, structure)
        self._shared = _shared_names(model)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        if device != self.gates.log_alpha.device:
            self.to(device)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output with every gate applied."""
        by_input, by_weight = self._split(self._values_at_sites(self.gates()), args)
        # Hooks live for one call only, so that the user's model stays untouched.
        handles = [layer.register_forward_pre_hook(_multiply_input(values)) for layer, values in by_input]
        try:
            # Torch's own tying puts back the wrong tensor where one module has two names; ours names each place once.
            return functional_call(
                self.model, self._everywhere(self._effective(by_weight)), args, kwargs, tie_weights=False
            )
        finally:
            for handle in handles:
                handle.remove()

    def effective_parameters(self) -> dict[str, Tensor]:
        """The weights with the test-time gates folded in: the parameters of the function that eval mode computes."""
        with torch.no_grad():
            return {name: self.model.get_parameter(name) * m for name, m in self.multipliers().items()}

    def input_gates(self) -> dict[str, Tensor]:
        """The test-time gates that multiply the inputs of modules (of norms on a stream), by the module's path."""
        with torch.no_grad():
            values = self._values_at_sites(median(self.gates.log_alpha, self.gates.settings))
        return {path: value for (path, dim), value in values.items() if dim == INPUT}

    def multipliers(self) -> dict[str, Tensor]:
        """For each gated weight, what the test-time gates multiply it with, broadcastable to its shape."""
        with torch.no_grad():
            values = self._values_at_sites(median(self.gates.log_alpha, self.gates.settings))
        out: dict[str, Tensor] = {}
        for (name, dim), value in values.items():
            if dim == INPUT:
                continue
            value = along(value, dim, len(self.structure.shapes[name]))
            out[name] = out.get(name, torch.ones((), device=value.device)) * value
        return out

    def _values_at_sites(self, gates: Float[Tensor, " units"]) -> dict[Axis, Tensor]:
        """Each site's multiplier, one per position; positions without a unit get a one."""
        at_sites = gates if self._in_order else self.structure.padded(gates).index_select(0, self._flat)
        return dict(zip(self._axes, at_sites.split(self._lengths), strict=True))

    def _split(
        self, values: dict[Axis, Tensor], args: tuple[Any, ...]
    ) -> tuple[list[tuple[nn.Module, Tensor]], dict[Axis, Tensor]]:
        """Which layers' inputs to multiply and which weights, by cost, for a call with these inputs."""
        first = next((t for t in input_tensors(args).values() if t.ndim), None)
        scale = 1.0 if first is None else first.shape[0] / max(1, self.structure.example_rows)
        by_input: list[tuple[nn.Module, Tensor]] = []
        by_weight = {axis: value for axis, value in values.items() if axis[1] != INPUT}
        by_input += [(self.model.get_submodule(path), v) for (path, dim), v in values.items() if dim == INPUT]
        # A compiler fuses the products with weights, and not those with inputs.
        direct = {} if torch.compiler.is_compiling() else self._direct
        for axis, (layer, rows, most) in direct.items():
            if rows * scale < most:
                by_input.append((layer, by_weight.pop(axis)))
        return by_input, by_weight

    def _everywhere(self, new: dict[str, Tensor]) -> dict[str, Tensor]:
        """The new values under every name that a shared parameter has."""
        return {other: value for name, value in new.items() for other in self._shared.get(name, (name,))}

    def _effective(self, values: dict[Axis, Tensor]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for (name, dim), value in values.items():
            weight = out[name] if name in out else self.model.get_parameter(name)
            out[name] = weight * along(value, dim, weight.ndim).to(weight.dtype)
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

    def project(self) -> None:
        """After an optimiser's step: keep the gates in bounds and the network whole.

        Groups that are optional one by one may cut the network together; those that did are protected from then on.
        """
        if self.gates.project() or not self._may_close or bool(self.gates.protected.all()):
            return
        is_open = self.gates.is_open()
        closed = self.structure.closed_groups(is_open)
        if closed and not self.structure.dataflow.outputs_depend_on_inputs(self.structure.closed_axes(is_open)):
            for number, group in enumerate(self.structure.groups):
                if group in closed:
                    self.gates.protected[number] = True
            self.gates.project()

    @torch.no_grad()
    def align(self, multiple: int) -> None:
        """Round the open units of each hidden group up to a multiple: the widest closed gates are opened by a half."""
        log_alpha, is_open = self.gates.log_alpha, self.gates.is_open()
        log_alpha[rounded_up(self.structure.groups, log_alpha, is_open, multiple) & ~is_open] = 0.0

    def kept_features(self) -> list[str]:
        """Names of the input features whose gates are open at test time."""
        return self.structure.kept_features(self.gates.is_open())


def along(values: Float[Tensor, " n"], dim: int, ndim: int) -> Tensor:
    """A vector as a tensor of ``ndim`` dimensions that multiplies another one along ``dim``."""
    return values.view([-1 if d == dim else 1 for d in range(ndim)])


def _shared_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """For each parameter that several modules share, by its first name: its name in each of them."""
    names: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for key, p in module.named_parameters(recurse=False):
            names.setdefault(id(p), []).append(f"{path}.{key}" if path else key)
    return {found[0]: tuple(found) for found in names.values() if len(found) > 1}


def _direct_layers(model: nn.Module, structure: Structure) -> dict[Axis, tuple[nn.Module, int, int]]:
    """Gated linear layers that are called once and do nothing but their product.

    Each with the rows that the example gave it, and with how many it has to have for its weight to be the cheaper side.
    """
    features = torch.cat([torch.zeros(0, dtype=torch.int64), *(i.units.flatten() for i in structure.inputs)])
    calls: dict[Axis, list[Any]] = {}
    for c in structure.contractions:
        calls.setdefault((c.weight, c.in_dim), []).append(c)
    direct: dict[Axis, tuple[nn.Module, int, int]] = {}
    for axis, found in calls.items():
        if axis in structure.sites and len(found) == 1 and found[0].direct:
            most = structure.shapes[found[0].weight][0]
            if bool(torch.isin(structure.sites[axis], features).all()):
                most = min(most, FIRST_ROWS)
            direct[axis] = (model.get_submodule(found[0].module), found[0].rows, most)
    return direct


def _multiply_input(values: Tensor) -> Any:
    def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * values.to(inputs[0].dtype), *inputs[1:])

    return hook
