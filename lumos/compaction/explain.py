"""A structure as text: what can be removed, what each unit touches and costs, and what is fixed and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lumos.compaction.probe import probed
from lumos.tracing.build_structure import trace_structure
from lumos.tracing.options import StructureOptions
from lumos.tracing.structure import Group, Structure


def explain(
    model: nn.Module,
    example_inputs: Any,
    *,
    features: Sequence[str] | None = None,
    options: StructureOptions | None = None,
) -> str:
    """What LUMOS finds in a model, after the probe, as a page of text.

    Takes what ``lumos.gate`` takes. Raises StructureError where the model does not run on the example.
    """
    return describe(trace(model, example_inputs, features=features, options=options))


def describe(structure: Structure) -> str:
    """The page for a structure: groups with what a unit of theirs costs, then what is fixed, by reason."""
    parameters, macs = structure.dense_sizes
    samples = max(1, structure.example_rows)
    lines = [f"{structure.units} gates in {len(structure.groups)} groups; {parameters:,.0f} parameters, "
             f"{macs / samples:,.0f} MACs a sample", ""]  # fmt: skip
    rows = [("group", "kind", "units", "parameters/unit", "MACs/unit", "touches")]
    for group in structure.groups:
        cost = unit_cost(structure, group)
        axes = [f"{name}[{dim}]" for (name, dim), units in structure.maps.items() if structure.touches(units, group)]
        touched = ", ".join(axes[:4]) + (f" and {len(axes) - 4} more" if len(axes) > 4 else "")
        rows.append((group.name, group.kind, str(group.size), f"{cost[0]:,.0f}", f"{cost[1] / samples:,.0f}", touched))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row[:5], widths, strict=True))]
        lines.append("  ".join([*cells, row[5]]).rstrip())
    if structure.fixed:
        lines += ["", "fixed:"]
        lines += [f"  {f.name} ({f.size} units): {f.reason}" for f in structure.fixed]
    return "\n".join(lines)


def unit_cost(structure: Structure, group: Group) -> tuple[float, float]:
    """Parameters, and MACs of the traced example, that go when one unit of the group goes: the mean over its units."""
    gates = torch.ones(structure.units, dtype=torch.float64, requires_grad=True)
    costs = []
    for size in structure.expected_sizes(gates):
        # With all gates open, the derivative by a gate is what its unit costs beside all others.
        (slope,) = torch.autograd.grad(size, gates, retain_graph=True)
        costs.append(float(slope[group.gates].mean()))
    return costs[0], costs[1]


def trace(
    model: nn.Module,
    example_inputs: Any,
    *,
    features: Sequence[str] | None = None,
    options: StructureOptions | None = None,
) -> Structure:
    """What can be removed from a model, traced and probed; see :func:`gate` for the arguments."""
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    return probed(model, trace_structure(model, inputs, features, options), inputs)
