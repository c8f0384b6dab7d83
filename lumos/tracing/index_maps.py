"""Many unit maps read at once: a model has hundreds, and most are short."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from lumos.shapes import Bool, Int

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class FlatMaps:
    """Unit maps one after another in one vector.

    Args:
        place: For every position of every map, its place in a table.
        lengths: How many positions each map has.
    """

    place: Int[Tensor, " positions"]
    lengths: list[int]

    @classmethod
    def of(cls, maps: Mapping[Key, Tensor]) -> FlatMaps:
        """Put maps of any shape one after another, in their order."""
        lengths = [units.numel() for units in maps.values()]
        place = torch.cat([torch.zeros(0, dtype=torch.int64), *(units.reshape(-1) for units in maps.values())])
        return cls(place, lengths)

    @cached_property
    def owner(self) -> Int[Tensor, " positions"]:
        """For every position, the number of its map."""
        return torch.arange(len(self.lengths)).repeat_interleave(torch.tensor(self.lengths, dtype=torch.int64))

    def counts(self, positions: Bool[Tensor, " positions"]) -> list[int]:
        """Return, for each map, how many of its positions are true."""
        return [int(part.count_nonzero()) for part in positions.split(self.lengths)]

    def read(self, table: Bool[Tensor, " places"]) -> tuple[tuple[Tensor, ...], list[int]]:
        """Return, for each map, which of its positions are true in a table, and how many."""
        found = table[self.place]
        return found.split(self.lengths), self.counts(found)


def look_up(table: Tensor, maps: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """Return ``table[units]`` for every map."""
    flat = FlatMaps.of(maps)
    parts = table[flat.place].split(flat.lengths)
    return {key: part.view(units.shape) for (key, units), part in zip(maps.items(), parts, strict=True)}


def drop_empty(maps: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """Return the maps that hold any unit at all."""
    flat = FlatMaps.of(maps)
    return {key: units for (key, units), n in zip(maps.items(), flat.counts(flat.place != 0), strict=True) if n}
