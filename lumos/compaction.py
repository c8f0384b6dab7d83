"""Cutting the closed units out: the plan, the smaller model, and the proof that it computes the same function."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lumos.constants import constants
from lumos.errors import CompactionError
from lumos.files import atomic
from lumos.gated import GatedModel, along
from lumos.inputs import InputPath, mapped, replaced, tensors
from lumos.layers import ATTENTION_WEIGHTS, become
from lumos.structure import Axis, Structure
from lumos.surgery import (
    own_sizes,
    own_tensors,
    rectangle,
    replace_tensors,
    set_attributes,
    times,
    to_double,
    wide,
    without_copies,
    written_sizes,
)

FORMAT = "lumos-compact-1"
TOLERANCE = 1e-10
"""Largest relative difference between gated and compact outputs in float64."""


@dataclass(frozen=True)
class Plan:
    """For every parameter or buffer axis that shrinks, the indices that stay."""

    kept: dict[Axis, Int[Tensor, " _"]]

    @classmethod
    def of(cls, structure: Structure, keep: Bool[Tensor, " units"]) -> Plan:
        """The plan that keeps the units with ``keep``."""
        return cls(structure.cut(keep))

    def cuts(self, name: str, dim: int) -> bool:
        """Whether an axis shrinks."""
        return (name, dim) in self.kept

    def cut(self, name: str, value: Tensor) -> Tensor:
        """A parameter, a buffer or a tensor laid out as one (or of size one where it repeats), cut to what stays."""
        found = [(dim, self.kept[name, dim].to(value.device)) for dim in range(value.ndim)
                 if (name, dim) in self.kept and value.shape[dim] > 1]  # fmt: skip
        if [dim for dim, _ in found] == [0, 1]:
            return rectangle(value, found[0][1], found[1][1])
        for dim, index in found:
            value = value.index_select(dim, index)
        return value


@dataclass(frozen=True)
class Selection:
    """Which places along one dimension of an input stay.

    ``width`` is the full width where the model's own code still wants it (columns that index tables): what does not
    stay is zero there. None: the model takes what stays, and nothing else.
    """

    path: InputPath
    dim: int
    kept: Int[Tensor, " kept"]
    width: int | None

    def of_full(self, x: Tensor) -> Tensor:
        """What the model takes, from the full input."""
        reduced = x.index_select(self.dim, self.kept.to(x.device))
        return reduced if self.width is None else self.of_reduced(reduced)

    def of_reduced(self, x: Tensor) -> Tensor:
        """What the model takes, from an input that has what stays and nothing else."""
        if self.width is None:
            return x
        full = x.new_zeros([self.width if d == self.dim % x.ndim else n for d, n in enumerate(x.shape)])
        return full.index_copy(self.dim, self.kept.to(x.device), x)


class CompactModel(nn.Module):
    """A smaller model of the user's own class, and the features that it needs.

    ``model`` is the plain module. Called, this wrapper takes the full inputs and selects from them (``select=True``),
    or takes reduced ones (``select=False``). ``features`` names what is kept.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Iterable[Selection],
        features: list[str],
        select: bool = True,
        attributes: dict[str, dict[str, int]] | None = None,
        layers: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.features = features
        self.select = select
        self.attributes = attributes or {}
        self.layers = layers or {}
        self._inputs = list(inputs)
        for number, selection in enumerate(self._inputs):
            self.register_buffer(f"kept_{number}", selection.kept)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output for full inputs, or for reduced ones where ``select`` is off."""
        return self.model(*self.selected(*args), **kwargs)

    def selected(self, *args: Any) -> tuple[Any, ...]:
        """What the inner model takes, from what this one does."""
        if not self._inputs:
            return args
        found, new = tensors(args), {}
        for number, selection in enumerate(self._inputs):
            selection = replace(selection, kept=self.get_buffer(f"kept_{number}"))
            x = found[selection.path]
            new[selection.path] = selection.of_full(x) if self.select else selection.of_reduced(x)
        return replaced(args, new)

    def save(self, path: str | Path) -> None:
        """Write tensors and names, no code and no pickle; read it back with ``lumos.load``."""
        inputs = [{"path": list(s.path), "dim": s.dim, "kept": s.kept.cpu(), "width": s.width} for s in self._inputs]
        state = {n: t.detach().cpu().contiguous() for n, t in self.model.state_dict().items()}
        with atomic(Path(path)) as temporary:
            saved = {"format": FORMAT, "state": state, "inputs": inputs, "features": self.features}
            torch.save({**saved, "attributes": self.attributes, "layers": self.layers}, temporary)


def load(path: str | Path, model: nn.Module, select: bool = True) -> CompactModel:
    """Read a compact model into ``model``, a fresh instance of the dense one (its weights do not matter).

    Raises CompactionError where the file is not a compact model of this architecture.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CompactionError(f"{path}: there is no such file; save a compact model there first") from None
    except Exception as error:
        raise CompactionError(f"{path}: not a compact model that LUMOS wrote ({type(error).__name__})") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise CompactionError(f"{path}: not a compact model that LUMOS wrote (expected format {FORMAT})")
    model = copy.deepcopy(model)
    layers = saved.get("layers", {})
    try:
        become(model, layers)
    except (AttributeError, KeyError, TypeError) as error:
        raise CompactionError(
            f"{path}: the model has other layers ({error!r}); build the dense model that was compacted"
        ) from error
    own, theirs = set(model.state_dict()), set(saved["state"])
    if own != theirs:
        name = sorted(own ^ theirs)[0]
        side = "the file" if name in own else "the model"
        raise CompactionError(f"{path}: {name} is missing in {side}; build the dense model that was compacted")
    replace_tensors(model, saved["state"])
    set_attributes(model, saved["attributes"])
    inputs = [Selection(tuple(i["path"]), i["dim"], i["kept"], i["width"]) for i in saved["inputs"]]
    return CompactModel(model, inputs, saved["features"], select, saved["attributes"], layers)


def compact(
    gated: GatedModel, select: bool = True, known: dict[str, Tensor] | None = None, lend: bool = False
) -> CompactModel:
    """Cut every unit whose gate is closed at test time; fractional gates are folded into the weights.

    The gated model is left as it is. With ``select`` the result takes the model's full inputs, without only the kept
    features. ``known``: outputs of the modules that became constant (``lumos.constants.observed``), where a run of
    the gated model gave them already. ``lend``: what is not cut is the gated model's very tensor, for a result that is
    only run.
    """
    structure, is_open = gated.structure, gated.gates.is_open().cpu()
    keep = structure.with_places(is_open)
    plan = Plan.of(structure, keep)
    gates = _with_scales(structure, keep, gated.multipliers())
    model = without_copies(gated.model)
    own = own_tensors(model)
    new = {n: plan.cut(n, t.detach()) for n, t in own.items()}
    for n, m in gates.items():
        m = plan.cut(n, m)
        if not bool((m == 1).all()):
            new[n] = times(new[n], m, in_place=new[n].data_ptr() != own[n].data_ptr())
    layers, more = _changed_layers(gated, plan)
    for path, sizes in written_sizes(structure, keep).items():
        layers.setdefault(path, {"kind": "resized", "sizes": sizes})
    for path, (dim, value) in constants(gated, keep, known).items():
        layers[path], more[f"{path}.value"] = {"kind": "constant", "dim": dim}, value
    become(model, layers)
    replace_tensors(model, new | more, lend)
    padded = torch.cat([torch.ones(1, dtype=torch.bool), keep])
    inputs = [
        Selection(i.path, i.dim, padded[i.units].nonzero().squeeze(1), len(i.units) if i.whole else None)
        for i in structure.inputs
        if not padded[i.units].all()
    ]
    attributes = own_sizes(structure, keep)
    set_attributes(model, attributes)
    small = CompactModel(model, inputs, structure.kept_features(keep), select, attributes, layers)
    device = next((p.device for p in gated.model.parameters()), torch.device("cpu"))
    if any(t.device != device for t in (*own.values(), *small.buffers(recurse=False))):
        small.to(device)
    return small.train(gated.training)


def _with_scales(structure: Structure, keep: Bool[Tensor, " units"], gates: dict[str, Tensor]) -> dict[str, Tensor]:
    """What multiplies the weights, and what makes up for dividing scores by the root of fewer dimensions."""
    for scale in structure.scales:
        left = int(structure.padded(keep)[scale.units].sum())
        for (name, dim), places in scale.places.items() if scale.folded and left < len(scale.units) else ():
            known = gates.get(name, torch.ones(()))
            factor = torch.ones(len(places), dtype=known.dtype, device=known.device)
            factor[places.to(known.device)] = math.sqrt(left / len(scale.units))
            gates[name] = known * along(factor, dim, len(structure.shapes[name]))
    return gates


def _changed_layers(gated: GatedModel, plan: Plan) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """The layers that need another class now that units of theirs are gone, and the buffers that this brings."""
    layers: dict[str, dict[str, Any]] = {}
    buffers: dict[str, Tensor] = {}
    at_inputs = gated.input_gates()
    for path, kind in gated.structure.layers.items():
        if kind == "norm" and path in at_inputs and bool((at_inputs[path] != 1).any()):
            values = at_inputs[path]
            layers[path] = {"kind": kind, "width": len(values)}
            buffers[f"{path}.scale"] = values[values > 0]
        elif kind == "selected" and plan.cuts(f"{path}.weight", 1):
            layers[path] = {"kind": kind}
            buffers[f"{path}.index"] = plan.kept[f"{path}.weight", 1]
        elif kind == "attention" and any(
            plan.cuts(f"{path}.{name}", dim) for name in ATTENTION_WEIGHTS for dim in (0, 1)
        ):
            layers[path] = {"kind": kind}
    return layers, buffers


@dataclass(frozen=True)
class Equivalence:
    """How far gated and compact outputs are apart: the largest absolute difference, and that over the largest value."""

    max_abs_diff: float
    max_rel_diff: float
    dtype: str

    def __str__(self) -> str:
        return f"compact == gated to {self.max_rel_diff:.1e} ({self.dtype})"


def difference(a: Any, b: Any) -> tuple[float, float]:
    """Largest absolute and relative difference between two outputs; infinite where their shapes differ."""
    worst, relative = 0.0, 0.0
    for x, y in zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True):
        if not isinstance(x, Tensor) or not x.numel():
            continue
        if x.shape != y.shape or not bool(torch.isfinite(y).all()):
            return math.inf, math.inf
        gap = float((x - y).abs().max())
        worst, relative = max(worst, gap), max(relative, gap / max(float(x.abs().max()), 1e-300))
    return worst, relative


def verify(gated: GatedModel, inputs: tuple[Any, ...], tolerance: float = TOLERANCE) -> Equivalence:
    """Check in float64 that gated and compact compute the same function on example inputs.

    Raises CompactionError, naming the first module whose output differs.
    """
    double = gated
    if gated.training or any(p.dtype != torch.float64 or p.device.type != "cpu" for p in gated.parameters()):
        double = copy.deepcopy(gated).cpu().eval()
        to_double(double)
    inputs = mapped(inputs, lambda _path, x: _to_double(x))
    with torch.no_grad(), wide():
        small = compact(double)
        want = double(*inputs)
        try:
            gap = Equivalence(*difference(want, small(*inputs)), "float64")
        except Exception as error:
            raise CompactionError(does_not_run(double, small, inputs, error, TOLERANCE)) from error
        if not gap.max_rel_diff <= tolerance:
            place = _first_difference(double, small, inputs)
            raise CompactionError(
                f"gated and compact differ by {gap.max_rel_diff:.1e} (allowed {tolerance:.0e}), {place}"
            )
    return gap


def _to_double(x: Tensor) -> Tensor:
    x = x.detach().cpu()
    return x.double() if x.is_floating_point() else x.to(torch.complex128) if x.is_complex() else x


def does_not_run(
    gated: GatedModel, small: CompactModel, inputs: tuple[Any, ...], error: Exception, tolerance: float
) -> str:
    """What a compact model raised, and the first module whose output differs (by more than ``tolerance``)."""
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
        handles = [m.register_forward_hook(_keep_output(outputs, n)) for n, m in model.named_modules() if n]
        # The caller reports why a run fails; here only what ran before it counts.
        with suppress(Exception):
            run(*inputs)
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
        if isinstance(output, Tensor):
            outputs[name] = output.detach()

    return hook
