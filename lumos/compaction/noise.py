"""Noise that does not depend on how many units there are, so that two models of different widths draw the same."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lumos.tracing.calls import plain_name
from lumos.tracing.structure import Structure


class EqualNoise(TorchFunctionMode):
    """Within its ``with`` block each call that draws random numbers gets one number, the same at every place.

    What a model computes with noise (a variational autoencoder, Monte Carlo dropout) is compared for some values of
    the noise. Dropout keeps everything.

    Example:
        >>> with EqualNoise():
        ...     a = torch.randn(2)
        >>> with EqualNoise():
        ...     b = torch.randn(3)
        >>> bool(a[0] == b[2])
        True
    """

    def __enter__(self) -> EqualNoise:
        self._draws = random.Random(0)
        self._state = torch.get_rng_state()
        torch.manual_seed(0)  # of what draws whole numbers
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_rng_state(self._state)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = plain_name(func)
        if name in KEEPS:
            return args[0] if args else kwargs["input"]
        if name == "scaled_dot_product_attention":
            if len(args) > 4:
                args = (*args[:4], 0.0, *args[5:])
            else:
                kwargs = {**kwargs, "dropout_p": 0.0}
        draw = DRAWS.get(name)
        if draw is None:
            return func(*args, **kwargs)
        in_place = getattr(func, "__name__", "").endswith("_")
        given = [a.clone() if isinstance(a, Tensor) else a for a in args[in_place:]]
        out = func(*args, **kwargs)
        with torch.no_grad():
            value = draw(given, kwargs, self._draws.random(), self._draws.gauss(0.0, 1.0))
            return out.copy_(torch.as_tensor(value, dtype=out.dtype, device=out.device))


def noise_of(structure: Structure) -> AbstractContextManager[object]:
    """Return what makes two runs of a traced model's versions draw the same noise, where it draws any."""
    return EqualNoise() if structure.noisy else nullcontext()


def _given(args: list[Any], kwargs: dict[str, Any], names: str, defaults: tuple[float, float]) -> list[Any]:
    return [
        args[i] if i < len(args) else kwargs.get(name, defaults[i])
        for i, name in enumerate(names.split())
    ]  # fmt: skip


def _between(args: list[Any], kwargs: dict[str, Any], uniform: float, normal: float) -> Any:
    low, high = _given(args, kwargs, "from to", (0.0, 1.0))
    return low + (high - low) * uniform


def _of_mean(args: list[Any], kwargs: dict[str, Any], uniform: float, normal: float) -> Any:
    mean, std = _given(args, kwargs, "mean std", (0.0, 1.0))
    return mean + std * normal


def _flags(args: list[Any], kwargs: dict[str, Any], uniform: float, normal: float) -> Any:
    (share,) = _given(args, kwargs, "p", (0.5, 0.5))
    return torch.as_tensor(uniform < share)


DRAWS: dict[str, Callable[[list[Any], dict[str, Any], float, float], Any]] = {
    "rand": lambda args, kwargs, uniform, normal: uniform,
    "rand_like": lambda args, kwargs, uniform, normal: uniform,
    "randn": lambda args, kwargs, uniform, normal: normal,
    "randn_like": lambda args, kwargs, uniform, normal: normal,
    "exponential": lambda args, kwargs, uniform, normal: -math.log(1 - uniform),
    "uniform": _between,
    "normal": _of_mean,
    "bernoulli": _flags,
}
"""Calls that draw, by plain name: what they return at every place, of their arguments and of a uniform and a normal
number."""
KEEPS = frozenset(
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout".split()  # noqa: SIM905
)
"""Calls that return their operand instead of a random part of it."""
