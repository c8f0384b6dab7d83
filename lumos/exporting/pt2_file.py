"""Files of torch.export: a program, or one compiled to machine code, each with its description inside."""

from __future__ import annotations

import copy
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from lumos.errors import ExportError, one_line
from lumos.exporting.checks import check, leaves
from lumos.exporting.program import Program, quiet

METADATA = "lumos.json"
"""Name of the description inside a ``.pt2`` file; in ONNX it is the metadata property ``lumos``."""


def write(program: Program, path: Path, metadata: dict[str, Any]) -> float:
    """Write and check a program; returns the largest relative difference to the model."""
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


def write_compiled(program: Program, path: Path, metadata: dict[str, Any]) -> float:
    """Compile, write and check a program; returns the largest relative difference to the model."""
    # Only here: it takes a second to import.
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
