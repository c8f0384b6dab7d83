"""What more of a model is made removable. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StructureOptions:
    """What more of a model is made removable, where that changes one of its layers.

    Args:
        streams: The channels of residual streams that norms read (LayerNorm, RMSNorm, GroupNorm of one group, those
            that a module writes out). The norm then knows its original width.
        private: Inputs of single linear layers that other layers keep (per-layer input gates). The layer then gathers
            the inputs that it reads.
        query_key: The dimensions of queries and keys within the heads of an attention, the same in all of its heads.

    Example:
        >>> import torch, lumos
        >>> from lumos.tracing.options import StructureOptions
        >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> model = torch.nn.Sequential(torch.nn.Linear(5, 8), layer, torch.nn.Linear(8, 3))
        >>> plain = lumos.gate(model, torch.randn(2, 4, 5)).structure
        >>> streams = lumos.gate(model, torch.randn(2, 4, 5), options=StructureOptions(streams=True)).structure
        >>> streams.units - plain.units  # the eight channels that both layer norms read
        8
    """

    streams: bool = False
    private: bool = False
    query_key: bool = False
