"""Which indices of every parameter and buffer stay when units close."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lumos.compaction.surgery import rectangle
from lumos.shapes import Bool, Int
from lumos.tracing.structure import Axis, Structure


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
