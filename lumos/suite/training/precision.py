"""Arithmetic of the training steps: their precision, and whether a GPU takes deterministic algorithms."""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["fp32", "tf32", "bf16"]


def set_arithmetic(precision: Precision | None, *, deterministic: bool) -> None:
    """Choose how a GPU computes, for the whole process.

    Args:
        precision: ``tf32`` for matrix products as for convolutions, ``fp32`` for neither, None for torch's own choice:
            convolutions alone.
        deterministic: Whether algorithms with the same digits each time are taken; else the fastest ones.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)


def autocast(precision: Precision | None, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a step computes its loss: with ``bf16`` torch's autocast, else none.

    Parameters stay fp32, and with them gates, gradients and the optimizer's state; scores are computed outside of it.

    Example:
        >>> with autocast("bf16", torch.device("cpu")):
        ...     print((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        torch.bfloat16
    """
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
