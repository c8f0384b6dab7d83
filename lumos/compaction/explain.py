"""A structure as text: what can be removed, what each unit touches and costs, and what is fixed and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lumos.compaction.probe import trace_and_probe
from lumos.tracing.constraints import Constraints
from lumos.tracing.feature_names import FeatureNames
from lumos.tracing.options import StructureOptions
from lumos.tracing.structure import Group, Structure


def explain(
    model: nn.Module,
    example_inputs: Any,
    *,
    features: FeatureNames | None = None,
    options: StructureOptions | None = None,
    keep: Sequence[str] = (),
    exclude: Sequence[str] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Say what LUMOS finds in a model, after the probe, as a page of text.

    Args:
        model: The model; it stays as it is.
        example_inputs: A tensor, or a tuple of positional inputs, with at least two samples.
        features: Names of the input features, as :func:`lumos.gate` takes them.
        options: What more of the model is made removable.
        keep: Features and modules that stay, as :func:`lumos.gate` takes them.
        exclude: Modules that stay as they are.
        groups: Features that stay or go together.

    Returns:
        The groups of removable units with what a unit of each costs, then what is fixed and why.

    Raises:
        StructureError: The model does not run on the example.

    Example:
        >>> import torch, lumos
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> print(lumos.explain(model, torch.randn(8, 3)))  # doctest: +NORMALIZE_WHITESPACE
        7 gates in 2 groups; 21 parameters, 16 MACs a sample
        <BLANKLINE>
        group  kind     units  parameters/unit  MACs/unit  touches
        input  feature      3                4          4  0.weight[1]
        0      hidden       4                5          4  0.weight[0], 0.bias[0], 2.weight[1]
        <BLANKLINE>
        fixed:
          2 (1 units): it is an output of the model
    """
    asked = Constraints(keep, exclude, groups or {})
    return describe(trace_and_probe(model, example_inputs, features=features, options=options, constraints=asked))


def describe(structure: Structure) -> str:
    """Write the page for a structure: groups with what a unit of theirs costs, then what is fixed, by reason."""
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
    if structure.unreached:
        lines += ["", f"not reached by the example: {', '.join(structure.unreached)}"]
    return "\n".join(lines)


def unit_cost(structure: Structure, group: Group) -> tuple[float, float]:
    """Compute what goes when one unit of a group goes, the mean over its units.

    Returns:
        Parameters, and multiply-accumulates of the traced example.
    """
    gates = torch.ones(structure.units, dtype=torch.float64, requires_grad=True)
    costs = []
    for size in structure.expected_sizes(gates):
        # With all gates open, the derivative by a gate is what its unit costs beside all others.
        (slope,) = torch.autograd.grad(size, gates, retain_graph=True)
        costs.append(float(slope[group.gates].mean()))
    return costs[0], costs[1]
