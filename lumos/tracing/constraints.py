"""What a user asks of the units beforehand: what stays, what goes together, and what it costs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lumos.errors import StructureError


@dataclass(frozen=True)
class Constraints:
    """What a user asks of a model's units, by the names of input features and the paths of modules.

    Args:
        keep: Features that stay, and modules whose units stay.
        exclude: Modules that stay as they are: no weight inside them is cut.
        groups: Features that stay or go together, by the name of the group.
        prices: What an open gate of a feature, of a group of features or of a module's units costs, where the others
            cost 1.

    Raises:
        StructureError: A feature is in two groups, a group has the name of a feature outside it, or a price is no
            number >= 0.
    """

    keep: Sequence[str] = ()
    exclude: Sequence[str] = ()
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("keep", "exclude"):
            value = getattr(self, what)
            if isinstance(value, str) or not all(isinstance(name, str) for name in value):
                raise StructureError(f"{what}={value!r}: expected a list of names, as [{str(value)!r}]")
        owner: dict[str, str] = {}
        for group, members in self.groups.items():
            if isinstance(members, str) or not members:
                raise StructureError(f"groups: {group!r} has {members!r}; expected a list of the names of features")
            for name in members:
                if owner.setdefault(name, group) != group:
                    raise StructureError(f"groups: feature {name!r} is in {owner[name]!r} and in {group!r}")
        for name, price in self.prices.items():
            if not isinstance(price, (int, float)) or not 0 <= price < math.inf:
                raise StructureError(f"prices: {name!r} costs {price!r}; expected a number >= 0")

    def __bool__(self) -> bool:
        return bool(self.keep or self.exclude or self.groups or self.prices)

    def check(self, features: Sequence[str], modules: Iterable[str]) -> None:
        """Tell which names are neither a feature nor a module.

        Args:
            features: The names of the model's input features.
            modules: The paths of its modules.

        Raises:
            StructureError: A name is unknown.
        """
        paths = [path for path in modules if path]
        for what, names, allowed in (
            ("keep", self.keep, [*features, *paths]),
            ("exclude", self.exclude, paths),
            ("groups", [name for members in self.groups.values() for name in members], list(features)),
            ("prices", list(self.prices), [*features, *self.groups, *paths]),
        ):
            known = set(allowed)
            for name in names:
                if name not in known:
                    near = difflib.get_close_matches(name, allowed, n=1)
                    meant = f"did you mean {near[0]!r}?" if near else f"there are {_some(allowed)}"
                    kinds = {"exclude": "module", "groups": "input feature"}.get(what, "input feature or module")
                    raise StructureError(f"{what}: {name!r} is no {kinds} of this model; {meant}")

    def price_of_columns(self, names: Sequence[str]) -> float:
        """Return the price of a gate that these features share.

        That of their group, where one is given; else the sum of their own, where one of them has one; else 1.
        """
        for group, members in self.groups.items():
            if group in self.prices and set(members) & set(names):
                return float(self.prices[group])
        if not any(name in self.prices for name in names):
            return 1.0
        return float(sum(self.prices.get(name, 1.0) for name in names))


def inside(path: str, modules: Iterable[str]) -> str | None:
    """Return the module of ``modules`` that is, or holds, what stands at a path.

    Example:
        >>> inside("encoder.0.weight", ["head", "encoder"])
        'encoder'
    """
    return next((module for module in modules if path == module or path.startswith(f"{module}.")), None)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8]) or "none"
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
