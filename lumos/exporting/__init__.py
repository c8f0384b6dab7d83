"""Writing a model as a file that runs without its Python code: torch.export, ONNX or a compiled package."""

from __future__ import annotations

import copy
import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lumos.compaction.model import CompactModel
from lumos.errors import ExportError, one_line
from lumos.exporting import onnx_file
from lumos.exporting.checks import check, leaves
from lumos.exporting.program import Program, quiet, trace
from lumos.files import atomic
from lumos.gating.gated_model import GatedModel

Format = Literal["pt2", "onnx", "aoti"]
METADATA = "lumos.json"
"""Name of the description inside a ``.pt2`` file; in ONNX it is the metadata property ``lumos``."""


@dataclass(frozen=True)
class Exported:
    """An exported file, as it was found after reloading it.

    ``inputs`` and ``outputs`` have the shapes, with a name for each size that may change. ``max_rel_diff`` is the
    largest difference to the model at sizes that the example does not have, relative to an output's largest value;
    ``max_rel_diff_float64`` is that of a float64 copy, None where the format's operators do not take float64.
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
        """For each input and output the axes that take any size, and the size's name."""
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

    ``path`` ends in ``.pt2`` (torch.export) or ``.onnx``; ``format="aoti"`` compiles to machine code in a ``.pt2``
    package, which needs a C++ compiler. ``example_inputs`` is a tensor or a tuple of positional inputs with at least
    two samples; the file takes its tensors, in order, with any number of samples (or of nodes and edges). A compact
    model takes full inputs, or reduced ones where it was made with ``select=False``; ``features`` names the inputs of
    any other model. Raises ExportError where the model cannot be exported or the file does not compute the same.
    """
    return _export(model, example_inputs, Path(path), format_of(path, format), features, double=True)


def exportable(model: nn.Module, example_inputs: Any, format: Format) -> str:
    """``yes`` where a model can be exported (written, reloaded and checked in a temporary folder), else why not."""
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
    program = trace(model, example)
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
            worst = (_write_pt2 if kind == "pt2" else _write_aoti)(program, temporary, metadata)
    return Exported(path, kind, program.input_shapes, program.output_shapes, tuple(kept), worst, difference)


def format_of(path: str | Path, format: Format | None = None) -> Format:
    """The format that a file name and a word ask for. Raises ExportError where they do not fit."""
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


def _write_pt2(program: Program, path: Path, metadata: dict[str, Any]) -> float:
    buffer = io.BytesIO()
    try:
        with quiet():
            torch.export.save(program.traced, buffer, extra_files={METADATA: json.dumps(metadata)})
            path.write_bytes(buffer.getvalue())
            loaded = torch.export.load(io.BytesIO(path.read_bytes())).module()
    except OSError:
        raise
    except Exception as error:
        raise ExportError(f"torch.export cannot save this model: {one_line(error)}") from error
    return check(program, lambda inputs: leaves(loaded(*inputs)))


def _write_aoti(program: Program, path: Path, metadata: dict[str, Any]) -> float:
    from torch._inductor import aoti_compile_and_package, aoti_load_package
    from torch._inductor.exc import InvalidCxxCompiler

    # A package's metadata is a flat table of strings.
    described = {"lumos": json.dumps(metadata), "features": json.dumps(metadata["features"])}
    with tempfile.TemporaryDirectory() as folder:
        package = str(Path(folder) / "model.pt2")
        traced = copy.copy(program.traced)
        traced.example_inputs = (program.example, {})
        try:
            with quiet():
                aoti_compile_and_package(
                    traced, package_path=package, inductor_configs={"aot_inductor.metadata": described}
                )
                loaded = aoti_load_package(package)
        except InvalidCxxCompiler:
            raise ExportError("format=aoti needs a C++ compiler (g++ or clang); install one, or set CXX") from None
        except OSError:
            raise
        except Exception as error:
            raise ExportError(f"torch's compiler cannot package this model: {one_line(error)[:300]}") from error
        worst = check(program, lambda inputs: leaves(loaded(*inputs)))
        shutil.copyfile(package, path)
    return worst


__all__ = ["METADATA", "Exported", "Format", "export", "exportable", "format_of"]
