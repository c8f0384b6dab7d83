"""Shows, before any training, that what a trace found removable can be removed.

A random half of every group is closed (of large ones, all but an eighth), the rest gets random gates, and gated and
compact are compared. Groups that fail are fixed, with the reason, so that a training can never end in a model that
cannot be cut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import nn

from lumos.compaction.compact import cut_closed_units
from lumos.compaction.constant_folding import run_recording
from lumos.compaction.reference import Reference
from lumos.compaction.surgery import replace_tensors
from lumos.compaction.verify import difference, does_not_run, verify
from lumos.errors import CompactionError
from lumos.gating.gated_model import GatedModel
from lumos.gating.hard_concrete import LOG_ALPHA_BOUND
from lumos.gating.settings import GateSettings
from lumos.tracing.inputs import input_tensors, map_inputs
from lumos.tracing.modules import named_modules, structural_copy
from lumos.tracing.options import StructureOptions
from lumos.tracing.structure import Group, Structure
from lumos.tracing.trace_structure import trace_structure

MOST_ALTERNATIVES = 16
"""How many ways to read which attribute holds which size are tried at most."""
MANY_UNITS = 64
"""Units of a group from which on an eighth of them shows as much as half does."""
SINGLE_TOLERANCE = 1e-5
"""Relative difference in single precision up to which a trial need not be repeated in float64: far below what cutting
the wrong unit makes, and above rounding for most models."""


def trace_and_probe(
    model: nn.Module,
    example_inputs: Any,
    *,
    features: Sequence[str] | None = None,
    options: StructureOptions | None = None,
) -> Structure:
    """Find what can be removed from a model; see :func:`lumos.gate` for the arguments and errors."""
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    return probe(model, trace_structure(model, inputs, features, options), inputs)


def probe(model: nn.Module, structure: Structure, inputs: tuple[Any, ...]) -> Structure:
    """Try to cut every group of a traced model.

    Args:
        model: The model that was traced.
        structure: What the trace found.
        inputs: Positional inputs of the model.

    Returns:
        The structure with every group that cannot be cut fixed, and every one that cannot vanish not optional.
    """
    trial = _Trial(model, inputs, structure.written)
    while structure.groups:
        structure, failed = _try_halves(trial, structure)
        if failed:
            reasons = {name: f"the probe could not cut it: {reason}" for name, reason in failed.items()}
            structure = structure.without(reasons)
        elif trial.by_gates:
            break
        else:
            trial.by_gates = True
    return check_layer_removal(trial, structure)


def _try_halves(trial: _Trial, structure: Structure) -> tuple[Structure, dict[str, str]]:
    """Close half of every group; where that fails, find the groups at fault, and why each fails.

    Groups are tried together with those that passed: one may fail only beside another. Where they fail together, the
    call at which the compact model broke off says which to try alone; else they are halved.
    """
    passed: list[str] = []
    failed: dict[str, str] = {}
    parts = [[g.name for g in structure.groups]]
    while parts:
        part = parts.pop(0)
        problem = trial.failure(structure, [*passed, *part], explain=len(part) == 1)
        if problem is None:
            passed += part
        elif len(part) == 1:
            structure, problem = try_alternative_sizes(trial, structure, passed, part[0], problem)
            if problem is None:
                passed += part
            else:
                failed[part[0]] = problem
        elif found := _without_suspects(trial, structure, passed, part):
            structure, good, bad = found
            passed, failed = passed + good, failed | bad
        else:
            middle = len(part) // 2
            parts[:0] = [part[:middle], part[middle:]]
    return structure, failed


def try_alternative_sizes(
    trial: _Trial, structure: Structure, passed: list[str], name: str, problem: str
) -> tuple[Structure, str | None]:
    """Find other sizes under which a group passes.

    Returns:
        The structure with these and None, or the structure as it is and the problem that the group has.
    """
    for alternative in _alternative_scales(structure, structure.group(name)):
        if trial.failure(alternative, [*passed, name], explain=False, full=True) is None:
            return alternative, None
    return structure, problem


def _without_suspects(
    trial: _Trial, structure: Structure, passed: list[str], part: list[str]
) -> tuple[Structure, list[str], dict[str, str]] | None:
    """The groups of a failed part that pass, and why each other one fails, as trying them in order would find it.

    Groups under suspicion are left out until the rest passes together; then each is tried beside what comes before
    it. None where nothing can be suspected, or where what passed one by one does not together.
    """
    rest, suspects = part, trial.suspects(structure, part)
    while len(suspects) < len(rest):
        if not suspects:
            return None
        rest = [name for name in rest if name not in suspects]
        if trial.failure(structure, [*passed, *rest], explain=False) is None:
            break
        suspects = trial.suspects(structure, rest)
    else:
        return None
    good: list[str] = []
    bad: dict[str, str] = {}
    for name in part:
        problem = None
        if name not in rest:
            problem = trial.failure(structure, [*passed, *good, name], full=True)
            if problem is not None:
                structure, problem = try_alternative_sizes(trial, structure, [*passed, *good], name, problem)
        if problem is None:
            good.append(name)
        else:
            bad[name] = problem
    together = good == rest or trial.failure(structure, [*passed, *good], explain=False) is None
    return (structure, good, bad) if together else None


def check_layer_removal(trial: _Trial, structure: Structure) -> Structure:
    """Close optional groups altogether; those without which the model does not run or match are optional no more."""
    safe: list[str] = []
    parts = [[g.name for g in structure.groups if g.optional]]
    while parts:
        part = parts.pop(0)
        if part and trial.failure(structure, [], [*safe, *part], explain=False, full=len(part) == 1) is None:
            safe += part
        elif len(part) > 1:
            middle = len(part) // 2
            parts[:0] = [part[:middle], part[middle:]]
    groups = tuple(replace(g, optional=g.name in safe) for g in structure.groups)
    return replace(structure, groups=groups)


def alternatives(structure: Structure, group: Group) -> Iterator[Structure]:
    """Go through other readings of which attribute holds which size.

    Where a module keeps the same number in two attributes (four heads of four dimensions each), all of them follow at
    first; then one at a time does. At last the sizes are taken for literals in the module's code.
    """
    places = [
        i for i, size in enumerate(structure.sizes) if len(size.attributes) > 1 and structure.touches(size.units, group)
    ]
    options = {(s.module, s.size, s.attributes) for s in (structure.sizes[i] for i in places)}
    keys = sorted(options)
    for number, choice in enumerate(product(*(key[2] for key in keys))):
        if not keys or number >= MOST_ALTERNATIVES:
            break
        chosen = dict(zip(keys, choice, strict=True))
        yield replace(
            structure,
            sizes=tuple(
                replace(s, attributes=(chosen[s.module, s.size, s.attributes],)) if i in places else s
                for i, s in enumerate(structure.sizes)
            ),
        )
    places = [structure.touches(s.units, group) for s in structure.sizes]
    if any(places):
        sizes = (replace(s, literal=s.literal or here) for s, here in zip(structure.sizes, places, strict=True))
        yield replace(structure, sizes=tuple(sizes))
    if any(places) and any(structure.touches(s.units, group) for s in structure.scales):
        # Queries and values may have one attribute for a size that is now two: it stays, and the calls change.
        sizes = (
            replace(s, literal=True, attributes=()) if here else s
            for s, here in zip(structure.sizes, places, strict=True)
        )
        yield replace(structure, sizes=tuple(sizes))


def _alternative_scales(structure: Structure, group: Group) -> Iterator[Structure]:
    """Go through the alternatives, each with both ways to scale scores where the group holds an attention's dimensions:
    the model's code divides by the root of what there was, or of what is left."""
    mine = [structure.touches(s.units, group) for s in structure.scales]
    others = [replace(s, dynamic=s.dynamic != here) for s, here in zip(structure.scales, mine, strict=True)]
    if any(mine):
        yield replace(structure, scales=tuple(others))
    for alternative in alternatives(structure, group):
        yield alternative
        if any(mine):
            yield replace(alternative, scales=tuple(others))


class _Trial:
    """A model with weights that hide nothing, and the inputs on which gated and compact are compared."""

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], private: Collection[str] = ()) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = randomize_constant_params(model, private)
        self.inputs, self.sample = inputs, _one_sample(inputs)
        self.broken: str | None = None
        """Path of the module whose code the compact model broke off in, at the last failure."""
        self.by_gates = False
        """Whether the model runs with its gates, and not with the quicker stand-in: it may read weights past them."""
        self._last: GatedModel | None = None

    def gated(self, structure: Structure) -> GatedModel:
        """The model with gates, in eval mode; the last one again where the structure is the same."""
        if self._last is None or self._last.structure is not structure:
            self._last = GatedModel(self.model, structure, GateSettings()).eval()
        return self._last

    def failure(
        self,
        structure: Structure,
        names: Sequence[str],
        closed: Sequence[str] = (),
        explain: bool = True,
        full: bool = False,
    ) -> str | None:
        """Why gated and compact differ with half of each named group closed and all of ``closed``; None: they agree.

        Without ``explain``, that the compact model does not run is reason enough. One image stands for all inputs
        where it shows that they agree, or where no explanation is asked for; with ``full``, never.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            gated = self.gated(structure)
            values = torch.full_like(gated.gates.log_alpha.data, LOG_ALPHA_BOUND, device="cpu")
            half, whole = set(names), set(closed)
            for group in structure.groups:
                if group.name in half:
                    values[group.gates] = _half_closed(group)
                elif group.name in whole:
                    values[group.gates] = -LOG_ALPHA_BOUND
            gated.gates.log_alpha.data.copy_(values)
            return self._compared(gated, explain, full)

    def _runner(self, gated: GatedModel) -> Callable[..., Any]:
        """What computes the gated model's output: the model with its gates, or the quicker stand-in."""
        return gated if self.by_gates else Reference(gated).run

    def _compared(self, gated: GatedModel, explain: bool, full: bool) -> str | None:
        if not full and self.sample is not self.inputs:
            problem = self._difference(gated, self.sample, self._runner(gated))
            if problem is None or (problem and not explain):
                return problem
        problem = self._difference(gated, self.inputs, self._runner(gated), explain)
        if problem == "":  # something in the model may read weights unseen
            problem = self._difference(gated, self.inputs, gated, explain)
        if problem is None or problem:
            return problem
        try:
            verify(gated, self.inputs)
        except CompactionError as error:
            return str(error)
        return None

    def _difference(
        self, gated: GatedModel, inputs: tuple[Any, ...], run: Callable[..., Any], explain: bool = False
    ) -> str | None:
        """None where gated and compact agree in the model's own precision, which is quick; else what the compact model
        raised (and where, to ``explain`` it), or an empty text: whether they differ then, float64 has to say. ``run``
        computes what ``gated`` does."""
        device = gated.gates.log_alpha.device
        inputs = map_inputs(inputs, lambda _path, x: x.to(device))
        small, self.broken = None, None
        with torch.no_grad():
            try:
                want, known = run_recording(gated, inputs, run)
                small = cut_closed_units(gated, constant_outputs=known, share_storage=True)
                return None if difference(want, small(*inputs))[1] <= SINGLE_TOLERANCE else ""
            except Exception as error:
                if small is None:
                    return "" if explain else repr(error)
                self.broken = _broken_in(small.model, error)
                return does_not_run(gated, small, inputs, error, SINGLE_TOLERANCE) if explain else repr(error)

    def suspects(self, structure: Structure, names: list[str]) -> list[str]:
        """The groups whose sizes are written in the module that the compact model broke off in, and in all of its
        class: what one cannot do, they cannot do either."""
        if self.broken is None:
            return []
        modules = dict(named_modules(self.model))
        paths = {path for path, m in modules.items() if type(m) is type(modules[self.broken])}
        written = [s.units for s in structure.sizes if s.module in paths]
        return [n for n in names if any(structure.touches(units, structure.group(n)) for units in written)]


def _broken_in(model: nn.Module, error: Exception) -> str | None:
    """Path of the innermost module with code of the user's own that an error came through."""
    paths = {id(m): path for path, m in named_modules(model)}
    found, step = None, error.__traceback__
    while step is not None:
        module = step.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module) and not type(module).__module__.startswith("torch.nn."):
            found = paths.get(id(module), found)
        step = step.tb_next
    return found


def _one_sample(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """One image or volume instead of several: what samples share needs no second one. Other inputs stay as they are."""
    found = input_tensors(inputs).values()
    if not all(x.is_floating_point() and x.ndim > 3 for x in found) or len({len(x) for x in found}) != 1:
        return inputs
    return map_inputs(inputs, lambda _path, x: x[:1])


def randomize_constant_params(model: nn.Module, private: Collection[str] = ()) -> nn.Module:
    """Copy a model, with new values where a layer starts at zero or one, which would hide a difference.

    Args:
        model: The model; other tensors of it are shared.
        private: The names of those that are copied, since the model's own code writes into them.
    """
    copied = structural_copy(model, private)
    with torch.no_grad():
        constant = {n: p for n, p in model.named_parameters() if _is_constant(p)}
        replace_tensors(copied, {n: p + 0.1 * torch.randn_like(p) for n, p in constant.items()})
    return copied


def _is_constant(p: torch.Tensor) -> bool:
    if not p.numel() or bool(p[(0,) * p.ndim] != p[(-1,) * p.ndim]):
        return False
    return bool((p == p[(0,) * p.ndim]).all())


def _half_closed(group: Group) -> torch.Tensor:
    """Gates of which half are closed and the others open by different amounts; one of each where there are two.

    Of many, all but an eighth are closed: a random choice as well, and a far smaller model to cut and to run.
    """
    left = (group.size + 1) // 2 if group.size < MANY_UNITS else group.size // 8
    values = torch.rand(group.size) * 4 - 0.5
    values[torch.randperm(group.size)[left:]] = -LOG_ALPHA_BOUND
    return values
