"""Writes a model as a file that runs without its Python code: torch.export, ONNX or a compiled package."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lumos.compaction.model import CompactModel
from lumos.errors import ExportError
from lumos.exporting import onnx_file, pt2_file
from lumos.exporting.program import trace_program
from lumos.files import atomic
from lumos.gating.gated_model import GatedModel

Format = Literal["pt2", "onnx", "aoti"]


@dataclass(frozen=True)
class Exported:
    """An exported file, as it was found after reloading it.

    Attributes:
        path: The file.
        format: ``pt2``, ``onnx`` or ``aoti``.
        inputs: The shape of each input by its name, with a name for each size that may change.
        outputs: The same of each output.
        features: Names of the input features.
        max_rel_diff: The largest difference to the model at sizes that the example does not have, relative to an
            output's largest value.
        max_rel_diff_float64: That of a float64 copy; None where the format's operators do not take float64.
    """

    path: Path
    format: Format
    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]
    features: tuple[str, ...]
    max_rel_diff: float
    max_rel_diff_float64: float | None = None

    @property
    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """The axes of each input and output that take any size, with the size's name."""
        both = {**self.inputs, **self.outputs}
        named = {n: {i: s for i, s in enumerate(shape) if isinstance(s, str)} for n, shape in both.items()}
        return {n: axes for n, axes in named.items() if axes}

    def __str__(self) -> str:
        sides = (", ".join(f"{n} ({', '.join(map(str, s))})" for n, s in side.items())
                 for side in (self.inputs, self.outputs))  # fmt: skip
        double = "" if self.max_rel_diff_float64 is None else f", {self.max_rel_diff_float64:.0e} in float64"
        return f"{self.path}: {' -> '.join(sides)}; reloaded, differs by {self.max_rel_diff:.0e}{double}"


def export(
    model: nn.Module,
    example_inputs: Any,
    path: str | Path,
    *,
    format: Format | None = None,
    features: Sequence[str] | None = None,
) -> Exported:
    """Write a model as a file that runs without its Python code, and check the reloaded file against it.

    The file takes the example's tensors, in order, with any number of samples (or of nodes and edges). A compact model
    takes full inputs, or those with the kept features alone where it was made with ``select=False``.

    Args:
        model: A compact model, or any other one without gates.
        example_inputs: A tensor, or a tuple of positional inputs, with at least two samples.
        path: The file; it ends in ``.pt2`` (torch.export) or ``.onnx``.
        format: ``pt2`` and ``onnx`` follow from the path; ``aoti`` compiles to machine code in a ``.pt2`` package and
            needs a C++ compiler.
        features: Names of the input features, where the model is no compact one.

    Returns:
        What was written, with its inputs, outputs and how far it is from the model.

    Raises:
        ExportError: The model cannot be exported, or the file does not compute the same.

    Example:
        >>> import tempfile, torch, lumos
        >>> from pathlib import Path
        >>> small = lumos.compact(lumos.gate(torch.nn.Linear(3, 2), torch.randn(8, 3)).eval())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exported = lumos.export(small, torch.randn(8, 3), Path(folder) / "small.pt2")
        >>> exported.inputs, exported.outputs, exported.features
        ({'input': ('batch', 3)}, {'output': ('batch', 2)}, ('x0', 'x1', 'x2'))
    """
    return _export(model, example_inputs, Path(path), format_of(path, format), features, double=True)


def exportable(model: nn.Module, example_inputs: Any, format: Format) -> str:
    """Try to export a model into a temporary folder: ``yes``, or why it cannot be exported."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{'onnx' if format == 'onnx' else 'pt2'}"
        try:
            _export(model, example_inputs, path, format, None, double=False)
        except ExportError as error:
            return str(error)
    return "yes"


def _export(
    model: nn.Module, example: Any, path: Path, kind: Format, features: Sequence[str] | None, double: bool
) -> Exported:
    if isinstance(model, GatedModel):
        raise ExportError("a gated model is for training; export lumos.compact(gated)")
    if kind == "onnx":
        onnx_file.require()
    program = trace_program(model, example)
    kept = model.features if isinstance(model, CompactModel) else list(features or [])
    metadata = {
        "format": "lumos-export-1",
        "features": kept,
        "takes": "full inputs" if not isinstance(model, CompactModel) or model.select else "kept features only",
        "inputs": _described(program.input_shapes, program.example),
        "outputs": program.output_shapes,
        "torch": torch.__version__,
    }
    difference = None
    with atomic(path) as temporary:
        if kind == "onnx":
            worst, difference = onnx_file.write(program, temporary, metadata, double)
        else:
            worst = (pt2_file.write if kind == "pt2" else pt2_file.write_compiled)(program, temporary, metadata)
    return Exported(path, kind, program.input_shapes, program.output_shapes, tuple(kept), worst, difference)


def format_of(path: str | Path, format: Format | None = None) -> Format:
    """Find the format that a file name and a word ask for.

    Raises:
        ExportError: They do not fit.
    """
    if format is not None and format not in get_args(Format):
        raise ExportError(f"format={format}: expected one of {', '.join(get_args(Format))}")
    suffix, wanted = Path(path).suffix, ".onnx" if format == "onnx" else ".pt2"
    if suffix not in (".pt2", ".onnx") or (format is not None and suffix != wanted):
        expected = ".pt2 or .onnx" if format is None else wanted
        raise ExportError(f"{path}: expected a file name that ends in {expected}")
    return format or ("onnx" if suffix == ".onnx" else "pt2")


def _described(shapes: dict[str, tuple[int | str, ...]], example: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": shape, "dtype": str(t.dtype).removeprefix("torch.")}
        for (name, shape), t in zip(shapes.items(), example, strict=True)
    ]
