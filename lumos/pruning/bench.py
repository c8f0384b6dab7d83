"""Makes the networks that a cut would leave, and measures a call of each beside the dense one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lumos.compaction.compact import cut_closed_units
from lumos.compaction.model import CompactModel
from lumos.errors import ConfigError
from lumos.gating.gated_model import GatedModel
from lumos.gating.gates import rounded_up
from lumos.gating.hard_concrete import LOG_ALPHA_BOUND
from lumos.gating.layers import ungated_copy
from lumos.measure.batches import held_bytes
from lumos.measure.inference import moved
from lumos.measure.sizes import batch_of, resized, size_bytes
from lumos.measure.timing import inference, latencies
from lumos.pruning import processes
from lumos.pruning.settings import Call, Measured
from lumos.shapes import Bool, Float

Clock = Callable[[dict[str, nn.Module], tuple[Any, ...], float], dict[str, list[float]]]
"""Times calls of models side by side: takes the models by name, the inputs, and for how many seconds each may be
called; returns the seconds of each round by name."""

BLOCK = 8
"""The multiple to which widths are rounded up on trial: kernels for convolutions and products work in such blocks, and
a layer with 8 channels is often faster than one with 7, or with 3."""
TOGETHER = 6
"""How many networks take turns with one dense network: few enough that a round is over before the machine changes."""
MOST_CALLS = 2000
"""Calls of one network in a measurement; those of small networks are short, and their times scatter."""


class CallMeter:
    """Measures what a call of a model costs, beside a dense one.

    Torch's random state and number of threads stay.

    Args:
        cost: What is measured.
        call: The call: device, samples, threads, precision.
        example: Positional inputs.
        device: Where the calls are made, unless ``call`` says it.
        clock: Times the calls; in torch's eager mode by default.

    Raises:
        ConfigError: The call cannot be made here.
    """

    def __init__(
        self, cost: Measured, call: Call, example: tuple[Any, ...], device: torch.device, clock: Clock | None = None
    ) -> None:
        self.cost, self.call = cost, call
        self.device = device if call.device is None else _usable(call.device)
        self.inputs = _inputs(example, call, self.device)
        self._clock = clock or self._torch_clock

    @property
    def facts(self) -> dict[str, Any]:
        """Device, samples, threads and precision of the calls, for a record."""
        threads = (self.call.threads or torch.get_num_threads()) if self.device.type == "cpu" else None
        return {
            "device": str(self.device), "batch": batch_of(self.inputs), "threads": threads,
            "precision": self.call.precision or "float32",
        }  # fmt: skip

    def seconds(self, model: nn.Module) -> float:
        """Measure roughly how long a call takes."""
        return float(np.median(self._clock({"dense": model}, self.inputs, 0.0)["dense"]))

    def shares(self, dense: nn.Module, models: Sequence[nn.Module], seconds: float) -> list[float]:
        """Measure models beside a dense one; all are on the device of the calls, in eval mode.

        Args:
            dense: What the others are compared with.
            models: The others.
            seconds: How long each is called; memory is counted once.

        Returns:
            What a call of each costs, as a share of what one of the dense model costs: the median over the rounds.
        """
        named = {"dense": dense} | {str(i): model for i, model in enumerate(models)}
        if self.cost == "memory":
            with self._setting():
                held = [
                    size_bytes(m) + held_bytes(m, self.inputs, self.device, self.call.precision) for m in named.values()
                ]
            return [bytes_ / held[0] for bytes_ in held[1:]]
        rounds = self._clock(named, self.inputs, seconds)
        base = np.asarray(rounds["dense"])
        return [float(np.median(np.asarray(rounds[name]) / base)) for name in named if name != "dense"]

    def _torch_clock(
        self, models: dict[str, nn.Module], inputs: tuple[Any, ...], seconds: float
    ) -> dict[str, list[float]]:
        with self._setting():
            calls = {name: inference(model, inputs, self.call.precision) for name, model in models.items()}
            return latencies(calls, self.device, seconds, MOST_CALLS)

    @contextmanager
    def _setting(self) -> Iterator[None]:
        before = torch.get_num_threads()
        try:
            if self.call.threads and self.call.threads != before:
                torch.set_num_threads(self.call.threads)
            yield
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)


class Bench:
    """Measures what calls of the networks cost that a cut would leave.

    The model that trains stays as it is. Where several processes train together, the first one measures for all.

    Args:
        gated: The model with gates; its weights are read anew for each network.
        cost: What is measured.
        call: The call: device, samples, threads, precision.
        clock: Times the calls; in torch's eager mode by default.
        align: The multiple to which the cut rounds widths up, where that is given; by default they are rounded up to
            ``BLOCK`` where the network is faster so.

    Raises:
        ConfigError: The call cannot be made here.
    """

    def __init__(
        self, gated: GatedModel, cost: Measured, call: Call, clock: Clock | None = None, align: int | None = None
    ) -> None:
        self.structure, self.cost = gated.structure, cost
        device = next((p.device for p in gated.model.parameters()), torch.device("cpu"))
        self.meter = CallMeter(cost, call, gated.structure.example, device, clock)
        self.multiples = (align,) if align else (1,) if cost == "memory" else (1, BLOCK)
        """The multiples to which widths are rounded up on trial."""
        model = ungated_copy(gated.model, gated.structure.written)
        self._gated = GatedModel(model, gated.structure, gated.gates.settings).eval()
        self._gated.gates.fixed = True

    def cut(self, keep: Bool[Tensor, " units"]) -> CompactModel:
        """Make the network that is left when the units with ``keep`` stay, on the device of the calls."""
        with torch.no_grad():
            gates = torch.where(keep, LOG_ALPHA_BOUND, -LOG_ALPHA_BOUND)
            self._gated.gates.log_alpha.copy_(gates.to(self._gated.gates.log_alpha))
        return cut_closed_units(self._gated).to(self.meter.device).eval()

    def dense(self) -> nn.Module:
        """Make a copy of the dense network, without gates, on the device of the calls."""
        return copy.deepcopy(ungated_copy(self._gated.model)).to(self.meter.device).eval()

    def dense_seconds(self) -> float:
        """Measure roughly how long a call of the dense network takes: the same number in all processes."""
        return processes.of_first(lambda: self.meter.seconds(self.dense()))

    def shares(self, keeps: Sequence[Bool[Tensor, " units"]], seconds: float) -> list[float]:
        """Measure networks beside the dense one.

        Args:
            keeps: For each network the units that stay (units,).
            seconds: How long each of them is called; memory is counted once.

        Returns:
            What a call of each costs, as a share of what one of the dense network costs.
        """
        return processes.of_first(lambda: self._shares([keep.cpu() for keep in keeps], seconds))

    def cheapest(
        self, keeps: Sequence[Bool[Tensor, " units"]], ranks: Float[Tensor, " units"], seconds: float
    ) -> list[tuple[float, Bool[Tensor, " units"]]]:
        """Measure what keeping these units costs at the least: networks that keep some more may be faster.

        Args:
            keeps: For each network the units that stay (units,).
            ranks: Which units come first where widths are rounded up (units,).
            seconds: How long each network is called.

        Returns:
            For each network its cost, as :meth:`shares` has it, and the units that stay for that.
        """
        groups, ranks = self.structure.groups, ranks.detach().cpu()
        trials = [rounded_up(groups, ranks, keep.cpu(), multiple) for keep in keeps for multiple in self.multiples]
        different = {keep.numpy().tobytes(): keep for keep in trials}
        costs = dict(zip(different, self.shares(list(different.values()), seconds), strict=True))
        found = [(costs[keep.numpy().tobytes()], keep) for keep in trials]
        each = len(self.multiples)
        return [min(found[i : i + each], key=lambda pair: pair[0]) for i in range(0, len(found), each)]

    def _shares(self, keeps: Sequence[Tensor], seconds: float) -> list[float]:
        found: list[float] = []
        cuda = range(torch.cuda.device_count()) if self.meter.device.type == "cuda" else ()
        with torch.random.fork_rng(devices=cuda), torch.enable_grad():
            dense = self.dense()
            for start in range(0, len(keeps), TOGETHER):
                models = [self.cut(keep) for keep in keeps[start : start + TOGETHER]]
                found += self.meter.shares(dense, models, seconds)
        return found


def _usable(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"lumos.call.device={name}: torch cannot use it here ({line})") from None
    return device


def _inputs(example: tuple[Any, ...], call: Call, device: torch.device) -> tuple[Any, ...]:
    inputs = moved(example, device)
    samples = batch_of(inputs)
    if call.batch is None or call.batch == samples:
        return inputs
    if samples is None:
        raise ConfigError(
            f"lumos.call.batch={call.batch}: the samples of this example cannot be repeated row by row; leave it out, "
            "and give an example of the size that calls have"
        )
    return resized(inputs, call.batch)
