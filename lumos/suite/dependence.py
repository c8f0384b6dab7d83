"""What is known of a problem's input features: which matter, and which follow from others; a choice judged by it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Derived:
    """A column that is a function of ``parents``; each of ``recovers`` follows from it and the other parents."""

    parents: Sequence[str]
    recovers: Sequence[str] = ()


@dataclass(frozen=True)
class Judgement:
    """What a choice of features is worth, where the truth is known. All are names of features, in the problem's order.

    Attributes:
        needed: Those that matter and follow from no other one.
        lost: Those of them that are neither chosen nor follow from what is.
        repeats: Those that follow from others; of such a set, some members are enough.
        repeated: The chosen ones that could go with nothing lost: others that are chosen say the same.
        idle: Those that do not matter.
        idle_kept: Those of them that are chosen.
    """

    needed: list[str]
    lost: list[str]
    repeats: list[str]
    repeated: list[str]
    idle: list[str]
    idle_kept: list[str]


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

    def judge(self, features: Sequence[str], kept: Collection[str]) -> Judgement:
        """Judge a choice of some of the features.

        Example:
            >>> truth = TrueDependence({"x": ["y"]}, {"twice_x": Derived(["x"], ["x"])})
            >>> found = truth.judge(["x", "twice_x", "noise"], ["twice_x", "noise"])
            >>> found.lost, found.repeated, found.idle_kept
            ([], [], ['noise'])
        """
        needed = [name for name in features if name in self.enters]
        repeats = [name for name in features if name in self.derived]
        idle = [name for name in features if name not in self.enters and name not in self.derived]
        there = self.follows(kept) & set(needed)
        least = [name for name in features if name in kept and name not in idle]
        for name in [n for n in least if n in self.derived] + [n for n in least if n in self.enters]:
            others = [other for other in least if other != name]
            if there <= self.follows(others):
                least = others
        return Judgement(
            needed=needed,
            lost=[name for name in needed if name not in there],
            repeats=repeats,
            repeated=[name for name in features if name in kept and name not in least and name not in idle],
            idle=idle,
            idle_kept=[name for name in idle if name in kept],
        )


def truth_of(workload: Any) -> TrueDependence | None:
    """Return what a workload says of its features; None where it says nothing, or does not know."""
    if hasattr(workload, "true_dependence"):
        return workload.true_dependence()
    named = list(workload.true_features()) if hasattr(workload, "true_features") else []
    return TrueDependence(dict.fromkeys(named, ())) if named else None


def judged(workload: Any, gates: Mapping[str, Any] | None) -> dict[str, list[str]] | None:
    """Judge the features that a run kept, as its record says it; None without gates on features or without a truth."""
    truth = truth_of(workload)
    if truth is None or not gates or not gates.get("features_total"):
        return None
    return asdict(truth.judge(list(workload.features()), gates["features_kept"]))
