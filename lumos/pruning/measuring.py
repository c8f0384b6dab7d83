"""What is measured for a goal: before a training, on its way, and at its cut."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import torch
from torch import Tensor

from lumos.gating.gated_model import GatedModel
from lumos.gating.gates import rounded_up
from lumos.pruning.bench import Bench
from lumos.pruning.budget import Budget
from lumos.pruning.calibration import Calibration
from lumos.pruning.resumable import Resumable
from lumos.pruning.settling import BELOW, settle

log = logging.getLogger("lumos")

SETTLE_SECONDS = 0.6
"""How long a network is called where a promise is settled."""
CONFIRM_SECONDS = 1.5
"""How long what was chosen is called once more."""
CONFIRMATIONS = 3
"""How often it may turn out to cost more than asked for, and be chosen anew with a lower aim."""
FILLINGS = 4
"""How many groups are rounded up one by one, at most."""


class Measuring(Resumable):
    """What is measured for a goal, before a training, on its way and at its cut.

    Args:
        bench: Where networks are measured.
        calibration: What an earlier measurement of the same calls found; measured now by default.

    Raises:
        ConfigError: The calibration is of other calls.
    """

    memory = ("predicted", "measured", "networks", "looks", "seconds")

    def __init__(self, bench: Bench, calibration: Calibration | None = None) -> None:
        started = time.perf_counter()
        self.bench = bench
        if calibration is None:
            calibration = Calibration.of(bench)
        calibration.check(bench.meter.facts, bench.structure)
        self.calibration = calibration
        self.predicted = self.measured = math.nan
        self.networks = 0
        self.looks: list[tuple[int, float, float]] = []
        self.seconds = time.perf_counter() - started

    def look(self, step: int, keep: Tensor, ranks: Tensor) -> None:
        """Measure the network that a training has come to, and fit anew."""
        started = time.perf_counter()
        predicted = self.calibration.share(keep.cpu())
        found = self.calibration.look(self.bench, keep, ranks, seed=step)
        self.looks.append((step, predicted, found))
        self.seconds += time.perf_counter() - started
        share = f"{found:.3g} of the dense network's, predicted {predicted:.3g}"
        log.info(f"step {step}: {self.bench.cost} so far {share}")

    def settle(self, budget: Budget, gates: Tensor, is_open: Tensor) -> Tensor:
        """Choose the units that stay so that what was asked for holds as measured."""
        started = time.perf_counter()
        structure, chosen = self.bench.structure, {}

        def candidate(limit: float) -> Tensor:
            return budget.at(limit).fit(structure, gates, is_open).cpu()

        def measure(keep: Tensor) -> float:
            cost, with_more = self.bench.cheapest([keep], gates, SETTLE_SECONDS)[0]
            chosen[keep.numpy().tobytes()] = with_more
            return cost

        def settled(aim: float) -> tuple[Tensor, float, int]:
            found = settle(candidate, measure, aim)
            keep, more = self._filled_blocks(chosen[found.keep.numpy().tobytes()], found.measured, aim, gates)
            (share,) = self.bench.shares([keep], CONFIRM_SECONDS)
            return keep, share, found.tries + more + 1

        # The best of several noisy measurements looks better than it is: what was chosen is measured again, and longer.
        aim = budget.limit
        keep, share, networks = settled(aim)
        for _ in range(CONFIRMATIONS - 1):
            if share <= budget.limit:
                break
            aim *= 0.99 * budget.limit / share
            keep, share, more = settled(aim)
            networks += more
        self._note(keep, share, networks, started)
        if share > budget.limit:
            line = f"no network within it was found; the cut has {share:.3g}"
            log.warning(f"{budget.target.key}={budget.limit:g}: missed: {line}")
        return keep

    def _filled_blocks(self, keep: Tensor, cost: float, asked: float, gates: Tensor) -> tuple[Tensor, int]:
        """Round groups up one by one, the cheapest first, while that keeps the promise: blocks make costs jump."""
        ranks, groups, tried = gates.detach().cpu(), self.bench.structure.groups, 0
        for _ in range(FILLINGS):
            trials = [
                rounded_up([group], ranks, keep, multiple) for group in groups for multiple in self.bench.multiples
            ]
            trials = [trial for trial in trials if not torch.equal(trial, keep)]
            if cost >= (1 - BELOW) * asked or not trials:
                break
            shares = self.bench.shares(trials, SETTLE_SECONDS)
            tried += len(trials)
            best = min(range(len(trials)), key=lambda i: shares[i])
            if shares[best] > asked:
                break
            keep, cost = trials[best], shares[best]
        return keep, tried

    def round_up(self, gated: GatedModel) -> None:
        """Open the gates that make calls cheaper, or as cheap: a layer of 8 channels may be faster than one of 7."""
        started, keep = time.perf_counter(), gated.gates.is_open().cpu()
        ranks = gated.gates.log_alpha.detach()
        cost, with_more = self.bench.cheapest([keep], ranks, SETTLE_SECONDS)[0]
        decide(gated, with_more.to(ranks.device))
        self._note(keep, cost, len(self.bench.multiples), started)

    def _note(self, keep: Tensor, measured: float, networks: int, started: float) -> None:
        self.predicted, self.measured, self.networks = self.calibration.share(keep), measured, networks
        self.seconds += time.perf_counter() - started

    def report(self) -> dict[str, Any]:
        """Return what was predicted and measured at the cut, in shares of dense, and how."""
        looks = [dict(zip(("step", "predicted", "measured"), look, strict=True)) for look in self.looks]
        return {
            "measures": self.bench.cost, "call": self.calibration.facts, "predicted": self.predicted,
            "measured": self.measured, "calibration_error": self.calibration.error, "least": self.calibration.floor,
            "networks_at_cut": self.networks, "measuring_seconds": round(self.seconds, 2), "measured_at": looks,
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Return all that was measured."""
        return super().state_dict() | {"calibration": self.calibration.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.calibration = Calibration.from_state(self.bench.structure, state["calibration"])


def decide(gated: GatedModel, keep: Tensor) -> int:
    """Close and open gates so that these units stay. Returns how many were moved."""
    gates, shift, is_open = gated.gates, gated.gates.settings.shift, gated.gates.is_open()
    with torch.no_grad():
        gates.log_alpha[is_open & ~keep] = shift - 1.0
        # Barely open: the function hardly changes, and the weights behind the gate can learn again.
        gates.log_alpha[keep & ~is_open] = shift + 0.5
    return int((is_open != keep).sum())
