"""One call of torch as a tracer sees it: its plain name, its operands and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

Axis = tuple[str, int]
"""One dimension of one parameter or buffer: its name in the model, and the dimension."""

SHAPING = ("view", "reshape", "unflatten")
"""Calls that give a tensor a shape: a compact model can exchange the sizes that a model's code writes in them."""

SPLITTING = ("split", "split_with_sizes")
"""Calls that cut a tensor into parts of sizes that the code writes: a compact model can exchange these too."""

DIFFERENTIATES = ("grad", "backward")
"""Calls that differentiate: forces in a potential, derivatives in a network of a differential equation."""


@dataclass
class Call:
    """One intercepted call: the function's plain name, its arguments and its result.

    Args:
        name: The function's plain name (:func:`plain_name`).
        func: The function itself.
        args: Positional arguments.
        kwargs: Keyword arguments.
        tensors: The tensors among the arguments, in order.
        outputs: The tensors in the result, in order.
        axis: The weight's axis through which the call reads its operands; its rule sets it.
    """

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tensors: list[Tensor]
    outputs: list[Tensor]
    axis: Axis | None = None

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument that is given by position or by name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)


def plain_name(func: Any) -> str:
    """Return a function's name without dunders, in-place marks and reflections.

    ``__iadd__``, ``add_``, ``__radd__`` and ``add`` are all ``add``; reading the attribute ``T`` is ``get_T``.
    """
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        return f"get_{getattr(func.__self__, '__name__', '')}"
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
        if name in _REFLECTED:
            name = name[1:]
    return name.rstrip("_")


def draws_noise(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a call draws random numbers; dropout that is switched off draws none."""
    if name == "scaled_dot_product_attention":
        return bool(args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0))
    if "dropout" in name:
        return bool(args[2] if len(args) > 2 else kwargs.get("training", True))
    return name in _DRAWS


_DRAWS = frozenset(
    """rand rand_like randn randn_like randint randint_like randperm multinomial poisson exponential uniform normal
    bernoulli gumbel_softmax log_normal geometric cauchy""".split()  # noqa: SIM905
)


def tensor_leaves(value: Any, found: list[Tensor]) -> list[Tensor]:
    """Add the tensors in a call's operands or result to ``found``, in order, and return it.

    Looks into tuples, lists and dicts. torch's pytree does the same and is far slower.
    """
    if type(value) in _PLAIN:
        pass
    elif isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, (tuple, list)):
        for item in value:
            tensor_leaves(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            tensor_leaves(item, found)
    return found


_PLAIN = {type(None), bool, int, float, str}
_REFLECTED = {f"{p}{op}" for p in "ir" for op in ("add", "sub", "mul", "truediv", "floordiv", "pow", "matmul", "mod",
                                                  "div", "and", "or", "xor")}  # fmt: skip
