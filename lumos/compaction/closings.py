"""Which units the probe closes: unequal parts of every group, so that no two sizes agree by chance."""

from __future__ import annotations

import random
from collections.abc import Collection
from fractions import Fraction
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
MOST_TURNS = 8
"""In how many trials the optional groups are closed altogether at most: so many groups are each closed alone."""


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


def part_draws(structure: Structure, rounds: int = 1) -> list[dict[str, int]]:
    """Return how many units of each group stay, in every draw; each of several rounds draws anew.

    Groups whose numbers one call could take for each other's (they meet along one axis, or their sizes are written in
    one module, and are equal) get unequal shares: in one draw where that is possible, else each pair of them in one of
    several.
    """
    alike = _alike(structure)
    draws = [draw for seed in range(rounds) for draw in _one_round(structure, alike, random.Random(seed))]
    return [draw for number, draw in enumerate(draws) if draw not in draws[:number]]


def _one_round(structure: Structure, alike: dict[str, set[str]], rng: random.Random) -> list[dict[str, int]]:
    whole = {g.name for g in structure.groups if g.size > 1}  # not yet closed in part
    draws: list[dict[str, int]] = []
    while len(draws) < MOST_DRAWS and (any(alike.values()) or whole or not draws):
        kept: dict[str, int] = {}
        shares: dict[str, Fraction] = {}
        for group in sorted(structure.groups, key=lambda g: g.name not in whole):
            others = {shares[name] for name in alike.get(group.name, ()) if name in shares}
            choices = [c for c in _choices(group) if Fraction(c, group.size) not in others]
            if not choices:  # few units: all of them may be the only other number
                choices = [group.size] if 1 not in others else list(_choices(group))
            kept[group.name] = rng.choice(choices)
            shares[group.name] = Fraction(kept[group.name], group.size)
        alike = {a: {b for b in others if shares[a] == shares[b]} for a, others in alike.items()}
        whole = {g.name for g in structure.groups if g.name in whole and kept[g.name] == g.size}
        draws.append(kept)
    return draws


def closings(structure: Structure, rounds: int = 1) -> list[Closing]:
    """Return the trials of a structure: parts of every group, then its optional groups closed altogether.

    Parts are closed while no group is closed altogether, which would hide them: of a network that no longer reads its
    input nothing else can be told. Then each optional group is closed in one of several trials, alone or beside some
    that stand far from it: what stands beside a closed one is open once, since a part that is gone may be read by
    another, which runs in another way where it is gone too; and of many that are closed at once one hides another.
    """
    draws = part_draws(structure, rounds)
    optional = [g.name for g in structure.groups if g.optional]
    turns = [frozenset(optional[i::MOST_TURNS]) for i in range(min(MOST_TURNS, len(optional)))]
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
    """For each group, those as large as it is that it meets along an axis, or that have sizes in one of its modules.

    A group of units of several positions each (the dimensions of a head) is as large as one of as many single ones.
    """
    groups = structure.groups
    if sum(g.size > 1 for g in groups) < 2:
        return {}
    modules = {module: place for place, module in enumerate({size.module for size in structure.sizes})}
    maps = list(structure.maps.values())
    places = [*range(len(maps)), *(len(maps) + modules[size.module] for size in structure.sizes)]
    flat = FlatMaps.of(dict(enumerate([*maps, *(size.units for size in structure.sizes)])))
    owner = torch.zeros(structure.units + 1, dtype=torch.int64)
    for number, group in enumerate(groups, start=1):
        owner[group.start + 1 : group.stop + 1] = number
    meeting: dict[int, dict[int, set[int]]] = {}
    for of_pair in owner[structure.pairs].unbind(1):  # a unit that is one of two has two owners
        of_unit = torch.cat([owner, of_pair.flip(0)])[flat.place]
        keys, extents = torch.unique((flat.owner * (len(groups) + 1) + of_unit)[of_unit > 0], return_counts=True)
        for key, extent in zip(keys.tolist(), extents.tolist(), strict=True):
            at, number = divmod(key, len(groups) + 1)
            meeting.setdefault(places[at], {}).setdefault(number - 1, set()).update((extent, groups[number - 1].size))
    alike: dict[str, set[str]] = {}
    for together in meeting.values():
        for a, b in permutations([n for n in together if groups[n].size > 1], 2):
            if together[a] & together[b]:
                alike.setdefault(groups[a].name, set()).add(groups[b].name)
    return alike
