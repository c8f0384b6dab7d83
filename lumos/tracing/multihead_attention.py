"""torch's attention in steps that a trace can follow and whose sizes may shrink."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumos.tracing.modules import named_modules


class PrunedAttention(nn.MultiheadAttention):
    """Multi-head attention without some of its heads; called as ``torch.nn.MultiheadAttention`` is.

    The number of heads follows from the weights, and so does the number of a head's query and key dimensions; the
    dimensions of its values and the model's width stay. Averaged attention weights are those of the heads that are
    left.
    """

    def init_pruned(self) -> None:
        """Prepare a module of torch's class for this one."""
        # Torch's fused encoder layer takes the number of heads from the width; it must not be used.
        self._qkv_same_embed_dim = False
        self._width = self.head_dim

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Return whether a module is torch's attention in a form that this class computes."""
        return type(module) is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return outputs and, with ``need_weights``, attention weights, as the parent class does."""
        batched = query.dim() == 3
        if not batched:
            query, key, value = (t.unsqueeze(0 if self.batch_first else 1) for t in (query, key, value))
        same = query is key and key is value
        if not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        heads = self.out_proj.weight.shape[1] // self._width
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in self._projected(query, key, value, same))
        mask = _joint_mask(attn_mask, key_padding_mask, q)
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self._width)
            attention = torch.softmax(scores if mask is None else scores + mask, -1)
            out = F.dropout(attention, self.dropout, self.training) @ v
            # Outside the trace: an average over heads that nobody reads must not hold them.
            with torch._C.DisableTorchFunction():
                weights = attention.mean(1) if average_attn_weights else attention
                weights = weights if batched else weights.squeeze(0)
        else:
            out = F.scaled_dot_product_attention(
                q, k, v, mask, self.dropout if self.training else 0.0, scale=self._width**-0.5
            )
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        out = out if self.batch_first else out.transpose(0, 1)
        return (out if batched else out.squeeze(0 if self.batch_first else 1)), weights

    def _rows(self) -> list[int]:
        """Return how many rows of the packed weight make queries, keys and values."""
        values = self.out_proj.weight.shape[1]
        both = (self.in_proj_weight.shape[0] - values) // 2
        return [both, both, values]

    def _projected(self, query: Tensor, key: Tensor, value: Tensor, same: bool) -> list[Tensor]:
        if self.in_proj_weight is not None and same:
            return list(F.linear(query, self.in_proj_weight, self.in_proj_bias).split(self._rows(), -1))
        weights = (
            [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
            if self.in_proj_weight is None
            else list(self.in_proj_weight.split(self._rows()))
        )
        rows = [len(w) for w in weights]
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.split(rows)
        return [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]


def _joint_mask(mask: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
    """Return both masks as one that is added to the scores (batch, heads, target, source)."""
    parts = []
    if mask is not None:
        parts.append(mask if mask.dim() == 2 else mask.unflatten(0, (q.shape[0], -1)))
    if padding is not None:
        parts.append(padding.view(-1, 1, 1, padding.shape[-1]))
    total = None
    for part in parts:
        if part.dtype == torch.bool:
            part = torch.zeros_like(part, dtype=q.dtype).masked_fill(part, -math.inf)
        total = part if total is None else total + part
    return total


def decompose_attention(model: nn.Module) -> list[str]:
    """Let torch's attention layers compute in steps that a trace can follow, and return their paths.

    Args:
        model: A model of one's own: the class of these layers changes.
    """
    paths = []
    for path, module in named_modules(model):
        if PrunedAttention.fits(module):
            module.__class__ = PrunedAttention
            module.init_pruned()  # type: ignore[operator]
            paths.append(path)
    return paths
