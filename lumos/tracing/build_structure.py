"""From the trace of a run to the structure: which units exist, which stand together, and which axes they index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from lumos.shapes import Bool, Float, Int
from lumos.tracing.calls import Axis
from lumos.tracing.constraints import Constraints, inside
from lumos.tracing.dataflow import Dataflow
from lumos.tracing.index_maps import drop_empty, look_up
from lumos.tracing.inputs import InputPath
from lumos.tracing.modules import int_attributes
from lumos.tracing.query_key import pair_units, query_and_key_units, score_scales
from lumos.tracing.structure import INPUT, Bound, Fixed, Group, InputSelection, Size, Structure
from lumos.tracing.trace import Block, Trace
from lumos.tracing.unit_classes import UnitClasses, connected
from lumos.tracing.unit_ids import has_values


def build_structure(
    trace: Trace,
    features: dict[InputPath, Tensor],
    leaves: dict[InputPath, Tensor],
    dims: dict[InputPath, int],
    attention: Iterable[str] = (),
    constraints: Constraints | None = None,
    names: Sequence[str] = (),
) -> Structure:
    """Build the structure of a model from the trace of its run.

    Args:
        trace: The trace, finished.
        features: The units of each input's features.
        leaves: The tensors of the inputs.
        dims: The dimension of each input that holds its features.
        attention: The paths of torch's attention layers.
        constraints: What is asked of the units.
        names: The names of the features of all inputs, in order.
    """
    classes, constraints = UnitClasses(trace), constraints or Constraints()
    named = dict(zip(names, torch.cat([torch.zeros(0, dtype=torch.int64), *features.values()]).tolist(), strict=False))
    maps = dict(trace.maps)
    _tie_params(trace, classes, maps)
    for (name, _), units in maps.items():
        if name in trace.frozen_parameters:
            classes.fix(classes.label[units[units > 0]], trace.frozen_parameters[name])
    _attach_elementwise_params(trace, classes, maps)
    for path, units in features.items():
        if len(units) > 1 and len(classes.label[units].unique()) == 1:
            classes.fix(classes.label[units], "positions along it are no features: they go or stay as one")
        if not has_values(leaves[path]):
            _fix_columns_with_values(trace, classes, maps, units)
    _constrain(trace, classes, maps, constraints, named)
    sites = _gate_sites(trace, classes)
    free = classes.removable()
    groups, gate_of = _number_gates(trace.blocks, classes, free, [units for units, _ in trace.units_in_heads])

    # The last entry is that of ANY_UNIT.
    of_unit = torch.cat([gate_of[classes.label], torch.zeros(1, dtype=torch.int64)])
    of_both, pairs = pair_units(trace, of_unit)

    gated = look_up(of_unit, sites)
    gated |= look_up(of_both, {axis: units for axis, units in sites.items() if axis in trace.consumers})
    gated |= {(path, INPUT): of_both[units] for path, units in trace.stream_norms.items()}
    gated |= {(path, dim): of_both[units] for path, (dim, units) in trace.stream_modules.items()}
    for axis in trace.tables:
        # Where the feature goes, its table keeps one row, of zeros.
        maps[axis] = torch.cat([torch.zeros(1, dtype=torch.int64), maps[axis][1:]])
    resolved = look_up(of_both, maps)
    groups = _with_optional(groups, gated, trace.dataflow, pairs)
    layers = dict.fromkeys(attention, "attention") | dict.fromkeys(trace.stream_norms, "norm")
    layers |= dict.fromkeys(trace.stream_modules, "stream")
    shared: list[Fixed] = []
    if trace.options.private:
        own, shared = _add_input_gates(trace, groups, resolved, gated, constraints.exclude)
        layers |= own
    first = next((x for x in leaves.values() if x.ndim), None)
    return Structure(
        groups=tuple(groups),
        fixed=(*_fixed_units(trace.blocks, classes, free), *shared),
        maps=drop_empty(resolved),
        sites=drop_empty(gated),
        contractions=tuple(trace.contractions),
        inputs=tuple(InputSelection(p, dims[p], of_both[u], not has_values(leaves[p])) for p, u in features.items()),
        feature_names=(),
        shapes={n: tuple(t.shape) for n, t in trace.tensors.items()},
        trainable=frozenset(n for n, t in trace.tensors.items() if isinstance(t, nn.Parameter)),
        example_rows=1 if first is None else first.shape[0],
        layers=layers,
        dataflow=trace.dataflow,
        sizes=_sizes(trace, of_both),
        bounds=_bounds(trace, of_both, [u for p, u in features.items() if not has_values(leaves[p])]),
        products=tuple(replace(p, units=tuple(of_both[u] for u in p.units)) for p in trace.products),
        constant_macs=trace.constant_macs,
        module_maps=look_up(of_both, trace.module_ids),
        pairs=pairs,
        scales=score_scales(trace, of_unit),
        prices=_prices(trace, classes, constraints, named, gate_of, groups),
    )


def _tie_params(trace: Trace, classes: UnitClasses, maps: dict[Axis, Tensor]) -> None:
    """Let parameters follow those that they make a weight with, element by element (masks, lengths, frozen parts)."""
    weights = {name for name, _ in maps}
    labels = {name: classes.label[elements] for name, (_, elements) in trace.elements.items()}
    for name in labels.keys() - weights:
        other = labels[name]
        first = int(other.flatten()[0])
        for weight in sorted(weights & labels.keys()):
            own = labels[weight]
            if own.ndim != other.ndim or int(own.flatten()[0]) != first:
                continue
            if torch.broadcast_shapes(own.shape, other.shape) == own.shape and torch.equal(own, other.expand_as(own)):
                maps |= {(name, d): maps[weight, d] for d in range(own.ndim)
                         if other.shape[d] == own.shape[d] > 1 and (weight, d) in maps}  # fmt: skip
                break


def _attach_elementwise_params(trace: Trace, classes: UnitClasses, maps: dict[Axis, Tensor]) -> None:
    """Add the axes of parameters that met units element by element (scales, shifts, position embeddings, buffers).

    An element that the run did not meet (a row of a table) goes with the others of its line.
    """
    members = classes.label.bincount(minlength=len(classes.label))
    for name, (_, elements) in trace.elements.items():
        labels = classes.label[elements]
        unmet = members[labels] == 1
        labels = torch.where(classes.can_go(labels), labels, 0)
        if not labels.any():
            continue
        axes = [d for d in sorted(range(labels.ndim), key=lambda d: -labels.shape[d]) if _one_a_line(labels, unmet, d)]
        if axes and (name, axes[0]) in maps:  # a product along it has said so
            continue
        if axes and not any((name, d) in maps for d in range(labels.ndim)):
            lines = (labels.movedim(axes[0], 0).reshape(labels.shape[axes[0]], -1),
                     elements.movedim(axes[0], 0).reshape(labels.shape[axes[0]], -1))  # fmt: skip
            maps[name, axes[0]] = lines[1].gather(1, lines[0].argmax(1, keepdim=True)).squeeze(1)
        else:
            classes.fix(labels[labels > 0], f"parameter {name} holds it in no single dimension")


def _one_a_line(labels: Tensor, unmet: Tensor, dim: int) -> bool:
    """Return whether the elements at each position along a dimension have one label, but for those without any."""
    rest = [d for d in range(labels.ndim) if d != dim]
    low, high = torch.where(unmet, len(labels.unique()) + int(labels.max()), labels), torch.where(unmet, -1, labels)
    if rest:
        low, high = low.amin(rest), high.amax(rest)
    return bool(((low == high) | (high < 0)).all())


def _fix_columns_with_values(trace: Trace, classes: UnitClasses, maps: dict[Axis, Tensor], units: Tensor) -> None:
    """Fix the columns of whole numbers that do more than index a table: their input keeps its width."""
    labels = classes.label[units]
    for axis, read in maps.items():
        if axis not in trace.tables:
            found = classes.label[read]
            classes.fix(found[torch.isin(found, labels)], f"whole numbers of the input are values in {axis[0]}")


def _constrain(
    trace: Trace, classes: UnitClasses, maps: dict[Axis, Tensor], asked: Constraints, named: dict[str, int]
) -> None:
    """Tie the features of each group, and fix what is to stay.

    Args:
        trace: The trace.
        classes: The classes of all units.
        maps: The units of every axis.
        asked: What is asked of them.
        named: The unit of each feature, by its name.
    """
    for members in asked.groups.values():
        units = [named[name] for name in members if name in named]
        if units:
            classes.tie(torch.tensor(units))
    kept = [named[name] for name in asked.keep if name in named]
    if kept:
        classes.fix(classes.label[torch.tensor(kept)], "keep asks for it")
    for block in trace.blocks:
        if block.kind == "hidden" and (module := inside(block.name, asked.keep)):
            classes.fix(classes.of(block), f"keep asks for {module}")
    for (name, _), units in maps.items():
        if module := inside(name, asked.exclude):
            classes.fix(classes.label[units[units > 0]], f"exclude asks for {module} as it is")


def _prices(
    trace: Trace,
    classes: UnitClasses,
    asked: Constraints,
    named: dict[str, int],
    gate_of: Int[Tensor, " classes"],
    groups: list[Group],
) -> Float[Tensor, " _"]:
    """Return what an open gate of each unit costs; nothing where each costs one."""
    if not asked.prices:
        return torch.zeros(0)
    prices = torch.ones(1 + max((g.stop for g in groups), default=0))
    for block in trace.blocks:
        if block.kind == "hidden" and (module := inside(block.name, asked.prices)):
            prices[gate_of[classes.of(block)]] = float(asked.prices[module])
    columns: dict[int, list[str]] = {}
    for name, unit in named.items():
        columns.setdefault(int(gate_of[classes.label[unit]]), []).append(name)
    for gate, names in columns.items():
        prices[gate] = asked.price_of_columns(names)
    return prices[1:]


def _gate_sites(trace: Trace, classes: UnitClasses) -> dict[Axis, Tensor]:
    """Return where gates multiply, and fix the units that no weight reads.

    Gates multiply at the consumers' weights; at its producer where nothing with a weight reads a unit.
    """
    consumed = torch.zeros(trace.next_unit, dtype=torch.bool)
    sites: dict[Axis, Tensor] = {}
    for axis in trace.consumers:
        sites[axis] = trace.maps[axis]
        consumed[classes.label[trace.maps[axis]]] = True
    consumed[classes.label[0]] = False
    produced = consumed.clone()
    queries, keys = query_and_key_units(trace)
    for axis in trace.producers:
        if axis in trace.maps and axis not in sites:
            units = trace.maps[axis]
            alone = ~consumed[classes.label[units]]
            if trace.query_keys:
                # Of queries and keys that are multiplied, the queries have the gates.
                alone = (alone | torch.isin(units, queries)) & ~torch.isin(units, keys)
            sites[axis] = torch.where(alone, units, 0)
            produced[classes.label[units]] = True
    for units, heads in trace.units_in_heads:
        produced[classes.label[heads[consumed[classes.label[units]]]]] = True
    for block in trace.blocks:
        labels = classes.of(block)
        classes.fix(labels[~produced[labels]], "no weight reads it")
    return sites


def _number_gates(
    blocks: list[Block], classes: UnitClasses, free: Bool[Tensor, " classes"], inside_heads: list[Tensor]
) -> tuple[list[Group], Int[Tensor, " classes"]]:
    """Join blocks that share classes to groups, and number the gates group by group.

    Args:
        blocks: Units that were made together.
        classes: The classes of all units.
        free: Whether each class can be removed.
        inside_heads: Units of dimensions inside the heads of attentions.

    Returns:
        The groups, and the 1-based gate of each class (0 where it has none).
    """
    gate_of = torch.zeros(len(classes.label), dtype=torch.int64)
    dims = classes.label[torch.cat([torch.zeros(0, dtype=torch.int64), *(u.flatten() for u in inside_heads)])].unique()
    groups: list[Group] = []
    names: Counter[str] = Counter()
    start = 0
    for members in _coupled_blocks(blocks, classes, free):
        labels = torch.cat([classes.of(block) for block in members])
        labels = torch.tensor(list(dict.fromkeys(labels[free[labels]].tolist())), dtype=torch.int64)
        kind: Literal["feature", "hidden"] = "feature" if any(b.kind == "feature" for b in members) else "hidden"
        # One layer may make a head's dimensions and the heads: neither can do without one of its own.
        inside: Tensor = torch.isin(labels, dims)
        for mine, suffix in ((labels[~inside], ""), (labels[inside], ".dims")):
            if not len(mine):
                continue
            gate_of[mine] = torch.arange(start + 1, start + 1 + len(mine))
            name = members[0].name + suffix
            names[name] += 1
            label = name if names[name] == 1 else f"{name}#{names[name]}"
            groups.append(Group(label, kind, start, start + len(mine)))
            start += len(mine)
    return groups, gate_of


def _coupled_blocks(blocks: list[Block], classes: UnitClasses, free: Bool[Tensor, " classes"]) -> list[list[Block]]:
    """Return blocks that share removable classes, together, in the order of their first ones."""
    labels = [classes.of(block) for block in blocks]
    owner = torch.arange(len(blocks)).repeat_interleave(torch.tensor([len(x) for x in labels], dtype=torch.int64))
    label = torch.cat([torch.zeros(0, dtype=torch.int64), *labels])
    shared = free[label]
    # A graph of blocks and, behind them, the classes that they have units of.
    component = connected(
        owner[shared].numpy(), (label[shared] + len(blocks)).numpy(), len(blocks) + len(classes.label)
    )
    found: dict[int, list[Block]] = {}
    for block, number in zip(blocks, component[: len(blocks)].tolist(), strict=True):
        found.setdefault(number, []).append(block)
    return list(found.values())


def _with_optional(groups: list[Group], sites: dict[Axis, Tensor], dataflow: Dataflow, pairs: Tensor) -> list[Group]:
    """Return the groups, each with whether the outputs still depend on the inputs when all of it is closed: a residual
    branch, say."""
    ranges = {axis: (int(units.min()), int(units.max())) for axis, units in sites.items() if len(units)}
    found = []
    for g in groups:
        closed = {axis for axis, (low, high) in ranges.items() if low > g.start and high <= g.stop}
        closed |= {axis for axis, (low, _) in ranges.items() if low < 0 and _all_in(sites[axis], g, pairs)}
        optional = g.kind == "hidden" and bool(closed) and dataflow.outputs_depend_on_inputs(closed)
        found.append(replace(g, optional=optional))
    return found


def _all_in(units: Tensor, group: Group, pairs: Tensor) -> bool:
    """Return whether every position of a unit map goes with a group, be it with one unit of two."""
    of_one = torch.where(units < 0, 0, units)[:, None].expand(-1, 2)
    both = torch.where((units < 0)[:, None], pairs[-units.clamp(max=-1) - 1], of_one)
    return bool(((both > group.start) & (both <= group.stop)).any(1).all())


def _add_input_gates(
    trace: Trace, groups: list[Group], maps: dict[Axis, Tensor], sites: dict[Axis, Tensor], exclude: Iterable[str]
) -> tuple[dict[str, str], list[Fixed]]:
    """Add gates of its own for each linear layer that reads units which others keep.

    Source: LUMOS equation 11, where W_Q, W_K and W_V have a gate each on the stream that they share.

    Returns:
        Those layers, and the inputs that others keep for which there can be no such gates, with the reason.
    """
    calls = Counter(c.weight for c in trace.contractions)
    layers: dict[str, str] = {}
    shared: dict[str, Fixed] = {}
    for c in trace.contractions:
        axis = (c.weight, c.in_dim)
        fixed = not maps[axis].any() if axis in maps else False
        if not fixed or inside(c.module, exclude):
            continue
        if not c.direct or calls[c.weight] > 1:
            why = "is read by several calls" if c.direct else "is read by more than a linear layer's own product"
            shared[c.weight] = Fixed(f"{c.weight}.input", len(maps[axis]), f"no gates of its own: {c.weight} {why}")
        else:
            start = max((g.stop for g in groups), default=0)
            size = len(maps[axis])
            groups.append(Group(f"{c.module}.input", "hidden", start, start + size))
            maps[axis] = sites[axis] = torch.arange(start + 1, start + 1 + size)
            layers[c.module] = "selected"
    return layers, list(shared.values())


def _sizes(trace: Trace, gates: Tensor) -> tuple[Size, ...]:
    """Return the sizes that were written along axes of removable units, with the modules' attributes of that value.

    The sizes of a split's parts that no attribute holds are taken for literals: mostly they are, or are in a list.
    """
    written = look_up(gates, dict(enumerate(size.units for size in trace.sizes)))
    found = []
    for size, units in zip(trace.sizes, written.values(), strict=True):
        if _changes(units):
            attributes = _attributes(trace, size)
            literal = size.of_part and not attributes
            found.append(replace(size, units=_one_a_row(units), attributes=attributes, literal=literal))
    return tuple(found)


def _attributes(trace: Trace, size: Size) -> tuple[str, ...]:
    return int_attributes(trace.model.get_submodule(size.module), size.size)


def _one_a_row(units: Int[Tensor, "size slice"]) -> Int[Tensor, "size _"]:
    """Return the first unit of each row where that is all there is in it: a table of positions has thousands."""
    return units[:, :1].clone() if bool((units == units[:, :1]).all()) else units


def _bounds(trace: Trace, gates: Tensor, whole: list[Tensor]) -> tuple[Bound, ...]:
    """Return the numbers that pick positions along axes of removable units, but for inputs that keep their width."""
    stays = torch.cat([torch.zeros(0, dtype=torch.int64), *whole])
    bounds = [bound for bound in trace.bounds if not torch.isin(bound.units, stays).any()]
    read = look_up(gates, dict(enumerate(bound.units for bound in bounds)))
    return tuple(replace(b, units=u) for b, u in zip(bounds, read.values(), strict=True) if _changes(u))


def _changes(units: Int[Tensor, "size slice"]) -> bool:
    """Return whether a size can change: positions hold units, and not all of them the same several ones."""
    rows = units[(units != 0).all(1)].sort(1).values
    if not len(rows):
        return False
    same = bool((rows == rows[:1]).all())
    return not same or bool((rows[0] == rows[0, 0]).all())


def _fixed_units(blocks: list[Block], classes: UnitClasses, free: Bool[Tensor, " classes"]) -> list[Fixed]:
    """Return the units of each block that cannot be removed, by reason."""
    found: list[Fixed] = []
    for block in blocks:
        labels = classes.of(block).unique()
        reasons = [classes.reason.get(label, "") for label in labels[~free[labels]].tolist()]
        found += [Fixed(block.name, reasons.count(reason), reason) for reason in dict.fromkeys(reasons)]
    return found
