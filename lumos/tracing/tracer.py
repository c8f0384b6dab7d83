"""Runs a model once and lets a rule say, call by call, what happens to the units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from lumos.errors import StructureError
from lumos.tracing.calls import DIFFERENTIATES, Call, draws_noise, plain_name, tensor_leaves
from lumos.tracing.containers import map_tensors
from lumos.tracing.costs import COUNTED, macs_of
from lumos.tracing.derivatives import is_transformed, untransformed
from lumos.tracing.modules import named_modules, named_tensors, structural_copy
from lumos.tracing.multihead_attention import decompose_attention
from lumos.tracing.options import StructureOptions
from lumos.tracing.protection import TensorProtection, own_grads
from lumos.tracing.rules import ELEMENTWISE, streams
from lumos.tracing.shape_only import ValuesRead, reads_values, zeros_like_output
from lumos.tracing.trace import Rule, Trace


class Tracer(TorchFunctionMode):
    """Runs a copy of a model's modules and keeps a :class:`Trace` of what its calls do to units.

    The copy shares the model's parameters and buffers. What its code stores on its modules stays with the copy, and
    what it writes into parameters and buffers is taken back, so that the model is as it was, whatever happens.

    Args:
        model: The model.
        rules: The rule of each kind of call, by plain name. A call without a rule freezes the units that enter it.
        options: What more of the model is made removable.
        gradients: Whether the model runs with gradients, since its own code asks for some (forces). A model that asks
            without raises :class:`GradientsAsked`.
        skip_compute: Do not compute costly products; zeros of their shape stand in for them. A call that reads values
            after that raises :class:`ValuesRead`.

    Raises:
        StructureError: The model cannot be copied, or has parameters without a size.
    """

    def __init__(
        self,
        model: nn.Module,
        rules: Mapping[str, Rule],
        options: StructureOptions | None = None,
        skip_compute: bool = False,
        gradients: bool = False,
    ) -> None:
        super().__init__()
        lazy = [name for name, t in named_tensors(model).items() if is_lazy(t)]
        if lazy:
            raise StructureError(f"{lazy[0]} has no size yet; run the model once on the example, then gate it")
        self.model = structural_copy(model)
        self.attention = decompose_attention(self.model)
        """The paths of torch's attention layers, which run in steps."""
        self.trace = Trace(self.model, options or StructureOptions())
        self.skipped = self.values_read = False
        self.gradients, self.gradients_asked = gradients, False
        self.noisy = False
        """Whether the model drew random numbers."""
        self.used: set[int] = set()
        """The identities of the tensors whose values some call used."""
        self.trains_otherwise = False
        """Whether the model makes other calls in train mode."""
        self.unreached: tuple[str, ...] = ()
        """The modules with weights that no run reached."""
        self.calls: list[str] = []
        """The plain names of the calls of the last run."""
        self._protection = TensorProtection(self.trace.tensors.values())
        self._rules, self._skip_compute = rules, skip_compute

    def run(self, inputs: tuple[Any, ...], training: bool = False) -> Any:
        """Run the model, and return its output.

        Args:
            inputs: Positional inputs. The model may write into them.
            training: Whether it runs in train mode.
        """
        trace, protection = self.trace, self._protection
        self.calls.clear()
        try:
            with self._running(), torch.random.fork_rng(devices=[]):
                with protection:
                    self.model.train(training)
                with self._modules(), self:
                    return self.model(*inputs)
        finally:
            trace.running.clear()
            protection.restore()

    def run_more(self, inputs: tuple[Any, ...], training: bool = False) -> Any:
        """Run the model once more, for the units that it meets; what it costs is not counted again.

        Returns:
            The output.

        Raises:
            Exception: What the model raised. What was found until then stays.
        """
        noisy, skip = self.noisy, self._skip_compute
        self.trace.begin_further_run()
        try:
            for self._skip_compute in (skip, False):
                self.skipped = self.values_read = False
                copied = map_tensors(inputs, self._copied)
                try:
                    return self.run(copied, training)
                except Exception:
                    if not self.skipped:  # else it read a number that was not computed: once more with all
                        raise
        finally:
            self.noisy, self._skip_compute = noisy, skip

    def _copied(self, _path: Any, t: Tensor) -> Tensor:
        """A copy of an input, which the model may write into, with the same units."""
        new, ids = t.clone(), self.trace.unit_ids(t) if self.trace.has_unit_ids(t) else None
        if ids is not None:
            self.trace.set_unit_ids(new, ids)
        return new

    def calls_in_train_mode(self, inputs: tuple[Any, ...]) -> list[str]:
        """Return the plain names of the calls that the model makes in train mode, without following them."""
        names = _Names(self._protection, self._skip_compute)
        try:
            with self._running(), torch.random.fork_rng(devices=[]):
                with self._protection:
                    self.model.train()
                copied = map_tensors(inputs, lambda _path, t: t.clone())
                with names:
                    self.model(*copied)
        finally:
            self._protection.restore()
        return names.found

    def _note_reads(self, operands: list[Tensor]) -> None:
        trace = self.trace
        names = [name for name in map(trace.name_of, operands) if name is not None]
        if names:
            trace.read.update(names)
            trace.recorder.add_reads(names, [running.path for running in trace.running])
        if any(map(is_transformed, operands)):  # what goes into a transform and comes out of it is not seen
            trace.recorder.keep_modules()

    def _differentiated(self, name: str, args: Any, kwargs: Any) -> tuple[int, ...]:
        """The values that derivatives depend on: those of what is differentiated."""
        if not self.gradients:
            self.gradients_asked = True
            raise GradientsAsked(name)
        return self.trace.recorder.values_of(tensor_leaves(args[:1] or kwargs.get("outputs"), []))

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Let the model run with gradients or without; what it leaves in the parameters' ``grad`` is taken back."""
        with torch.set_grad_enabled(self.gradients), own_grads(self.trace.tensors.values()):
            yield

    @property
    def written(self) -> frozenset[str]:
        """The names of the parameters and buffers that the model wrote into."""
        return frozenset(name for name, t in self.trace.tensors.items() if t in self._protection)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        trace, operands = self.trace, tensor_leaves((args, kwargs), [])
        sources = trace.recorder.values_of(operands)
        self._note_reads(operands)
        name = plain_name(func)
        self.calls.append(name)
        self.noisy = self.noisy or draws_noise(name, args, kwargs)
        if name in DIFFERENTIATES:
            sources = self._differentiated(name, args, kwargs)
        rule = self._rules.get(name)
        if self.skipped:
            self.values_read |= reads_values(name, func, args, operands, rule is not None)
            if self.values_read:
                raise ValuesRead(name)
        zeros = zeros_like_output(name, func, args, kwargs) if self._skip_compute else None
        if zeros is None:
            self._protection.before(func, args, kwargs)
            out = func(*args, **kwargs)
        else:
            self.skipped, out = True, zeros
        if type(out) in _FACTS:
            return out
        call = Call(name, func, tuple(args), kwargs, operands, tensor_leaves(out, []))
        followed = trace.frozen
        read = not call.outputs and reads_values(name, func, args, operands, rule is not None)
        if call.outputs or read or rule is not None:
            self.used.update(id(untransformed(t)) for t in operands)
        if read:
            trace.hold_values(operands, call)
        elif rule is None:
            if call.outputs:
                trace.freeze(call)
        else:
            try:
                rule(trace, call)
            except Exception as error:
                # A call in a form that its rule does not know is an unknown call; the run of the model goes on.
                trace.freeze(call, f"the rule does not follow this form ({type(error).__name__}: {error}) of")
        streams.carry(trace, call, ELEMENTWISE)
        if trace.frozen > followed and name in COUNTED:
            trace.constant_macs += macs_of(func, args, kwargs)
        trace.recorder.add_call(sources, call.outputs, call.axis)
        return out

    @contextmanager
    def _modules(self) -> Iterator[None]:
        """Follow which module is running."""
        paths = {id(m): n for n, m in named_modules(self.model)}

        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if id(module) in paths:
                with torch._C.DisableTorchFunction():
                    self.trace.enter_module(paths[id(module)], module, inputs)
                    streams.enter(self.trace, module, inputs)

        def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if id(module) in paths:
                with torch._C.DisableTorchFunction():
                    self.trace.leave_module(paths[id(module)], inputs, output)

        pre = nn.modules.module.register_module_forward_pre_hook(enter)
        post = nn.modules.module.register_module_forward_hook(leave)
        try:
            yield
        finally:
            pre.remove()
            post.remove()


class GradientsAsked(Exception):
    """The model's own code asks for gradients in a run without them."""


class _Names(TorchFunctionMode):
    """Keeps the plain names of calls."""

    def __init__(self, protection: TensorProtection, skip_compute: bool) -> None:
        super().__init__()
        self.found: list[str] = []
        self._protection, self._skip_compute = protection, skip_compute

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, plain_name(func)
        self.found.append(name)
        zeros = zeros_like_output(name, func, args, kwargs) if self._skip_compute else None
        if zeros is not None:
            return zeros
        self._protection.before(func, args, kwargs)
        return func(*args, **kwargs)


_FACTS = (torch.Size, torch.dtype, torch.device, torch.layout)
"""What a tensor says about itself; numbers are not here, since they may have been values."""
