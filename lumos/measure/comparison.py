"""A dense model and a smaller one side by side: sizes, time of a call, and how far their outputs are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lumos.errors import ConfigError
from lumos.gating.gated_model import GatedModel
from lumos.measure.inference import moved, sizes_of
from lumos.measure.sizes import batch_of, resized
from lumos.measure.timing import inference, latencies, summary

CPU = torch.device("cpu")
MUCH = 0.1
"""Where outputs differ by more than this share, it is said why they may."""


@dataclass(frozen=True)
class Comparison:
    """Two models side by side; printed, a table.

    Attributes:
        dense, small: Of each model ``params``, ``macs`` a sample, and ``bytes`` on disk.
        seconds: For each batch size the median time of a call, dense and small.
        largest: The largest difference of two output values.
        typical: The root mean square of the differences, as a share of that of the dense outputs.
        device: Where the calls ran.
        first: What the first model is: ``"dense"``, or ``"gated"``.
    """

    dense: dict[str, Any]
    small: dict[str, Any]
    seconds: dict[int, tuple[float, float]]
    largest: float
    typical: float
    device: str
    first: str = "dense"

    @property
    def note(self) -> str:
        """Why the outputs of the two differ, where they differ much; else nothing."""
        if self.typical <= MUCH:
            return ""
        if self.first == "gated":
            return "the small model is not the gated one's: expected lumos.compact(gated), before either trains on"
        return (
            "these are two functions, as two trainings give. The model that lumos.gate was called with has none of its "
            "own; what the cut left equal is lumos.compare(gated, lumos.compact(gated), inputs)"
        )

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return the table as text: what, dense, small, and the change."""
        names = (("params", "parameters"), ("macs", "MACs a sample"), ("bytes", "bytes on disk"))
        rows = [
            (title, f"{self.dense[key]:,}", f"{self.small[key]:,}", _share(self.dense[key], self.small[key]))
            for key, title in names
        ]
        for batch, (before, after) in self.seconds.items():
            title = f"call with {batch:,} sample{'s' * (batch != 1)} [ms]"
            rows.append((title, f"{1e3 * before:.3f}", f"{1e3 * after:.3f}", f"{before / after:.2f}x"))
        rows.append(("outputs, largest difference", "", f"{self.largest:.3g}", ""))
        rows.append(("outputs, typical difference", "", f"{100 * self.typical:.3g}%", ""))
        return rows

    def __str__(self) -> str:
        table = [(self.device, self.first, "small", "change"), *self.rows()]
        widths = [max(len(row[i]) for row in table) for i in range(4)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 4))]).rstrip()
            for row in table
        ]
        note = [f"note: {self.note}"] if self.note else []
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], *note])

    __repr__ = __str__


def compare(
    dense: nn.Module,
    small: nn.Module,
    inputs: Any,
    batches: Sequence[int] = (1, 64, 1024),
    device: torch.device | str | None = None,
) -> Comparison:
    """Compare a dense model with a smaller one: parameters, multiply-accumulates, time of a call, outputs.

    The calls of the two take turns, so that their ratio survives a busy machine. Both are run in eval mode; their
    modes and their devices stay.

    Args:
        dense: A dense model that was trained by itself; or the gated model, whose function the compact one has. What
            :func:`lumos.gate` was called with is neither: it shares its weights with the gated model until the cut.
        small: The model after: what :meth:`lumos.Pruner.finish` or :func:`lumos.compact` returned.
        inputs: A tensor, or a tuple of positional inputs, that both take.
        batches: Numbers of samples of the timed calls; the example is repeated. Where samples cannot be repeated row
            by row (graphs), the example itself is timed.
        device: Where they run; where the dense model is by default.

    Returns:
        The comparison; ``print`` it.

    Raises:
        ConfigError: The gated model is cut already, so that it is the compact one.

    Example:
        >>> import torch, lumos
        >>> dense = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
        >>> small = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> found = lumos.compare(dense, small, torch.rand(16, 8))  # print(found) prints a table
        >>> found.rows()[0]
        ('parameters', '641', '41', '-93.6%')
    """
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    where = next((p.device for p in dense.parameters()), CPU) if device is None else torch.device(device)
    first = "gated" if isinstance(dense, GatedModel) else "dense"
    if isinstance(dense, GatedModel) and dense.is_cut:
        raise ConfigError("dense: this gated model is cut, and is the compact one; expected a dense model that was "
                          "trained by itself, or the gated model before the cut")  # fmt: skip
    models = {"dense": dense, "small": small}
    before = [(m, m.training, next((p.device for p in m.parameters()), CPU)) for m in models.values()]
    sizes = [sizes_of(model, args) for model in models.values()]
    try:
        for model in models.values():
            model.to(where).eval()
        args = moved(args, where)
        largest, typical = _difference(*(inference(m, args)() for m in models.values()))
        seconds: dict[int, tuple[float, float]] = {}
        given = batch_of(args)
        for batch in batches if given is not None else (1,):
            sized = resized(args, batch)
            found = latencies({name: inference(m, sized) for name, m in models.items()}, where)
            one, other = (summary(found[name])["p50"] / 1e3 for name in models)
            seconds[batch] = one, other
    finally:
        for model, training, place in before:
            model.to(place).train(training)
    return Comparison(sizes[0], sizes[1], seconds, largest, typical, str(where), first)


def _difference(one: Any, other: Any) -> tuple[float, float]:
    """The largest difference of two outputs, and their typical one as a share."""
    largest, squares, scale = 0.0, 0.0, 0.0
    for a, b in zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True):
        if isinstance(a, Tensor) and a.numel():
            a, b = a.detach().double(), b.detach().double()
            largest = max(largest, float((a - b).abs().max()))
            squares, scale = squares + float((a - b).square().sum()), scale + float(a.square().sum())
    return largest, (squares / max(scale, 1e-300)) ** 0.5


def _share(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f}%" if before else "-"
