"""Start from a pretrained network: read its tensors, and say what learns on where the backbone is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lumos.compaction import compact_file
from lumos.errors import ConfigError, RecordError
from lumos.suite.console import log
from lumos.suite.training import checkpoint
from lumos.tracing.structure import OUTPUT, Structure

WRAPPERS = ("state_dict", "model_state_dict", "model", "state")
"""Names under which files keep a state dict among other things; ``state`` is that of our own compact.pt."""
SHOWN = 3
"""How many tensors of each kind an error names."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of a file: a state dict of torch (no code is run), safetensors, or one that LUMOS wrote.

    Our own are ``dense.pt``, ``compact.pt`` and the checkpoints ``*.ckpt``. Raises ConfigError.
    """
    try:
        if path.suffix == ".ckpt":
            state = checkpoint.read(path)["state"]
            content: Any = state.get("average") or state  # what was scored
        elif compact_file.is_safetensors(path):
            content = compact_file.read_tensors(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except RecordError as error:
        raise ConfigError(f"init_from={error}") from None
    except Exception as error:  # torch has many for a file that is none of its own
        raise ConfigError(
            f"init_from={path}: cannot be read ({type(error).__name__}); expected a state dict that torch.save wrote, "
            "safetensors, or a dense.pt, compact.pt or .ckpt of LUMOS"
        ) from None
    while isinstance(content, Mapping) and not _is_state(content):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not _is_state(content):
        raise ConfigError(f"init_from={path}: holds no state dict; expected tensors by the names of parameters")
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if any(name.startswith("gates.") for name in tensors):  # a gated model: its gates are not taken over
        tensors = {name: t for name, t in tensors.items() if name.startswith("model.")}
    for prefix in ("module.", "model."):
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items()}
    return tensors


def _is_state(content: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def initialize(model: nn.Module, path: Path, strict: bool = True) -> None:
    """Give a model the tensors of a file. Raises ConfigError, and where ``strict`` also unless all of them fit.

    Otherwise those that fit are taken, and the log names the rest.
    """
    found, own = read_weights(path), model.state_dict()
    fit = {name: t for name, t in found.items() if name in own and t.shape == own[name].shape}
    kinds = {
        "missing": [name for name in own if name not in found],
        "unknown": [name for name in found if name not in own],
        "of another shape": [f"{name} {tuple(found[name].shape)}, expected {tuple(own[name].shape)}"
                             for name in own if name in found and name not in fit],
    }  # fmt: skip
    wrong = "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''})"
        for kind, names in kinds.items()
        if names
    )
    if (wrong and strict) or not fit:
        advice = "init_strict=false takes those that fit" if fit else "is it a network of this workload and scale?"
        raise ConfigError(f"init_from={path}: {len(fit)} of {len(own)} tensors fit, {wrong}; {advice}")
    model.load_state_dict(fit, strict=False)
    log.info(
        f"{len(fit)} of {len(own)} tensors from {path}{f'; as the seed made them or left out: {wrong}' * bool(wrong)}"
    )


def learning(model: nn.Module, structure: Structure) -> list[str]:
    """List the parameters that learn beside the gates where the backbone is frozen: embeddings and the head.

    The embeddings are all ``nn.Embedding`` and ``nn.EmbeddingBag``; the head are the layers whose own outputs are
    outputs of the model, as the trace saw it.
    """
    heads = {fixed.name for fixed in structure.fixed if fixed.reason == OUTPUT}
    kept: list[str] = []
    for path, module in model.named_modules():
        if path in heads or isinstance(module, nn.Embedding | nn.EmbeddingBag):
            kept += [f"{path}.{name}" if path else name for name, _ in module.named_parameters(recurse=path in heads)]
    return list(dict.fromkeys(kept))


def freeze_backbone(model: nn.Module, structure: Structure) -> None:
    """Let only embeddings and head of a model learn; batch statistics go on following the data. Raises ConfigError."""
    names = set(learning(model, structure))
    if not names:
        raise ConfigError("freeze_backbone=true: this model has neither an embedding nor a layer at its outputs")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    log.info(f"backbone frozen; {', '.join(sorted(names))} learn")
