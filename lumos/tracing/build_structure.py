"""From the raw trace to the structure: which units exist, which stand together, and which axes they index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lumos.errors import StructureError
from lumos.tracing.attention import crossings, every_query, scales
from lumos.tracing.attention_steps import followed
from lumos.tracing.dataflow import Flow
from lumos.tracing.index_maps import looked_up, with_units
from lumos.tracing.inputs import InputPath, mapped, tensors
from lumos.tracing.modules import own_numbers, own_tensors
from lumos.tracing.options import StructureOptions
from lumos.tracing.shape_only import given_back, held
from lumos.tracing.structure import INPUT, OUTPUT, Axis, Fixed, Group, InputSelection, Structure, feature_names
from lumos.tracing.tracer import NONE, Block, Trace, has_values


def trace_structure(
    model: nn.Module,
    inputs: tuple[Any, ...],
    features: Sequence[str] | None = None,
    options: StructureOptions | None = None,
) -> Structure:
    """Trace a model on example inputs (two or more samples) and return its structure.

    Inputs of floats with two or more dimensions get one unit per feature: along dimension 1 (columns, channels), or
    along the last one where the model reads that as its features. So do the columns of whole numbers that index
    embedding tables. Raises StructureError where the model does not run.
    """
    leaves, options = tensors(inputs), options or StructureOptions()
    likely, possible = _feature_dims(leaves)
    best, dims = _resolved(model, inputs, likely, options), likely
    for path, dim in possible:
        if leaves[path].ndim > 3 and _found(best, path) == leaves[path].shape[1]:
            continue  # an image or a volume with its channels first
        tried = {p: dim if p == path else dims[p] for p in leaves if p == path or p in dims}
        other = _resolved(model, inputs, tried, options)
        if _gates(other, "feature") > _gates(best, "feature") and _gates(other, "hidden") >= _gates(best, "hidden"):
            best, dims = other, tried
    size = sum(leaves[path].shape[dim] for path, dim in dims.items())
    return replace(best, feature_names=feature_names(features, size) if dims else tuple(features or ()))


def _feature_dims(leaves: dict[InputPath, Tensor]) -> tuple[dict[InputPath, int], list[tuple[InputPath, int]]]:
    """The dimension that most likely holds each float input's features, and what else may be tried: the last
    dimension, and the columns of whole numbers."""
    floats = {path: x for path, x in leaves.items() if x.is_floating_point() and x.ndim >= 2}
    places = [p for p, x in leaves.items() if x.dtype in (torch.int32, torch.int64) and x.ndim == 2]
    last = [(path, x.ndim - 1) for path, x in floats.items() if x.ndim > 2]
    return dict.fromkeys(floats, 1), [*last, *((p, 1) for p in places if leaves[p].shape[1] <= _MOST_COLUMNS)]


_MOST_COLUMNS = 4096
"""Wider inputs of whole numbers are lists of places (the edges of a graph), not columns of a table."""


def _resolved(
    model: nn.Module, inputs: tuple[Any, ...], dims: dict[InputPath, int], options: StructureOptions
) -> Structure:
    with followed(model) as attention:
        trace, features = _run_trace(model, inputs, dims, options)
        structure = _resolve(trace, features, tensors(inputs), dims, attention, options)
    return replace(structure, example=inputs)


def _run_trace(
    model: nn.Module,
    example: tuple[Any, ...],
    dims: dict[InputPath, int],
    options: StructureOptions,
    spare: bool = True,
) -> tuple[Trace, dict[InputPath, Tensor]]:
    """Run the model once in eval mode with units on ``dims`` of its inputs; returns the trace and the inputs' units.

    ``spare``: costly products are not computed, as long as no value is asked for.
    """
    trace = Trace(model, options, spare)
    modes = {m: m.training for m in model.modules()}
    # Fresh views, so that no shadow is left on the caller's tensors.
    inputs = mapped(example, lambda _path, x: x.view_as(x))
    leaves = tensors(inputs)
    features: dict[InputPath, Tensor] = {}
    for path, dim in dims.items():
        shape = [1] * leaves[path].ndim
        shape[dim] = leaves[path].shape[dim]
        name = "input" + ".".join(map(str, path)) if len(dims) > 1 else "input"
        features[path] = trace.new_block(name, "feature", shape[dim])
        trace.set(leaves[path], features[path].view(shape))
    for leaf in leaves.values():
        trace.record.enter(leaf)
    model.eval()
    before, out, failure = held(model), None, None
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), trace.modules(), trace:
            out = model(*inputs)
    except Exception as error:
        failure = error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if trace.spared and (given_back(before) or trace.asked or failure is not None):
        return _run_trace(model, example, dims, options, spare=False)
    if failure is not None:
        text = f"the model does not run on the example: {type(failure).__name__}: {failure}"
        raise StructureError(text) from failure
    outputs = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]
    for t in outputs:
        trace.fix(trace.shadow(t), OUTPUT)
    trace.flow = trace.record.flow(outputs)
    trace.maps = {axis: units.clamp(min=NONE) for axis, units in trace.maps.items()}
    return trace, features


def _found(structure: Structure, path: InputPath) -> int:
    """How many features of an input have a gate."""
    return sum(int((s.units > 0).sum()) for s in structure.inputs if s.path == path)


def _gates(structure: Structure, kind: str) -> int:
    return sum(g.size for g in structure.groups if g.kind == kind)


class _Components:
    """Connected components of merged units, with the reason why a component is fixed."""

    def __init__(self, trace: Trace) -> None:
        count = trace.next_unit
        pairs = torch.cat([*trace.merges, torch.zeros(0, 2, dtype=torch.int64)]).numpy()
        graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
        self.label = torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64))
        self.reason: dict[int, str] = {}
        for reason, units in trace.reasons.items():
            for label in self.label[torch.cat(units)].unique().tolist():
                self.reason.setdefault(label, reason)
        self.of_blocks = torch.zeros(count, dtype=torch.bool)
        for block in trace.blocks:
            self.of_blocks[self.label[block.first : block.stop]] = True

    def fix(self, labels: Tensor, reason: str) -> None:
        for label in labels.unique().tolist():
            self.reason.setdefault(label, reason)

    def removable(self) -> Tensor:
        """Whether each component has a place in the network and no reason to stay."""
        free = self.of_blocks.clone()
        free[list(self.reason)] = False
        free[self.label[0]] = False
        return free


def _resolve(
    trace: Trace,
    features: dict[InputPath, Tensor],
    leaves: dict[InputPath, Tensor],
    dims: dict[InputPath, int],
    attention: list[str],
    options: StructureOptions,
) -> Structure:
    parts = _Components(trace)
    maps = dict(trace.maps)
    _follow(trace, parts, maps)
    for path, units in features.items():
        if len(units) > 1 and len(parts.label[units].unique()) == 1:
            parts.fix(parts.label[units], "positions along it are no features: they go or stay as one")
        if not has_values(leaves[path]):
            _only_tables(trace, parts, maps, units)
    sites = _sites(trace, parts)
    free = parts.removable()
    groups, gate_of = _number(trace.blocks, parts, free, [u for u, _ in trace.crossed])

    # The last entry is that of ANY.
    of_unit = torch.cat([gate_of[parts.label], torch.zeros(1, dtype=torch.int64)])
    of_both, pairs = crossings(trace, of_unit)

    def gates(units: Tensor) -> Tensor:
        return of_both[units]

    gated = looked_up(of_unit, sites)
    gated |= looked_up(of_both, {axis: units for axis, units in sites.items() if axis in trace.consumers})
    gated |= {(path, INPUT): gates(units) for path, units in trace.norms.items()}
    for axis in trace.tables:
        # Where the feature goes, its table keeps one row, of zeros.
        maps[axis] = torch.cat([torch.zeros(1, dtype=torch.int64), maps[axis][1:]])
    resolved = looked_up(of_both, maps)
    groups = _with_optional(groups, gated, trace.flow, pairs)
    layers = dict.fromkeys(attention, "attention") | dict.fromkeys(trace.norms, "norm")
    if options.private:
        layers |= _private(trace, groups, resolved, gated)
    first = next((x for x in leaves.values() if x.ndim), None)
    own, written = own_tensors(trace.model), looked_up(of_both, dict(enumerate(s.units for s in trace.sizes)))
    return Structure(
        groups=tuple(groups),
        fixed=tuple(_fixed(trace.blocks, parts, free)),
        maps=with_units(resolved),
        sites=with_units(gated),
        contractions=tuple(trace.contractions),
        inputs=tuple(InputSelection(p, dims[p], gates(u), not has_values(leaves[p])) for p, u in features.items()),
        feature_names=(),
        shapes={n: tuple(t.shape) for n, t in own.items()},
        trainable=frozenset(n for n, t in own.items() if isinstance(t, nn.Parameter)),
        example_rows=1 if first is None else first.shape[0],
        layers=layers,
        flow=trace.flow,
        sizes=tuple(
            replace(s, units=units, attributes=own_numbers(trace.model.get_submodule(s.module), s.size))
            for s, units in zip(trace.sizes, written.values(), strict=True)
            if units.any()
        ),
        module_maps=looked_up(of_both, trace.module_shadows),
        pairs=pairs,
        scales=scales(trace, of_unit),
    )


def _with_optional(groups: list[Group], sites: dict[Axis, Tensor], flow: Flow, pairs: Tensor) -> list[Group]:
    """The groups, each with whether the outputs still depend on the inputs when all of it is closed: a residual
    branch, say."""
    ranges = {axis: (int(units.min()), int(units.max())) for axis, units in sites.items() if len(units)}
    found = []
    for g in groups:
        dead = {axis for axis, (low, high) in ranges.items() if low > g.start and high <= g.stop}
        dead |= {axis for axis, (low, _) in ranges.items() if low < 0 and _all_in(sites[axis], g, pairs)}
        found.append(replace(g, optional=g.kind == "hidden" and bool(dead) and flow.alive(dead)))
    return found


def _all_in(units: Tensor, group: Group, pairs: Tensor) -> bool:
    """Whether every position of a unit map goes with a group, be it with one unit of two."""
    of_one = torch.where(units < 0, 0, units)[:, None].expand(-1, 2)
    both = torch.where((units < 0)[:, None], pairs[-units.clamp(max=-1) - 1], of_one)
    return bool(((both > group.start) & (both <= group.stop)).any(1).all())


def _only_tables(trace: Trace, parts: _Components, maps: dict[Axis, Tensor], units: Tensor) -> None:
    """Fix the columns of whole numbers that do more than index a table: their input keeps its width."""
    labels = parts.label[units]
    for axis, read in maps.items():
        if axis not in trace.tables:
            found = parts.label[read]
            parts.fix(found[torch.isin(found, labels)], f"whole numbers of the input are values in {axis[0]}")


def _private(trace: Trace, groups: list[Group], maps: dict[Axis, Tensor], sites: dict[Axis, Tensor]) -> dict[str, str]:
    """Gates of its own for each linear layer that reads units which others keep; returns those layers.

    Source: equation 11, where W_Q, W_K and W_V have a gate each on the stream that they share.
    """
    calls = Counter(c.weight for c in trace.contractions)
    layers: dict[str, str] = {}
    for c in trace.contractions:
        axis = (c.weight, c.in_dim)
        fixed = not maps[axis].any() if axis in maps else False
        if c.direct and calls[c.weight] == 1 and fixed:
            start = max((g.stop for g in groups), default=0)
            size = len(maps[axis])
            groups.append(Group(f"{c.module}.input", "hidden", start, start + size))
            maps[axis] = sites[axis] = torch.arange(start + 1, start + 1 + size)
            layers[c.module] = "selected"
    return layers


def _follow(trace: Trace, parts: _Components, maps: dict[Axis, Tensor]) -> None:
    """Axes of parameters that met units elementwise (scales, shifts, position embeddings, scaling buffers)."""
    for name, (_, elements) in trace.elements.items():
        free = parts.removable()
        labels = parts.label[elements]
        labels = torch.where(free[labels], labels, 0)
        if not labels.any():
            continue
        axes = [d for d in sorted(range(labels.ndim), key=lambda d: -labels.shape[d])
                if all(int(labels.select(d, k).unique().numel()) == 1 for k in range(labels.shape[d]))]  # fmt: skip
        if axes and not any((name, d) in maps for d in range(labels.ndim)):
            line = elements.movedim(axes[0], 0).reshape(elements.shape[axes[0]], -1)[:, 0]
            maps[name, axes[0]] = line
        else:
            parts.fix(labels[labels > 0], f"parameter {name} holds it in no single dimension")


def _sites(trace: Trace, parts: _Components) -> dict[Axis, Tensor]:
    """Where gates multiply: at the consumers' weights; at its producer where nothing with a weight reads a unit."""
    consumed = torch.zeros(trace.next_unit, dtype=torch.bool)
    sites: dict[Axis, Tensor] = {}
    for axis in trace.consumers:
        sites[axis] = trace.maps[axis]
        consumed[parts.label[trace.maps[axis]]] = True
    consumed[parts.label[0]] = False
    produced = consumed.clone()
    queries, keys = every_query(trace)
    for axis in trace.producers:
        if axis in trace.maps and axis not in sites:
            units = trace.maps[axis]
            alone = ~consumed[parts.label[units]]
            if trace.queries:
                # Of queries and keys that are multiplied, the queries have the gates.
                alone = (alone | torch.isin(units, queries)) & ~torch.isin(units, keys)
            sites[axis] = torch.where(alone, units, 0)
            produced[parts.label[units]] = True
    for units, heads in trace.crossed:
        produced[parts.label[heads[consumed[parts.label[units]]]]] = True
    for block in trace.blocks:
        labels = parts.label[block.first : block.stop]
        parts.fix(labels[~produced[labels]], "no weight reads it")
    return sites


def _number(
    blocks: list[Block], parts: _Components, free: Tensor, crossing: list[Tensor]
) -> tuple[list[Group], Tensor]:
    """Groups of removable components, gates numbered group by group; also the 1-based gate of each component."""
    owner = torch.full((len(parts.label),), -1)
    root = list(range(len(blocks)))

    def find(b: int) -> int:
        while root[b] != b:
            b = root[b]
        return b

    for b, block in enumerate(blocks):
        labels = parts.label[block.first : block.stop]
        labels = labels[free[labels]]
        others = owner[labels]
        for other in others[others >= 0].unique().tolist():
            root[find(b)] = find(other)
        owner[labels[others < 0]] = b
    gate_of = torch.zeros(len(parts.label), dtype=torch.int64)
    dims = parts.label[torch.cat([torch.zeros(0, dtype=torch.int64), *(u.flatten() for u in crossing)])].unique()
    groups: list[Group] = []
    names: dict[str, int] = {}
    start = 0
    members: dict[int, list[int]] = {}
    for b in range(len(blocks)):
        members.setdefault(find(b), []).append(b)
    for group in members.values():
        labels = torch.cat([parts.label[blocks[b].first : blocks[b].stop] for b in group])
        labels = torch.tensor(list(dict.fromkeys(labels[free[labels]].tolist())), dtype=torch.int64)
        kind: Literal["feature", "hidden"] = "feature" if any(blocks[b].kind == "feature" for b in group) else "hidden"
        # One layer may make a head's dimensions and the heads: neither can do without one of its own.
        inside: Tensor = torch.isin(labels, dims)
        for mine, suffix in ((labels[~inside], ""), (labels[inside], ".dims")):
            if not len(mine):
                continue
            gate_of[mine] = torch.arange(start + 1, start + 1 + len(mine))
            name = blocks[group[0]].name + suffix
            names[name] = names.get(name, 0) + 1
            label = name if names[name] == 1 else f"{name}#{names[name]}"
            groups.append(Group(label, kind, start, start + len(mine)))
            start += len(mine)
    return groups, gate_of


def _fixed(blocks: list[Block], parts: _Components, free: Tensor) -> list[Fixed]:
    out: list[Fixed] = []
    for block in blocks:
        labels = parts.label[block.first : block.stop].unique()
        reasons = [parts.reason.get(label, "") for label in labels[~free[labels]].tolist()]
        out += [Fixed(block.name, reasons.count(reason), reason) for reason in dict.fromkeys(reasons)]
    return out
