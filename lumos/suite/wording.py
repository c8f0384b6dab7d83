"""Phrases of error messages."""

import difflib
from collections.abc import Iterable


def one_of(allowed: Iterable[object]) -> str:
    """Return the allowed values as a phrase."""
    return "one of " + ", ".join(str(a) for a in allowed)


def did_you_mean(word: str, allowed: Iterable[object]) -> str:
    """Return a hint where a known word is near, else nothing."""
    near = difflib.get_close_matches(word, [str(a) for a in allowed], n=1)
    return f" (did you mean {near[0]}?)" if near else ""
