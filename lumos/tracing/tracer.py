"""Index-shadow tracing: run a model once and follow every unit through real Python.

Every tensor carries a *shadow*, an int64 tensor of the same shape (stride-0 expanded where it repeats) whose entries
name the unit that each value belongs to. The rules of ``lumos.rules`` propagate shadows call by call; units that must
live or die together are merged; units that cannot be removed are fixed, with the call that fixed them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lumos.shapes import Int
from lumos.tracing.dataflow import Flow, FlowRecord, leaves
from lumos.tracing.modules import own_tensors
from lumos.tracing.options import StructureOptions
from lumos.tracing.shape_only import ValuesRead, keeps_values, reads_values, stand_in
from lumos.tracing.structure import Axis, Contraction, Size
from lumos.tracing.unit_ids import has_values, squash, varies

NONE = 0
"""Shadow of a value that belongs to no unit: it has this size in every compact model."""
ANY = -1
"""Shadow of a fresh constant (``zeros``, ``ones``…), which fits whatever unit it meets."""

SHADOW = "_lumos_shadow"
_PAIR = 2**31
_MANY = 2**14


@dataclass
class Call:
    """One intercepted call: the function's plain name, its arguments and its result."""

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    tensors: list[Tensor]
    """The tensor operands, in order."""
    outputs: list[Tensor]
    """The tensors in the result."""

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument given by position or by name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)


@dataclass(frozen=True)
class Part:
    """Positions ``start`` to ``stop`` of an axis with ``size`` positions: of the parameter's dimension ``dim``."""

    start: int
    stop: int
    size: int
    dim: int = 0


@dataclass
class Block:
    """Units that were made together, ``first`` to ``stop``, and the name of what made them."""

    name: str
    kind: str
    first: int
    stop: int


class Trace(TorchFunctionMode):
    """The shadows, merges and fixed units of one run of a model."""

    def __init__(self, model: nn.Module, options: StructureOptions, spare: bool = False) -> None:
        super().__init__()
        self.model, self.options, self.spare = model, options, spare
        self.spared = self.asked = False
        self.names = {id(t): n for n, t in own_tensors(model).items()}
        self.next_unit = 1
        self.blocks: list[Block] = []
        self.merges: list[Tensor] = []
        self.reasons: dict[str, list[Tensor]] = {}
        self.maps: dict[Axis, Tensor] = {}
        self.elements: dict[str, tuple[int, Tensor]] = {}
        self.consumers: dict[Axis, None] = {}
        self.tables: dict[Axis, None] = {}
        self.norms: dict[str, Tensor] = {}
        self.producers: dict[Axis, None] = {}
        self.contractions: list[Contraction] = []
        self.module_shadows: dict[str, Tensor] = {}
        self.sizes: list[Size] = []
        self.queries: list[Any] = []
        self.crossed: list[tuple[Tensor, Tensor]] = []
        self.record = FlowRecord()
        self.flow = Flow()
        self.views: dict[str, int] = {}
        self._stack: list[tuple[str, nn.Module, Any]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from lumos.tracing.rules import RULES, rule_for
        from lumos.tracing.rules.movement import freeze

        kwargs = kwargs or {}
        operands = leaves((args, kwargs), [])
        sources = self.record.sources(operands)
        self.record.reads([self.names[id(t)] for t in operands if id(t) in self.names], [p for p, *_ in self._stack])
        name = plain_name(func)
        if self.spared:
            self.asked |= reads_values(name, func, args, operands, name in RULES)
            self.asked |= keeps_values(name, func, args, kwargs, self.name_of(next(iter(operands), None)) is not None)
            if self.asked:
                raise ValuesRead(name)
        zeros = stand_in(name, func, args, kwargs) if self.spare else None
        self.spared |= zeros is not None
        out = func(*args, **kwargs) if zeros is None else zeros
        if type(out) in _FACTS:
            return out
        call = Call(name, func, tuple(args), kwargs, out, operands, leaves(out, []))
        self.reading: Axis | None = None
        try:
            rule_for(name)(self, call)
        except Exception as error:
            # A call in a form that its rule does not know is an unknown call; the run of the model goes on.
            freeze(self, call, f"the rule does not follow this form ({type(error).__name__}: {error}) of")
        self.record.made(sources, call.outputs, self.reading)
        return out

    # ---- shadows ------------------------------------------------------------------------------------------------

    def shadow(self, t: Tensor) -> Tensor:
        """The shadow of a tensor; a parameter's is one unit per element, made at the first asking."""
        known = getattr(t, SHADOW, None)
        if known is not None and known.shape == t.shape:
            return known
        name = self.names.get(id(t))
        if name is None or not has_values(t):
            return torch.zeros((), dtype=torch.int64).expand(t.shape)
        if name not in self.elements:
            first = self._take(t.numel())
            self.elements[name] = (first, torch.arange(first, first + t.numel()).view(t.shape))
        return self.elements[name][1]

    def set(self, t: Tensor, shadow: Tensor) -> None:
        """Give a tensor its shadow (expanded to its shape)."""
        setattr(t, SHADOW, shadow.expand(t.shape))

    def name_of(self, t: Any) -> str | None:
        """The name of a parameter or buffer; None for any other value."""
        return self.names.get(id(t)) if isinstance(t, Tensor) else None

    # ---- units --------------------------------------------------------------------------------------------------

    def _take(self, count: int) -> int:
        first = self.next_unit
        self.next_unit += count
        return first

    def new_block(self, name: str, kind: str, size: int) -> Int[Tensor, " size"]:
        """New units that are made together."""
        first = self._take(size)
        self.blocks.append(Block(name, kind, first, first + size))
        return torch.arange(first, first + size)

    def merge(self, a: Tensor, b: Tensor, reason: str) -> Tensor:
        """Tie two shadows of one shape entry by entry, and return the shadow of what combines them.

        A unit that meets a value of full size without a unit is fixed, since that value keeps its size.
        """
        a, b = torch.broadcast_tensors(a, b)
        one, other = squash(a, b)
        left, right = one.reshape(-1), other.reshape(-1)
        if torch.equal(left, right):
            return a
        differ = left != right
        left, right = left[differ], right[differ]
        if len(left) > _MANY:
            # One number for a pair (units are few, ANY is -1): far faster to make unique than rows are.
            keys = torch.unique((left + 1) * _PAIR + right + 1)
            left, right = keys // _PAIR - 1, keys % _PAIR - 1
        low, high = torch.minimum(left, right), torch.maximum(left, right)
        units = low > 0
        if units.any():
            self.merges.append(torch.stack([low[units], high[units]], 1))
        stuck = high[low == NONE]
        self.fix(stuck, f"meets a value of fixed size: {reason}" if len(stuck) else reason)
        return torch.where(one > 0, one, torch.where(other == ANY, one, other)).expand(a.shape)

    def fix(self, units: Tensor, reason: str) -> None:
        """Mark units as not removable."""
        if not units.numel():
            return
        units = torch.unique(torch.cat([s.reshape(-1) for s in squash(units)]))
        units = units[units > 0]
        if len(units):
            self.reasons.setdefault(reason, []).append(units)

    def assign(self, name: str, dim: int, units: Int[Tensor, " positions"], part: Part | None = None) -> Tensor:
        """Say which units index one axis of a parameter, or a part of it; an axis that has units already is tied to the
        new ones."""
        axis = (name, dim)
        units = units.clamp(min=NONE)
        whole = part is None or (part.start == 0 and part.stop == part.size)
        if whole and axis not in self.maps:
            self.maps[axis] = units
            return units
        part = part or Part(0, len(units), len(units))
        known = self.maps.setdefault(axis, torch.full((part.size,), ANY)).clone()
        known[part.start : part.stop] = self.merge(known[part.start : part.stop], units, self.where("shared weight"))
        self.maps[axis] = known
        return known[part.start : part.stop]

    def produce(self, name: str, dim: int, size: int, label: str, part: Part | None = None) -> Int[Tensor, " size"]:
        """The units of a weight's output axis, or of a part of it: new at the first call, the same at later ones."""
        axis = (name, dim)
        self.producers[axis] = None
        part = part or Part(0, size, size)
        known = self.maps.setdefault(axis, torch.full((part.size,), ANY))
        if bool((known[part.start : part.stop] == ANY).all()):
            known = known.clone()
            known[part.start : part.stop] = self.new_block(label, "hidden", size)
            self.maps[axis] = known
        return self.maps[axis][part.start : part.stop]

    def line(self, shadow: Tensor, dim: int, what: str) -> Int[Tensor, " positions"]:
        """The units along one dimension, after tying those that other positions put at the same place."""
        dim %= shadow.ndim
        rows = squash(shadow, keep=dim)[0].movedim(dim, -1).reshape(-1, shadow.shape[dim])
        rows = torch.unique(rows, dim=0) if len(rows) > 1 else rows
        first = rows[0]
        for row in rows[1:]:
            first = self.merge(first, row, self.where(what))
        return first

    def follow(self, t: Tensor | None, units: Int[Tensor, " positions"]) -> bool:
        """Let a vector parameter or buffer, or a part of one, follow units; False where the vector is neither."""
        if t is None:
            return True
        origin = self.origin(t)
        if origin is None or origin[1][0] is None:
            return False
        self.assign(origin[0], 0, units, origin[1][0])
        return True

    def origin(self, t: Tensor) -> tuple[str, list[Part | None]] | None:
        """The parameter that a tensor is, or is a moved view or a part of, and for each dimension the part of which of
        the parameter's it is (None: of no single one, or with gaps). None for any other value.
        """
        name = self.name_of(t)
        if name is not None:
            return name, [Part(0, size, size, d) for d, size in enumerate(t.shape)]
        if not has_values(t) or not hasattr(t, SHADOW) or not t.numel():
            return None
        shadow = self.shadow(t)
        corner = int(shadow[(0,) * t.ndim])
        owners = [n for n, (start, e) in self.elements.items() if start <= corner < start + e.numel()]
        if not owners:
            return None
        name = owners[0]
        first, elements = self.elements[name]
        if int(shadow.min()) < first or int(shadow.max()) >= first + elements.numel():
            return None
        axes: list[Part | None] = []
        for d in range(t.ndim):
            line = shadow[tuple(slice(None) if i == d else 0 for i in range(t.ndim))] - first
            places = torch.unravel_index(line, elements.shape)
            moving = [p for p in range(elements.ndim) if len(line) > 1 and bool((places[p] != places[p][0]).any())]
            axes.append(None)
            if len(moving) == 1:
                place, size = places[moving[0]], elements.shape[moving[0]]
                start, stop = int(place[0]), int(place[0]) + len(place)
                if torch.equal(place, torch.arange(start, stop)):
                    axes[-1] = Part(start, stop, size, moving[0])
        return name, axes

    def note_sizes(self, t: Tensor, shaping: bool = False) -> None:
        """Remember the sizes that a call wrote along axes of units: the module may keep them as numbers of its own.
        ``shaping``: in its code's next call that gives a shape."""
        shadow, path = self.shadow(t), self.module[0]
        order = self.views.get(path, 0)
        self.views[path] = order + shaping
        for d in range(t.ndim):
            if varies(shadow, d):
                slices = squash(shadow, keep=d)[0].movedim(d, 0).reshape(t.shape[d], -1)
                # What a fresh constant leaves open has the size of its slice.
                slices = torch.where(slices == ANY, slices.amax(1, keepdim=True), slices)
                if bool((slices == slices[:, :1]).all()):
                    slices = slices[:, :1]
                place = (order, d) if shaping else None
                self.sizes.append(Size(path, t.shape[d], slices.clone(), place=place))

    # ---- where we are -------------------------------------------------------------------------------------------

    @property
    def module(self) -> tuple[str, nn.Module]:
        """Path and object of the innermost module that is running."""
        return self._stack[-1][:2] if self._stack else ("", self.model)

    @property
    def module_input(self) -> Any:
        """The first input of the innermost module that is running."""
        return self._stack[-1][2] if self._stack else None

    def where(self, call: str) -> str:
        """Call, module and source line, for a person to find the place."""
        path, module = self.module
        frame = sys._getframe()
        while frame is not None and _is_library(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename.endswith("/lumos/tracing/build_structure.py"):
            frame = None  # above it is whoever asked for the trace, not the model
        line = f", {frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}" if frame else ""
        return f"{call} in {path or 'the model'} ({type(module).__name__}{line})"

    @contextmanager
    def modules(self) -> Iterator[None]:
        """Follow which module is running, and keep the shadow of what each returns."""
        paths = {id(m): n for n, m in self.model.named_modules()}

        def enter(module: nn.Module, inputs: Any) -> None:
            if id(module) in paths:
                self._stack.append((paths[id(module)], module, inputs[0] if inputs else None))
                self.views[paths[id(module)]] = 0

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            if id(module) in paths:
                self._stack.pop()
                with torch._C.DisableTorchFunction():
                    self.record.called(paths[id(module)], inputs, output)
                    if isinstance(output, Tensor):
                        self.module_shadows[paths[id(module)]] = squash(self.shadow(output))[0].clone()

        pre = nn.modules.module.register_module_forward_pre_hook(enter)
        post = nn.modules.module.register_module_forward_hook(leave)
        try:
            yield
        finally:
            pre.remove()
            post.remove()


_FACTS = (torch.Size, torch.dtype, torch.device, torch.layout)
"""What a tensor says about itself; numbers are not here, since they may have been values."""


def plain_name(func: Any) -> str:
    """A call's name without dunders, in-place marks and reflections: ``__iadd__``, ``add_``, ``radd`` are ``add``."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        return f"get_{getattr(func.__self__, '__name__', '')}"
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
        if name in _REFLECTED:
            name = name[1:]
    return name.rstrip("_")


_REFLECTED = {f"{p}{op}" for p in "ir" for op in ("add", "sub", "mul", "truediv", "floordiv", "pow", "matmul", "mod",
                                                  "div", "and", "or", "xor")}  # fmt: skip
_LIBRARY = (
    "/torch/",
    "/lumos/tracing/tracer.py",
    "/lumos/tracing/rules/",
    "/lumos/tracing/structure.py",
    "/jaxtyping/",
    "<@beartype",
)


def _is_library(filename: str) -> bool:
    return filename.startswith("<") or any(part in filename for part in _LIBRARY)
