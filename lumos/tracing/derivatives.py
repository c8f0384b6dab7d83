"""Models that take derivatives in their own forward: forces, Hamiltonian networks, differential equations."""

from __future__ import annotations

import re

from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]


def is_transformed(t: Tensor) -> bool:
    """Tell whether a transform of ``torch.func`` (``vmap``, ``grad``…) runs on a tensor."""
    return _functorch.is_functorch_wrapped_tensor(t)


def untransformed(t: Tensor) -> Tensor:
    """Return the tensor that transforms of ``torch.func`` took, under all of them; any other tensor as it is.

    Example:
        >>> import torch
        >>> x = torch.randn(3)
        >>> torch.func.grad(lambda t: t.sum() if untransformed(t) is x else t.sum() * 2)(x)
        tensor([1., 1., 1.])
    """
    while is_transformed(t):
        t = _functorch.get_unwrapped(t)
    return t


def asks_for_gradients(error: Exception) -> bool:
    """Tell whether this is what autograd raises where a model takes a derivative and gradients are off.

    Example:
        >>> import torch
        >>> with torch.inference_mode():
        ...     try:
        ...         torch.autograd.grad(torch.ones(1).sum(), torch.ones(1))
        ...     except RuntimeError as error:
        ...         asks_for_gradients(error)
        True
    """
    of_autograd = re.search(r"requires? grad|requires_grad|[Ii]nference tensor", str(error))
    return isinstance(error, RuntimeError) and of_autograd is not None
