"""Writes operators that torch's ONNX exporter does not, or not for these arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Make what ``torch.onnx.export`` takes as its ``custom_translation_table``."""
    import onnxscript

    op: Any = onnxscript.opset18  # its functions are typed for eager values, and these are symbolic

    def bincount(values: Any, weights: Any = None, minlength: Any = 0) -> Any:
        """Counts of 0, 1, …; the exporter's own wants ``minlength`` as a number, and a graph's is its node count."""
        if weights is not None:
            raise NotImplementedError("aten.bincount with weights")
        one = op.Constant(value_ints=[1])
        least = op.Constant(value_ints=[minlength]) if isinstance(minlength, int) else op.Reshape(minlength, one)
        # A zero is appended so that the largest value is defined where there is none.
        largest = op.ReduceMax(op.Concat(values, op.Constant(value_ints=[0]), axis=0), keepdims=1)
        some = op.Cast(op.Greater(op.Shape(values), op.Constant(value_ints=[0])), to=7)
        zeros = op.ConstantOfShape(op.Max(op.Mul(op.Add(largest, one), some), least))
        counts = op.Cast(zeros, to=7)
        return op.ScatterElements(counts, values, op.Expand(one, op.Shape(values)), axis=0, reduction="add")

    return {torch.ops.aten.bincount.default: bincount}


def without_complex_products(traced: ExportedProgram) -> ExportedProgram:
    """Write what a program does to complex numbers in real ones, as far as ONNX cannot say it.

    The exporter keeps a complex tensor as real and imaginary part along a last axis; it has Fourier transforms,
    slices and sums of those, and not the products and assignments that a spectral convolution needs.
    """
    values = [node.meta.get("val") for node in traced.graph.nodes]
    if not any(isinstance(v, Tensor) and v.is_complex() for v in values):
        return traced
    aten = torch.ops.aten
    table: dict[Any, Callable[..., Any]] = {
        aten.einsum.default: _einsum,
        aten.copy.default: _copy,
        aten.slice_scatter.default: _slice_scatter,
        aten.zeros.default: _zeros,
    }
    return traced.run_decompositions(table)


# Each returns NotImplemented for what ONNX has anyway.


def _einsum(equation: str, operands: Sequence[Tensor], path: Sequence[int] | None = None) -> Any:
    if len(operands) != 2 or not all(t.is_complex() for t in operands):
        return NotImplemented
    (a, b), (c, d) = (torch.view_as_real(t).unbind(-1) for t in operands)
    ac, bd, ad, bc = (torch.einsum(equation, x, y) for x, y in ((a, c), (b, d), (a, d), (b, c)))
    return torch.view_as_complex(torch.stack([ac - bd, ad + bc], -1))


def _copy(self: Tensor, source: Tensor, non_blocking: bool = False) -> Any:
    if not (self.is_complex() and source.is_complex()):
        return NotImplemented
    return torch.view_as_complex(torch.view_as_real(source).expand(*self.shape, 2))


def _slice_scatter(
    self: Tensor, source: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    if not self.is_complex():
        return NotImplemented
    pairs = torch.view_as_real(self), torch.view_as_real(source)
    return torch.view_as_complex(torch.slice_scatter(*pairs, dim % self.ndim, start, end, step))


def _zeros(size: Sequence[int], dtype: torch.dtype | None = None, **_options: Any) -> Any:
    if dtype is None or not dtype.is_complex:
        return NotImplemented
    return torch.view_as_complex(torch.zeros([*size, 2], dtype=dtype.to_real()))
