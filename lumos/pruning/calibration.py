"""Finds what a call of any smaller network costs here, from measurements of some tens of them.

The networks that are measured are a function of the structure alone; a machine decides what they cost.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lumos.errors import ConfigError
from lumos.pruning.bench import Bench
from lumos.pruning.fitted_cost import FittedCost, fit_coefficients
from lumos.shapes import Bool, Float
from lumos.tracing.structure import Structure

log = logging.getLogger("lumos")

NETWORKS = 48
"""How many networks are measured."""
FEWEST_NETWORKS = 16
SECONDS = 0.2
"""How long each of them is called; shorter where a call is long, so that all are measured within a minute."""
LONG_CALL = 0.02
"""Seconds of a dense call from which on fewer networks are measured."""
HELD_OUT = 4
"""Every so many networks one is held out, for the error that is reported."""
SCATTER = 0.9
"""A group's share of its units is the network's times e to a number between minus this and this: training finds the
places where a prediction is wrong, so the networks have to reach widely."""
LEAST_SHARE = 0.02
CLOSED = 0.15
"""How often a group that may go as a whole is closed, in every third network."""
NEAR = 0.3
"""The scatter of the networks that are measured around the one that a training has come to."""
NEAR_WEIGHT = 4.0
"""How often such a network counts in the fit, and the dense one and the smallest one."""


class Calibration:
    """What calls of a model cost, measured and fitted.

    Attributes:
        cost: The fitted cost; a share of the dense network's.
        floor: The share of the smallest network: one unit in each group.
        error: Of the fitted cost for networks that were held out of the fit, relative: ``median`` and ``largest``.
        facts: What was called, for a record.
    """

    def __init__(self, structure: Structure, facts: dict[str, Any]) -> None:
        self.structure, self.facts = structure, facts
        self.cost = FittedCost(structure, torch.zeros(1))
        self.floor = math.nan
        self.error: dict[str, float] = {}
        self.kept = torch.zeros(0, structure.units, dtype=torch.bool)
        self.shares: list[float] = []
        self.weights: list[float] = []

    @classmethod
    def of(cls, bench: Bench) -> Calibration:
        """Measure some tens of networks, and fit their cost.

        Args:
            bench: Where they are measured.

        Returns:
            The calibration.
        """
        made = cls(bench.structure, bench.meter.facts)
        structure = bench.structure
        floor, full = smallest(structure), torch.ones(structure.units, dtype=torch.bool)
        count, seconds = _effort(bench)
        networks = scattered_networks(structure, count)
        ranks = torch.zeros(structure.units)
        shares = [share for share, _ in bench.cheapest([floor, *networks], ranks, seconds)]
        made.floor = shares[0]
        made._add([full, floor], [1.0, shares[0]], NEAR_WEIGHT)
        made._add(networks, shares[1:], 1.0)
        made.error = made._held_out_error()
        made._fit()
        log.info(made.line(bench.cost))
        return made

    def look(self, bench: Bench, keep: Bool[Tensor, " units"], ranks: Float[Tensor, " units"], seed: int) -> float:
        """Measure the network that a training has come to, and two near it, and fit anew.

        Args:
            bench: Where they are measured.
            keep: The units that stay (units,).
            ranks: Which units come first where widths are rounded up (units,).
            seed: Of those near it.

        Returns:
            What that network costs, as a share of the dense one.
        """
        generator = torch.Generator().manual_seed(seed)
        near = [nearby(self.structure, keep, generator) for _ in range(2)]
        networks = [keep.cpu(), *near]
        shares = [share for share, _ in bench.cheapest(networks, ranks, SECONDS)]
        self._add(networks, shares, NEAR_WEIGHT)
        self._fit()
        return shares[0]

    def share(self, keep: Bool[Tensor, " units"]) -> float:
        """Return the fitted cost of the network that keeps these units, as a share of the dense network's."""
        return float(self.cost.share(keep.double()))

    @property
    def call(self) -> str:
        """What was called, in words."""
        return ", ".join(f"{key} {value}" for key, value in self.facts.items() if value is not None)

    def line(self, what: str) -> str:
        """Say on one line what was found."""
        error = f"fitted within {self.error['median']:.1%}, at most {self.error['largest']:.1%}, of those held out"
        return (
            f"{what} of {len(self.shares) - 2} networks measured ({self.call}): {error}; "
            f"the smallest one has {self.floor:.3g} of the dense one's"
        )

    def check(self, facts: dict[str, Any], structure: Structure) -> None:
        """Raise ConfigError unless it was made for these calls of this structure."""
        for key, value in facts.items():
            if self.facts.get(key) != value:
                raise ConfigError(f"calibration: it is of calls with {key} {self.facts.get(key)}, here {value}")
        if self.kept.shape[1:] != (structure.units,):
            raise ConfigError(f"calibration: it is of a model with {self.kept.shape[1]} units, here {structure.units}")

    def state_dict(self) -> dict[str, Any]:
        """Return all that was measured and fitted: numbers, tensors and containers of them."""
        return {
            "facts": self.facts, "floor": self.floor, "error": self.error, "kept": self.kept, "shares": self.shares,
            "weights": self.weights, "coefficients": self.cost.coefficients,
        }  # fmt: skip

    @classmethod
    def from_state(cls, structure: Structure, state: dict[str, Any]) -> Calibration:
        """Return the calibration that :meth:`state_dict` describes."""
        made = cls(structure, dict(state["facts"]))
        made.floor, made.error = state["floor"], dict(state["error"])
        made.kept = state["kept"].cpu()
        made.shares, made.weights = list(state["shares"]), list(state["weights"])
        made.cost = FittedCost(structure, state["coefficients"].cpu())
        return made

    @classmethod
    def in_state(cls, structure: Structure, state: dict[str, Any]) -> Calibration | None:
        """Return the calibration in what ``Pruner.state_dict`` returned; None where there is none."""
        measuring = state.get("controller", {}).get("measuring")
        return None if measuring is None else cls.from_state(structure, measuring["calibration"])

    def _add(self, networks: Sequence[Tensor], shares: Sequence[float], weight: float) -> None:
        self.kept = torch.cat([self.kept, *(keep.cpu()[None] for keep in networks)])
        self.shares += shares
        self.weights += [weight] * len(shares)

    def _terms(self) -> np.ndarray:
        return np.stack([self.cost.terms(keep.double()).numpy() for keep in self.kept])

    def _fit(self) -> None:
        found = fit_coefficients(self._terms(), np.asarray(self.shares), self.weights)
        self.cost = FittedCost(self.structure, torch.from_numpy(found))

    def _held_out_error(self) -> dict[str, float]:
        """Fit all but every fourth of the networks, and compare with those."""
        terms, shares, weights = self._terms(), np.asarray(self.shares), np.asarray(self.weights)
        held = np.arange(len(shares)) % HELD_OUT == HELD_OUT - 1
        found = fit_coefficients(terms[~held], shares[~held], weights[~held])
        errors = np.abs(terms[held] @ found / shares[held] - 1)
        return {"median": float(np.median(errors)), "largest": float(errors.max())}


def _effort(bench: Bench) -> tuple[int, float]:
    """How many networks to measure, and for how many seconds each: less of both where a call is long."""
    if bench.cost == "memory":
        return NETWORKS, 0.0
    seconds = bench.dense_seconds()
    longer = max(1.0, seconds / LONG_CALL)
    return max(FEWEST_NETWORKS, round(NETWORKS / longer**0.5)), SECONDS


def smallest(structure: Structure) -> Bool[Tensor, " units"]:
    """Return the units of the smallest network: the first of each group."""
    keep = torch.zeros(structure.units, dtype=torch.bool)
    keep[[g.start for g in structure.groups]] = True
    return keep


def scattered_networks(structure: Structure, count: int, seed: int = 0) -> list[Bool[Tensor, " units"]]:
    """Choose networks whose widths are scattered widely, more of them at small widths.

    A common share of the units is drawn evenly on a logarithmic axis, and each group's around it.

    Args:
        structure: The traced model.
        count: How many.
        seed: Of the choice.

    Returns:
        For each network the units that stay (units,), one or more of each group that may not go as a whole.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([g.size for g in structure.groups], dtype=torch.float64)
    least = max(LEAST_SHARE, float(torch.exp(-sizes.log().mean())))
    drawn = torch.rand(count, generator=generator, dtype=torch.float64)
    order = torch.randperm(count, generator=generator)
    found = []
    for number in range(count):
        share = least ** (float(order[number] + drawn[number]) / count)
        scatter = (2 * torch.rand(len(sizes), generator=generator, dtype=torch.float64) - 1) * SCATTER
        widths = (sizes * share * scatter.exp()).round()
        closed = torch.rand(len(sizes), generator=generator) < (CLOSED if number % 3 == 0 else 0.0)
        found.append(_chosen(structure, widths, closed, generator))
    return found


def nearby(structure: Structure, keep: Tensor, generator: torch.Generator) -> Bool[Tensor, " units"]:
    """Choose a network whose widths are near those of another one; groups that are gone stay so."""
    counts = torch.tensor([float(keep[g.gates].sum()) for g in structure.groups], dtype=torch.float64)
    scatter = (2 * torch.rand(len(counts), generator=generator, dtype=torch.float64) - 1) * NEAR
    return _chosen(structure, (counts * scatter.exp()).round(), counts == 0, generator)


def _chosen(structure: Structure, widths: Tensor, closed: Tensor, generator: torch.Generator) -> Tensor:
    """Units by chance, as many in each group as its width says; none of an optional group that is closed, unless the
    outputs would no longer depend on the inputs."""
    keep = torch.zeros(structure.units, dtype=torch.bool)
    for number, group in enumerate(structure.groups):
        width = min(group.size, max(1, int(widths[number])))
        chosen = torch.randperm(group.size, generator=generator)[:width] + group.start
        if not (group.optional and bool(closed[number])):
            keep[chosen] = True
    gone = structure.closed_groups(keep)
    if gone and not structure.dataflow.outputs_depend_on_inputs(structure.closed_axes(keep)):
        keep[[g.start for g in gone]] = True
    return keep
