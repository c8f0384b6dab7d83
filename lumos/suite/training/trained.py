"""What a training returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lumos.compaction.verify import Equivalence


@dataclass
class Trained:
    """A trained network, its scores and how it got there.

    ``phases`` counts the steps by what they trained. Of a gated training: ``gates`` is what they decided, ``steering``
    what was asked for and reached, and ``features`` has a row for each input feature. Of a dense training: ``schedule``
    is how its learning rate went, and ``schedules`` the validation score by each that was tried.
    """

    model: nn.Module
    valid_score: float
    seconds: float
    steps: int
    curve: list[dict[str, Any]] = field(repr=False)
    gates: dict[str, Any] | None = None
    equivalence: Equivalence | None = None
    steering: dict[str, Any] | None = None
    features: list[dict[str, Any]] = field(default_factory=list, repr=False)
    phases: dict[str, int] = field(default_factory=dict)
    schedule: str | None = None
    schedules: dict[str, float] = field(default_factory=dict)
