"""What more of a model is made removable. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StructureOptions:
    """What more of a model is made removable, where that changes one of its layers.

    ``streams``: residual streams that a LayerNorm reads; the norm then knows its original width. ``private``: each
    linear layer may leave out inputs that other layers keep; it then gathers those that it reads. ``query_key``: the
    dimensions of queries and keys within the heads of an attention, the same places in all of its heads.
    """

    streams: bool = False
    private: bool = False
    query_key: bool = False
