"""What the gates decided, as plain values."""

from __future__ import annotations

from typing import Any

from torch import nn

from lumos.gating.gated_model import GatedModel


def gate_report(gated: GatedModel) -> dict[str, Any]:
    """Report what the gates decided: counts, kept features and the units left in each group."""
    structure, is_open = gated.structure, gated.gates.is_open().cpu()
    return {
        "open": int(is_open.sum()),
        "total": structure.units,
        "features_kept": structure.kept_features(is_open),
        "features_total": len(structure.feature_names),
        "groups": {g.name: {"open": int(is_open[g.gates].sum()), "total": g.size} for g in structure.groups},
        "fixed": [{"name": f.name, "size": f.size, "reason": f.reason} for f in structure.fixed],
    }


def summary(report: dict[str, Any]) -> str:
    """Say what a :func:`gate_report` says on one line."""
    widths = ", ".join(f"{name} {g['open']}/{g['total']}" for name, g in report["groups"].items())
    return f"{report['open']} of {report['total']} gates open ({widths})"


def gate_columns(model: nn.Module) -> dict[str, Any]:
    """Report the state of the gates while they train, for a row of a curve; nothing for a model without."""
    if not isinstance(model, GatedModel):
        return {}
    probability, sampled = model.gates.expected_open().detach(), model.gates.open_probability().detach()
    parameters, macs = model.structure.expected_sizes(probability)
    dense = model.structure.dense_sizes
    undecided = ((sampled > UNDECIDED[0]) & (sampled < UNDECIDED[1])).float().mean()
    return {
        "open_gates": int(model.gates.is_open().sum()),
        "expected_open": round(float(probability.sum()), 2),
        "undecided_share": round(float(undecided), 4) if len(probability) else 0.0,
        "expected_params_share": round(float(parameters) / dense[0], 6),
        "expected_macs_share": round(float(macs) / max(1.0, dense[1]), 6),
    }


UNDECIDED = (0.1, 0.9)
"""A gate is undecided while the probability that it is open when sampled is between these."""
