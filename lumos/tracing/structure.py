"""What a trace of a model yields: groups of removable units and every parameter dimension that they index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from lumos.errors import StructureError
from lumos.shapes import Bool, Float, Int
from lumos.tracing.dataflow import Axis, Flow
from lumos.tracing.index_maps import Flat
from lumos.tracing.inputs import InputPath

INPUT = -1
"""In place of a dimension: what a module reads, along its last dimension."""

OUTPUT = "it is an output of the model"
"""The reason why a unit is fixed that the model returns."""


@dataclass(frozen=True)
class Group:
    """Units that stand together in one place of the network: gates ``start`` to ``stop`` of the flat gate vector.

    An ``optional`` group may close altogether: the outputs still depend on the inputs then.
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
    """Units that cannot be removed, and why: the call, the module and the source line that hold them."""

    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class Contraction:
    """One call that multiplies activations by a weight; its cost is ``macs`` per (in-unit, out-unit) pair.

    ``module`` is the path of the module that made the call, ``direct`` whether that module is a plain ``nn.Linear``
    which does nothing but this call. ``rows`` is the number of input vectors that the example gave it.
    """

    weight: str
    in_dim: int
    out_dim: int
    macs: int
    rows: int
    module: str
    direct: bool


@dataclass(frozen=True)
class Size:
    """A size that a call in ``module`` wrote along an axis of units: ``units[i]`` are those of its i-th position.

    ``attributes`` are the module's own whole numbers of that value (``num_heads``, ``channels``…), which follow.
    ``place`` says in which of the module's calls that give a shape it was written, and at which dimension; where its
    code writes it as a ``literal``, the layer becomes one that writes another number there.
    """

    module: str
    size: int
    units: Int[Tensor, "size slice"]
    attributes: tuple[str, ...] = ()
    place: tuple[int, int] | None = None
    literal: bool = False


@dataclass(frozen=True)
class Scale:
    """The dimensions of an attention's queries, over whose number's root its scores are divided.

    ``units`` are those of one head's dimensions, ``places`` the axes that make queries, with where they do. ``folded``:
    the model's own code divides by the root of what is left, so that the queries' weights make up for it.
    """

    units: Int[Tensor, " dims"]
    places: dict[Axis, Bool[Tensor, " positions"]]
    folded: bool


@dataclass(frozen=True)
class InputSelection:
    """One input tensor of the model: its path among the arguments, the gated dimension and its units.

    ``whole``: the model's own code picks columns by their number (each indexes a table), so that the tensor keeps its
    width and closed columns are set to zero.
    """

    path: InputPath
    dim: int
    units: Int[Tensor, " positions"]
    whole: bool = False


@dataclass(frozen=True)
class Structure:
    """Groups, the axes that their units index, and the cost model.

    A *unit map* is an int64 vector, one entry per position of an axis: 0 is a position that always stays, u > 0 the
    position of gate ``u - 1``, u < 0 one of two units, row ``-u - 1`` of ``pairs``: it stays where both do. ``sites``
    are the axes at which gates multiply, with the units that they multiply there; the axis (path, INPUT) is the input
    of the module at that path. ``layers`` are the modules, by path, that become one of ``lumos.layers`` where units of
    theirs go. ``sizes`` are numbers that modules hold beside their tensors. ``flow`` says what depends on what;
    ``example`` are the traced inputs, ``example_rows`` is the leading size of the first of them. ``module_maps`` holds,
    for each module that returns a tensor, the unit of each value (repeated dimensions cut to one).
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
    flow: Flow = field(default_factory=Flow, repr=False)
    example: tuple[Any, ...] = field(default=(), repr=False)
    sizes: tuple[Size, ...] = ()
    module_maps: dict[str, Tensor] = field(default_factory=dict, repr=False)
    pairs: Int[Tensor, "pairs 2"] = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.int64), repr=False)
    scales: tuple[Scale, ...] = ()

    def padded(self, values: Tensor) -> Tensor:
        """Values of the units (units,) as unit maps index them: a one first, at the end the products of the pairs."""
        if not len(self.pairs):
            return torch.cat([values.new_ones(1), values])
        one, other = (self.pairs.to(values.device).flip(0) - 1).unbind(1)
        return torch.cat([values.new_ones(1), values, values[one] * values[other]])

    def touches(self, units: Tensor, group: Group) -> bool:
        """Whether a unit map has units of a group."""
        mine = (units > group.start) & (units <= group.stop)
        pairs = -units[units < 0] - 1
        return bool(mine.any()) or (len(pairs) > 0 and self.touches(self.pairs[pairs], group))

    def size_after(self, size: Size, keep: Bool[Tensor, " units"]) -> int:
        """A size when the units with ``keep`` stay: a position goes when nothing in it is left."""
        return int(self.padded(keep.cpu())[size.units].any(1).sum())

    @cached_property
    def units(self) -> int:
        """The number of gates."""
        return max((g.stop for g in self.groups), default=0)

    @cached_property
    def _costs(self) -> _CostIndex:
        return _CostIndex.of(self)

    def expected_sizes(self, gates: Float[Tensor, " units"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Expected parameters and expected multiply-accumulates for gates that are open with these probabilities.

        A weight counts the product, over its dimensions, of the sum over positions of the open probability; a
        contraction counts its MACs per pair times the two sums. Differentiable in ``gates``. Units: numbers;
        MACs of one pass over the traced example.
        """
        costs = self._costs.to(gates.device)
        sums = costs.always.to(gates.dtype).index_add(0, costs.axis, self.padded(gates).index_select(0, costs.unit))
        # A scatter product and not exp(sum(log)): a parameter that is wholly closed counts exactly zero.
        each = torch.ones(costs.parameters, dtype=gates.dtype, device=gates.device)
        parameters = each.scatter_reduce(0, costs.owner, sums, "prod").sum()
        return parameters, (sums[costs.pairs[:, 0]] * sums[costs.pairs[:, 1]] * costs.pairs[:, 2]).sum()

    @cached_property
    def dense_sizes(self) -> tuple[float, float]:
        """Parameters of the dense model, and multiply-accumulates of its pass over the traced example."""
        parameters, macs = self.expected_sizes(torch.ones(self.units, dtype=torch.float64))
        return float(parameters), float(macs)

    def kept(self, axis: Axis, keep: Bool[Tensor, " units"]) -> Int[Tensor, " kept"]:
        """Indices along an axis that stay when the units with ``keep`` do."""
        return self.padded(keep.cpu())[self.maps[axis]].nonzero().squeeze(1)

    def cut(self, keep: Bool[Tensor, " units"]) -> dict[Axis, Int[Tensor, " kept"]]:
        """For every axis that shrinks when the units with ``keep`` stay, the indices that do."""
        stays, counts = self._flat_maps.read(self.padded(keep.cpu()))
        return {
            axis: here.nonzero().squeeze(1)
            for axis, here, count in zip(self.maps, stays, counts, strict=True)
            if count < len(here)
        }

    def at_sites(self, gates: Float[Tensor, " units"]) -> dict[Axis, Float[Tensor, " positions"]]:
        """What multiplies each position of the sites where a gate is not exactly one; positions without a unit: one."""
        padded, flat = self.padded(gates), self._flat_sites
        _, counts = flat.read((padded != 1).cpu())
        values = padded[flat.place.to(padded.device)].split(flat.lengths)
        return {axis: v for axis, v, count in zip(self.sites, values, counts, strict=True) if count}

    @cached_property
    def _flat_maps(self) -> Flat:
        return Flat.of(self.maps)

    @cached_property
    def _flat_sites(self) -> Flat:
        return Flat.of(self.sites)

    def without(self, names: dict[str, str]) -> Structure:
        """The structure with the named groups fixed, for the reasons given."""
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
        maps = {axis: units for axis, units in maps.items() if units.any()}
        gone = tuple(Fixed(g.name, g.size, names[g.name]) for g in self.groups if g.name in names)
        return Structure(
            groups=tuple(groups),
            fixed=(*self.fixed, *gone),
            maps=maps,
            sites={axis: new_id[units] for axis, units in self.sites.items() if new_id[units].any()},
            contractions=self.contractions,
            inputs=tuple(replace(i, units=new_id[i.units]) for i in self.inputs),
            feature_names=self.feature_names,
            shapes=self.shapes,
            trainable=self.trainable,
            example_rows=self.example_rows,
            layers=self.layers,
            flow=self.flow,
            example=self.example,
            sizes=tuple(replace(s, units=new_id[s.units]) for s in self.sizes),
            module_maps={name: new_id[units] for name, units in self.module_maps.items()},
            pairs=pairs.clamp(min=1) if groups else pairs[:0],
            scales=tuple(replace(s, units=new_id[s.units]) for s in self.scales if new_id[s.units].any()),
        )

    def dead(self, is_open: Bool[Tensor, " units"]) -> set[Axis]:
        """The axes through which nothing is read any more: all that they multiply is closed."""
        _, counts = self._flat_sites.read(self.padded(is_open.cpu()))
        return {axis for axis, count in zip(self.sites, counts, strict=True) if not count}

    def closed_groups(self, is_open: Bool[Tensor, " units"]) -> list[Group]:
        """The groups of which no unit is open."""
        is_open = is_open.cpu()
        return [g for g in self.groups if not bool(is_open[g.gates].any())]

    def with_places(self, is_open: Bool[Tensor, " units"]) -> Bool[Tensor, " units"]:
        """The open units, and those that hold a place in the network's shapes: one of each closed group, and of each
        axis with none left though others of its group are open, since few operators take tensors without elements."""
        keep = is_open.cpu().clone()
        keep[[g.start for g in self.closed_groups(is_open)]] = True
        _, counts = self._flat_maps.read(self.padded(keep))
        for axis, units in (place for place, count in zip(self.maps.items(), counts, strict=True) if not count):
            if not len(self.kept(axis, keep)):  # an axis before it may have brought it one
                first = int(units[0])
                keep[(self.pairs[-first - 1] if first < 0 else units[:1]) - 1] = True
        return keep

    def kept_features(self, keep: Bool[Tensor, " units"]) -> list[str]:
        """Names of the input features that stay, in the model's order (all of them where none is gated)."""
        padded = torch.cat([torch.ones(1, dtype=torch.bool), keep.cpu()])
        stay: list[bool] = []
        for selection in self.inputs:
            stay += padded[selection.units].tolist()
        return [n for n, s in zip(self.feature_names, stay or [True] * len(self.feature_names), strict=True) if s]

    def group(self, name: str) -> Group:
        """The group of that name. Raises StructureError, naming those there are."""
        for g in self.groups:
            if g.name == name:
                return g
        raise StructureError(f"no group {name!r}; the groups are {', '.join(g.name for g in self.groups) or 'none'}")


@dataclass(frozen=True)
class _CostIndex:
    """Every position of every parameter axis in flat vectors, so that costs take a handful of kernels.

    ``unit`` and ``axis`` name the place in :meth:`Structure.padded` and the axis of each gated position; ``always``
    counts, for each axis, the positions that always stay; ``owner`` is each axis' parameter; ``pairs`` holds (in-axis,
    out-axis, MACs per pair).
    """

    unit: Tensor
    axis: Tensor
    always: Tensor
    owner: Tensor
    pairs: Tensor
    parameters: int

    @classmethod
    def of(cls, structure: Structure) -> _CostIndex:
        names = [name for name in structure.shapes if name in structure.trainable]
        number: dict[Axis, int] = {}
        unit, axis = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=torch.int64)]
        always: list[float] = []
        for name in names:
            for dim, size in enumerate(structure.shapes[name]):
                number[name, dim] = len(always)
                units = structure.maps.get((name, dim), torch.zeros(size, dtype=torch.int64))
                unit.append(units[units != 0] % (1 + structure.units + len(structure.pairs)))
                axis.append(torch.full((len(unit[-1]),), len(always)))
                always.append(float((units == 0).sum()))
        owner = [i for i, name in enumerate(names) for _ in structure.shapes[name]]
        pairs = [(number[c.weight, c.in_dim], number[c.weight, c.out_dim], c.macs) for c in structure.contractions]
        return cls(
            torch.cat(unit),
            torch.cat(axis),
            torch.tensor(always, dtype=torch.float64),
            torch.tensor(owner, dtype=torch.int64),
            torch.tensor(pairs, dtype=torch.int64).reshape(-1, 3),
            len(names),
        )

    def to(self, device: torch.device) -> _CostIndex:
        if self.unit.device == device:
            return self
        unit, axis, always, owner, pairs = (
            t.to(device) for t in (self.unit, self.axis, self.always, self.owner, self.pairs)
        )
        return _CostIndex(unit, axis, always, owner, pairs, self.parameters)


def feature_names(names: Sequence[str] | None, size: int) -> tuple[str, ...]:
    """The given names, or x0, x1…; raises StructureError where their number is not the inputs' width."""
    if names is None or len(names) == 0:
        return tuple(f"x{i}" for i in range(size))
    if len(names) != size:
        raise StructureError(f"{len(names)} feature names for inputs with {size} features; give one name for each")
    return tuple(names)
