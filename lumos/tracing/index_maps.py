"""Many unit maps read at once: a model has hundreds, and most are short."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from lumos.shapes import Bool

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Flat:
    """Maps one after another: ``place`` of every position in a table, and the number of the map whose it is."""

    place: Tensor
    owner: Tensor
    lengths: list[int]

    @classmethod
    def of(cls, maps: Mapping[Key, Tensor]) -> Flat:
        """The maps, of any shape, in their order."""
        lengths = [units.numel() for units in maps.values()]
        place = torch.cat([torch.zeros(0, dtype=torch.int64), *(units.reshape(-1) for units in maps.values())])
        owner = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths, dtype=torch.int64))
        return cls(place, owner, lengths)

    def counts(self, positions: Bool[Tensor, " positions"]) -> list[int]:
        """For each map, how many of its positions are true."""
        return torch.zeros(len(self.lengths), dtype=torch.int64).index_add_(0, self.owner, positions.long()).tolist()

    def read(self, table: Bool[Tensor, " places"]) -> tuple[tuple[Tensor, ...], list[int]]:
        """For each map, which of its positions are true in a table, and how many."""
        found = table[self.place]
        return found.split(self.lengths), self.counts(found)


def looked_up(table: Tensor, maps: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """``table[units]`` for every map."""
    flat = Flat.of(maps)
    parts = table[flat.place].split(flat.lengths)
    return {key: part.view(units.shape) for (key, units), part in zip(maps.items(), parts, strict=True)}


def with_units(maps: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """The maps that hold any unit at all."""
    flat = Flat.of(maps)
    return {key: units for (key, units), n in zip(maps.items(), flat.counts(flat.place != 0), strict=True) if n}
