"""The gates of one step, as the places where they multiply read them.

The values are drawn once a step. The gradient of every place is handed to ``log_alpha`` by one function that keeps
nothing which autograd could free: so a backward pass may run in pieces, and forward code may run again inside it, as
activation checkpointing and adjoint solvers do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lumos.gating.gates import Gates
from lumos.gating.hard_concrete import clipped, concrete, unclipped
from lumos.shapes import Float, Int
from lumos.tracing.structure import Axis, Structure


class Sites:
    """The values of the gates at every site of a structure, for the step that is being taken.

    Args:
        gates: The gates, one for each unit.
        structure: Says at which axes which units multiply.
        index: The place in ``structure.padded(gates)`` of every position of every site, one site after the other.
    """

    def __init__(self, gates: Gates, structure: Structure, index: Int[Tensor, " positions"]) -> None:
        self.gates, self.index = gates, index
        self.axes: tuple[Axis, ...] = tuple(structure.sites)
        self.lengths = [len(units) for units in structure.sites.values()]
        self.units, self.pairs = structure.units, structure.pairs
        self.number = {axis: n for n, axis in enumerate(self.axes)}
        self.in_order = not len(self.pairs) and torch.equal(index.cpu(), torch.arange(1, structure.units + 1))
        self.reader: Callable[[Tensor], Tensor] | None = None
        """While it is set, weights are read through it and not through their gates."""
        self.held = False
        """Whether noise is drawn by somebody else, and stays until then."""
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._calls = threading.local()
        self._drawn_at: tuple[Any, ...] | None = None
        self._values: tuple[Tensor, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: not the values of this step, which belong to a graph."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_calls", "_drawn_at", "_values")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._forget()
        self.__dict__.update(state)

    @staticmethod
    def index_of(structure: Structure) -> Int[Tensor, " positions"]:
        """Return the ``index`` of a structure's sites."""
        flat = torch.cat([*structure.sites.values(), torch.zeros(0, dtype=torch.int64)])
        return flat % (1 + structure.units + len(structure.pairs))

    # ---- a step -----------------------------------------------------------------------------------------------------

    def refresh(self, watched: Sequence[Tensor] = ()) -> None:
        """Take the gates as they are now; where weights or gates have changed since the last draw, draw anew.

        Args:
            watched: Tensors whose change, beside that of the gates, means that an optimizer has taken a step.
        """
        if torch.compiler.is_compiling():
            self._values = self._split(self._at_sites(self.gates.values() if self.held else self.gates()))
            return
        with self._lock:
            if self.gates.sampling and not self.held:
                now = tuple((id(t), _version(t)) for t in (self.gates.log_alpha, *watched))
                if now != self._drawn_at:
                    self._drawn_at = now
                    with torch.no_grad():
                        self.gates()  # called: processes that train together hook it, to draw the same noise
            self._values = self._split(_AtSites.apply(self.gates.log_alpha, _Step(self)))

    def resample(self) -> None:
        """Draw new gates at the next call, whether or not a weight has changed until then."""
        with self._lock:
            self._drawn_at = None

    def values(self) -> tuple[Tensor, ...]:
        """Return what multiplies at each site, in the order of ``axes``."""
        stale = self._values is None
        if not stale and not self.in_call and not torch.compiler.is_compiling():
            # Read from outside a call: by code that runs again in a backward pass, or by a method of the model.
            graph = torch.is_grad_enabled() and self.gates.log_alpha.requires_grad
            stale = not self.gates.sampling or (graph and not any(v.requires_grad for v in self._values or ()))
        if stale:
            self.refresh()
        assert self._values is not None
        return self._values

    def of(self, values: Float[Tensor, " units"]) -> dict[Axis, Float[Tensor, " positions"]]:
        """Return what given gates multiply at each site; positions without a unit get a one."""
        return dict(zip(self.axes, self._split(self._at_sites(values)), strict=True))

    def at(self, axis: Axis) -> Float[Tensor, " positions"]:
        """Return what multiplies at one site."""
        return self.values()[self.number[axis]]

    @property
    def in_call(self) -> bool:
        """Whether this thread runs the model."""
        return getattr(self._calls, "depth", 0) > 0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Run the model: within a call the values stay as :meth:`refresh` found them."""
        self._calls.depth = getattr(self._calls, "depth", 0) + 1
        try:
            yield
        finally:
            self._calls.depth -= 1

    @contextmanager
    def without(self, reader: Callable[[Tensor], Tensor] = lambda weight: weight) -> Iterator[None]:
        """Read weights without gates for a while: as they are, or as ``reader`` returns them."""
        before, self.reader = self.reader, reader
        try:
            yield
        finally:
            self.reader = before

    # ---- from units to positions ------------------------------------------------------------------------------------

    def _at_sites(self, values: Float[Tensor, " units"]) -> Float[Tensor, " positions"]:
        if self.in_order:
            return values
        return self._padded(values).index_select(0, self._on(values.device))

    def _on(self, device: torch.device) -> Tensor:
        if self.index.device != device:
            self.index = self.index.to(device)
            self.pairs = self.pairs.to(device)
        return self.index

    def _split(self, at_sites: Float[Tensor, " positions"]) -> tuple[Tensor, ...]:
        return at_sites.split(self.lengths)

    def _padded(self, values: Float[Tensor, " units"]) -> Float[Tensor, " padded"]:
        """As ``Structure.padded``: a one first, at the end the products of the pairs."""
        if not len(self.pairs):
            return torch.cat([values.new_ones(1), values])
        one, other = (self.pairs.to(values.device).flip(0) - 1).unbind(1)
        return torch.cat([values.new_ones(1), values, values[one] * values[other]])

    def to_units(self, grad: Float[Tensor, " positions"], values: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
        """Return the gradient of the units, from that of the positions: the transpose of going to the sites."""
        if self.in_order:
            return grad
        padded = grad.new_zeros(1 + self.units + len(self.pairs)).index_add_(0, self._on(grad.device), grad)
        of_units = padded[1 : 1 + self.units]
        if len(self.pairs):
            one, other = (self.pairs.to(grad.device).flip(0) - 1).unbind(1)
            of_pairs = padded[1 + self.units :]
            of_units = of_units.index_add(0, one, of_pairs * values[other]).index_add(0, other, of_pairs * values[one])
        return of_units


class _Step:
    """The gates of one step: what a backward pass needs of them, kept where autograd does not free it."""

    def __init__(self, sites: Sites) -> None:
        self.sites = sites
        with torch.no_grad():
            gates = sites.gates
            noise = gates.noise if gates.sampling else None
            self.concrete = concrete(gates.log_alpha, noise, gates.settings)
            self.unclipped = unclipped(self.concrete, gates.settings)
            self.values = clipped(self.unclipped)


class _AtSites(torch.autograd.Function):
    """From ``log_alpha`` to the values at all sites. Nothing is saved, so that it may be gone through repeatedly."""

    @staticmethod
    def forward(ctx: Any, log_alpha: Tensor, step: _Step) -> Tensor:
        ctx.step = step
        at_sites = step.sites._at_sites(step.values)
        return at_sites.clone() if at_sites is step.values else at_sites

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        step: _Step = ctx.step
        settings = step.sites.gates.settings
        of_units = step.sites.to_units(grads[0], step.values)
        of_unclipped = torch.ops.aten.hardtanh_backward(of_units, step.unclipped, 0.0, 1.0)
        of_concrete = of_unclipped * (settings.zeta - settings.gamma)
        return torch.ops.aten.sigmoid_backward(of_concrete, step.concrete) / settings.tau, None


def _version(t: Tensor) -> int:
    try:
        return t._version
    except RuntimeError:  # made in inference mode: no optimizer changes it
        return 0
