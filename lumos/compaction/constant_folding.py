"""Finds the modules that no longer depend on their input when whole groups close, and what they return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lumos.gating.gated_model import GatedModel
from lumos.shapes import Bool, Float
from lumos.tracing.inputs import map_inputs


def find_constants(
    gated: GatedModel, keep: Bool[Tensor, " units"], outputs: dict[str, Tensor] | None = None
) -> dict[str, tuple[int, Float[Tensor, " channels"]]]:
    """Find the modules that a constant can stand for.

    A residual branch with nothing left is one, and so are layers whose output nobody reads any more (their value is
    zero). Only what keeps the shape of its input, but for the channels, can be written as a constant; the rest keeps
    one unit of each closed group.

    Args:
        gated: The model with gates.
        keep: The units that stay.
        outputs: What these modules return, where that is known (:func:`run_recording`); else the model runs once.

    Returns:
        For each module, by path, the dimension of its channels and the value of each channel that stays.
    """
    structure = gated.structure
    constant, unread = structure.dataflow.replaceable_modules(structure.closed_axes(gated.gates.is_open()))
    if outputs is None:
        outputs = _outputs(gated, [c.path for c in constant])
    found: dict[str, tuple[int, Tensor]] = {}
    for call in (*constant, *unread):
        weight = next(gated.model.get_submodule(call.path).parameters(), None)
        if weight is None or len(call.shape_in) != len(call.shape_out):
            continue
        out = outputs.get(call.path, weight.new_zeros(()).expand(call.shape_out))
        units = structure.module_maps.get(call.path, torch.zeros((1,) * out.ndim, dtype=torch.int64))
        line = _channels(out, call.shape_in, units)
        if line is not None:
            dim, values, of_unit = line
            stays = structure.padded(keep)[of_unit]
            found[call.path] = dim, values[stays.to(values.device)]
    return found


def _outputs(gated: GatedModel, paths: list[str]) -> dict[str, Tensor]:
    """What modules return for the example with the test-time gates."""
    if not paths:
        return {}
    weight = next(gated.model.parameters())

    def fitting(_path: object, x: Tensor) -> Tensor:
        return x.to(weight.device, weight.dtype if x.is_floating_point() else x.dtype)

    modes = {m: m.training for m in gated.modules()}
    try:
        return _run(gated.eval(), map_inputs(gated.structure.example, fitting), paths)[1]
    finally:
        for module, mode in modes.items():
            module.training = mode


def run_recording(
    gated: GatedModel, inputs: tuple[Any, ...], run: Callable[..., Any] | None = None
) -> tuple[Any, dict[str, Tensor]]:
    """Run a gated model and record what the modules return that :func:`find_constants` asks for.

    Args:
        gated: The model with gates, in eval mode.
        inputs: Its positional inputs.
        run: Computes the output by running the model's modules, where it is not to be ``gated`` that does.

    Returns:
        The output, and the modules' outputs by path.
    """
    structure = gated.structure
    constant, _ = structure.dataflow.replaceable_modules(structure.closed_axes(gated.gates.is_open()))
    out, found = _run(gated, inputs, [c.path for c in constant], run)
    # Fewer samples than the example has: what is constant repeats.
    return out, {
        c.path: found[c.path].expand(c.shape_out) if found[c.path].shape[:1] == (1,) else found[c.path]
        for c in constant
    }


def _run(
    gated: GatedModel, inputs: tuple[Any, ...], paths: list[str], run: Callable[..., Any] | None = None
) -> tuple[Any, dict[str, Tensor]]:
    outputs: dict[str, Tensor] = {}
    handles = [gated.model.get_submodule(path).register_forward_hook(_keep(outputs, path)) for path in paths]
    try:
        with torch.set_grad_enabled(gated.structure.gradients):
            return (run or gated)(*inputs), outputs
    finally:
        for handle in handles:
            handle.remove()


def _keep(outputs: dict[str, Tensor], path: str) -> Any:
    return lambda _module, _inputs, out: outputs.__setitem__(path, out.detach())


def _channels(out: Tensor, shape_in: torch.Size, units: Tensor) -> tuple[int, Tensor, Tensor] | None:
    """The dimension along which alone an output varies, its values there and the unit of each; None: there is none."""
    usual = 1 if out.ndim > 3 else out.ndim - 1
    choices = sorted({1, out.ndim - 1}, key=lambda d: (units.shape[d] == 1, shape_in[d] == out.shape[d], d != usual))
    for dim in choices:
        rest = [d for d in range(out.ndim) if d != dim]
        line = out
        for d in rest:
            line = line.narrow(d, 0, 1)
        same = all(shape_in[d] == out.shape[d] and units.shape[d] == 1 for d in rest)
        if same and bool((out == line).all()):
            return dim, line.reshape(-1).clone(), units.reshape(-1).expand(out.shape[dim])
    return None
