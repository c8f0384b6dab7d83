"""Checks that an exported file computes what the model does, at sizes that the example does not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lumos.compaction.difference import difference
from lumos.errors import ExportError, one_line
from lumos.exporting.program import Program

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Largest relative difference (to an output's largest value) between a file and the model, by the model's dtype."""

Run = Callable[[tuple[Tensor, ...]], Sequence[Tensor]]
"""A reloaded file: what it gives for the inputs."""


def other_sizes(sizes: dict[str, int]) -> list[dict[str, int]]:
    """Choose two sets of sizes to check: one sample, and twice as many and one more; for graphs two larger ones.

    Graphs only grow, because the example's edges name its nodes.

    Example:
        >>> from lumos.exporting.checks import other_sizes
        >>> other_sizes({"batch": 4})
        [{'batch': 1}, {'batch': 9}]
    """
    if len(sizes) == 1:
        return [dict.fromkeys(sizes, 1), {name: 2 * n + 1 for name, n in sizes.items()}]
    return [{name: factor * n + factor - 1 for name, n in sizes.items()} for factor in (2, 3)]


def check(program: Program, run: Run, allowed: float | None = None) -> float:
    """Compare a file with its model.

    Args:
        program: The model that was written.
        run: The reloaded file.
        allowed: The largest relative difference that is allowed; None: what suits the model's precision.

    Returns:
        The largest relative difference.

    Raises:
        ExportError: It is too large, the shapes are others, or one of the two does not run.
    """
    worst = 0.0
    for sizes in other_sizes(program.sizes):
        inputs = program.stretched(sizes)
        at = ", ".join(f"{name}={n}" for name, n in sizes.items())
        try:
            with torch.no_grad():
                want = leaves(program.flat(*inputs))
        except Exception as error:
            raise ExportError(f"the model itself does not run with {at}: {one_line(error)}") from error
        try:
            got = run(inputs)
        except Exception as error:
            raise ExportError(f"the exported function does not run with {at}: {one_line(error)}") from error
        if [t.shape for t in got] != [t.shape for t in want]:
            shapes = " and ".join(str([tuple(t.shape) for t in each]) for each in (got, want))
            why = "the model's code takes another way for that many samples"
            raise ExportError(f"with {at} the exported function and the model give the shapes {shapes}: {why}")
        with torch.no_grad():
            gap = difference(want, list(got))[1]
        dtypes = [t.dtype for t in want if t.is_floating_point()]
        tolerance = allowed or max((TOLERANCE.get(dtype, 1e-2) for dtype in dtypes), default=0.0)
        if not gap <= tolerance:
            found = f"with {at} the exported function differs from the model by {gap:.1e} (allowed {tolerance:.0e})"
            raise ExportError(f"{found}: torch's exporter did not follow the model; use another format")
        worst = max(worst, gap)
    return worst


def leaves(output: Any) -> list[Tensor]:
    """List the tensors of an output, in order."""
    return [t for t in pytree.tree_leaves(output) if isinstance(t, Tensor)]
