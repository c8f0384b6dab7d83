"""Running a model in float64, whatever precision its own code asks for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def to_double(model: nn.Module) -> nn.Module:
    """Convert every real tensor of a model to float64 and every complex one to complex128, in place."""
    return model._apply(lambda t: t.double() if t.is_floating_point() else t.to(_WIDE) if t.is_complex() else t)


_WIDE = torch.complex128


class DoublePrecision(TorchFunctionMode):
    """Makes double precision of the single precision that code inside its ``with`` block asks for."""

    def __enter__(self) -> DoublePrecision:
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.set_default_dtype(self._default)
        super().__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # No function of torch takes a dtype inside a list or a dict.
        args = [_wider(x) for x in args]
        kwargs = {name: _wider(x) for name, x in (kwargs or {}).items()}
        return _WIDER_CALLS.get(func, func)(*args, **kwargs)


def _wider(x: Any) -> Any:
    return _WIDER.get(x, x) if isinstance(x, torch.dtype) else x


_WIDER = {torch.float32: torch.float64, torch.complex64: torch.complex128}
_WIDER_CALLS: dict[Any, Any] = {Tensor.float: Tensor.double, Tensor.cfloat: Tensor.cdouble}  # pyright: ignore
