"""The probe: before any training, show that what a trace found removable can be removed.

A random half of every group is closed, the rest gets random gates, and gated and compact are compared. Groups that
fail are fixed, with the reason, so that a training can never end in a model that cannot be cut.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import nn

from lumos.compaction import verify
from lumos.errors import CompactionError
from lumos.gated import GatedModel
from lumos.gates import LOG_ALPHA_BOUND
from lumos.settings import GateSettings
from lumos.structure import Group, Structure
from lumos.surgery import to_double

_MOST_READINGS = 16


def probed(model: nn.Module, structure: Structure, inputs: tuple[Any, ...]) -> Structure:
    """The structure with every group that cannot be cut fixed."""
    failed: dict[str, str] = {}
    while structure.groups:
        names = [g.name for g in structure.groups]
        if _failure(model, structure, names, inputs) is None:
            break
        # One by one, each together with those that passed: a group may fail only beside another.
        passed: list[str] = []
        for name in names:
            reason: str | None = None
            for reading in _readings(structure, structure.group(name)):
                problem = _failure(model, reading, [*passed, name], inputs)
                if problem is None:
                    structure, reason = reading, None
                    passed.append(name)
                    break
                reason = reason or problem
            if reason is not None:
                failed[name] = f"the probe could not cut it: {reason}"
        if len(passed) < len(names):
            structure = structure.without({n: failed[n] for n in names if n not in passed})
    return structure


def _readings(structure: Structure, group: Group) -> Iterator[Structure]:
    """The structure as it is, then with other readings of whose number a size is.

    Where a module keeps the same number in two attributes (four heads of four dimensions each), all of them follow at
    first; then one at a time does.
    """
    yield structure
    places = [
        i
        for i, size in enumerate(structure.sizes)
        if len(size.attributes) > 1 and bool(((size.units > group.start) & (size.units <= group.stop)).any())
    ]
    options = {(s.module, s.size, s.attributes) for s in (structure.sizes[i] for i in places)}
    keys = sorted(options)
    for number, choice in enumerate(product(*(key[2] for key in keys))):
        if not keys or number >= _MOST_READINGS:
            return
        chosen = dict(zip(keys, choice, strict=True))
        yield replace(
            structure,
            sizes=tuple(
                replace(s, attributes=(chosen[s.module, s.size, s.attributes],)) if i in places else s
                for i, s in enumerate(structure.sizes)
            ),
        )


def _failure(model: nn.Module, structure: Structure, names: list[str], inputs: tuple[Any, ...]) -> str | None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        double = to_double(copy.deepcopy(model).cpu())
        with torch.no_grad():
            # Layers that start at zero would hide a difference.
            for p in double.parameters():
                p.add_(0.1 * torch.randn_like(p))
        gated = GatedModel(double, structure, GateSettings())
        gated.gates.double()
        gated.gates.log_alpha.data.fill_(LOG_ALPHA_BOUND)
        for group in structure.groups:
            if group.name in names:
                gated.gates.log_alpha.data[group.gates] = _half_closed(group).to(torch.float64)
        try:
            verify(gated, inputs)
        except CompactionError as error:
            return str(error)
    return None


def _half_closed(group: Group) -> torch.Tensor:
    """Gates of which half are closed and the others open by different amounts; one of each where there are two."""
    values = torch.rand(group.size) * 4 - 0.5
    values[torch.randperm(group.size)[: group.size // 2]] = -LOG_ALPHA_BOUND
    return values
