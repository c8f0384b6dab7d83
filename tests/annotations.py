"""Which annotations the tests execute: those of shapes, as PEP 484 means them, where an int is also a float."""

import re

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
SHAPE = re.compile(r"\b(Float|Int|Integer|Bool|Num|Shaped|Complex)\d*\[")
_jaxtyped = jaxtyping.jaxtyped


def execute_shapes():
    """Execute the annotations of every function and class of lumos that names the shape of an array.

    The others are pyright's: to execute them too doubles the time of the tests, since each call binds its arguments
    once more.
    """
    jaxtyping.jaxtyped = _jaxtyped_where_shapes
    return jaxtyping.install_import_hook(("lumos",), "tests.annotations.check")


def _jaxtyped_where_shapes(*, typechecker):
    execute = _jaxtyped(typechecker=typechecker)
    return lambda what: execute(what) if names_shapes(what) else what


def names_shapes(what) -> bool:
    """Whether an annotation of a function, or of a class itself, is an array with a shape."""
    return any(SHAPE.search(str(a)) for a in getattr(what, "__annotations__", {}).values())
