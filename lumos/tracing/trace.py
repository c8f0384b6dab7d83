"""What one run of a model tells about its units: the record that the rules write."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lumos.shapes import Int
from lumos.tracing.calls import Axis, Call, tensor_leaves
from lumos.tracing.costs import COUNTED, Contraction, Product
from lumos.tracing.dataflow import Dataflow, DataflowRecorder
from lumos.tracing.derivatives import is_transformed, untransformed
from lumos.tracing.modules import named_tensors
from lumos.tracing.options import StructureOptions
from lumos.tracing.structure import OUTPUT, Bound, Size
from lumos.tracing.tensor_table import TensorTable
from lumos.tracing.unit_ids import (
    ANY_UNIT,
    NO_UNIT,
    collapse_repeats,
    expanded_repeats,
    has_values,
    no_units,
    varies_along,
)


@dataclass(frozen=True)
class AxisSlice:
    """Positions ``start`` to ``stop`` of an axis with ``size`` positions: of the parameter's dimension ``dim``."""

    start: int
    stop: int
    size: int
    dim: int = 0


@dataclass(frozen=True)
class Block:
    """Units that were made together: ids ``first`` to ``stop``, and the name and the kind of what made them."""

    name: str
    kind: str
    first: int
    stop: int


@dataclass(frozen=True)
class QueryKey:
    """An attention's queries and keys.

    Args:
        queries: Units of the queries.
        keys: Units of the keys.
        heads: Units of the heads.
        dynamic: Whether the scores are divided by the root of the dimensions that are left.
    """

    queries: Int[Tensor, "heads dims"]
    keys: Int[Tensor, "heads dims"]
    heads: Int[Tensor, " heads"]
    dynamic: bool


@dataclass(frozen=True)
class Fresh:
    """A fresh constant (``zeros``: the state that a recurrence begins with), or where it stands in what has it.

    Args:
        module: The path of the module that made it.
        dim: The dimension along which it was put together with others; None where it is all of the tensor.
        start: Its first position along that.
        size: The number of its positions.
    """

    module: str
    dim: int | None = None
    start: int = 0
    size: int = 0


@dataclass(frozen=True)
class Rectangle:
    """A tensor whose units vary along several dimensions: what stays of it has to be a rectangle.

    Args:
        units: Its unit ids, along these dimensions.
        where: The call that made it.
    """

    units: Tensor
    where: str


@dataclass(frozen=True)
class Spread:
    """A parameter that met units and repeats along one of their dimensions: a rotary embedding beside several heads.

    Args:
        units: Unit ids of what it met.
        elements: The ids of its elements, of a shape that broadcasts with them.
        where: The call.
    """

    units: Tensor
    elements: Tensor
    where: str


@dataclass(frozen=True)
class Contracted:
    """Units along which two activations are multiplied and summed: the dimensions of an attention's one head.

    Args:
        units: Their ids.
        dynamic: Whether the sum is divided by the root of their number.
        where: The call.
    """

    units: Int[Tensor, " dims"]
    dynamic: bool
    where: str


class RunningModule(NamedTuple):
    """A module that is running: its path, the module and its first input."""

    path: str
    module: nn.Module
    input: object


class Trace:
    """What one run of a model tells about its units.

    Every value has a unit id (:mod:`lumos.tracing.unit_ids`). The rules read the ids of a call's operands, give ids to
    its outputs, make units (:meth:`new_block`), merge units that must stay or go together, fix units that cannot go,
    and say which units index which axis of a parameter (:meth:`assign`, :meth:`produce`).

    Args:
        model: The model that runs.
        options: What more of it is made removable.
    """

    def __init__(self, model: nn.Module, options: StructureOptions) -> None:
        self.model, self.options = model, options
        self.tensors = named_tensors(model)
        self._names = {id(t): n for n, t in self.tensors.items()}
        self._unit_ids: TensorTable[Tensor] = TensorTable()
        self.next_unit = 1
        self.blocks: list[Block] = []
        self.merges: list[Tensor] = []
        self.reasons: dict[str, list[Tensor]] = {}
        self.maps: dict[Axis, Tensor] = {}
        """The unit ids along every axis of a parameter that has some."""
        self.consumers: dict[Axis, None] = {}
        """The axes along which products read activations."""
        self.producers: dict[Axis, None] = {}
        """The axes along which products make units."""
        self.tables: dict[Axis, None] = {}
        """The axes of embedding tables that are indexed."""
        self.elements: dict[str, tuple[int, Tensor]] = {}
        """Parameters that met activations element by element: the first id, and the id of each element."""
        self.blended: dict[Axis, str] = {}
        """The axes of parameters along which a call mixed the elements (a standardised weight): that call."""
        self.stream_norms: dict[str, Tensor] = {}
        """The units that a norm over a removable stream reads, by the norm's path."""
        self.scaled: TensorTable[tuple[str, list[AxisSlice | None]]] = TensorTable()
        """Activations that met a parameter in a product, one by one: its name, and its axis along each dimension."""
        self.stream_modules: dict[str, tuple[int, Tensor]] = {}
        """The same of modules that write a norm out: the dimension of the channels, from the end, and the units."""
        self.stream_inputs: dict[str, tuple[int, Tensor]] = {}
        """What such a module may read: the dimension of the channels of its input, and the input's unit ids."""
        self.alike: TensorTable[tuple[str, int]] = TensorTable()
        """Tensors whose closed channels all hold one value while a module runs, with the dimension of these."""
        self.contractions: list[Contraction] = []
        self.products: list[Product] = []
        self.constant_macs = 0.0
        """The multiply-accumulates of calls that are not followed."""
        self.frozen_parameters: dict[str, str] = {}
        """Parameters and buffers that a call read which cannot be followed: the reason why their axes stay."""
        self.frozen = 0
        """How many calls could not be followed."""
        self.module_ids: dict[str, Tensor] = {}
        """The unit ids of what each module returned last."""
        self.sizes: list[Size] = []
        self.bounds: list[Bound] = []
        self.rectangles: list[Rectangle] = []
        self.spreads: list[Spread] = []
        self.contracted: list[Contracted] = []
        self.query_keys: list[QueryKey] = []
        self.units_in_heads: list[tuple[Tensor, Tensor]] = []
        """Units of dimensions inside heads, and for each the unit of its head."""
        self.recorder = DataflowRecorder()
        self.dataflow = Dataflow()
        self.running: list[RunningModule] = []
        self.first = True
        """Whether this is the first run: costs and the flow of values are those of it."""
        self.read: set[str] = set()
        """The names of the parameters and buffers that some call read."""
        self.scopes: dict[str, list[Tensor]] = {}
        """For each module, the unit ids of what it took and of what the modules in it returned."""
        self.constants: TensorTable[tuple[Fresh, ...]] = TensorTable()
        """The fresh constants in a tensor: itself, or what was put together to make it."""
        self._read_constants: list[tuple[Fresh, Axis, int]] = []
        self._shaping_calls: dict[str, int] = {}
        self._splitting_calls: dict[str, int] = {}
        self._indexing_calls: dict[str, int] = {}

    # ---- unit ids -----------------------------------------------------------------------------------------------

    def unit_ids(self, t: Tensor) -> Tensor:
        """Return the unit ids of a tensor; a parameter's elements are one unit each, made at the first asking."""
        known = self._unit_ids.get(t)
        if known is not None and known.shape == t.shape:
            return known
        if is_transformed(t):
            self.fix(self.unit_ids(untransformed(t)), f"a transform of torch.func takes it: {self.where('call')}")
            return no_units(t.shape)
        name = self._names.get(id(t))
        return no_units(t.shape) if name is None or not has_values(t) else self.element_ids(name, t)

    def element_ids(self, name: str, t: Tensor) -> Tensor:
        """Return the ids of the elements of a parameter or buffer, each a unit of its own, made at the first asking."""
        if name not in self.elements:
            first = self._take(t.numel())
            self.elements[name] = (first, torch.arange(first, first + t.numel()).view(t.shape))
        return self.elements[name][1]

    def set_unit_ids(self, t: Tensor, ids: Tensor) -> None:
        """Give a tensor its unit ids (expanded to its shape)."""
        self._unit_ids.set(t, ids.expand(t.shape))

    def has_unit_ids(self, t: Tensor) -> bool:
        """Return whether a call gave the tensor unit ids."""
        return t in self._unit_ids

    def name_of(self, t: object) -> str | None:
        """Return the name of a parameter or buffer; None for any other value."""
        return self._names.get(id(t)) if isinstance(t, Tensor) else None

    def units_along(self, ids: Tensor, dim: int, what: str) -> Int[Tensor, " positions"]:
        """Return the units along one dimension, after merging those that other positions put at the same place."""
        dim %= ids.ndim
        rows = collapse_repeats(ids, keep=dim)[0].movedim(dim, -1).reshape(-1, ids.shape[dim])
        if len(rows) == 1:
            return rows[0]
        # At each position: the first unit that stands there; without any, that it has full size, if a row says so.
        found = rows.gather(0, (rows > 0).to(torch.uint8).argmax(0, keepdim=True))
        found = torch.where(found > 0, found, rows.amax(0, keepdim=True))
        return self.merge(found, rows, self.where(what))[0]

    def of_parameters(self, ids: Tensor) -> bool:
        """Return whether all unit ids are those of elements of parameters and buffers, which no call made."""
        if not self.elements:
            return False
        first = torch.tensor([first for first, _ in self.elements.values()])
        stop = first + torch.tensor([elements.numel() for _, elements in self.elements.values()])
        first, order = first.sort()
        found = collapse_repeats(ids)[0].reshape(-1).contiguous()
        place = torch.searchsorted(first, found, right=True) - 1
        return bool(((place >= 0) & (found < stop[order][place])).all())

    # ---- units --------------------------------------------------------------------------------------------------

    def _take(self, count: int) -> int:
        first = self.next_unit
        self.next_unit += count
        return first

    def new_block(self, name: str, kind: str, size: int) -> Int[Tensor, " size"]:
        """Make new units together."""
        first = self._take(size)
        self.blocks.append(Block(name, kind, first, first + size))
        return torch.arange(first, first + size)

    def merge(self, a: Tensor, b: Tensor, reason: str) -> Tensor:
        """Merge units that meet, and return the ids of what combines them.

        A unit that meets a value of full size without a unit is fixed, since that value keeps its size.

        Args:
            a: Unit ids of one operand.
            b: Unit ids of the other one, of a shape that broadcasts with it.
            reason: The call, for the message why units are fixed.
        """
        a, b = torch.broadcast_tensors(a, b)
        one, other = collapse_repeats(a, b)
        left, right = one.reshape(-1), other.reshape(-1)
        if torch.equal(left, right):
            return a
        differ = left != right
        left, right = left[differ], right[differ]
        if len(left) > _MANY:
            # One number for a pair (ids are few, ANY_UNIT is -1): far faster to make unique than rows are.
            keys = torch.unique((left + 1) * _PAIR + right + 1)
            left, right = keys // _PAIR - 1, keys % _PAIR - 1
        low, high = torch.minimum(left, right), torch.maximum(left, right)
        units = low > 0
        if units.any():
            self.merges.append(torch.stack([low[units], high[units]], 1))
        stuck = high[low == NO_UNIT]
        self.fix(stuck, f"meets a value of fixed size: {reason}" if len(stuck) else reason)
        met = torch.where(one > 0, one, torch.where(other == ANY_UNIT, one, other))
        return expanded_repeats(met).expand(a.shape)  # what follows is as costly as what does not repeat

    def fix(self, units: Tensor, reason: str) -> None:
        """Mark units as not removable, for a reason."""
        if not units.numel():
            return
        units = torch.unique(torch.cat([s.reshape(-1) for s in collapse_repeats(units)]))
        units = units[units > 0]
        if len(units):
            self.reasons.setdefault(reason, []).append(units)

    def hold_values(self, tensors: Iterable[Tensor], call: Call) -> None:
        """Fix the units of tensors whose values say where something goes, or are read by the model's own code."""
        for t in tensors:
            self.fix(self.unit_ids(t), f"its values are read by {self.where(call.name)}")

    def keep_one_of_parts(self, ids: Tensor, call: Call) -> None:
        """Fix one unit of what a call reads that takes no empty tensor, where all of it could go: parts of what layers
        made. Of all that a layer made one stays anyway, or the probe has tried that it can go as a whole."""
        units = collapse_repeats(ids)[0].unique()
        units = units[units > 0]
        if not len(units) or bool((ids == NO_UNIT).any()):
            return
        first, stop = (
            units.new_tensor(ends) for ends in ([b.first for b in self.blocks], [b.stop for b in self.blocks])
        )
        whole = torch.searchsorted(units, stop) - torch.searchsorted(units, first) == stop - first
        if not bool(whole.any()):
            self.fix(units[:1], f"one of a part has to stay: {self.where(call.name)}")

    def freeze(self, call: Call, why: str = "there is no rule for") -> None:
        """Take a call as one that cannot be followed: what enters keeps its size, what comes out has no units."""
        self.frozen += 1
        reason = f"{why} {self.where(call.name)}"
        for t in call.tensors:
            self.fix(self.unit_ids(t), reason)
            source = self.source_parameter(t)
            if source is not None:
                self.frozen_parameters.setdefault(source[0], reason)
            if source is not None and t.ndim > 1 and call.name in COUNTED and self.first:
                self.fix(self.new_block(self.module[0] or source[0], "hidden", len(t)), reason)
        for t in call.outputs:
            self.set_unit_ids(t, no_units())

    # ---- axes of parameters -------------------------------------------------------------------------------------

    def blend(self, ids: Tensor, dims: Iterable[int], where: str) -> None:
        """Remember that a call mixed elements of parameters along dimensions of a tensor that has nothing else."""
        if not self.of_parameters(ids):
            return
        for d in dims:
            line = collapse_repeats(ids, keep=d)[0].movedim(d, 0).reshape(ids.shape[d], -1)[:, 0]
            low, high = int(line.min()), int(line.max())
            for name, (first, elements) in self.elements.items():
                if low < high and first <= low and high < first + elements.numel():
                    places = torch.unravel_index(line - first, elements.shape)
                    moving = (p for p in range(elements.ndim) if bool((places[p] != places[p][0]).any()))
                    self.blended |= {(name, p): where for p in moving if (name, p) not in self.blended}

    def blended_by(self, weight: Tensor, axis: Axis) -> str | None:
        """The call that mixed a parameter along an axis where the weight was computed of it; None: the weight is the
        parameter, or a view of it, or nothing was mixed."""
        if axis not in self.blended or weight.untyped_storage().data_ptr() == self.tensors[axis[0]].data_ptr():
            return None
        return self.blended[axis]

    def assign(
        self, name: str, dim: int, units: Int[Tensor, " positions"], part: AxisSlice | None = None
    ) -> Int[Tensor, " positions"]:
        """Say which units index one axis of a parameter, or a part of it.

        An axis that has units already has them merged with the new ones.

        Returns:
            The units of the axis, or of its part.
        """
        axis = (name, dim)  # what reads a fresh constant may read units later: ANY_UNIT stays so
        whole = part is None or (part.start == 0 and part.stop == part.size)
        if whole and axis not in self.maps:
            self.maps[axis] = units
            return units
        part = part or AxisSlice(0, len(units), len(units))
        known = self.maps.setdefault(axis, torch.full((part.size,), ANY_UNIT)).clone()
        known[part.start : part.stop] = self.merge(known[part.start : part.stop], units, self.where("shared weight"))
        self.maps[axis] = known
        return known[part.start : part.stop]

    def produce(
        self, name: str, dim: int, size: int, label: str, part: AxisSlice | None = None
    ) -> Int[Tensor, " size"]:
        """Return the units of a weight's output axis, or of a part of it: new at the first call, the same later."""
        axis = (name, dim)
        self.producers[axis] = None
        part = part or AxisSlice(0, size, size)
        known = self.maps.setdefault(axis, torch.full((part.size,), ANY_UNIT))
        if bool((known[part.start : part.stop] == ANY_UNIT).all()):
            known = known.clone()
            known[part.start : part.stop] = self.new_block(label, "hidden", size)
            self.maps[axis] = known
        return self.maps[axis][part.start : part.stop]

    def assign_vector(self, t: Tensor | None, units: Int[Tensor, " positions"]) -> bool:
        """Say which units index a vector parameter or buffer, or a part of one; False where the vector is neither."""
        if t is None:
            return True
        parts = self.source_parts(t)
        for name, part, start, stop in parts or ():
            self.assign(name, 0, units[start:stop], part)
        return parts is not None

    def source_parts(self, t: Tensor) -> list[tuple[str, AxisSlice, int, int]] | None:
        """Find the parameters that a vector is put together of (one, a part of one, several by ``cat``).

        Returns:
            For each part the parameter's name, the positions along it, and the vector's first position and the one
            after its last. None where some of the vector is of no parameter with one dimension.
        """
        if t.ndim != 1:
            return None
        source = self.source_parameter(t)
        if source is not None:
            (part,) = source[1]
            return None if part is None else [(source[0], part, 0, len(t))]
        ids, found, start = self.unit_ids(t), [], 0
        while start < len(ids):
            first = int(ids[start])
            owners = [(n, f, e) for n, (f, e) in self.elements.items() if f <= first < f + e.numel() and e.ndim == 1]
            if not owners:
                return None
            name, of_element, elements = owners[0]
            most = min(len(ids) - start, of_element + len(elements) - first)
            run = int((ids[start : start + most] == torch.arange(first, first + most)).long().cumprod(0).sum())
            part = AxisSlice(first - of_element, first - of_element + run, len(elements))
            found.append((name, part, start, start + run))
            start += run
        return found

    def source_parameter(self, t: Tensor) -> tuple[str, list[AxisSlice | None]] | None:
        """Find the parameter that a tensor is, or is a moved view or a part of.

        Returns:
            The parameter's name, and for each dimension of the tensor its positions along a dimension of the parameter
            (None: along no single one, or with gaps). None where the tensor is of no parameter.
        """
        name = self.name_of(t)
        if name is not None:
            return name, [AxisSlice(0, size, size, d) for d, size in enumerate(t.shape)]
        if not has_values(t) or not self.has_unit_ids(t) or not t.numel():
            return None
        ids = self.unit_ids(t)
        corner = int(ids[(0,) * t.ndim])
        owners = [n for n, (start, e) in self.elements.items() if start <= corner < start + e.numel()]
        if not owners:
            return None
        name = owners[0]
        first, elements = self.elements[name]
        if int(ids.min()) < first or int(ids.max()) >= first + elements.numel():
            return None
        axes: list[AxisSlice | None] = []
        for d in range(t.ndim):
            line = ids[tuple(slice(None) if i == d else 0 for i in range(t.ndim))] - first
            places = torch.unravel_index(line, elements.shape)
            moving = [p for p in range(elements.ndim) if len(line) > 1 and bool((places[p] != places[p][0]).any())]
            axes.append(None)
            if len(moving) == 1:
                place, size = places[moving[0]], elements.shape[moving[0]]
                start, stop = int(place[0]), int(place[0]) + len(place)
                if torch.equal(place, torch.arange(start, stop)):
                    axes[-1] = AxisSlice(start, stop, size, moving[0])
        # A dimension of size one is one of the parameter's, if it has one that is no other's.
        spare = [p for p, size in enumerate(elements.shape) if size == 1]
        for d in (d for d, axis in enumerate(axes) if axis is None and t.shape[d] == 1 and spare):
            axes[d] = AxisSlice(0, 1, 1, spare.pop(0))
        return name, axes

    def record_sizes(self, t: Tensor, shaping: bool = False) -> None:
        """Remember the sizes that a call wrote along axes of units: the module may keep them as numbers of its own.

        Args:
            t: What the call returned.
            shaping: Whether it was a call that gives a shape; the next one has the next number in its module.
        """
        ids, path = self.unit_ids(t), self.module[0]
        if not self.first and path in self._seen:  # its calls have their numbers
            return
        order = self._shaping_calls.get(path, 0)
        self._shaping_calls[path] = order + shaping
        for d in range(t.ndim):
            if varies_along(ids, d):
                place = (order, d) if shaping else None
                self.sizes.append(Size(path, t.shape[d], _slices(ids, d), place=place))

    def record_parts(self, parts: list[Tensor], dim: int) -> None:
        """Remember the sizes of the parts that a call made of a tensor.

        Args:
            parts: What the call returned.
            dim: The dimension along which it split.
        """
        path = self.module[0]
        if not self.first and path in self._seen:
            return
        order = self._splitting_calls.get(path, 0)
        self._splitting_calls[path] = order + 1
        for number, t in enumerate(parts):
            ids = self.unit_ids(t)
            for d in (d for d in range(t.ndim) if varies_along(ids, d)):
                place = (order, number) if d == dim % t.ndim else None
                self.sizes.append(Size(path, t.shape[d], _slices(ids, d), place=place, of_part=place is not None))

    def record_made_sizes(self, t: Tensor, ids: Tensor) -> None:
        """Remember that a fresh constant got its sizes along dimensions of units from the module that made it.

        Args:
            t: What met units, one by one.
            ids: The unit ids, of at least as many dimensions.
        """
        ids = ids[(0,) * (ids.ndim - t.ndim)]
        for d in range(t.ndim):
            if t.shape[d] == ids.shape[d] and varies_along(ids, d):
                for fresh in self.constants.get(t) or ():
                    if fresh.dim in (None, d):
                        self._record_made_size(fresh, self.units_along(ids, d, "constant")[fresh.start :])

    def read_constants(self, x: Tensor, dim: int, axis: Axis, start: int) -> None:
        """Remember that fresh constants are read along an axis: those that follow, of the same size, have its units.

        Args:
            x: What is read.
            dim: The dimension of it that is.
            axis: The axis that reads it.
            start: The first position of that.
        """
        fresh = self.constants.get(x) or ()
        whole = [replace(f, size=x.shape[dim]) if f.dim is None else f for f in fresh if f.dim in (None, dim % x.ndim)]
        self._read_constants += [(f, axis, start + f.start) for f in whole]

    def _record_made_size(self, fresh: Fresh, units: Int[Tensor, " positions"]) -> None:
        units = units[: fresh.size or None]
        if bool((units > 0).any()) and (self.first or fresh.module not in self._seen):
            self.sizes.append(Size(fresh.module, len(units), units[:, None].clone()))

    def record_rectangle(self, ids: Tensor, call: str) -> None:
        """Remember that what stays of a tensor is a rectangle, where its units vary along several dimensions."""
        ids = collapse_repeats(ids)[0]
        along = [d for d in range(ids.ndim) if varies_along(ids, d)]
        if len(along) > 1:
            for d in set(range(ids.ndim)).difference(along):
                ids = ids.narrow(d, 0, 1)
            self.rectangles.append(Rectangle(ids, self.where(call)))

    def record_bounds(self, ids: Tensor, index: object) -> None:
        """Remember the numbers by which a call picks positions along axes of units.

        Args:
            ids: The unit ids of the tensor that is indexed.
            index: What stands in the brackets.
        """
        path = self.module[0]
        if not self.first and path in self._seen:
            return
        order = self._indexing_calls.get(path, 0)
        self._indexing_calls[path] = order + 1
        for position, dim, item in indexed_dims(index, ids.ndim):
            if isinstance(item, Tensor):
                continue
            parts = (item.start, item.stop) if isinstance(item, slice) else (item,)
            first = 1 if isinstance(item, slice) else 0
            for part, value in enumerate(parts, start=first):
                if type(value) is int and -ids.shape[dim] <= value < ids.shape[dim] and varies_along(ids, dim):
                    rows = collapse_repeats(ids, keep=dim)[0].movedim(dim, 0).reshape(ids.shape[dim], -1)
                    self.bounds.append(Bound(path, (order, position, part), value, rows.clamp(min=NO_UNIT)))

    def fix_outputs(self, outputs: Iterable[Tensor]) -> None:
        """Fix the units that the model returns."""
        for t in outputs:
            self.fix(self.unit_ids(t), OUTPUT)

    def finish(self, outputs: list[Tensor]) -> None:
        """Note what the model returned: its units are fixed."""
        self.fix_outputs(outputs)
        self.dataflow = self.recorder.finish(outputs)
        self.maps = {axis: units.clamp(min=NO_UNIT) for axis, units in self.maps.items()}
        for fresh, axis, start in self._read_constants:
            self._record_made_size(fresh, self.maps[axis][start:])

    # ---- where we are -------------------------------------------------------------------------------------------

    @property
    def module(self) -> tuple[str, nn.Module]:
        """Path and object of the innermost module that is running."""
        return self.running[-1][:2] if self.running else ("", self.model)

    @property
    def module_input(self) -> object:
        """The first input of the innermost module that is running."""
        return self.running[-1].input if self.running else None

    def enter_module(self, path: str, module: nn.Module, inputs: tuple[object, ...]) -> None:
        """Note that a module begins to run."""
        self._see(self.module[0], inputs)
        self.running.append(RunningModule(path, module, inputs[0] if inputs else None))
        self._see(path, inputs)
        self._shaping_calls[path] = self._splitting_calls[path] = self._indexing_calls[path] = 0

    def leave_module(self, path: str, inputs: tuple[object, ...], output: object) -> None:
        """Note what a module returned, and keep its unit ids."""
        while self.running.pop().path != path:  # above it are modules whose errors the model caught
            pass
        self.recorder.add_module_call(path, inputs, output)
        self._see(self.module[0] if self.running else "", output)
        if isinstance(output, Tensor) and self.first:
            self.module_ids[path] = collapse_repeats(self.unit_ids(output))[0].clone()

    def _see(self, path: str, values: object) -> None:
        """Note that units are where a module's own code can reach them."""
        known = [self._unit_ids.get(t) for t in tensor_leaves(values, [])]
        found = self.scopes.setdefault(path, [])
        found += [collapse_repeats(ids)[0] for ids in known if ids is not None]

    def begin_further_run(self) -> None:
        """Get ready to run the model once more: what it costs and which value depends on which is not noted again."""
        if self.first:
            self.first = False
            self._kept = self.contractions, self.products, self.constant_macs, self.recorder
            self._seen = frozenset(self._shaping_calls)
        self.contractions, self.products, self.constant_macs, self.recorder = [], [], 0.0, DataflowRecorder()

    def end_further_runs(self) -> None:
        """Take up again what the first run noted."""
        if not self.first:
            self.contractions, self.products, self.constant_macs, self.recorder = self._kept

    def hold_scopes(self, unread: Mapping[str, Collection[int]]) -> None:
        """Fix units that modules which no run reached could read: those where the code that calls them can reach, along
        axes that fit them.

        Args:
            unread: The widths of these modules, by path.
        """
        for path, widths in unread.items():
            owner = path
            while owner and owner not in self.scopes:
                owner = owner.rpartition(".")[0]
            for ids in self.scopes.get(owner, ()):
                if any(ids.shape[d] in widths and varies_along(ids, d) for d in range(ids.ndim)):
                    self.fix(ids, f"{path} may read it, and no example reaches that; give one that does")

    def where(self, call: str) -> str:
        """Return call, module and source line, for a person to find the place."""
        path, module = self.module
        frame = sys._getframe()
        while frame is not None and _is_library(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename == _RUNNER:
            frame = None  # above it is whoever asked for the trace, not the model
        line = f", {Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else ""
        return f"{call} in {path or 'the model'} ({type(module).__name__}{line})"


def _slices(ids: Tensor, dim: int) -> Tensor:
    """The unit ids at each position of a dimension: (positions, one id or all)."""
    slices = collapse_repeats(ids, keep=dim)[0].movedim(dim, 0).reshape(ids.shape[dim], -1)
    # What a fresh constant leaves open has the size of its slice.
    slices = torch.where(slices == ANY_UNIT, slices.amax(1, keepdim=True), slices)
    return slices[:, :1].clone() if bool((slices == slices[:, :1]).all()) else slices.clone()


def indexed_dims(index: object, ndim: int) -> Iterator[tuple[int, int, Any]]:
    """Go through the positions, slices and tensors in an index.

    Args:
        index: What stands in the brackets.
        ndim: The dimensions of the tensor that is indexed.

    Yields:
        The place in the index, the dimension that is picked from (of a mask, its first one), and what picks.
    """
    items = index if isinstance(index, tuple) else (index,)
    consumed = [0 if item is None or item is Ellipsis else _consumed(item) for item in items]
    dim = 0
    for position, item in enumerate(items):
        if item is Ellipsis:
            dim = ndim - sum(consumed[position:])
            continue
        if type(item) is int or isinstance(item, Tensor) or (isinstance(item, slice) and item.step in (None, 1)):
            yield position, dim, item
        dim += consumed[position]


def _consumed(item: object) -> int:
    """How many dimensions an index picks from: a mask from all of its own."""
    return item.ndim if isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8) else 1


Rule = Callable[[Trace, Call], None]
"""What a call does to the units that its operands carry."""

_PAIR = 2**31
_MANY = 2**14
_FOLDER = Path(__file__).parent
_RUNNER = str(_FOLDER / "trace_structure.py")
_LIBRARY = tuple(f"{folder}{os.sep}" for folder in (_FOLDER, Path(torch.__file__).parent))


def _is_library(filename: str) -> bool:
    if filename == _RUNNER:
        return False
    return filename.startswith(("<", *_LIBRARY)) or f"{os.sep}jaxtyping{os.sep}" in filename
