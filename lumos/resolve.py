"""From the raw trace to the structure: which units exist, which stand together, and which axes they index."""

from __future__ import annotations

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
from lumos.structure import Axis, Fixed, Group, InputSelection, Structure, feature_names
from lumos.surgery import own_numbers
from lumos.trace import Block, Trace


def trace_structure(model: nn.Module, inputs: tuple[Any, ...], features: Sequence[str] | None = None) -> Structure:
    """Trace a model on example inputs (two or more samples) and return its structure.

    Float inputs of two or more dimensions get one unit per feature: along dimension 1 (columns, channels), or along
    the last one where the model reads that as its features. Raises StructureError where the model does not run.
    """
    candidates = _feature_dims(inputs)
    dims = {i: choices[0] for i, choices in candidates.items()}
    best = _resolve(*_run_trace(model, inputs, dims), inputs, dims)
    for i, choices in candidates.items():
        for dim in choices[1:]:
            other = _resolve(*_run_trace(model, inputs, {**dims, i: dim}), inputs, {**dims, i: dim})
            if _feature_gates(other) > _feature_gates(best):
                best, dims = other, {**dims, i: dim}
    size = sum(inputs[i].shape[dim] for i, dim in dims.items())
    return _named(best, feature_names(features, size) if dims else tuple(features or ()))


def _feature_dims(inputs: Sequence[Any]) -> dict[int, list[int]]:
    """For each float input of two or more dimensions, the dimensions that may hold its features, likeliest first."""
    return {
        i: [1] if x.ndim == 2 else [1, x.ndim - 1]
        for i, x in enumerate(inputs)
        if isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 2
    }


def _run_trace(model: nn.Module, inputs: tuple[Any, ...], dims: dict[int, int]) -> tuple[Trace, dict[int, Tensor]]:
    """Run the model once in eval mode with units on ``dims`` of its inputs; returns the trace and the inputs' units."""
    trace = Trace(model)
    modes = {m: m.training for m in model.modules()}
    # Fresh views, so that no shadow is left on the caller's tensors.
    inputs = tuple(x.view_as(x) if isinstance(x, Tensor) else x for x in inputs)
    features: dict[int, Tensor] = {}
    for i, dim in dims.items():
        shape = [1] * inputs[i].ndim
        shape[dim] = inputs[i].shape[dim]
        features[i] = trace.new_block(f"input{i}" if len(dims) > 1 else "input", "feature", shape[dim])
        trace.set(inputs[i], features[i].view(shape))
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), trace.modules(), trace:
            out = model(*inputs)
    except Exception as error:
        raise StructureError(f"the model does not run on the example: {type(error).__name__}: {error}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    for t in pytree.tree_leaves(out):
        if isinstance(t, Tensor):
            trace.fix(trace.shadow(t), "it is an output of the model")
    return trace, features


def _named(structure: Structure, names: tuple[str, ...]) -> Structure:
    object.__setattr__(structure, "feature_names", names)
    return structure


def _feature_gates(structure: Structure) -> int:
    return sum(g.size for g in structure.groups if g.kind == "feature")


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


def _resolve(trace: Trace, features: dict[int, Tensor], inputs: tuple[Any, ...], dims: dict[int, int]) -> Structure:
    parts = _Components(trace)
    maps = dict(trace.maps)
    _follow(trace, parts, maps)
    sites = _sites(trace, parts)
    free = parts.removable()
    groups, gate_of = _number(trace.blocks, parts, free)

    def gates(units: Tensor) -> Tensor:
        return gate_of[parts.label[units.clamp(min=0)]]

    resolved = {axis: gates(units) for axis, units in maps.items()}
    resolved = {axis: units for axis, units in resolved.items() if units.any()}
    gated = {axis: gates(units) for axis, units in sites.items()}
    first = next((x for x in inputs if isinstance(x, Tensor) and x.ndim), None)
    return Structure(
        groups=tuple(groups),
        fixed=tuple(_fixed(trace.blocks, parts, free)),
        maps=resolved,
        sites={axis: units for axis, units in gated.items() if units.any()},
        contractions=tuple(trace.contractions),
        inputs=tuple(InputSelection(i, dims[i], gates(units)) for i, units in features.items()),
        feature_names=(),
        shapes={n: tuple(t.shape) for n, t in [*trace.model.named_parameters(), *trace.model.named_buffers()]},
        trainable=frozenset(n for n, _ in trace.model.named_parameters()),
        example_rows=1 if first is None else first.shape[0],
        sizes=tuple(
            replace(s, units=gates(s.units), attributes=own_numbers(trace.model.get_submodule(s.module), s.size))
            for s in trace.sizes
            if gates(s.units).any()
        ),
        module_maps={name: gates(shadow) for name, shadow in trace.module_shadows.items()},
    )


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
    for axis in trace.producers:
        if axis in trace.maps and axis not in sites:
            units = trace.maps[axis]
            alone = ~consumed[parts.label[units]]
            sites[axis] = torch.where(alone, units, 0)
            produced[parts.label[units]] = True
    for block in trace.blocks:
        labels = parts.label[block.first : block.stop]
        parts.fix(labels[~produced[labels]], "no weight reads it")
    return sites


def _number(blocks: list[Block], parts: _Components, free: Tensor) -> tuple[list[Group], Tensor]:
    """Groups of removable components, gates numbered group by group; also the 1-based gate of each component."""
    owner: dict[int, int] = {}
    root = list(range(len(blocks)))

    def find(b: int) -> int:
        while root[b] != b:
            b = root[b]
        return b

    for b, block in enumerate(blocks):
        for label in parts.label[block.first : block.stop].unique().tolist():
            if free[label]:
                root[find(b)] = find(owner.setdefault(label, b))
    gate_of = torch.zeros(len(parts.label), dtype=torch.int64)
    groups: list[Group] = []
    names: dict[str, int] = {}
    start = 0
    members: dict[int, list[int]] = {}
    for b in range(len(blocks)):
        members.setdefault(find(b), []).append(b)
    for group in members.values():
        labels = torch.cat([parts.label[blocks[b].first : blocks[b].stop] for b in group])
        labels = torch.tensor(list(dict.fromkeys(labels[free[labels]].tolist())), dtype=torch.int64)
        if not len(labels):
            continue
        gate_of[labels] = torch.arange(start + 1, start + 1 + len(labels))
        name = blocks[group[0]].name
        names[name] = names.get(name, 0) + 1
        kind: Literal["feature", "hidden"] = "feature" if any(blocks[b].kind == "feature" for b in group) else "hidden"
        label = name if names[name] == 1 else f"{name}#{names[name]}"
        groups.append(Group(label, kind, start, start + len(labels)))
        start += len(labels)
    return groups, gate_of


def _fixed(blocks: list[Block], parts: _Components, free: Tensor) -> list[Fixed]:
    out: list[Fixed] = []
    for block in blocks:
        labels = parts.label[block.first : block.stop].unique()
        reasons = [parts.reason.get(label, "") for label in labels[~free[labels]].tolist()]
        out += [Fixed(block.name, reasons.count(reason), reason) for reason in dict.fromkeys(reasons)]
    return out
