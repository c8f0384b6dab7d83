"""What a trace of a model yields: groups of removable units and every parameter dimension that they index."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from lumos.errors import StructureError
from lumos.shapes import Bool, Float, Int
from lumos.tracing.calls import Axis
from lumos.tracing.costs import Contraction, CostModel, Product
from lumos.tracing.dataflow import Dataflow
from lumos.tracing.devices import Placed
from lumos.tracing.index_maps import FlatMaps
from lumos.tracing.inputs import InputPath

INPUT = -1
"""In place of a dimension: what a module reads, along its last dimension; other negative ones likewise."""

OUTPUT = "it is an output of the model"
"""The reason why a unit is fixed that the model returns."""


@dataclass(frozen=True)
class Group:
    """Coupled units, which stand together in one place of the network.

    Args:
        name: The module that makes the units, or the input.
        kind: Whether the units are input features or hidden ones.
        start: The group's first gate in the flat gate vector.
        stop: The gate after its last one.
        optional: Whether all of the group may close: the outputs still depend on the inputs then.
    """

    name: str
    kind: Literal["feature", "hidden"]
    start: int
    stop: int
    optional: bool = False

    @property
    def size(self) -> int:
        """How many gates the group has."""
        return self.stop - self.start

    @property
    def gates(self) -> slice:
        """The group's slice of the flat gate vector."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Fixed:
    """Units that cannot be removed.

    Args:
        name: What makes the units.
        size: How many units.
        reason: The call, the module and the source line that fix them.
    """

    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class Size:
    """A size that a call in a module wrote along an axis of units.

    Args:
        module: The module's path.
        size: The size.
        units: The units of each position of the axis.
        attributes: The module's own whole numbers of that value (``num_heads``, ``channels``…), which follow.
        place: In which of the module's calls that give a shape the size was written, and at which dimension; of those
            that split, and for which part.
        literal: Whether the module's code writes it as a number: the layer becomes one that writes another there.
        of_part: Whether it is the size of a part, so that ``place`` is in a call that splits.
    """

    module: str
    size: int
    units: Int[Tensor, "size slice"]
    attributes: tuple[str, ...] = ()
    place: tuple[int, int] | None = None
    literal: bool = False
    of_part: bool = False


@dataclass(frozen=True)
class Bound:
    """A number by which a module's code picks positions along an axis of units: ``x[:, 3]``, ``x[:, :5]``.

    Args:
        module: The module's path.
        place: Which of the module's calls that index, the place in its index, and the part of it: 0 a position, 1 the
            first one of several, 2 the end of several.
        value: The number.
        units: The units of each position of the axis.
    """

    module: str
    place: tuple[int, int, int]
    value: int
    units: Int[Tensor, "size slice"]


@dataclass(frozen=True)
class ScoreScale:
    """What an attention divides its scores by: the root of the number of its queries' dimensions.

    Args:
        units: The units of one head's dimensions.
        places: The axes that make queries, with the positions that do.
        dynamic: Whether the model's code takes the number from the queries' shape, so that it shrinks when dimensions
            are removed; the queries' weights then make up for it.
    """

    units: Int[Tensor, " dims"]
    places: dict[Axis, Bool[Tensor, " positions"]]
    dynamic: bool


@dataclass(frozen=True)
class InputSelection:
    """The features of one input tensor of the model.

    Args:
        path: Where the tensor stands among the arguments.
        dim: The dimension that holds features.
        units: The unit of each position along it.
        whole: Whether the tensor keeps its width, since the model's own code picks columns by their number (each
            indexes a table); closed columns are set to zero.
    """

    path: InputPath
    dim: int
    units: Int[Tensor, " positions"]
    whole: bool = False


@dataclass(frozen=True)
class Structure:
    """What can be removed from a model: groups of units, the axes that they index, and what they cost.

    A *unit map* is an int64 vector, one entry per position of an axis: 0 is a position that always stays, u > 0 the
    position of gate ``u - 1``, u < 0 one of two units, row ``-u - 1`` of ``pairs``: it stays where both do.

    Args:
        groups: The groups of removable units, in the order of their gates.
        fixed: The units that cannot be removed, and why.
        maps: The unit map of every parameter or buffer axis that has units.
        sites: The axes at which gates multiply, with the units that they multiply there; the axis (path, INPUT) is the
            input of the module at that path.
        contractions: The products that cost multiply-accumulates.
        inputs: The features of each input tensor that has gates.
        feature_names: The names of the input features, in order.
        shapes: The shape of every parameter and buffer.
        trainable: The names that are parameters.
        example_rows: The leading size of the first traced input.
        layers: The modules, by path, that become one of ``lumos.compaction.layers`` where units of theirs go.
        dataflow: Which value depends on which.
        example: The traced inputs.
        written: The names of the parameters and buffers that the model's own code writes into in eval mode.
        sizes: Sizes that modules' code writes, and the numbers that modules hold for them.
        module_maps: For each module that returns a tensor, the unit of each value (repeated dimensions have size one).
        pairs: Pairs of units that a position depends on (a head and a dimension inside it).
        scales: What attentions divide their scores by.
        noisy: Whether the model draws random numbers in eval mode.
        bounds: Numbers by which modules' code picks positions along axes of units.
        products: The products of activations that cost multiply-accumulates.
        constant_macs: The multiply-accumulates of what is not followed.
        unreached: The modules with weights that the example does not reach.
        trains_otherwise: Whether the model makes other calls in train mode.
        prices: What an open gate of each unit costs, in the price of one that none is given for; empty: one each.
        gradients: Whether the model's own code asks for gradients, so that it runs with them alone.

    Example:
        >>> import torch, lumos
        >>> model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
        >>> structure = lumos.gate(model, torch.randn(4, 5)).structure
        >>> [(group.name, group.kind, group.size) for group in structure.groups]
        [('input', 'feature', 5), ('0', 'hidden', 7)]
        >>> structure.fixed
        (Fixed(name='2', size=3, reason='it is an output of the model'),)
        >>> structure.dense_sizes  # parameters, and multiply-accumulates of the four samples
        (66.0, 224.0)
    """

    groups: tuple[Group, ...]
    fixed: tuple[Fixed, ...]
    maps: dict[Axis, Int[Tensor, " _"]]
    sites: dict[Axis, Int[Tensor, " _"]]
    contractions: tuple[Contraction, ...]
    inputs: tuple[InputSelection, ...]
    feature_names: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    trainable: frozenset[str]
    example_rows: int
    layers: dict[str, str] = field(default_factory=dict)
    dataflow: Dataflow = field(default_factory=Dataflow, repr=False)
    example: tuple[Any, ...] = field(default=(), repr=False)
    sizes: tuple[Size, ...] = ()
    module_maps: dict[str, Tensor] = field(default_factory=dict, repr=False)
    pairs: Int[Tensor, "pairs 2"] = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.int64), repr=False)
    scales: tuple[ScoreScale, ...] = ()
    written: frozenset[str] = frozenset()
    noisy: bool = False
    bounds: tuple[Bound, ...] = ()
    products: tuple[Product, ...] = ()
    constant_macs: float = 0.0
    unreached: tuple[str, ...] = ()
    trains_otherwise: bool = False
    prices: Float[Tensor, " _"] = field(default_factory=lambda: torch.zeros(0), repr=False)
    gradients: bool = False

    def on(self, tensor: Tensor, device: torch.device) -> Tensor:
        """Return one of this structure's tensors on a device, copied there once."""
        return self._placed.on(tensor, device)

    @cached_property
    def _placed(self) -> Placed:
        return Placed()

    @cached_property
    def feature_units(self) -> Int[Tensor, " features"]:
        """The gates of all input features that have one."""
        units = torch.cat([torch.zeros(0, dtype=torch.int64), *(s.units.flatten() for s in self.inputs)])
        return units[units > 0].unique() - 1

    # ---- units --------------------------------------------------------------------------------------------------

    @cached_property
    def units(self) -> int:
        """The number of gates."""
        return max((g.stop for g in self.groups), default=0)

    def group(self, name: str) -> Group:
        """Return the group of that name.

        Raises:
            StructureError: There is no such group; the message names those there are.
        """
        for g in self.groups:
            if g.name == name:
                return g
        raise StructureError(f"no group {name!r}; the groups are {', '.join(g.name for g in self.groups) or 'none'}")

    def padded(self, values: Tensor) -> Tensor:
        """Return values of the units (units,) as unit maps index them: a one first, the pairs' products at the end."""
        if not len(self.pairs):
            return torch.cat([values.new_ones(1), values])
        one, other = (self.on(self.pairs, values.device).flip(0) - 1).unbind(1)
        return torch.cat([values.new_ones(1), values, values[one] * values[other]])

    def priced(self, values: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
        """Return values of the units, each times what its gate costs."""
        return values * self.on(self.prices, values.device).to(values.dtype) if len(self.prices) else values

    def touches(self, units: Tensor, group: Group) -> bool:
        """Return whether a unit map has units of a group."""
        mine = (units > group.start) & (units <= group.stop)
        pairs = -units[units < 0] - 1
        return bool(mine.any()) or (len(pairs) > 0 and self.touches(self.pairs[pairs], group))

    def without(self, names: dict[str, str]) -> Structure:
        """Return the structure with some groups fixed.

        Args:
            names: The groups by name, each with the reason why it is fixed.
        """
        keep = [g for g in self.groups if g.name not in names]
        new_id = torch.zeros(self.units + 1, dtype=torch.int64)
        groups, start = [], 0
        for g in keep:
            new_id[g.start + 1 : g.stop + 1] = torch.arange(start, start + g.size) + 1
            groups.append(replace(g, start=start, stop=start + g.size))
            start += g.size
        pairs = new_id[self.pairs]
        # A pair of which one unit is fixed is the other one.
        of_pair = torch.where((pairs > 0).all(1), -torch.arange(1, len(pairs) + 1), pairs.amax(1))
        new_id = torch.cat([new_id, of_pair.flip(0)])
        maps = {axis: new_id[units] for axis, units in self.maps.items()}
        sites = {axis: new_id[units] for axis, units in self.sites.items()}
        gone = tuple(Fixed(g.name, g.size, names[g.name]) for g in self.groups if g.name in names)
        return replace(
            self,
            groups=tuple(groups),
            fixed=(*self.fixed, *gone),
            maps={axis: units for axis, units in maps.items() if units.any()},
            sites={axis: units for axis, units in sites.items() if units.any()},
            inputs=tuple(replace(i, units=new_id[i.units]) for i in self.inputs),
            sizes=tuple(replace(s, units=new_id[s.units]) for s in self.sizes),
            bounds=tuple(replace(b, units=new_id[b.units]) for b in self.bounds),
            products=tuple(replace(p, units=tuple(new_id[u] for u in p.units)) for p in self.products),
            module_maps={name: new_id[units] for name, units in self.module_maps.items()},
            pairs=pairs.clamp(min=1) if groups else pairs[:0],
            prices=torch.cat([self.prices[:0], *(self.prices[g.gates] for g in keep)]),
            scales=tuple(replace(s, units=new_id[s.units]) for s in self.scales if new_id[s.units].any()),
        )

    # ---- costs --------------------------------------------------------------------------------------------------

    @cached_property
    def _costs(self) -> CostModel:
        values = 1 + self.units + len(self.pairs)
        return CostModel.of(
            self.shapes, self.trainable, self.maps, self.contractions, self.products, values, self.constant_macs
        )

    def expected_sizes(self, gates: Float[Tensor, " units"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the expected parameters and the expected multiply-accumulates of one pass over the traced example.

        A parameter counts the product, over its dimensions, of the sum of its positions' open probabilities; a
        product counts its MACs for each pair of units times the two sums. Differentiable in ``gates``.

        Args:
            gates: The probability that each gate is open.
        """
        return self._costs.sizes(self.padded(gates))

    @cached_property
    def dense_sizes(self) -> tuple[float, float]:
        """Parameters of the dense model, and multiply-accumulates of its pass over the traced example."""
        parameters, macs = self.expected_sizes(torch.ones(self.units, dtype=torch.float64))
        return float(parameters), float(macs)

    # ---- what stays ---------------------------------------------------------------------------------------------

    def kept_indices(self, keep: Bool[Tensor, " units"]) -> dict[Axis, Int[Tensor, " kept"]]:
        """Return, for every axis that shrinks when the units with ``keep`` stay, the indices that stay."""
        stays, counts = self._flat_maps.read(self.padded(keep.cpu()))
        return {
            axis: here.nonzero().squeeze(1)
            for axis, here, count in zip(self.maps, stays, counts, strict=True)
            if count < len(here)
        }

    def kept_size(self, size: Size, keep: Bool[Tensor, " units"]) -> int:
        """Return what a size is when the units with ``keep`` stay: a position goes when nothing in it is left."""
        return int(self.padded(keep.cpu())[size.units].any(1).sum())

    def kept_bound(self, bound: Bound, keep: Bool[Tensor, " units"]) -> int:
        """Return what a bound is when the units with ``keep`` stay: as many positions before it, or behind it, as
        stay."""
        stays = self.padded(keep.cpu())[bound.units].any(1)
        if bound.value >= 0:
            return int(stays[: bound.value].sum())
        single = bound.place[2] == 0  # it counts itself: the last position is -1
        behind = int(stays[len(stays) + bound.value + single :].sum())
        return -behind - single or int(stays.sum())

    def kept_features(self, keep: Bool[Tensor, " units"]) -> list[str]:
        """Return the names of the input features that stay, in the model's order (all where none has a gate)."""
        padded = torch.cat([torch.ones(1, dtype=torch.bool), keep.cpu()])
        stay: list[bool] = []
        for selection in self.inputs:
            stay += padded[selection.units].tolist()
        return [n for n, s in zip(self.feature_names, stay or [True] * len(self.feature_names), strict=True) if s]

    def with_placeholders(self, is_open: Bool[Tensor, " units"]) -> Bool[Tensor, " units"]:
        """Return the open units, and one of each axis that would be empty, since few operators take empty tensors."""
        keep = is_open.cpu().clone()
        keep[[g.start for g in self.closed_groups(is_open)]] = True
        _, counts = self._flat_maps.read(self.padded(keep))
        for units in (units for units, count in zip(self.maps.values(), counts, strict=True) if not count):
            if not self.padded(keep)[units].any():  # an axis before it may have brought it one
                first = int(units[0])
                keep[(self.pairs[-first - 1] if first < 0 else units[:1]) - 1] = True
        return keep

    # ---- where gates multiply -----------------------------------------------------------------------------------

    def at_sites(self, gates: Float[Tensor, " units"]) -> dict[Axis, Float[Tensor, " positions"]]:
        """Return what multiplies each position of the sites where a gate is not exactly one; a one without a unit."""
        padded, flat = self.padded(gates), self._flat_sites
        _, counts = flat.read((padded != 1).cpu())
        values = padded[self.on(flat.place, padded.device)].split(flat.lengths)
        return {axis: v for axis, v, count in zip(self.sites, values, counts, strict=True) if count}

    def closed_axes(self, is_open: Bool[Tensor, " units"]) -> set[Axis]:
        """Return the axes through which nothing is read: all that they multiply is closed."""
        _, counts = self._flat_sites.read(self.padded(is_open.cpu()))
        return {axis for axis, count in zip(self.sites, counts, strict=True) if not count}

    def closed_groups(self, is_open: Bool[Tensor, " units"]) -> list[Group]:
        """Return the groups of which no unit is open."""
        is_open = is_open.cpu()
        return [g for g in self.groups if not bool(is_open[g.gates].any())]

    @cached_property
    def _flat_maps(self) -> FlatMaps:
        return FlatMaps.of(self.maps)

    @cached_property
    def _flat_sites(self) -> FlatMaps:
        return FlatMaps.of(self.sites)
