"""Files of ONNX: written by torch's exporter, described, and run by onnxruntime to check them."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumos.compaction.double_precision import to_double
from lumos.errors import ExportError, one_line
from lumos.exporting.checks import check
from lumos.exporting.onnx_operators import translations, without_complex_products
from lumos.exporting.program import Program, quiet, rename, trace_program

DOUBLE = 1e-6
"""Allowed difference of a float64 copy: onnxruntime's LayerNormalization keeps its statistics in float32, ~1e-9."""


def require() -> None:
    """Check that the packages of the extra ``export`` are installed.

    Raises:
        ExportError: One of them is not.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            with quiet():
                __import__(name)
        except ImportError:
            raise ExportError(f"ONNX files need {name}: pip install 'lumos-sciml[export]'") from None


def write(program: Program, path: Path, metadata: dict[str, Any], double: bool = True) -> tuple[float, float | None]:
    """Write and check a file; returns how far it is from the model, and how far a float64 copy is if wanted."""
    path.write_bytes(converted(program, metadata))
    worst = check(program, session(path.read_bytes()))
    if any(t.dtype == torch.float64 for t in (*program.example, *program.flat.parameters())):
        return worst, worst
    return worst, _in_double(program, metadata) if double else None


def converted(program: Program, metadata: dict[str, Any]) -> bytes:
    """Convert a program to the bytes of an ONNX file.

    Raises:
        ExportError: The message names the operator that ONNX does not have.
    """
    try:
        with quiet(), torch.no_grad():
            found = torch.onnx.export(
                without_complex_products(program.traced),
                (),
                dynamo=True,
                verbose=False,
                input_names=list(program.input_names),
                output_names=list(program.output_shapes),
                custom_translation_table=translations(),
            )
            assert found is not None
            proto = found.model_proto
            _name_sizes(proto, program)
            for key in ("lumos", "features"):
                entry = proto.metadata_props.add()
                entry.key, entry.value = key, json.dumps(metadata if key == "lumos" else metadata["features"])
            return proto.SerializeToString()
    except Exception as error:
        raise ExportError(f"not to be written as ONNX: {_why(error)}; a .pt2 file may still be") from error


def session(data: bytes) -> Any:
    """Load an ONNX file as a function of tensors that runs on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        loaded = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"onnxruntime does not take the file: {one_line(error)}") from error
    names = [i.name for i in loaded.get_inputs()]

    def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        feed = {name: t.numpy() for name, t in zip(names, inputs, strict=True)}
        return [torch.from_numpy(a) for a in loaded.run(None, feed)]

    return run


def _in_double(program: Program, metadata: dict[str, Any]) -> float | None:
    """The difference of a float64 copy, where model, ONNX and onnxruntime have all of its operators in float64."""
    flat = copy.deepcopy(program.flat)
    to_double(flat)
    inputs = tuple(t.double() if t.is_floating_point() else t for t in program.example)
    try:
        double = trace_program(flat, inputs)
        run = session(converted(double, metadata))
        run(inputs)
    except Exception:  # each of the three libraries has its own errors for an operator that it lacks
        return None
    return check(double, run, DOUBLE)


def _name_sizes(proto: Any, program: Program) -> None:
    """Give the sizes their names: batch instead of s27."""
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    for value in values:
        shape = value.type.tensor_type.shape.dim
        known = program.output_shapes.get(value.name, ())
        for axis, dim in enumerate(shape):
            if dim.dim_param:
                named = known[axis] if len(known) == len(shape) else rename(dim.dim_param, program.names)
                dim.dim_param = str(named)


def _why(error: BaseException) -> str:
    """The operator and the reason, from the chain of the exporter's errors."""
    text = str(error)
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", text)
    if missing:
        return f"ONNX has no {missing[1]}"
    found = re.search(r"<class '[\w.]+'>: (.*)", text)
    return one_line(Exception((found[1] if found else text.strip())[:200]))
