"""Which values depend on the model's inputs, and which the outputs need: what is left when whole layers close."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

Axis = tuple[str, int]
"""One dimension of one parameter or buffer: its name in the model, and the dimension."""


@dataclass(frozen=True)
class Edge:
    """A call that made the values ``target`` from the values ``sources``; through ``axis`` where it reads a weight."""

    sources: tuple[int, ...]
    target: int
    axis: Axis | None


@dataclass(frozen=True)
class ModuleCall:
    """A module's only call, from one tensor to another."""

    path: str
    source: int
    target: int
    shape_in: torch.Size
    shape_out: torch.Size


@dataclass(frozen=True)
class Flow:
    """The calls of one run of a model, in order."""

    edges: tuple[Edge, ...] = ()
    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()
    calls: tuple[ModuleCall, ...] = ()

    def live(self, dead: Collection[Axis]) -> set[int]:
        """The values that still depend on the inputs when what is read through the axes ``dead`` is zero."""
        return self._all - self._lost(dead) if dead else self._all

    @cached_property
    def _all(self) -> set[int]:
        live = set(self.inputs)
        for edge in self.edges:
            if not live.isdisjoint(edge.sources):
                live.add(edge.target)
        return live

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

    def _lost(self, dead: Collection[Axis]) -> set[int]:
        """The values that no longer depend on the inputs: each has one call that made it."""
        lost: set[int] = set()
        waiting = [edge for axis in dead for edge in self._by_axis.get(axis, ())]
        while waiting:
            edge = waiting.pop()
            if edge.target in lost or edge.target not in self._all:
                continue
            if edge.axis in dead or all(s in lost or s not in self._all for s in edge.sources):
                lost.add(edge.target)
                waiting += self._readers.get(edge.target, ())
        return lost

    def alive(self, dead: Collection[Axis]) -> bool:
        """Whether every output that depends on the inputs still does."""
        return self.outputs.isdisjoint(self._lost(dead))

    def replaceable(self, dead: Collection[Axis]) -> tuple[list[ModuleCall], list[ModuleCall]]:
        """The outermost modules whose output is constant now, and then those whose output nobody reads."""
        live = self.live(dead)
        if live == self.live(()):
            return [], []
        depends = self.live(())
        constant = _outermost([c for c in self.calls if c.target in depends and c.target not in live])
        known = {c.target for c in constant}
        needed = set(self.outputs)
        for edge in reversed(self.edges):
            if edge.target in needed and edge.target not in known:
                needed.update(edge.sources)
        inside = tuple(f"{c.path}." for c in constant)
        paths = {c.path for c in constant}
        unread = [c for c in self.calls if c.target not in needed and c.path not in paths]
        return constant, _outermost([c for c in unread if not c.path.startswith(inside)])


class FlowRecord:
    """Records a flow while a model runs: every value carries its number."""

    def __init__(self) -> None:
        self.edges: list[Edge] = []
        self.inputs: set[int] = set()
        self.calls: dict[str, list[ModuleCall | None]] = {}
        self.exposed: set[str] = set()
        self.count = 0

    def enter(self, t: Tensor) -> None:
        """A tensor is an input of the model."""
        self.inputs.add(self._number([t]))

    def sources(self, operands: list[Tensor]) -> tuple[int, ...]:
        """The numbers of a call's operands, before it runs: it may write into one of them."""
        found = (getattr(t, _NODE, None) for t in operands)
        return tuple(dict.fromkeys(n for n in found if n is not None))

    def made(self, sources: tuple[int, ...], outputs: list[Tensor], axis: Axis | None) -> None:
        """A call made its outputs from its sources; ``axis``: by reading them through a weight."""
        if sources and outputs:
            self.edges.append(Edge(sources, self._number(outputs), axis))

    def reads(self, names: Iterable[str], running: Collection[str]) -> None:
        """A call reads parameters while the modules at these paths run."""
        for name in names:
            owners = name.split(".")[:-1]
            # Something outside counts on these modules' parameters, so that nothing can take their place.
            self.exposed.update({".".join(owners[: n + 1]) for n in range(len(owners))}.difference(running))

    def called(self, path: str, inputs: tuple[Any, ...], output: Any) -> None:
        """A module returned."""
        x = inputs[0] if len(inputs) == 1 else None
        call = None
        if isinstance(x, Tensor) and isinstance(output, Tensor) and hasattr(x, _NODE) and hasattr(output, _NODE):
            call = ModuleCall(path, getattr(x, _NODE), getattr(output, _NODE), x.shape, output.shape)
        self.calls.setdefault(path, []).append(call)

    def flow(self, outputs: list[Tensor]) -> Flow:
        """What was recorded, for a model that returned these tensors."""
        once = [calls[0] for path, calls in self.calls.items() if len(calls) == 1 and path and path not in self.exposed]
        ends = frozenset(getattr(t, _NODE) for t in outputs if hasattr(t, _NODE))
        return Flow(tuple(self.edges), frozenset(self.inputs), ends, tuple(c for c in once if c is not None))

    def _number(self, tensors: list[Tensor]) -> int:
        self.count += 1
        for t in tensors:
            setattr(t, _NODE, self.count)
        return self.count


def leaves(value: Any, found: list[Tensor]) -> list[Tensor]:
    """The tensors in a call's operands or result, in order, added to those found (pytree's walk is far slower)."""
    if type(value) in _PLAIN:
        pass
    elif isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, (tuple, list)):
        for item in value:
            leaves(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            leaves(item, found)
    return found


_NODE = "_lumos_node"
_PLAIN = {type(None), bool, int, float, str}


def _outermost(calls: list[ModuleCall]) -> list[ModuleCall]:
    found: dict[str, ModuleCall] = {}
    for call in sorted(calls, key=lambda c: c.path.count(".")):
        parts = call.path.split(".")
        if not any(".".join(parts[:n]) in found for n in range(1, len(parts))):
            found[call.path] = call
    return list(found.values())
