"""Annotations of tensors with their shapes, such as ``Float[Tensor, "rows features"]``.

They are jaxtyping's, and the tests execute them. Where jaxtyping is not installed they say nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
else:
    try:
        from jaxtyping import Bool, Float, Int
    except ImportError:

        class Bool:
            """In place of jaxtyping's: the plain type of the array."""

            def __class_getitem__(cls, item):
                return item[0]

        Float = Int = Bool

__all__ = ["Bool", "Float", "Int"]
