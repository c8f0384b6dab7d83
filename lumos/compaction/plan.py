"""What stays when units close: the indices of every parameter and buffer, and the sizes that modules write."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lumos.compaction.surgery import select_rows_and_columns
from lumos.shapes import Bool, Int
from lumos.tracing.structure import Axis, Structure


@dataclass(frozen=True)
class Plan:
    """For every parameter or buffer axis that shrinks, the indices that stay."""

    kept: dict[Axis, Int[Tensor, " _"]]

    @classmethod
    def of(cls, structure: Structure, keep: Bool[Tensor, " units"]) -> Plan:
        """Make the plan that keeps the units with ``keep``."""
        return cls(structure.kept_indices(keep))

    def shrinks(self, name: str, dim: int) -> bool:
        """Tell whether an axis shrinks."""
        return (name, dim) in self.kept

    def cut(self, name: str, value: Tensor) -> Tensor:
        """Select what stays of a parameter or buffer.

        Args:
            name: The parameter's or buffer's name.
            value: It, or a tensor laid out as it is; dimensions of size one stand for a repeated value and stay.

        Returns:
            The selection; ``value`` itself where nothing goes.
        """
        found = [(dim, self.kept[name, dim].to(value.device)) for dim in range(value.ndim)
                 if (name, dim) in self.kept and value.shape[dim] > 1]  # fmt: skip
        if [dim for dim, _ in found] == [0, 1]:
            return select_rows_and_columns(value, found[0][1], found[1][1])
        for dim, index in found:
            value = value.index_select(dim, index)
        return value


def attribute_sizes(structure: Structure, keep: Bool[Tensor, " units"]) -> dict[str, dict[str, int]]:
    """Compute the new values of the whole numbers in which modules keep sizes, by module path and attribute.

    An attribute that holds the old size gets the new one; whether that was right, the probe decides.
    """
    found: dict[str, dict[str, int]] = {}
    for size in structure.sizes:
        new = structure.kept_size(size, keep)
        for attribute in size.attributes if new != size.size else ():
            found.setdefault(size.module, {}).setdefault(attribute, new)
    return found


def literal_sizes(structure: Structure, keep: Bool[Tensor, " units"]) -> dict[str, list[list[int]]]:
    """Compute the new values of the sizes that modules' code writes as literals.

    Returns:
        By module path: call, dimension, old size and new size of each.
    """
    found: dict[str, list[list[int]]] = {}
    for size in structure.sizes:
        new = structure.kept_size(size, keep) if size.literal and size.place else size.size
        if size.place and new != size.size:
            found.setdefault(size.module, []).append([*size.place, size.size, new])
    return found
