"""Traces a model as a torch.export program whose sample axes may have any size: batch, or nodes and edges."""

from __future__ import annotations

import builtins
import contextlib
import copy
import inspect
import io
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, no_type_check

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from lumos.compaction.layers import is_exporting
from lumos.compaction.model import CompactModel
from lumos.errors import ExportError, one_line
from lumos.tracing.inputs import InputPath, input_tensors, map_inputs, replace_inputs

Size = Any
"""A size along an axis: an int, or an expression in the program's symbols."""


@no_type_check  # torch reads this code, and not that of an annotation checker around it
class _Counts(TorchFunctionMode):
    """Integers that a model reads out of its data (how many graphs, say) are counts: not negative.

    Without that, the trace cannot know that what has this size may be made, and stops.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (Tensor.item, Tensor.__int__) and not args[0].is_floating_point():
            torch._check(out >= 0)
        return out


@no_type_check
class Flat(nn.Module):
    """A model as a function of its tensors alone, in order; whatever else it takes is as in the example."""

    def __init__(self, model: nn.Module, example: tuple[Any, ...]) -> None:
        super().__init__()
        self.model = model
        self.paths: list[InputPath] = list(input_tensors(example))
        self._plain = self.paths == [(i,) for i in range(len(example))]
        self._example = None if self._plain else example

    def forward(self, *inputs: Tensor) -> Any:
        """The model's output."""
        if self._plain:
            args: tuple[Any, ...] = inputs
        else:
            assert self._example is not None
            args = replace_inputs(self._example, dict(zip(self.paths, inputs, strict=True)))
        if not is_exporting():
            return self.model(*args)
        with _Counts():
            return self.model(*args)


@dataclass(frozen=True)
class Program:
    """A traced model.

    Attributes:
        traced: The program.
        flat: The function that it was traced from.
        example: The example's tensors, in order.
        input_names: A name for each of them.
        names: A name for every symbol that stands for a size that may change.
        sizes: The example's size of each name.
    """

    traced: ExportedProgram
    flat: Flat
    example: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    names: dict[str, str]
    sizes: dict[str, int]

    @cached_property
    def input_shapes(self) -> dict[str, tuple[int | str, ...]]:
        """Each input's shape, with names for the sizes that may change."""
        sizes = zip(self.input_names, input_sizes(self.traced), strict=True)
        return {name: self._named(shape, name) for name, shape in sizes}

    @cached_property
    def output_shapes(self) -> dict[str, tuple[int | str, ...]]:
        """Each output's shape."""
        node = next(n for n in self.traced.graph.nodes if n.op == "output")
        found = {n.name: n.meta["val"] for n in node.args[0] if n is not None and hasattr(n, "meta")}
        kept = [found[n] for n in self.traced.graph_signature.user_outputs if isinstance(found.get(str(n)), Tensor)]
        tensors = zip(self.output_names(len(kept)), kept, strict=True)
        return {name: self._named(expressions(t), name) for name, t in tensors}

    def output_names(self, count: int) -> list[str]:
        """Name the outputs: by a dict's keys, else by their places."""
        spec = self.traced.call_spec.out_spec
        assert spec is not None
        numbered = pytree.tree_unflatten(range(spec.num_leaves), spec)
        places = [path for path, _ in pytree.tree_flatten_with_path(numbered)[0]]
        if len(places) != count or places == [()]:
            return unique(["output"] * count, self.input_names)
        return unique(["_".join(["output", *(_key(k) for k in place)]) for place in places], self.input_names)

    def _named(self, sizes: Sequence[Size], tensor: str) -> tuple[int | str, ...]:
        return tuple(s if isinstance(s, int) else self._size(s, f"{tensor}_{axis}") for axis, s in enumerate(sizes))

    def _size(self, size: Size, otherwise: str) -> str:
        """A size in names. One that the model reads out of its data is the number of graphs, where there are nodes."""
        if {str(symbol) for symbol in size.free_symbols} <= set(self.names):
            return rename(str(size), self.names)
        return "graphs" if "nodes" in self.sizes else otherwise

    def stretched(self, sizes: dict[str, int]) -> tuple[Tensor, ...]:
        """Give the example other sizes: rows repeat or are left out, in order, so that what is sorted stays sorted."""
        values = {symbol: sizes[name] for symbol, name in self.names.items()}
        new = []
        for t, axes in zip(self.example, input_sizes(self.traced), strict=True):
            for dim, size in enumerate(axes):
                if not isinstance(size, int):
                    n = int(size.subs({s: values[str(s)] for s in size.free_symbols}))
                    t = t.index_select(dim, torch.arange(n) * t.shape[dim] // n)
            new.append(t)
        return tuple(new)


def trace_program(model: nn.Module, example: Any) -> Program:
    """Trace a model in eval mode on the CPU, with every axis that counts samples free.

    Free are the leading axis of every tensor, and the second axis of an edge list (2, edges).

    Args:
        model: The model; it stays as it is.
        example: A tensor, or a tuple of positional inputs.

    Raises:
        ExportError: The model cannot be traced, or the number of samples is a constant in its code.
    """
    example = map_inputs(example if isinstance(example, tuple) else (example,), lambda _path, t: t.detach().cpu())
    flat = Flat(copy.deepcopy(model).cpu().eval().requires_grad_(False), example)
    inputs = tuple(input_tensors(example).values())
    names = input_names(model, flat.paths)
    kind = type(model.model if isinstance(model, CompactModel) else model).__name__
    if not inputs:
        raise ExportError(f"{kind}: the example inputs have no tensor; give what the model is called with")
    try:
        with torch.no_grad():
            flat(*inputs)
    except Exception as error:
        raise ExportError(f"{kind} does not run on the example inputs: {one_line(error)}") from error
    axes = [sample_axis(name, t, inputs) for name, t in zip(names, inputs, strict=True)]
    problem = ""
    # Running the real Python follows most; reading the bytecode knows a few calls more, and less of the rest.
    for strict in (False, True):
        try:
            traced = _attempt(flat, inputs, axes, strict)
        except Exception as error:
            problem = problem or _why(error)
            continue
        fixed = _fixed(traced, inputs, axes)
        if not fixed:
            return _named_program(traced, flat, inputs, names, axes)
        advice = "take it from x.shape[0], never as an int"
        problem = problem or f"{names[fixed[0]]} has a constant number of samples{_specialised(traced)}; {advice}"
    raise ExportError(f"{kind} cannot be exported: {problem}")


def _attempt(flat: Flat, inputs: tuple[Tensor, ...], axes: Sequence[int | None], strict: bool) -> ExportedProgram:
    shapes = (tuple({} if axis is None else {axis: Dim.AUTO} for axis in axes),)
    with quiet(), torch.no_grad(), contextlib.nullcontext() if strict else _lengths(flat):
        return torch.export.export(flat, inputs, dynamic_shapes=shapes, strict=strict)


@contextlib.contextmanager
def _lengths(model: nn.Module) -> Iterator[None]:
    """For as long as it lasts, ``len`` of a tensor is its first size, which may be a symbol, in the model's packages.

    Python makes an int of whatever a tensor's own ``__len__`` gives, and a trace would hold that for a constant. Not
    in ``builtins``: from there torch's reading of bytecode would learn the other ``len`` for good.
    """
    owners = {c.__module__.split(".")[0] for m in model.modules() for c in type(m).__mro__} - {"builtins", "torch"}
    known = [m for name, m in list(sys.modules.items()) if name.split(".")[0] in owners]
    files = [vars(module) for module in known if isinstance(module, ModuleType)]
    changed = [names for names in files if "len" not in names]
    for names in changed:
        names["len"] = _length
    try:
        yield
    finally:
        for names in changed:
            names.pop("len", None)


@no_type_check
def _length(x: Any) -> Any:
    return x.shape[0] if isinstance(x, Tensor) and x.ndim else builtins.len(x)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Torch's exporters print their graphs and warn about their own affairs; what matters they raise."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def sample_axis(name: str, t: Tensor, inputs: Sequence[Tensor]) -> int | None:
    """Find the axis of an input that counts samples: the first one, or the second one of an edge list (2, edges)."""
    if not t.ndim or not t.numel():
        return None
    pairs = t.ndim == 2 and t.shape[0] == 2 and not (t.is_floating_point() or t.is_complex())
    alone = all(o is t or not o.ndim or o.shape[0] != 2 for o in inputs)
    return 1 if pairs and ("edge" in name or (alone and len(inputs) > 1)) else 0


def input_names(model: nn.Module, paths: Sequence[InputPath]) -> tuple[str, ...]:
    """Name each input tensor: by the parameter of ``forward`` that takes it, and its place in that."""
    inner = model.model if isinstance(model, CompactModel) else model
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [p.name for p in inspect.signature(inner.forward).parameters.values() if p.kind in kinds]
    count = len({path[0] for path in paths})
    names = []
    for path in paths:
        i = int(path[0])
        head = parameters[i] if i < len(parameters) else "input" if count == 1 else f"input_{i}"
        names.append("_".join([head, *map(str, path[1:])]))
    return tuple(unique(names))


def unique(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Make identifiers of names, numbered where they repeat."""
    found: list[str] = []
    for name in names:
        word = re.sub(r"\W", "_", name)
        number, new = 0, word
        while new in found or new in taken:
            number += 1
            new = f"{word}_{number}"
        found.append(new)
    return found


def _key(entry: Any) -> str:
    return str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", entry))))


def expressions(t: Tensor) -> tuple[Size, ...]:
    """Read a traced tensor's sizes: ints, and expressions in symbols."""
    sizes = (s if isinstance(s, int) else s.node.expr for s in t.shape)
    return tuple(int(s) if isinstance(s, int) or s.is_number else s for s in sizes)


def input_sizes(traced: ExportedProgram) -> list[tuple[Size, ...]]:
    """Read the sizes of every input."""
    values = {n.name: n.meta["val"] for n in traced.graph.nodes if n.op == "placeholder"}
    return [expressions(values[str(name)]) for name in traced.graph_signature.user_inputs]


def _fixed(traced: ExportedProgram, inputs: Sequence[Tensor], axes: Sequence[int | None]) -> list[int]:
    """Inputs that must take any number of samples and do not: those that have as many as the first, and edge lists."""
    first = next(i for i, axis in enumerate(axes) if axis is not None)
    count = inputs[first].shape[axes[first] or 0]
    found = []
    for i, (sizes, axis) in enumerate(zip(input_sizes(traced), axes, strict=True)):
        if axis is not None and isinstance(sizes[axis], int) and (axis == 1 or sizes[axis] == count):
            found.append(i)
    return found


def _named_program(
    traced: ExportedProgram,
    flat: Flat,
    inputs: tuple[Tensor, ...],
    names: tuple[str, ...],
    axes: Sequence[int | None],
) -> Program:
    """Name the symbols: batch, or nodes and edges where there is an edge list; any other by its input and axis."""
    traced.example_inputs = None  # the samples of the example are nobody's business
    shapes = input_sizes(traced)
    words: dict[str, str] = {}
    sizes: dict[str, int] = {}
    graph = any(axis == 1 for axis in axes)
    for wanted in (1, 0):
        for name, t, shape, axis in zip(names, inputs, shapes, axes, strict=True):
            if axis is None or axis != wanted or isinstance(shape[axis], int) or not shape[axis].is_symbol:
                continue
            symbol = str(shape[axis])
            word = "edges" if wanted else ("nodes" if graph else "batch")
            word = word if word not in words.values() else f"{name}_{axis}"
            sizes.setdefault(words.setdefault(symbol, word), t.shape[axis])
    return Program(traced, flat, inputs, names, words, sizes)


def rename(text: str, names: dict[str, str]) -> str:
    """Put the symbols' names into a size's expression."""
    return re.sub(r"\w+", lambda m: names.get(m[0], m[0]), text)


def _specialised(traced: ExportedProgram) -> str:
    """Where the code made a constant of a size, as far as torch knows."""
    values = [n.meta["val"] for n in traced.graph.nodes if n.op == "placeholder"]
    for value in values:
        environment = getattr(getattr(value, "fake_mode", None), "shape_env", None)
        for place in getattr(environment, "replacements_slocs", {}).values():
            return f" ({str(place).strip('()').rsplit('/', 1)[-1]})"
    return ""


def _why(error: BaseException) -> str:
    """The reason in torch's own words, and the user's line that raised it."""
    text = str(error)
    named = [(m[1], int(m[2]), m[3]) for m in re.finditer(r'File "([^"]+)", line (\d+), in \S+\n(.*)', text)]
    raised = [(f.filename, f.lineno or 0, f.line or "") for f in traceback.extract_tb(error.__traceback__)]
    theirs = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
    frames = [f for f in (*raised, *named) if not f[0].startswith(theirs) and "jaxtyping" not in f[0]]
    reason = one_line(Exception(text.strip().split("\n", 1)[0]))
    if not frames:
        return reason
    file, number, code = frames[-1]
    return f"{reason}, at {Path(file).name}:{number} ({code.strip()})"
