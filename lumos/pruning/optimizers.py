"""Takes an optimizer through the cut: its state, and the rate that fits a narrower network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from lumos.compaction.model import CompactModel
from lumos.compaction.plan import Plan
from lumos.gating.gated_model import GatedModel

POWERS = {
    "exp_avg": 1, "momentum_buffer": 1, "grad_avg": 1, "exp_inf": 1, "mu_product": 0,
    "exp_avg_sq": 2, "max_exp_avg_sq": 2, "square_avg": 2, "sum": 2,
}  # fmt: skip
"""State that is laid out as its parameter: the power of the gradient with which it scales."""
LEAST_GATE = 1e-3
"""Gates below this do not make the state behind them any larger."""


def transfer_state(
    source: torch.optim.Optimizer, target: torch.optim.Optimizer, gated: GatedModel, small: CompactModel
) -> None:
    """Give the optimizer of a compact model the state that the gated model's optimizer has, cut and rescaled.

    A parameter with state of an unknown kind starts anew.

    Args:
        source: An optimizer over the gated model's parameters.
        target: The same over the compact model's; its state is replaced.
        gated: The gated model, its gates as they were when ``small`` was made.
        small: ``compact(gated)``.
    """
    for new, state in _states(source, gated, small).values():
        if state is not None:
            target.state[new] = state


def carry_over(optimizer: torch.optim.Optimizer, gated: GatedModel, small: CompactModel) -> list[str]:
    """Put the compact model's parameters in the place of the gated one's in an optimizer, with their state.

    Groups, their order and their options stay. Parameters that are gone leave their group.

    Args:
        optimizer: An optimizer over the gated model's parameters.
        gated: The gated model, its gates as they were when ``small`` was made.
        small: ``compact(gated)``.

    Returns:
        The names of the parameters whose state could not be cut, and begins anew.
    """
    states = _states(optimizer, gated, small)
    old = dict(gated.model.named_parameters())
    names = {id(p): name for name, p in old.items()}
    for group in optimizer.param_groups:
        kept = []
        for p in group["params"]:
            name = names.get(id(p))
            if name is None:
                kept.append(p)  # the gates', or a parameter of another model
            elif name in states:
                kept.append(states[name][0])
        group["params"][:] = kept  # the very list: some optimizers keep it
    for name, p in old.items():
        optimizer.state.pop(p, None)
        if name in states and states[name][1]:
            optimizer.state[states[name][0]] = states[name][1]
    if hasattr(optimizer, "_numel_cache"):  # L-BFGS: how long its flat vectors are
        optimizer._numel_cache = None  # pyright: ignore[reportAttributeAccessIssue]
    return [name for name, (_, state) in states.items() if state is None]


def _states(
    source: torch.optim.Optimizer, gated: GatedModel, small: CompactModel
) -> dict[str, tuple[nn.Parameter, dict[str, Any] | None]]:
    """For each parameter that stays, by name: the new one, and its state; None where there was one that is not known.

    A folded weight is ``m`` times the old one, so its gradient is the old one's divided by ``m``. Numbers are copied.
    """
    plan = Plan.of(gated.structure, gated.structure.with_placeholders(gated.gates.is_open()))
    multipliers, new = gated.multipliers(), dict(small.model.named_parameters())
    found: dict[str, tuple[nn.Parameter, dict[str, Any] | None]] = {}
    for name, old in gated.model.named_parameters():
        if name not in new:
            continue
        state = source.state.get(old, {})
        m = plan.cut(name, multipliers[name].expand(old.shape)) if name in multipliers else torch.ones(())
        m = m.to(old.device).clamp(min=LEAST_GATE)
        arrays = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.ndim}
        known = arrays.keys() <= POWERS.keys() and all(v.shape == old.shape for v in arrays.values())
        containers = any(isinstance(value, list | dict) for value in state.values())
        if not known or containers:
            found[name] = new[name], None
            continue
        numbers = {key: deepcopy(value) for key, value in state.items() if key not in arrays}
        moments = {key: plan.cut(name, value) / m ** POWERS[key] for key, value in arrays.items()}
        found[name] = new[name], numbers | moments
    return found


def matrix_sizes(dense: nn.Module, compact: nn.Module) -> list[tuple[int, int]]:
    """List the numbers of elements of each weight of two dimensions or more, dense and compact."""
    before = dict(dense.named_parameters())
    pairs = ((before.get(name), p) for name, p in compact.named_parameters() if p.ndim > 1)
    return [(old.numel(), p.numel()) for old, p in pairs if old is not None]


def rate_gain(matrices: Sequence[tuple[int, int]], most: float) -> float:
    """Compute the factor by which the weights' peak rate rises at the cut.

    With Adam the rate that fits a layer falls as its width rises, and the given one was chosen for the dense network.
    How many times narrower a matrix became is the square root of its sizes' ratio; the factor is the geometric mean of
    these, so that one large layer that nearly goes does not speak for all, and a residual stream that stays is not
    forgotten.  Source: Yang & Hu et al. 2021, muP, table 3.

    Args:
        matrices: The sizes of each weight matrix, dense and compact, as :func:`matrix_sizes` lists them.
        most: The largest factor.

    Returns:
        The factor, a number from 1 to ``most``.
    """
    narrower = [0.5 * math.log(dense / max(1, compact)) for dense, compact in matrices]
    return min(most, math.exp(math.fsum(narrower) / max(1, len(narrower))))
