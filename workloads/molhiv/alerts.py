"""Structural alerts for mutagenicity: the label of the default data.

The eight general toxicophores of J. Kazius, R. McGuire and R. Bursi, J. Med. Chem. 48, 312 (2005), each with
neighbouring groups that undo it (detoxify), written as SMARTS of the project's own after that paper. They are a rule
to be learnt, not a statement about any molecule's toxicity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from rdkit import Chem

ACID = "[$(S(=O)(=O)[OX2H,OX1-]),$(C(=O)[OX2H,OX1-])]"
SULFO = "[$(S(=O)(=O)[OX2H,OX1-]),$(S(=O)(=O)[NX3])]"


@dataclass(frozen=True)
class Alert:
    """A substructure, in one of several forms, unless one of ``exceptions`` starts at one of its atoms; all SMARTS."""

    name: str
    forms: tuple[str, ...]
    exceptions: tuple[str, ...]

    @cached_property
    def _patterns(self) -> tuple[list[Chem.Mol], list[Chem.Mol]]:
        return [Chem.MolFromSmarts(s) for s in self.forms], [Chem.MolFromSmarts(s) for s in self.exceptions]

    def matches(self, molecule: Chem.Mol) -> Iterator[tuple[int, ...]]:
        """Find the atoms of each occurrence that no exception undoes."""
        forms, exceptions = self._patterns
        found = [match for pattern in forms for match in molecule.GetSubstructMatches(pattern)]
        if not found:
            return iter(())
        undone = {match[0] for pattern in exceptions for match in molecule.GetSubstructMatches(pattern)}
        return (match for match in found if undone.isdisjoint(match))


ON_THE_RING = (":c", ":c:c", ":c:c:c")
"""The way to the ortho, meta and para atom."""

ALERTS = (
    Alert(
        "aromatic nitro",
        ("c-[NX3](~[OX1])~[OX1]",),
        ("c:c-C(F)(F)F", *(f"c{way}-{SULFO}" for way in ON_THE_RING)),
    ),
    Alert(
        "aromatic amine",
        ("c-[NX3;H2]", "c-[NH]-[OH]"),
        ("c:c-C(F)(F)F", f"c:c-{ACID}", *(f"c{way}-{SULFO}" for way in ON_THE_RING)),
    ),
    Alert("three-membered heterocycle", ("[O,N,S]1[#6][#6]1",), ("[O,N,S]1[CX4;H0][CX4;H0]1",)),
    Alert("nitroso", ("[#6,#7,#8]-[NX2]=O",), ("[NX3](-[CX4;H0])-[NX2]=O",)),
    Alert(
        "unsubstituted heteroatom on a heteroatom",
        ("[NX3;H2]-[NX3,OX2]", "[OX2;H1]-[NX3,OX2]"),
        ("[NX3;H2]-N-[CX3]=[O,S]", "[OX2;H1]-N-[CX3]=[O,S]"),
    ),
    Alert(
        "azo, azide, diazo or triazene",
        ("[NX2](-[#6,#7])=[NX2]-[#6,#7]", "[#6]-[NX2]=[N+]=[N-]", "[CX3]=[N+]=[N-]"),
        tuple(f"[NX2](-c{a}-{SULFO})=[NX2]-c{b}-{SULFO}" for a in ON_THE_RING for b in ON_THE_RING),
    ),
    Alert(
        "aliphatic halide",
        ("[CX4]-[Cl,Br,I]",),
        ("[CX4]([F,Cl,Br,I])([F,Cl,Br,I])[F,Cl,Br,I]", "[CX4;H0]-[Cl,Br,I]"),
    ),
    Alert(
        "polycyclic aromatic system",
        ("a1aaa2aa3aaaaa3aa2a1", "a1aaa2aaa3aaaaa3a2a1"),
        (f"a-{ACID}",),
    ),
)


def alerts(molecule: Chem.Mol) -> dict[str, set[int]]:
    """Find the alerts that a molecule has, each with its atoms."""
    found = {alert.name: {atom for match in alert.matches(molecule) for atom in match} for alert in ALERTS}
    return {name: atoms for name, atoms in found.items() if atoms}
