"""A model and its gates as one module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from lumos.gating.gates import Gates, rounded_up
from lumos.gating.hard_concrete import median
from lumos.gating.layers import along, put_gates
from lumos.gating.settings import GateSettings, Penalty
from lumos.gating.sites import Sites
from lumos.shapes import Float
from lumos.tracing.inputs import as_positional
from lumos.tracing.modules import named_tensors
from lumos.tracing.structure import Axis, Structure


class GatedModel(nn.Module):
    """A model with one gate per removable unit; called as the model is.

    In training mode the gates are sampled once for every step of an optimizer: all calls in between, those that a
    backward pass makes again included, see the same network. In eval mode they have their test-time values. Other
    methods and attributes of the model are those of ``gated.model``, and see the gates too.

    Args:
        model: The model; its modules get classes that read weights through gates, so that it has to be a copy where
            the user's own is to stay as it is (:func:`lumos.gate` makes one, which shares the parameters).
        structure: What can be removed.
        settings: The shape of the gates' distribution.
        gates: The gates of another model of the same structure, to share them; new ones by default.
    """

    def __init__(
        self, model: nn.Module, structure: Structure, settings: GateSettings, gates: Gates | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.structure = structure
        self.gates = Gates(structure.groups, settings) if gates is None else gates
        self._axes: list[Axis] = list(structure.sites)
        self._may_close = any(group.optional for group in structure.groups)
        self._sites = Sites(self.gates, structure, Sites.index_of(structure))
        put_gates(model, structure, self._sites)
        self._first = _holder_of_first(model, self._axes)
        self._selected: Callable[..., tuple[Any, ...]] | None = None
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        if device != self.gates.log_alpha.device:
            self.gates.to(device)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the model's output with every gate applied."""
        if self._selected is not None:
            args, kwargs = as_positional(self.model, args, kwargs)
            return self.model(*self._selected(*args), **kwargs)
        self._refresh()
        with self._sites.call():
            return self.model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute or a method of the model, where this class has none of that name."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            model = self.__dict__.get("_modules", {}).get("model")
            if model is None or (name.startswith("__") and name.endswith("__")):
                raise
            found = getattr(model, name)
            if callable(found) and self.__dict__.get("_selected", self) is None:
                self._refresh()  # it may be called, and read weights
            return found

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the model's ``forward``, for those who ask what it takes."""
        return inspect.signature(self.model.forward)

    def _refresh(self) -> None:
        module, key = self._first
        weight = None if module is None else module._parameters.get(key)
        self._sites.refresh(() if weight is None else (weight,))

    def resample(self) -> None:
        """Draw new gates at the next call in training mode, whether or not an optimizer has taken a step."""
        self._sites.resample()

    def draw(self, generator: torch.Generator | None = None) -> None:
        """Draw the gates' noise now, and keep it until the next call of this: steps are told, and no longer seen."""
        self.hold(self.gates.drawn(generator))

    def hold(self, noise: Float[Tensor, " units"] | None) -> None:
        """Let the gates have this noise until they are told another one."""
        self.gates.noise = noise
        self._sites.held = noise is not None
        self._sites.resample()

    def become(self, model: nn.Module, selected: Callable[..., tuple[Any, ...]]) -> None:
        """Go on as a model without gates: the compact one, once the closed units are cut.

        Args:
            model: What is called from now on.
            selected: Takes the arguments of a call, and returns those of the model: inputs less closed features.
        """
        self.model, self._selected = model, selected

    @property
    def is_cut(self) -> bool:
        """Whether the closed units are cut already, so that this is a compact model without gates."""
        return self._selected is not None

    def without_gates(self, reader: Callable[[Tensor], Tensor] = lambda weight: weight) -> AbstractContextManager[None]:
        """Let the model read its weights without gates, within a ``with`` block: as they are, or through ``reader``."""
        return self._sites.without(reader)

    def effective_parameters(self) -> dict[str, Tensor]:
        """Return the weights with the test-time gates folded in: the parameters of the function of eval mode."""
        own = named_tensors(self.model)
        with torch.no_grad():
            return {name: own[name] * m for name, m in self.multipliers().items()}

    def input_gates(self) -> dict[str, Tensor]:
        """Return the test-time gates that multiply inputs of modules (norms on a stream), by the module's path."""
        return {path: value for (path, dim), value in self._test_time().items() if dim < 0}

    def multipliers(self) -> dict[str, Tensor]:
        """Return, for each gated weight, what the test-time gates multiply it with, broadcastable to its shape."""
        out: dict[str, Tensor] = {}
        own = named_tensors(self.model)
        for (name, dim), value in self._test_time().items():
            if dim >= 0:
                # In the weight's precision, as the weight is multiplied where it is read.
                value = along(value, dim, own[name].ndim).to(torch.promote_types(value.dtype, _real(own[name].dtype)))
                out[name] = out[name] * value if name in out else value
        return out

    @torch.no_grad()
    def _test_time(self) -> dict[Axis, Tensor]:
        return self._sites.of(median(self.gates.log_alpha, self.gates.settings))

    def penalty(self, kind: Penalty = "gates") -> Float[Tensor, ""]:
        """The complexity L_C of equation 6, in units of gates: the full network always counts the number of its gates.

        ``gates``: the expected number of open gates (equations 4 and 5), each times its price. ``params`` and
        ``macs``: the expected share of the dense network's parameters or multiply-accumulates, times the number of
        gates.
        """
        probability = self.gates.expected_open()
        if kind == "gates":
            return self.structure.priced(probability).sum()
        which = {"params": 0, "macs": 1}[kind]
        share = self.structure.expected_sizes(probability)[which] / self.structure.dense_sizes[which]
        return share * self.structure.units

    def project(self, *, look: bool = True) -> None:
        """After an optimiser's step: keep the gates in bounds and the network whole.

        Groups that are optional one by one may cut the network together; those that did are protected from then on.

        Args:
            look: Whether to look for such groups; on a GPU the look waits for all that is queued.
        """
        if self.gates.project() or not (look and self._may_close) or bool(self.gates.protected.all()):
            return
        is_open = self.gates.is_open()
        closed = self.structure.closed_groups(is_open)
        if closed and not self.structure.dataflow.outputs_depend_on_inputs(self.structure.closed_axes(is_open)):
            for number, group in enumerate(self.structure.groups):
                if group in closed:
                    self.gates.protected[number] = True
            self.gates.project()

    @torch.no_grad()
    def align(self, multiple: int) -> None:
        """Round the open units of each hidden group up to a multiple: the widest closed gates are opened by a half."""
        log_alpha, is_open = self.gates.log_alpha, self.gates.is_open()
        log_alpha[rounded_up(self.structure.groups, log_alpha, is_open, multiple) & ~is_open] = 0.0

    def kept_features(self) -> list[str]:
        """Names of the input features whose gates are open at test time."""
        return self.structure.kept_features(self.gates.is_open())


def _real(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype


def _holder_of_first(model: nn.Module, axes: Sequence[Axis]) -> tuple[nn.Module | None, str]:
    """The module that holds the first gated weight, and the weight's name in it."""
    name = next((name for name, dim in axes if dim >= 0), None)
    if name is None:
        return None, ""
    path, _, key = name.rpartition(".")
    return model.get_submodule(path), key
