"""Cutting the closed units out: the plan, the smaller model, and the proof that it computes the same function."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lumos.errors import CompactionError
from lumos.files import atomic
from lumos.gated import GatedModel
from lumos.structure import Axis, Structure
from lumos.surgery import own_sizes, replace_tensors, set_attributes, to_double

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
        return cls({axis: structure.kept(axis, keep) for axis in structure.maps})

    def cut(self, name: str, value: Tensor) -> Tensor:
        """A parameter, a buffer or a tensor laid out as one, cut to what stays."""
        for dim in range(value.ndim):
            index = self.kept.get((name, dim))
            if index is not None and len(index) < value.shape[dim]:
                value = value.index_select(dim, index.to(value.device))
        return value


class CompactModel(nn.Module):
    """A smaller model of the user's own class, and the features that it needs.

    ``model`` is the plain module; it takes inputs with the kept features only. Called, this wrapper takes the full
    inputs and selects from them (``select=True``), or takes reduced ones (``select=False``). ``features`` names what
    is kept.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Iterable[tuple[int, int, Tensor]],
        features: list[str],
        select: bool = True,
        attributes: dict[str, dict[str, int]] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.features = features
        self.select = select
        self.attributes = attributes or {}
        self._places: list[tuple[int, int]] = []
        for position, dim, index in inputs:
            self.register_buffer(f"kept_{position}", index.to(torch.int64))
            self._places.append((position, dim))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output for full inputs, or for reduced ones where ``select`` is off."""
        return self.model(*(self.selected(*args) if self.select else args), **kwargs)

    def selected(self, *args: Any) -> tuple[Any, ...]:
        """Full inputs cut to the kept features."""
        out = list(args)
        for position, dim in self._places:
            out[position] = out[position].index_select(dim, self.get_buffer(f"kept_{position}"))
        return tuple(out)

    def save(self, path: str | Path) -> None:
        """Write tensors and names, no code and no pickle; read it back with ``lumos.load``."""
        inputs = [{"position": p, "dim": d, "kept": self.get_buffer(f"kept_{p}").cpu()} for p, d in self._places]
        state = {n: t.detach().cpu().contiguous() for n, t in self.model.state_dict().items()}
        with atomic(Path(path)) as temporary:
            saved = {"format": FORMAT, "state": state, "inputs": inputs, "features": self.features}
            torch.save({**saved, "attributes": self.attributes}, temporary)


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
    own, theirs = set(model.state_dict()), set(saved["state"])
    if own != theirs:
        name = sorted(own ^ theirs)[0]
        side = "the file" if name in own else "the model"
        raise CompactionError(f"{path}: {name} is missing in {side}; build the dense model that was compacted")
    replace_tensors(model, saved["state"])
    set_attributes(model, saved["attributes"])
    inputs = [(i["position"], i["dim"], i["kept"]) for i in saved["inputs"]]
    return CompactModel(model, inputs, saved["features"], select, saved["attributes"])


def compact(gated: GatedModel, select: bool = True) -> CompactModel:
    """Cut every unit whose gate is closed at test time; fractional gates are folded into the weights.

    The gated model is left as it is. With ``select`` the result takes the model's full inputs, without only the kept
    features.
    """
    structure, keep = gated.structure, gated.gates.is_open().cpu()
    plan = Plan.of(structure, keep)
    folded = gated.effective_parameters()
    model = copy.deepcopy(gated.model)
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    replace_tensors(model, {n: plan.cut(n, folded.get(n, t).detach()) for n, t in tensors.items()})
    padded = torch.cat([torch.ones(1, dtype=torch.bool), keep])
    inputs = [
        (i.position, i.dim, padded[i.units].nonzero().squeeze(1)) for i in structure.inputs if not padded[i.units].all()
    ]
    attributes = own_sizes(structure, keep)
    set_attributes(model, attributes)
    small = CompactModel(model, inputs, structure.kept_features(keep), select, attributes)
    device = next((p.device for p in gated.model.parameters()), torch.device("cpu"))
    return small.to(device).train(gated.training)


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
    double = copy.deepcopy(gated).cpu().eval()
    to_double(double)
    inputs = pytree.tree_map(_to_double, inputs)
    with torch.no_grad():
        small = compact(double)
        want = double(*inputs)
        try:
            gap = Equivalence(*difference(want, small(*inputs)), "float64")
        except Exception as error:
            place = _first_difference(double, small, inputs)
            raise CompactionError(
                f"the compact model does not run, {place}: {type(error).__name__}: {error}"
            ) from error
        if not gap.max_rel_diff <= tolerance:
            place = _first_difference(double, small, inputs)
            raise CompactionError(
                f"gated and compact differ by {gap.max_rel_diff:.1e} (allowed {tolerance:.0e}), {place}"
            )
    return gap


def _to_double(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    x = x.detach().cpu()
    return x.double() if x.is_floating_point() else x.to(torch.complex128) if x.is_complex() else x


def _first_difference(gated: GatedModel, small: CompactModel, inputs: tuple[Any, ...]) -> str:
    """Where the two begin to differ: outputs of each module, compared at the units that stay."""
    padded = torch.cat([torch.ones(1, dtype=torch.bool), gated.gates.is_open()])
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
            or difference(full.flatten(), found[1][name].flatten())[1] > TOLERANCE
        ):
            return f"first in {name} ({type(gated.model.get_submodule(name)).__name__})"
    return "in the model's own code"


def _keep_output(outputs: dict[str, Tensor], name: str) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs[name] = output.detach()

    return hook
