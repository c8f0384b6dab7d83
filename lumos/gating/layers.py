"""Modules whose weights are read through gates.

A gate multiplies where its unit is read: ``W_eff = W * m`` along the input axis of each weight that reads the unit
(equations 7-11). That costs as much as the weight and not as the activations, and it stands behind normalisation, so
that closing it really removes the unit. The weight is a property of the module's class: whoever reads it, at any time,
reads it gated: ``forward`` and any other method, code that a backward pass runs again, another thread. Where a step has
fewer rows than a linear layer has outputs, the layer's input is multiplied instead: the same function, and cheaper. Not
so at a layer that reads the model's input: the gradient of gates there would need that of the input, a product as large
as the layer's own, which nothing else asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumos.gating.sites import Sites
from lumos.shapes import Float
from lumos.tracing.modules import PLAIN_CLASS, derive, plain_class, structural_copy
from lumos.tracing.structure import Axis, Structure

GATES = "_lumos_gates"
"""The attribute of a gated module that holds its :class:`Place`; it is never set on a module of the user's."""

FIRST_ROWS = 64
"""Rows from which on a product with the weight of a layer that reads the input costs more than passes over it."""


@dataclass
class Place:
    """Which gates multiply what a module reads.

    Attributes:
        sites: The gates' values.
        weights: For each gated parameter of the module, by its own name, the sites along its dimensions.
        input: The site at the module's input, along the dimension that it names; None where there is none.
        rows: Of a plain linear layer: with fewer rows than that its input is multiplied and not its weight.
    """

    sites: Sites
    weights: dict[str, list[Axis]] = field(default_factory=dict)
    input: Axis | None = None
    rows: int = 0

    def gated(self, name: str, weight: Tensor, but: int | None = None) -> Tensor:
        """Multiply a weight with its gates; those along the dimension ``but`` are left out."""
        if self.sites.reader is not None:
            return self.sites.reader(weight)
        # A weight in shards of several processes (FSDP) is put together for a call; outside, it is read as it is.
        plain = hasattr(weight, "placements") and not self.sites.in_call
        for axis in () if plain else self.weights[name]:
            if axis[1] != but:
                weight = weight * along(self.sites.at(axis), axis[1], weight.ndim).to(weight.device, weight.dtype)
        return weight

    def at_input(self, x: Tensor) -> Tensor:
        """Multiply what the module takes with its gates."""
        if self.input is None or self.sites.reader is not None:
            return x
        values = self.sites.at(self.input).to(x.device, x.dtype)
        return x * along(values, self.input[1] % x.ndim, x.ndim)


def along(values: Float[Tensor, " n"], dim: int, ndim: int) -> Tensor:
    """Return a vector as a tensor of ``ndim`` dimensions that multiplies another one along ``dim``."""
    return values.view([-1 if d == dim else 1 for d in range(ndim)])


def put_gates(model: nn.Module, structure: Structure, sites: Sites) -> None:
    """Let the modules of a model read their weights through gates, by giving them a class of their own.

    Args:
        model: A model that belongs to us: its modules change their classes.
        structure: What the trace of the model found.
        sites: The values of the gates.
    """
    take_gates(model)
    places: dict[str, Place] = {}
    owners = _owners(model)
    for axis in sites.axes:
        name, dim = axis
        if dim < 0:
            places.setdefault(name, Place(sites)).input = axis
            continue
        for path, key in owners[name]:
            places.setdefault(path, Place(sites)).weights.setdefault(key, []).append(axis)
    for axis, (path, most) in _direct_layers(structure).items():
        if axis in sites.number:
            places[path].rows = most
    for path, place in places.items():
        module = model.get_submodule(path)
        kind = _gated_class(type(module), tuple(place.weights), place.input is not None, place.rows > 0)
        module.__dict__[GATES] = place
        module.__class__ = kind


def take_gates(model: nn.Module) -> nn.Module:
    """Give the modules of a model their own classes back; returns the model."""
    for module in model.modules():
        if GATES in module.__dict__:
            del module.__dict__[GATES]
            module.__class__ = plain_class(type(module))
    return model


def ungated_copy(model: nn.Module, private: Collection[str] = ()) -> nn.Module:
    """Copy a model's modules without their gates; parameters and buffers are the very tensors of the model.

    Args:
        model: A model, with gates or without.
        private: The names of parameters and buffers that are copied too.
    """
    places = [m.__dict__[GATES] for m in model.modules() if GATES in m.__dict__]
    return take_gates(structural_copy(model, private, {id(place): None for place in places}))


# ---- classes --------------------------------------------------------------------------------------------------------


@cache
def _gated_class(plain: type[nn.Module], names: tuple[str, ...], at_input: bool, linear: bool) -> type[nn.Module]:
    """Make the class of a module with gated parameters of these names."""
    members: dict[str, Any] = {name: _gated_parameter(name) for name in names}
    if issubclass(plain, nn.RNNBase):
        members |= {"_flat_weights": _flat_weights(), "_update_flat_weights": lambda self: None}
    if at_input:
        members["forward"] = _with_gated_input(plain)
    elif linear:
        members["forward"] = _linear
    members |= {PLAIN_CLASS: plain, "__reduce_ex__": _reduce, "__module__": plain.__module__,
                "__qualname__": plain.__qualname__, "__doc__": plain.__doc__,
                "_lumos_recipe": (plain, names, at_input, linear)}  # fmt: skip
    return derive(plain, plain.__name__, members)


def _gated_parameter(name: str) -> property:
    def read(module: nn.Module) -> Tensor | None:
        weight = _raw(module, name)
        return weight if weight is None else module.__dict__[GATES].gated(name, weight)

    def write(module: nn.Module, value: Any) -> None:
        module.__dict__[name] = value  # a plain tensor in place of the parameter, as replicas of a model have

    return property(read, write)


def _flat_weights() -> property:
    """The list that recurrent layers read their weights from, with the gates of each."""

    def read(module: nn.RNNBase) -> list[Any]:
        return [getattr(module, name, None) for name in module._flat_weights_names]

    def write(module: nn.Module, value: list[Any]) -> None:
        module.__dict__["_flat_weights"] = value  # what the plain class reads when the gates are gone

    return property(read, write)


def _raw(module: nn.Module, name: str) -> Any:
    for store in (module._parameters, module._buffers, module.__dict__):
        if store.get(name) is not None:
            return store[name]
    return None


def _with_gated_input(plain: type[nn.Module]) -> Callable[..., Any]:
    def forward(self: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return plain.forward(self, self.__dict__[GATES].at_input(x), *args, **kwargs)

    return forward


def _linear(self: nn.Linear, input: Tensor) -> Tensor:
    """A linear layer that multiplies the smaller of its weight and its input."""
    place: Place = self.__dict__[GATES]
    # A compiler fuses the products with weights, and not those with inputs.
    by_weight = (
        place.sites.reader is not None or torch.compiler.is_compiling() or input.numel() >= place.rows * input.shape[-1]
    )
    if by_weight:
        return F.linear(input, self.weight, self.bias)
    site = next(axis for axis in place.weights["weight"] if axis[1] == 1)
    input = input * place.sites.at(site).to(input.device, input.dtype)
    return F.linear(input, place.gated("weight", _raw(self, "weight"), but=1), self.bias)


def _reduce(self: nn.Module, protocol: Any) -> Any:
    """Copy and pickle as the plain class does, and then put the gates back."""
    plain: Any = plain_class(type(self))
    make, arguments, *rest = plain.__reduce_ex__(self, protocol)
    arguments = tuple(plain if a is type(self) else a for a in arguments)
    return (_rebuilt, (type(self)._lumos_recipe, make, arguments), *rest)  # type: ignore[attr-defined]


def _rebuilt(recipe: Any, make: Any, arguments: Any) -> nn.Module:
    module = make(*arguments)
    module.__class__ = _gated_class(*recipe)
    return module


# ---- which layers ---------------------------------------------------------------------------------------------------


def _owners(model: nn.Module) -> Mapping[str, list[tuple[str, str]]]:
    """For each parameter and buffer by its first name: the path of every module that holds it, and its name there."""
    first: dict[int, str] = {}
    found: dict[str, list[tuple[str, str]]] = {}
    for path, module in model.named_modules():
        for key, p in (*module._parameters.items(), *module._buffers.items()):
            if p is not None:
                name = first.setdefault(id(p), f"{path}.{key}" if path else key)
                found.setdefault(name, []).append((path, key))
    return found


def _direct_layers(structure: Structure) -> dict[Axis, tuple[str, int]]:
    """Gated linear layers that are called once and do nothing but their product.

    Each with its path, and with how many rows it has to have for its weight to be the cheaper side.
    """
    features = torch.cat([torch.zeros(0, dtype=torch.int64), *(i.units.flatten() for i in structure.inputs)])
    calls: dict[Axis, list[Any]] = {}
    for c in structure.contractions:
        calls.setdefault((c.weight, c.in_dim), []).append(c)
    direct: dict[Axis, tuple[str, int]] = {}
    for axis, found in calls.items():
        if axis in structure.sites and len(found) == 1 and found[0].direct:
            most = structure.shapes[found[0].weight][0]
            if bool(torch.isin(structure.sites[axis], features).all()):
                most = min(most, FIRST_ROWS)
            direct[axis] = (found[0].module, most)
    return direct
