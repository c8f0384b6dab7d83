"""Sizes of a model that need no clock: parameters, bytes, multiply-accumulates; and examples of any batch size."""

from __future__ import annotations

import io
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from lumos.compaction.model import CompactModel
from lumos.errors import LumosError
from lumos.measure.timing import differentiates
from lumos.tracing.costs import countable
from lumos.tracing.trace_structure import trace_structure


def parameters(model: nn.Module) -> int:
    """Count trainable and frozen parameters; buffers do not count."""
    return sum(p.numel() for p in model.parameters())


def size_bytes(model: nn.Module) -> int:
    """Measure the bytes of parameters and buffers as ``torch.save`` writes them."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def macs(model: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Count the multiply-accumulates of one sample: half the FLOPs that torch counts, over the example's samples.

    Every matrix product and convolution counts, those between activations (attention) too; additions, norms,
    lookups and activation functions do not.

    Example:
        >>> import torch
        >>> from lumos.measure import macs
        >>> macs(torch.nn.Linear(20, 5), (torch.randn(8, 20),))
        100
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _OneModule()  # pyright: ignore[reportAttributeAccessIssue]
    with torch.set_grad_enabled(differentiates(model, inputs)), countable(), counter:
        out = model(*inputs)
    return round(counter.get_total_flops() / 2 / (samples_of(inputs, out) or 1))


class _OneModule(nullcontext[None]):
    """In place of torch's list of the modules that are running, which fails where a forward differentiates."""

    parents = frozenset({"Global"})


def traced_macs(model: nn.Module, inputs: tuple[Any, ...]) -> int | None:
    """Count the multiply-accumulates of one sample as the trace does.

    It checks :func:`macs`: the two agree. None where the trace does not follow.
    """
    if isinstance(model, CompactModel):
        model, inputs = model.model, model.selected(*inputs)
    try:
        with torch.set_grad_enabled(differentiates(model, inputs)):
            total = trace_structure(model, inputs).dense_sizes[1]
            return round(total / (samples_of(inputs, model(*inputs)) or 1))
    except LumosError:
        return None


def batch_of(inputs: tuple[Any, ...]) -> int | None:
    """Find the number of samples, where all inputs are tensors of floats with one leading size; None for a graph."""
    sizes = {x.shape[0] if isinstance(x, Tensor) and x.ndim and x.is_floating_point() else None for x in inputs}
    return sizes.pop() if len(sizes) == 1 else None


def samples_of(inputs: tuple[Any, ...], out: Any) -> int | None:
    """Find the number of samples of a call: that of the inputs, or of the output where these do not say (graphs)."""
    batch = batch_of(inputs)
    if batch is not None:
        return batch
    first = next((x for x in pytree.tree_leaves(out) if isinstance(x, Tensor) and x.ndim), None)
    return None if first is None else first.shape[0]


def resized(inputs: tuple[Any, ...], batch: int) -> tuple[Any, ...]:
    """Repeat or shorten the example to ``batch`` samples; as it is where samples cannot be repeated row by row."""
    samples = batch_of(inputs)
    if samples is None:
        return inputs
    return tuple(x[torch.arange(batch, device=x.device) % samples] for x in inputs)


def input_bytes(inputs: tuple[Any, ...]) -> int:
    """Count the bytes of the input tensors."""
    return sum(x.numel() * x.element_size() for x in pytree.tree_leaves(inputs) if isinstance(x, Tensor))
