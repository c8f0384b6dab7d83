"""What a kernel's equations say of its inputs: which enter, and which follow from others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Derived:
    """A column that is a function of ``parents``; each of ``recovers`` follows from it and the other parents."""

    parents: Sequence[str]
    recovers: Sequence[str] = ()


@dataclass(frozen=True)
class TrueDependence:
    """For each independent input, the outputs that depend on it; the others are derived from them, or not used.

    ``enters`` has an entry for every independent input that the kernel uses; ``derived`` for those that follow from
    others; inputs in neither do not matter.
    """

    enters: Mapping[str, Sequence[str]]
    derived: Mapping[str, Derived] = field(default_factory=dict)

    def role(self, name: str, output: str) -> str:
        """Say whether an input ``enters`` one output, is ``derived`` (from one that enters) or ``unused``."""
        if output in self.enters.get(name, ()):
            return "enters"
        if name in self.derived and any(self.role(p, output) != "unused" for p in self.derived[name].parents):
            return "derived"
        return "unused"

    def follows(self, kept: Collection[str]) -> set[str]:
        """Find all inputs whose value follows from the kept ones, they themselves included."""
        known = set(kept)
        while True:
            before = len(known)
            for name, derived in self.derived.items():
                missing = [parent for parent in derived.parents if parent not in known]
                if not missing:
                    known.add(name)
                if name in known and len(missing) == 1 and missing[0] in derived.recovers:
                    known.add(missing[0])
            if len(known) == before:
                return known

    def verdict(self, name: str, kept: Collection[str]) -> str:
        """Say what the choice of ``kept`` means for one input.

        Returns:
            ``kept``; ``follows`` (dropped, but its value follows from kept ones); ``unused`` (dropped, and not needed:
            it is in no equation, or only repeats what other inputs say); ``lost`` (dropped, though an equation has it
            as an input of its own: whatever it says is lost, be it little).
        """
        if name in kept:
            return "kept"
        if name in self.follows(kept):
            return "follows"
        return "lost" if name in self.enters else "unused"
