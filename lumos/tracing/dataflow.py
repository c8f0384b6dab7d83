"""Which values depend on the model's inputs, and which the outputs need: what is left when whole layers close."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lumos.tracing.calls import Axis
from lumos.tracing.tensor_table import TensorTable


@dataclass(frozen=True)
class Edge:
    """A call that made the value ``target`` from the values ``sources``; through ``axis`` where it reads a weight."""

    sources: tuple[int, ...]
    target: int
    axis: Axis | None


@dataclass(frozen=True)
class ModuleCall:
    """A module's only call, from one tensor to another: its path, both values' numbers and their shapes."""

    path: str
    source: int
    target: int
    shape_in: torch.Size
    shape_out: torch.Size


@dataclass(frozen=True)
class Dataflow:
    """The calls of one run of a model, in order.

    A value is a tensor at one moment of the run: an in-place call makes a new value. Values are numbered.
    ``closed`` in the methods are the weight axes through which nothing is read: each of their units is closed.

    Args:
        edges: The calls.
        inputs: Values that are the model's inputs.
        outputs: Values that the model returns.
        calls: The modules that were called once, from one tensor to another.
    """

    edges: tuple[Edge, ...] = ()
    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()
    calls: tuple[ModuleCall, ...] = ()

    def outputs_depend_on_inputs(self, closed: Collection[Axis]) -> bool:
        """Return whether every output that depends on the inputs still does."""
        return self.outputs.isdisjoint(self._independent(closed))

    def dependent_values(self, closed: Collection[Axis]) -> set[int]:
        """Return the values that still depend on the inputs."""
        return self._dependent - self._independent(closed) if closed else self._dependent

    def replaceable_modules(self, closed: Collection[Axis]) -> tuple[list[ModuleCall], list[ModuleCall]]:
        """Return the outermost modules whose output is constant now, and then those whose output nobody reads."""
        dependent = self.dependent_values(closed)
        if dependent == self._dependent:
            return [], []
        constant = _outermost([c for c in self.calls if c.target in self._dependent and c.target not in dependent])
        known = {c.target for c in constant}
        needed = set(self.outputs)
        for edge in reversed(self.edges):
            if edge.target in needed and edge.target not in known:
                needed.update(edge.sources)
        inside = tuple(f"{c.path}." for c in constant)
        paths = {c.path for c in constant}
        unread = [c for c in self.calls if c.target not in needed and c.path not in paths]
        return constant, _outermost([c for c in unread if not c.path.startswith(inside)])

    @cached_property
    def _dependent(self) -> set[int]:
        """The values that depend on the inputs when all units are open."""
        found = set(self.inputs)
        for edge in self.edges:
            if not found.isdisjoint(edge.sources):
                found.add(edge.target)
        return found

    @cached_property
    def _by_axis(self) -> dict[Axis, list[Edge]]:
        found: dict[Axis, list[Edge]] = {}
        for edge in self.edges:
            if edge.axis is not None:
                found.setdefault(edge.axis, []).append(edge)
        return found

    @cached_property
    def _readers(self) -> dict[int, list[Edge]]:
        found: dict[int, list[Edge]] = {}
        for edge in self.edges:
            for source in edge.sources:
                found.setdefault(source, []).append(edge)
        return found

    def _independent(self, closed: Collection[Axis]) -> set[int]:
        """The values that no longer depend on the inputs: each has one call that made it."""
        found: set[int] = set()
        waiting = [edge for axis in closed for edge in self._by_axis.get(axis, ())]
        while waiting:
            edge = waiting.pop()
            if edge.target in found or edge.target not in self._dependent:
                continue
            if edge.axis in closed or all(s in found or s not in self._dependent for s in edge.sources):
                found.add(edge.target)
                waiting += self._readers.get(edge.target, ())
        return found


class DataflowRecorder:
    """Records a dataflow while a model runs."""

    def __init__(self) -> None:
        self._values: TensorTable[int] = TensorTable()
        self._edges: list[Edge] = []
        self._inputs: set[int] = set()
        self._calls: dict[str, list[ModuleCall | None]] = {}
        self._exposed: set[str] = set()
        self._count = 0
        self._one_course = True

    def add_input(self, t: Tensor) -> None:
        """Note that a tensor is an input of the model."""
        self._inputs.add(self._number([t]))

    def values_of(self, operands: list[Tensor]) -> tuple[int, ...]:
        """Return the values that a call's operands hold, before it runs: it may write into one of them."""
        found = [self._values.get(t) for t in operands]
        return tuple(dict.fromkeys(n for n in found if n is not None))

    def add_call(self, sources: tuple[int, ...], outputs: list[Tensor], axis: Axis | None) -> None:
        """Note that a call made its outputs from the values ``sources``; ``axis``: by reading them through a weight."""
        if sources and outputs:
            self._edges.append(Edge(sources, self._number(outputs), axis))

    def add_reads(self, names: Iterable[str], running: Collection[str]) -> None:
        """Note that a call reads the parameters of these names while the modules at these paths run."""
        for name in names:
            owners = name.split(".")[:-1]
            # Something outside counts on these modules' parameters, so that nothing can take their place.
            self._exposed.update({".".join(owners[: n + 1]) for n in range(len(owners))}.difference(running))

    def keep_modules(self) -> None:
        """Note that nothing can take the place of any module: other runs take another course than this one."""
        self._one_course = False

    def add_module_call(self, path: str, inputs: tuple[Any, ...], output: Any) -> None:
        """Note that the module at this path returned ``output`` for ``inputs``."""
        x = inputs[0] if len(inputs) == 1 else None
        call = None
        if isinstance(x, Tensor) and isinstance(output, Tensor):
            source, target = self._values.get(x), self._values.get(output)
            if source is not None and target is not None:
                call = ModuleCall(path, source, target, x.shape, output.shape)
        self._calls.setdefault(path, []).append(call)

    def finish(self, outputs: list[Tensor]) -> Dataflow:
        """Return what was recorded, for a model that returned these tensors."""
        once = [
            calls[0] for path, calls in self._calls.items() if len(calls) == 1 and path and path not in self._exposed
        ]
        calls = tuple(c for c in once if c is not None and self._one_course)
        return Dataflow(tuple(self._edges), frozenset(self._inputs), frozenset(self.values_of(outputs)), calls)

    def _number(self, tensors: list[Tensor]) -> int:
        self._count += 1
        for t in tensors:
            self._values.set(t, self._count)
        return self._count


def _outermost(calls: list[ModuleCall]) -> list[ModuleCall]:
    found: dict[str, ModuleCall] = {}
    for call in sorted(calls, key=lambda c: c.path.count(".")):
        parts = call.path.split(".")
        if not any(".".join(parts[:n]) in found for n in range(1, len(parts))):
            found[call.path] = call
    return list(found.values())
