"""A simulation whose kernel can be replaced by a network, and what is measured of it then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

Inputs = Float[np.ndarray, "rows inputs"]
Outputs = Float[np.ndarray, "rows outputs"]


def clock() -> float:
    """Read a clock, in seconds: the processor's where torch has one thread, so that other programs do not count."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class Stopwatch:
    """Adds up seconds (of :func:`clock`) and rows over calls."""

    def __init__(self) -> None:
        self.seconds, self.rows = 0.0, 0

    def timed(self, function: Callable[[], Any], rows: int) -> Any:
        """Call the function and add its time; returns what it returns."""
        started = clock()
        out = function()
        self.seconds += clock() - started
        self.rows += rows
        return out


class Surrogate:
    """A network as the kernel's replacement: rows of inputs (float64) to rows of outputs, in batches of bounded size.

    ``reads`` names the input features that it depends on. Its own time, without that of building its inputs, is in
    ``watch``.
    """

    BATCH = 16_384

    def __init__(self, model: nn.Module, reads: Sequence[str]) -> None:
        self.model, self.reads, self.watch = model.eval(), frozenset(reads), Stopwatch()

    def __call__(self, inputs: Inputs) -> Outputs:
        """Compute the outputs, in their units."""
        return self.watch.timed(lambda: self._outputs(inputs), len(inputs))

    @torch.no_grad()
    def _outputs(self, inputs: Inputs) -> Outputs:
        x = torch.from_numpy(inputs.astype(np.float32))
        return torch.cat([self.model(part) for part in x.split(self.BATCH)]).numpy().astype(np.float64)


Kernel = Callable[[Any], Any]
"""The part of a step that is replaced: what a simulation calls with what it wants to know."""


@runtime_checkable
class Simulation(Protocol):
    """A workload's simulation, from a state that its training data does not contain.

    A state is whatever the simulation wants it to be; ``step`` returns a new one and leaves the old one alone.
    """

    kernel_name: str
    """The kernel, and what its own implementation here is made of."""
    steps: int
    """How many are run unless one says otherwise."""
    step_name: str
    """What a step is."""

    def start(self) -> Any:
        """Make the first state; the same at every call."""
        ...

    def nudged(self, state: Any) -> Any:
        """Move a state by a very small amount: how far does a run drift apart by itself?"""
        ...

    def step(self, state: Any, kernel: Kernel) -> Any:
        """Compute the next state. Raises DataError or FloatingPointError where there is none."""
        ...

    def exact(self, call: Any) -> Any:
        """Compute the true kernel's answer."""
        ...

    def replaced(self, call: Any, surrogate: Surrogate) -> Any:
        """Compute the same by a network."""
        ...

    def rows(self, call: Any) -> int:
        """Count the rows of the network's inputs that an answer takes."""
        ...

    def conserved(self, state: Any, kernel: Kernel) -> Mapping[str, float]:
        """Compute totals that the true run keeps or changes only slowly, and sums that should be zero."""
        ...

    def apart(self, state: Any, true: Any) -> Mapping[str, float]:
        """Measure how far a state is from that of the true run."""
        ...
