"""Compact models as files: tensors in the safetensors format, all else as JSON in its header. No pickle, no code.

``torch.save`` wrote the files of the first format; they are still read, as data alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lumos.errors import CompactionError
from lumos.files import atomic

FORMAT, FIRST_FORMAT = "lumos-compact-2", "lumos-compact-1"
HEADER = "lumos"
"""The one entry of the header's metadata: safetensors orders several of them by chance, so that files would differ."""


@dataclass(frozen=True)
class CompactFile:
    """What a file of a compact model holds.

    Attributes:
        state: The model's tensors by name; those that share a parameter are one tensor.
        inputs: What stays of each input, as plain values: path, dim, kept indices and width.
        features: Names of the features that are kept.
        attributes: Whole numbers of modules that follow the sizes, by module path and attribute.
        layers: Layers that have another class, by path, with what that class needs to know.
    """

    state: dict[str, Tensor]
    inputs: list[dict[str, Any]]
    features: list[str]
    attributes: dict[str, dict[str, int]] = field(default_factory=dict)
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)


def write(path: Path, content: CompactFile) -> None:
    """Write a file, whole or not at all.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    names: dict[int, str] = {}
    shared: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, t in content.state.items():
        first = names.setdefault(id(t), name)
        if first != name:
            shared[name] = first
            continue
        t = t.detach().cpu()
        tensors[name] = (torch.view_as_real(t.resolve_conj()) if t.is_complex() else t).contiguous().clone()
    header = {
        "format": FORMAT,
        "inputs": content.inputs,
        "features": content.features,
        "attributes": content.attributes,
        "layers": content.layers,
        "shared": shared,
        "complex": [name for name in tensors if content.state[name].is_complex()],
    }
    with atomic(path) as temporary:
        temporary.write_bytes(save(tensors, {HEADER: json.dumps(header)}))


def read(path: Path) -> CompactFile:
    """Read a file of either format.

    Raises:
        CompactionError: There is no such file, or it is not a compact model's.
    """
    if not path.exists():
        raise CompactionError(f"{path}: there is no such file; save a compact model there first")
    header, tensors = _read_safetensors(path) if is_safetensors(path) else _read_first_format(path)
    if header.get("format") not in (FORMAT, FIRST_FORMAT):
        raise CompactionError(f"{path}: not a compact model that LUMOS wrote (expected format {FORMAT})")
    try:
        inputs, features = header["inputs"], header["features"]
    except KeyError as error:
        raise CompactionError(f"{path}: damaged, its header lacks {error}") from None
    return CompactFile(tensors, inputs, features, header.get("attributes", {}), header.get("layers", {}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors alone of any file in the safetensors format.

    Raises:
        CompactionError: It is a damaged file of a compact model.
    """
    return _read_safetensors(path)[1]


def is_safetensors(path: Path) -> bool:
    """Tell whether a file is in the safetensors format, whatever its name."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        # Copies: the tensors as they are would lie in the file.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 -- it is no dict
        metadata = file.metadata() or {}
    try:
        header = json.loads(metadata.get(HEADER, "{}"))
        for name in header.get("complex", ()):
            tensors[name] = torch.view_as_complex(tensors[name])
        for name, first in header.get("shared", {}).items():
            tensors[name] = tensors[first]
    except (ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise CompactionError(f"{path}: damaged, its header does not fit its tensors ({error!r})") from None
    return header, tensors


def _read_first_format(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CompactionError(f"{path}: not a compact model that LUMOS wrote ({type(error).__name__})") from error
    if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict):
        return {}, {}
    return saved, saved["state"]
