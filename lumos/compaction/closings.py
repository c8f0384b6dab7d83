"""Which units the probe closes: unequal parts of every group, so that no two sizes agree by chance."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from lumos.gating.hard_concrete import LOG_ALPHA_BOUND
from lumos.shapes import Float
from lumos.tracing.index_maps import FlatMaps
from lumos.tracing.structure import Group, Structure

MANY_UNITS = 64
"""Units of a group from which on an eighth of them shows as much as half does."""
MOST_DRAWS = 4
"""How often parts are drawn at most."""


class Closing(NamedTuple):
    """What is closed in one trial.

    Attributes:
        parts: For the groups of which a part stays, by name, how many units stay.
        whole: The groups that are closed altogether.
    """

    parts: dict[str, int]
    whole: frozenset[str] = frozenset()

    def only(self, names: Collection[str]) -> Closing:
        """Return the closing with all other groups open."""
        return Closing({n: k for n, k in self.parts.items() if n in names}, self.whole & frozenset(names))

    def values(self, structure: Structure) -> Float[Tensor, " units"]:
        """Return gates: closed ones at random, and the others open by different amounts."""
        values = torch.full((structure.units,), LOG_ALPHA_BOUND)
        for group in structure.groups:
            if group.name in self.whole:
                values[group.gates] = -LOG_ALPHA_BOUND
            elif group.name in self.parts:
                some = torch.rand(group.size) * 4 - 0.5
                some[torch.randperm(group.size)[self.parts[group.name] :]] = -LOG_ALPHA_BOUND
                values[group.gates] = some
        return values


def part_draws(structure: Structure) -> list[dict[str, int]]:
    """Return how many units of each group stay, in every draw.

    Groups of one size whose numbers one call could take for each other's (they meet along one axis, or their sizes
    are written in one module) get unequal ones: in one draw where that is possible, else each pair of them in one of
    several.
    """
    alike = _alike(structure)
    whole = {g.name for g in structure.groups if g.size > 1}  # not yet closed in part
    rng = random.Random(0)
    draws: list[dict[str, int]] = []
    while len(draws) < MOST_DRAWS and (any(alike.values()) or whole or not draws):
        kept: dict[str, int] = {}
        for group in sorted(structure.groups, key=lambda g: g.name not in whole):
            others = {kept[name] for name in alike.get(group.name, ()) if name in kept}
            choices = [c for c in _choices(group) if c not in others]
            if not choices:  # few units: all of them may be the only other number
                choices = [group.size] if group.size not in others else list(_choices(group))
            kept[group.name] = rng.choice(choices)
        alike = {a: {b for b in others if kept[a] == kept[b]} for a, others in alike.items()}
        whole = {g.name for g in structure.groups if g.name in whole and kept[g.name] == g.size}
        draws.append(kept)
    return draws


def closings(structure: Structure) -> list[Closing]:
    """Return the trials of a structure: parts of every group, then its optional groups closed altogether.

    Parts are closed while no group is closed altogether, which would hide them: of a network that no longer reads its
    input nothing else can be told. Then every second optional group is closed in one trial and the others in the next
    one, so that what stands beside a closed one is open once: a part that is gone may be read by another, which runs in
    another way where it is gone too.
    """
    draws = part_draws(structure)
    optional = [g.name for g in structure.groups if g.optional]
    turns = [frozenset(turn) for turn in (optional[::2], optional[1::2]) if turn]
    whole = [Closing({n: k for n, k in draws[i % len(draws)].items() if n not in turn}, turn)
             for i, turn in enumerate(turns)]  # fmt: skip
    return [*map(Closing, draws), *whole]


def _choices(group: Group) -> range:
    """How many units may stay: about half of few, about an eighth of many, which makes a far smaller model."""
    if group.size >= MANY_UNITS:
        return range(group.size // 8, group.size // 4)
    if group.size < 4:
        return range(1, max(2, group.size))
    return range((group.size + 3) // 4, (3 * group.size) // 4 + 1)


def _alike(structure: Structure) -> dict[str, set[str]]:
    """For each group, those of its size that it meets along an axis, or that have sizes in one of its modules."""
    groups = structure.groups
    sizes = Counter(g.size for g in groups if g.size > 1)
    if max(sizes.values(), default=0) < 2:
        return {}
    modules = {module: place for place, module in enumerate({size.module for size in structure.sizes})}
    maps = list(structure.maps.values())
    places = [*range(len(maps)), *(len(maps) + modules[size.module] for size in structure.sizes)]
    flat = FlatMaps.of(dict(enumerate([*maps, *(size.units for size in structure.sizes)])))
    place = torch.tensor(places, dtype=torch.int64)[flat.owner]
    owner = torch.zeros(structure.units + 1, dtype=torch.int64)
    for number, group in enumerate(groups, start=1):
        owner[group.start + 1 : group.stop + 1] = number
    meeting: dict[int, set[int]] = {}
    for of_pair in owner[structure.pairs].unbind(1):  # a unit that is one of two has two owners
        of_unit = torch.cat([owner, of_pair.flip(0)])[flat.place]
        keys = torch.unique((place * (len(groups) + 1) + of_unit)[of_unit > 0])
        for at, number in zip((keys // (len(groups) + 1)).tolist(), (keys % (len(groups) + 1)).tolist(), strict=True):
            meeting.setdefault(at, set()).add(number - 1)
    alike: dict[str, set[str]] = {}
    for a, b in {pair for together in meeting.values() for pair in permutations(together, 2)}:
        if groups[a].size == groups[b].size > 1:
            alike.setdefault(groups[a].name, set()).add(groups[b].name)
    return alike
