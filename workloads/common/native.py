"""Loops that run as machine code."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code, kept on disk, and free to run beside other threads."""
    # The tests wrap every function to check its annotations; only what is inside can be compiled.
    return numba.njit(cache=True, nogil=True)(inspect.unwrap(function))
