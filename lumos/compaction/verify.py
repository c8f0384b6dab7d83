"""Checks that gated and compact compute the same function, and finds where they begin to differ."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lumos.compaction.compact import compact
from lumos.compaction.difference import difference
from lumos.compaction.double_precision import DoublePrecision, to_double
from lumos.compaction.model import CompactModel
from lumos.compaction.noise import noise_of
from lumos.errors import CompactionError
from lumos.gating.gated_model import GatedModel
from lumos.tracing.derivatives import is_transformed
from lumos.tracing.inputs import map_inputs
from lumos.tracing.modules import named_tensors, structural_copy

TOLERANCE = 1e-10
"""Largest relative difference between gated and compact outputs in float64."""
SINGLE_TOLERANCE = 1e-5
"""The same in single precision: far below what cutting the wrong unit makes, and above rounding for most models."""


@dataclass(frozen=True)
class Equivalence:
    """How far gated and compact outputs are apart.

    Attributes:
        max_abs_diff: The largest absolute difference of two values.
        max_rel_diff: The largest of a value over the largest absolute value of its column of the output.
        dtype: The precision in which both were computed.
    """

    max_abs_diff: float
    max_rel_diff: float
    dtype: str

    def __str__(self) -> str:
        return f"compact == gated to {self.max_rel_diff:.1e} ({self.dtype})"


def verify(gated: GatedModel, inputs: Any, tolerance: float = TOLERANCE) -> Equivalence:
    """Check in float64 on the CPU that gated and compact compute the same function on example inputs.

    A model that does not run in float64 (operators for lower precision alone) is compared as it is, to 1e-5.

    Args:
        gated: The model with gates.
        inputs: A tensor, or a tuple of positional inputs.
        tolerance: The largest relative difference that is allowed.

    Returns:
        How far the two are apart.

    Raises:
        CompactionError: They differ by more, and the message names the first module whose output does; or the model
            does not run on the inputs.

    Example:
        >>> import torch, lumos
        >>> gated = lumos.gate(torch.nn.Linear(3, 2), torch.randn(8, 3))
        >>> lumos.verify(gated, torch.randn(5, 3)).max_rel_diff < 1e-10
        True
    """
    return equivalence(gated, inputs if isinstance(inputs, tuple) else (inputs,), tolerance)


def equivalence(
    gated: GatedModel, inputs: tuple[Any, ...], tolerance: float = TOLERANCE, explain: bool = True
) -> Equivalence:
    """Do what :func:`verify` does; without ``explain``, the error does not say where they differ, which takes longer
    than to find that they do."""
    double = gated
    if gated.training or any(p.dtype != torch.float64 or p.device.type != "cpu" for p in gated.parameters()):
        double = _own_copy(gated).cpu().eval()
        to_double(double)
    doubled = map_inputs(inputs, lambda _path, x: _to_double(x))
    with torch.set_grad_enabled(gated.structure.gradients), DoublePrecision():
        want = _run_or_none(double, doubled)
        if want is not None:
            return _compared(double, compact(double), doubled, want, "float64", tolerance, explain)
    own = _own_copy(gated).eval()
    with torch.set_grad_enabled(gated.structure.gradients):
        dtype = str(next(own.parameters()).dtype).removeprefix("torch.")
        try:
            want = run_once(own, inputs, own)
        except Exception as error:
            raise CompactionError(f"the model does not run on these inputs: {type(error).__name__}: {error}") from error
        return _compared(own, compact(own), inputs, want, dtype, max(tolerance, SINGLE_TOLERANCE), explain)


def _run_or_none(double: GatedModel, inputs: tuple[Any, ...]) -> Any:
    try:
        return run_once(double, inputs, double)
    except Exception:  # some operators are for lower precision alone
        return None


def _compared(
    gated: GatedModel,
    small: CompactModel,
    inputs: tuple[Any, ...],
    want: Any,
    dtype: str,
    tolerance: float,
    explain: bool,
) -> Equivalence:
    try:
        gap = Equivalence(*difference(want, run_once(small, inputs, gated)), dtype)
    except Exception as error:
        reason = does_not_run(gated, small, inputs, error, tolerance) if explain else repr(error)
        raise CompactionError(reason) from error
    if not gap.max_rel_diff <= tolerance:
        place = f", {_first_difference(gated, small, inputs, tolerance)}" if explain else ""
        raise CompactionError(f"gated and compact differ by {gap.max_rel_diff:.1e} (allowed {tolerance:.0e}){place}")
    return gap


def run_once(run: Callable[..., Any], inputs: tuple[Any, ...], gated: GatedModel) -> Any:
    """Run a model on inputs that it may write into, with noise that is the same for gated and compact."""
    with noise_of(gated.structure):
        return run(*map_inputs(inputs, lambda _path, x: x.clone()))


def _own_copy(gated: GatedModel) -> GatedModel:
    """A copy with tensors of its own; functions that modules keep over their own parts are copied too."""
    copied = structural_copy(gated, named_tensors(gated), {id(gated.structure): gated.structure})
    assert isinstance(copied, GatedModel)
    return copied


def _to_double(x: Tensor) -> Tensor:
    x = x.detach().cpu()
    return x.double() if x.is_floating_point() else x.to(torch.complex128) if x.is_complex() else x


def does_not_run(
    gated: GatedModel, small: CompactModel, inputs: tuple[Any, ...], error: Exception, tolerance: float
) -> str:
    """Say what a compact model raised, and the first module whose output differs (by more than ``tolerance``)."""
    place = _first_difference(gated, small, inputs, tolerance)
    return f"the compact model does not run, {place}: {type(error).__name__}: {error}"


def _first_difference(
    gated: GatedModel, small: CompactModel, inputs: tuple[Any, ...], tolerance: float = TOLERANCE
) -> str:
    """Where the two begin to differ: outputs of each module, compared at the units that stay."""
    padded = gated.structure.padded(gated.gates.is_open())
    maps = gated.structure.module_maps
    found: list[dict[str, Tensor]] = []
    for model, run in ((gated.model, gated), (small.model, small)):
        outputs: dict[str, Tensor] = {}
        handles = [m.register_forward_hook(_keep_output(outputs, n)) for n, m in model.named_modules()
                   if n and not isinstance(m, torch.jit.ScriptModule)]  # which take no hooks  # fmt: skip
        # The caller reports why a run fails; here only what ran before it counts.
        with suppress(Exception):
            run_once(run, inputs, gated)
        for handle in handles:
            handle.remove()
        found.append(outputs)
    for name, full in found[0].items():
        if name not in found[1]:
            return f"first in {name}"
        units = maps.get(name)
        if units is not None and units.ndim == full.ndim:
            full = full[padded[units].expand(full.shape)]
        if (
            full.numel() != found[1][name].numel()
            or difference(full.flatten(), found[1][name].flatten())[1] > tolerance
        ):
            return f"first in {name} ({type(gated.model.get_submodule(name)).__name__})"
    return "in the model's own code"


def _keep_output(outputs: dict[str, Tensor], name: str) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not is_transformed(output):
            outputs[name] = output.detach()

    return hook
