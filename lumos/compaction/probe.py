"""Shows, before any training, that what a trace found removable can be removed.

Parts of every group are closed, and optional groups altogether, the rest gets random gates, and gated and compact are
compared (:mod:`lumos.compaction.trial`). Groups that fail are fixed, with the reason, so that a training can never end
in a model that cannot be cut.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Any

from torch import nn

from lumos.compaction.closings import Closing, closings, part_draws
from lumos.compaction.trial import Trial
from lumos.tracing.constraints import Constraints
from lumos.tracing.feature_names import FeatureNames
from lumos.tracing.options import StructureOptions
from lumos.tracing.structure import Group, Size, Structure
from lumos.tracing.trace_structure import trace_structure

MOST_ALTERNATIVES = 16
"""How many ways to read which attribute holds which size are tried at most."""
MORE_ROUNDS = 3
"""How often parts are drawn anew where sizes were read in another way: what fits by chance in one draw, in a network
whose output says little, breaks off in another."""


def trace_and_probe(
    model: nn.Module,
    example_inputs: Any,
    *,
    features: FeatureNames | None = None,
    options: StructureOptions | None = None,
    examples: Sequence[Any] = (),
    constraints: Constraints | None = None,
) -> Structure:
    """Find what can be removed from a model; see :func:`lumos.gate` for the arguments and errors.

    ``constraints`` are its ``keep``, ``exclude``, ``groups`` and ``prices``.
    """
    inputs, *further = [x if isinstance(x, tuple) else (x,) for x in (example_inputs, *examples)]
    return probe(model, trace_structure(model, inputs, features, options, further, constraints), inputs, further)


def probe(
    model: nn.Module, structure: Structure, inputs: tuple[Any, ...], examples: Sequence[tuple[Any, ...]] = ()
) -> Structure:
    """Try to cut every group of a traced model.

    Args:
        model: The model that was traced.
        structure: What the trace found.
        inputs: Positional inputs of the model.
        examples: Further ones.

    Returns:
        The structure with every group that cannot be cut fixed, and every one that cannot vanish not optional.
    """
    trial, parts_pass = Trial(model, inputs, structure, examples), False
    while structure.groups:
        failed = _failing(trial, structure, parts_pass)
        if not failed:
            break
        parts_pass = all(closing.whole for closing in failed)
        if parts_pass:
            structure = _check_layer_removal(trial, structure, frozenset().union(*(c.whole for c in failed)))
            continue
        found, reasons = _try_parts(trial, structure)
        if reasons:
            structure = found.without(
                {name: f"the probe could not cut it: {reason}" for name, reason in reasons.items()}
            )
        elif found is not structure:  # other sizes: all of it again
            structure, trial.rounds = found, MORE_ROUNDS
        else:  # each passes beside the others, and all of them do not: none can be told to be at fault
            why = trial.failure(structure, failed[0]) or "it fails beside the others"
            structure = structure.without({g.name: f"the probe could not cut it: {why}" for g in structure.groups})
    return structure


def _failing(trial: Trial, structure: Structure, parts_pass: bool) -> list[Closing]:
    """The trials that fail: one of those that close parts; where they pass, all that close groups altogether."""
    found: list[Closing] = []
    for closing in closings(structure, trial.rounds):
        if parts_pass and not closing.whole:  # which groups are optional changes nothing in them
            continue
        if trial.failure(structure, closing, explain=False) is not None:
            found.append(closing)
            if not closing.whole:
                break
    return found


def _try_parts(trial: Trial, structure: Structure) -> tuple[Structure, dict[str, str]]:
    """Close parts of every group; where that fails, find the groups at fault, and why each fails.

    Groups are tried together with those that passed: one may fail only beside another. Where they fail together, the
    call at which the compact model broke off says which to try alone; else they are halved.
    """
    passed: list[str] = []
    failed: dict[str, str] = {}
    parts = [[g.name for g in structure.groups]]
    while parts:
        part = parts.pop(0)
        problem = _parts_failure(trial, structure, [*passed, *part], explain=len(part) == 1)
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


def _parts_failure(
    trial: Trial, structure: Structure, names: Collection[str], explain: bool = True, full: bool = False
) -> str | None:
    """Return why gated and compact differ with parts of the named groups closed, in any draw; None: they agree."""
    draws = part_draws(structure, trial.rounds)
    problems = (trial.failure(structure, Closing(draw).only(names), explain, full) for draw in draws)
    return next((problem for problem in problems if problem is not None), None)


def try_alternative_sizes(
    trial: Trial, structure: Structure, passed: list[str], name: str, problem: str
) -> tuple[Structure, str | None]:
    """Find other sizes under which a group passes.

    Returns:
        The structure with these and None, or the structure as it is and the problem that the group has.
    """
    return _try_alternatives(trial, structure, passed, name, problem)[:2]


def _try_alternatives(
    trial: Trial, structure: Structure, passed: list[str], name: str, problem: str, full: bool = True
) -> tuple[Structure, str | None, int | None]:
    """Do what :func:`try_alternative_sizes` does, and return the number of the alternative too."""
    for number, alternative in enumerate(_alternative_scales(structure, structure.group(name))):
        if _parts_failure(trial, alternative, [*passed, name], explain=False, full=full) is None:
            return alternative, None, number
    return structure, problem, None


def _without_suspects(
    trial: Trial, structure: Structure, passed: list[str], part: list[str]
) -> tuple[Structure, list[str], dict[str, str]] | None:
    """The groups of a failed part that pass, and why each other one fails, as trying them in order would find it.

    Groups under suspicion are left out until the rest passes together; then each is tried beside what comes before
    it, and those that are like it with it. None where nothing can be suspected, where all can and few are alike, or
    where what passed one by one does not together.
    """
    rest, kinds = part, trial.kinds(structure, part)
    while suspects := trial.suspects(structure, rest):
        rest = [name for name in rest if name not in suspects]
        if not rest or _parts_failure(trial, structure, [*passed, *rest], explain=False) is None:
            break
    else:
        return None
    if not rest and 2 * len(set(kinds.values())) > len(part):  # one by one takes longer than halving does
        return None
    good: list[str] = []
    bad: dict[str, str] = {}
    settled = set(rest)
    for name in part:
        if name in settled:
            good.append(name)
            continue
        beside = [*passed, *good]
        problem, number = _parts_failure(trial, structure, [*beside, name], explain=False), None
        if problem is not None:
            structure, problem, number = _try_alternatives(trial, structure, beside, name, problem, full=False)
        if problem is not None:
            bad[name] = _parts_failure(trial, structure, [*beside, name], full=True) or problem
            continue
        good.append(name)
        like = [other for other in part if other not in settled and other not in bad and kinds[other] == kinds[name]]
        like.remove(name)
        read = _read_alike(structure, like, number) if like else None
        if read and _parts_failure(trial, read, [*beside, name, *like], explain=False) is None:
            structure = read
            settled.update(like)
    # Other readings were tried on one sample: a size may be that of the batch.
    together = good == rest or _parts_failure(trial, structure, [*passed, *good], explain=False, full=True) is None
    return (structure, good, bad) if together else None


def _read_alike(structure: Structure, names: list[str], number: int | None) -> Structure | None:
    """Return the structure with the alternative of this number for each of some groups; None: one has fewer.

    The blocks of a network are alike: what holds for one is tried with all of them at once.
    """
    for name in names if number is not None else ():
        found = next(islice(_alternative_scales(structure, structure.group(name)), number, None), None)
        if found is None:
            return None
        structure = found
    return structure


def _check_layer_removal(trial: Trial, structure: Structure, doubtful: frozenset[str]) -> Structure:
    """Close each optional group alone that was closed where a trial failed; those that fail are optional no more.

    Args:
        trial: What compares.
        structure: What can be removed.
        doubtful: The groups that were closed in what failed. Where each passes alone, they fail beside one another, and
            none of them is optional.
    """
    optional = {g.name for g in structure.groups if g.optional}
    nothing: dict[str, int] = {}
    alone = (Closing(nothing, frozenset([name])) for name in sorted(optional & doubtful))
    unsafe = {n for c in alone if trial.failure(structure, c, explain=False, full=True) is not None for n in c.whole}
    safe = optional - (unsafe or doubtful)
    return replace(structure, groups=tuple(replace(g, optional=g.name in safe) for g in structure.groups))


def alternatives(structure: Structure, group: Group) -> Iterator[Structure]:
    """Go through other readings of which attribute holds which size.

    Where a module keeps the same number in two attributes (four heads of four dimensions each), all of them follow at
    first; then one at a time does. At last the sizes are taken for literals in the module's code, and the attributes
    stay.
    """
    here = [structure.touches(s.units, group) for s in structure.sizes]
    # Other sizes may have been read from the same attributes, so far without a contradiction.
    shared = {(s.module, s.attributes) for s, mine in zip(structure.sizes, here, strict=True) if mine}
    options = {_place(s): s.attributes for s in structure.sizes
               if len(s.attributes) > 1 and (s.module, s.attributes) in shared}  # fmt: skip
    for number, choice in enumerate(product(*options.values())):
        if not options or number >= MOST_ALTERNATIVES:
            break
        chosen = {place: (attribute,) for place, attribute in zip(options, choice, strict=True)}
        sizes = (replace(s, attributes=chosen.get(_place(s), s.attributes)) for s in structure.sizes)
        yield replace(structure, sizes=tuple(sizes))
    if any(here):
        both = list(zip(structure.sizes, here, strict=True))
        yield replace(structure, sizes=tuple(replace(s, literal=s.literal or mine) for s, mine in both))
        yield replace(
            structure, sizes=tuple(replace(s, literal=True, attributes=()) if mine else s for s, mine in both)
        )


def _place(size: Size) -> tuple[str, int, tuple[str, ...], bytes]:
    """What tells sizes apart that may have attributes of their own."""
    return size.module, size.size, size.attributes, size.units.numpy().tobytes()


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
