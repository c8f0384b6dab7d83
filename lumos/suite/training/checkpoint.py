"""Checkpoints of a training: whole or not at all, verified when they are read, the last two kept. No pickle."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumos.errors import RecordError
from lumos.files import atomic
from lumos.suite.console import log

MAGIC = b"lumos-checkpoint-1"


class Store:
    """Where one training keeps its checkpoints: ``name`` in ``folder``, and the one before beside it.

    ``identity`` says which training it is (run, data, phase); a checkpoint of another one is refused. A checkpoint is
    due every ``seconds`` and every ``steps``, where given.
    """

    def __init__(
        self, folder: Path, name: str, identity: dict[str, Any], seconds: float | None = None, steps: int | None = None
    ) -> None:
        self.folder, self.identity = folder, identity
        self.path, self.previous = folder / f"{name}.ckpt", folder / f"{name}.previous.ckpt"
        self.seconds, self.steps = seconds, steps
        self.saved_at, self.last_step = time.monotonic(), 0

    def due(self, step: int) -> bool:
        """Tell whether it is time for a checkpoint after this step."""
        by_clock = self.seconds is not None and time.monotonic() - self.saved_at >= self.seconds
        return by_clock or (self.steps is not None and step - self.last_step >= self.steps)

    def save(self, state: dict[str, Any], step: int) -> bool:
        """Write a checkpoint; where that fails, say so, keep the last one and let the training go on."""
        try:
            write(self.path, self.previous, {"identity": self.identity, "state": state})
        except OSError as error:
            log.warning(f"{self.path}: no checkpoint could be written ({error.strerror or error}); going on without")
            return False
        finally:
            self.saved_at, self.last_step = time.monotonic(), step
        return True

    def save_weights(self, weights: dict[str, Tensor] | None) -> str:
        """Write the last good weights of a training that failed, as a state dict; returns what to say of it."""
        if weights is None:
            return ""
        path = self.folder / "last_good.pt"
        try:
            save_tensors(path, weights)
        except OSError:
            return ""
        return f"the last good weights are in {path}; "

    def candidates(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Read the states to go on from, the newest first; what cannot be used is named in the log and passed over."""
        for stale in self.folder.glob(f".{self.path.name}.*.tmp"):
            stale.unlink(missing_ok=True)
        for path in (self.path, self.previous):
            if not path.exists():
                continue
            try:
                saved = read(path)
                if saved["identity"] != self.identity:
                    raise RecordError(f"{path}: checkpoint of another training, {_other(saved, self.identity)}")
            except RecordError as error:
                log.warning(f"{error}; passed over")
                continue
            yield path, saved["state"]

    def clear(self) -> None:
        """Delete the checkpoints: the training is finished, or starts anew."""
        for path in (self.path, self.previous):
            path.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a state dict, whole or not at all. Raises OSError."""
    file = io.BytesIO()
    torch.save({name: t.detach().cpu() for name, t in tensors.items()}, file)
    with atomic(path) as temporary:
        temporary.write_bytes(file.getvalue())


def write(path: Path, previous: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path``; what was there before becomes ``previous``. Raises OSError."""
    file = io.BytesIO()
    torch.save(content, file)
    body = file.getvalue()
    with atomic(path) as temporary:
        temporary.write_bytes(MAGIC + b" " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        if path.exists():
            path.replace(previous)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint, its tensors on the CPU. Raises RecordError where it is damaged or none of ours."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror or error})") from None
    magic, _, digest = head.partition(b" ")
    if magic != MAGIC:
        raise RecordError(f"{path}: not a checkpoint that LUMOS wrote (expected {MAGIC.decode()})")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise RecordError(f"{path}: damaged checkpoint, its checksum does not match")
    try:
        content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        return {"identity": content["identity"], "state": content["state"]}
    except Exception as error:  # whatever torch raises for it, the file is of no use
        raise RecordError(f"{path}: cannot be read by this torch ({type(error).__name__})") from error


def _other(saved: dict[str, Any], identity: dict[str, Any]) -> str:
    theirs = saved["identity"] if isinstance(saved["identity"], dict) else {}
    key = next((k for k in identity if theirs.get(k) != identity[k]), "identity")
    return f"{key} {theirs.get(key)}, expected {identity.get(key)}"
