"""What stays when units close: the indices of every parameter and buffer, and the sizes that modules write."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from lumos.compaction.surgery import select_rows_and_columns
from lumos.errors import CompactionError
from lumos.shapes import Bool, Int
from lumos.tracing.structure import Axis, Structure


class TwoSizesError(CompactionError):
    """One attribute would have to be two numbers; ``module`` is the path of the module that has it."""

    def __init__(self, text: str, module: str) -> None:
        super().__init__(text)
        self.module = module


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


def attribute_sizes(
    structure: Structure, keep: Bool[Tensor, " units"], replaced: Collection[str] = ()
) -> dict[str, dict[str, int]]:
    """Compute the new values of the whole numbers in which modules keep sizes, by module path and attribute.

    An attribute that holds the old size gets the new one; whether that was right, the probe decides.

    Args:
        structure: What can be removed.
        keep: The units that stay.
        replaced: The paths of modules in whose place something else stands: nothing of them is read.

    Raises:
        TwoSizesError: One attribute would have to be two numbers.
    """
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for size in structure.sizes:
        if not size.attributes or is_inside(size.module, replaced):
            continue
        new = structure.kept_size(size, keep)
        for attribute in size.attributes:
            _, known = found.setdefault(size.module, {}).setdefault(attribute, (size.size, new))
            if known != new:
                raise TwoSizesError(
                    f"the attribute {attribute} of {size.module or 'the model'} stands for two sizes that are no "
                    f"longer equal, {known} and {new}; give each an attribute of its own",
                    size.module,
                )
    changed = {path: {a: new for a, (old, new) in values.items() if new != old} for path, values in found.items()}
    return {path: values for path, values in changed.items() if values}


def is_inside(path: str, modules: Collection[str]) -> bool:
    """Return whether a module is one of those at some paths, or inside one."""
    return any(path == module or path.startswith(f"{module}.") for module in modules)


def literal_sizes(structure: Structure, keep: Bool[Tensor, " units"]) -> dict[str, dict[str, list[list[int]]]]:
    """Compute the new values of the numbers that modules' code writes as literals.

    Returns:
        By module path: under ``sizes`` the call, the dimension, the old size and the new one of each; under ``parts``
        the call, the number of the part, the old size and the new one; under ``bounds`` the call, the place in its
        index, the part of it, the old number and the new one.
    """
    found: dict[str, dict[str, list[list[int]]]] = {}
    # One number may stand for all parts of a split: where one is a literal, all are.
    splits: dict[tuple[str, int], list[list[int]]] = {
        (s.module, s.place[0]): [] for s in structure.sizes if s.of_part and s.literal and s.place
    }
    for size in structure.sizes:
        if size.place is None or not (size.literal or (size.of_part and (size.module, size.place[0]) in splits)):
            continue
        fact = [*size.place, size.size, structure.kept_size(size, keep)]
        if size.of_part:
            splits[size.module, size.place[0]].append(fact)
        elif fact[-1] != size.size:
            found.setdefault(size.module, {"sizes": []})["sizes"].append(fact)
    for (module, _), parts in splits.items():
        if any(old != new for *_, old, new in parts):
            found.setdefault(module, {"sizes": []}).setdefault("parts", []).extend(parts)
    for bound in structure.bounds:
        new = structure.kept_bound(bound, keep)
        if new != bound.value:
            facts = found.setdefault(bound.module, {"sizes": []})
            facts.setdefault("bounds", []).append([*bound.place, bound.value, new])
    return found
