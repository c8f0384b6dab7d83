"""Loops that run as machine code."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile the function to machine code, which is kept on disk and runs outside Python's lock."""
    # The tests wrap every function to check its annotations; only what is inside can be compiled.
    return numba.njit(cache=True, nogil=True)(inspect.unwrap(function))
