"""Keeps a promise by measurement: the largest network along the gates' ranking whose measured cost is within it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lumos.shapes import Bool

BELOW = 0.05
"""How far below what was asked for a network may stay, as a share of it."""
TRIES = 12
"""Networks that are measured at most."""
BUDGETS = 60
"""Budgets that are tried at most: several may give one network, which is measured once."""
FARTHEST = 3.0
"""How many times as large the next budget is at most."""
CLOSE = 1e-3
"""Two budgets of one bracket that are as near as this, relative, give the same network or neighbours."""


@dataclass(frozen=True)
class Settled:
    """What was found.

    Attributes:
        keep: The units that stay (units,).
        measured: What the network costs; above what was asked for where none within it was found.
        tries: How many networks were measured.
    """

    keep: Bool[Tensor, " units"]
    measured: float
    tries: int


def settle(
    candidate: Callable[[float], Bool[Tensor, " units"]],
    measure: Callable[[Bool[Tensor, " units"]], float],
    asked: float,
) -> Settled:
    """Find the budget whose network costs what was asked for, or up to 5% less, as measured.

    Budgets that are too large and too small are bracketed. The next one is where a proportional cost would be right,
    and the middle of the bracket where that did not come nearer.

    Args:
        candidate: The network for a budget; a larger budget never keeps less.
        measure: The cost of a network.
        asked: The cost that is promised.

    Returns:
        The network of the largest budget that was found within what was asked for; where none was, the cheapest one.
    """
    low, high = 0.0, float("inf")
    budget, best, cheapest = asked, None, None
    known: dict[bytes, float] = {}
    for _ in range(BUDGETS):
        keep = candidate(budget)
        key = keep.numpy().tobytes()
        again = key in known
        if not again and len(known) == TRIES:
            break
        if not again:
            known[key] = measure(keep)
        cost, tries = known[key], len(known)
        if cheapest is None or cost < cheapest.measured:
            cheapest = Settled(keep, cost, tries)
        if cost <= asked:
            low = budget
            if best is None or int(keep.sum()) >= int(best.keep.sum()):
                best = Settled(keep, cost, tries)
            if cost >= (1 - BELOW) * asked or bool(keep.all()):
                break
        else:
            high = budget
        if high < float("inf") and high - low <= CLOSE * high:
            break
        # Where the network was measured before, how much it costs says nothing new.
        factor = asked * (1 - BELOW / 2) / max(cost, 1e-12)
        budget = (low + high) / 2 if again and high < float("inf") else _next(budget, factor, low, high)
    found = best or cheapest
    assert found is not None
    return Settled(found.keep, found.measured, len(known))


def _next(budget: float, factor: float, low: float, high: float) -> float:
    """The budget at which a proportional cost would be right, or the middle of the bracket where that is not in it."""
    guess = budget * min(factor, FARTHEST)
    if high == float("inf"):
        return max(guess, budget * 1.02)
    margin = 0.1 * (high - low)
    return guess if low + margin <= guess <= high - margin else (low + high) / 2
