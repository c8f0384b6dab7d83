"""What keeps a training from waiting for a GPU: copies of index tensors made once, and numbers left where they are."""

from __future__ import annotations

import torch
from torch import Tensor


def read_at_once(tensor: Tensor) -> bool:
    """Tell whether a number can be read from a tensor without waiting: from a CPU's; a GPU has to finish its queue."""
    return tensor.device.type == "cpu"


class Placed:
    """Copies of tensors on other devices, each made once: a copy to a GPU waits for all that it has to do.

    Example:
        >>> placed, index = Placed(), torch.arange(3)
        >>> placed.on(index, torch.device("meta")) is placed.on(index, torch.device("meta"))
        True
        >>> placed.on(index, torch.device("cpu")) is index
        True
    """

    def __init__(self) -> None:
        self._copies: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def on(self, tensor: Tensor, device: torch.device) -> Tensor:
        """Return a tensor that does not change, on a device."""
        if tensor.device == device:
            return tensor
        key = (id(tensor), device)  # the tensor is kept along, so that no other one gets its id
        if key not in self._copies:
            self._copies[key] = (tensor, tensor.to(device))
        return self._copies[key][1]

    def __reduce__(self) -> tuple[type[Placed], tuple[()]]:
        """A copy begins without any: ids name other tensors there."""
        return Placed, ()


def to_gpu(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor that changes to a device; to a GPU from page-locked memory, without waiting for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
