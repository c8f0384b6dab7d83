"""One trial of the probe: some units are closed, and the gated model is compared with the compact one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lumos.compaction.closings import Closing
from lumos.compaction.compact import cut_closed_units
from lumos.compaction.constant_folding import run_recording
from lumos.compaction.difference import gap_between
from lumos.compaction.plan import TwoSizesError, attribute_sizes
from lumos.compaction.reference import Reference
from lumos.compaction.surgery import replace_tensors
from lumos.compaction.verify import SINGLE_TOLERANCE, does_not_run, equivalence, run_once
from lumos.errors import CompactionError
from lumos.gating.gated_model import GatedModel
from lumos.gating.settings import GateSettings
from lumos.tracing.containers import tensors_in
from lumos.tracing.inputs import input_tensors, map_inputs, replace_inputs
from lumos.tracing.modules import named_modules, named_tensors, structural_copy
from lumos.tracing.protection import TensorProtection, own_grads
from lumos.tracing.structure import Structure


class _Known(NamedTuple):
    """What came of a trial: the probe asks for some of them twice."""

    structure: Structure
    closing: Closing
    full: bool
    problem: str | None
    broken: str | None


class Trial:
    """A model with weights that hide nothing, and the inputs on which gated and compact are compared.

    Args:
        model: The model; it stays as it is.
        inputs: Positional inputs.
        structure: What the trace of the model found.
        examples: Further positional inputs.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Any, ...],
        structure: Structure,
        examples: Sequence[tuple[Any, ...]] = (),
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = with_telling_weights(model, structure, _one_sample(inputs))
            self._use(with_distinct_features(inputs, structure))
        self.given, self.examples = inputs, examples
        self.broken: str | None = None
        """Path of the module whose code the compact model broke off in, or whose attribute stood for two sizes, at the
        last failure."""
        self.ran = False
        """Whether the gated model ran on the inputs of the last comparison."""
        self.rounds = 1
        """How often the parts to close are drawn anew."""
        self._last: GatedModel | None = None

    def _use(self, inputs: tuple[Any, ...]) -> None:
        self.inputs, self.sample = inputs, _one_sample(inputs)
        self._known: list[_Known] = []

    def gated(self, structure: Structure) -> GatedModel:
        """Return the model with gates, in eval mode; the last one again where the structure is the same."""
        if self._last is None or self._last.structure is not structure:
            self._last = GatedModel(self.model, structure, GateSettings()).eval()
            self._last.gates.fixed = True
        return self._last

    def failure(self, structure: Structure, closing: Closing, explain: bool = True, full: bool = False) -> str | None:
        """Return why gated and compact differ when some units are closed; None: they agree.

        Args:
            structure: What can be removed.
            closing: What is closed.
            explain: Without it, that the compact model does not run is reason enough.
            full: Whether one image never stands for all inputs. Otherwise it does where it shows that they agree, or
                where no explanation is asked for.
        """
        full = full or self.sample is self.inputs
        for known in () if explain else self._known:
            fits = known.full == full or (known.full and known.problem is None)  # all inputs say it of one sample, too
            if fits and known.structure is structure and known.closing == closing:
                self.broken = known.broken
                return known.problem
        problem = self._tried(structure, closing, explain, full)
        if not explain:
            self._known.append(_Known(structure, closing, full, problem, self.broken))
        return problem

    def _tried(self, structure: Structure, closing: Closing, explain: bool, full: bool) -> str | None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sum(closing.parts.values()))
            gated = self.gated(structure)
            gated.gates.log_alpha.data.copy_(closing.values(structure))
            problem = self._compared(gated, explain, full)
            for inputs in self.examples if problem is None else ():
                problem = problem or self._certain(gated, inputs, explain)
            if problem is None and structure.trains_otherwise and not closing.whole:
                problem = self._in_train_mode(gated, explain)
            return problem

    def _in_train_mode(self, gated: GatedModel, explain: bool) -> str | None:
        """As in eval mode; where the model does not run on the example in train mode, there is nothing to compare."""
        try:
            problem = self._difference(gated.train(), self.inputs, explain)
            runs = self.ran
        finally:
            gated.eval()
        return f"in train mode: {problem}" if problem and runs else None

    def _compared(self, gated: GatedModel, explain: bool, full: bool) -> str | None:
        if not full and self.sample is not self.inputs:
            problem = self._difference(gated, self.sample)
            if problem == "" and not explain:
                return _verified(gated, self.sample, explain)
            if problem is None or (problem and not explain):
                return problem
        return self._certain(gated, self.inputs, explain)

    def _certain(self, gated: GatedModel, inputs: tuple[Any, ...], explain: bool) -> str | None:
        problem = self._difference(gated, inputs, explain)
        return problem if problem is None or problem else _verified(gated, inputs, explain)

    def _difference(self, gated: GatedModel, inputs: tuple[Any, ...], explain: bool = False) -> str | None:
        """None where gated and compact agree in the model's own precision, which is quick; else what the compact model
        raised (and where, to ``explain`` it), or an empty text: whether they differ then, float64 has to say."""
        device = gated.gates.log_alpha.device
        inputs = map_inputs(inputs, lambda _path, x: x.to(device))
        structure, small, self.broken, self.ran = gated.structure, None, None, False
        reference = self._protected(gated, Reference(gated).run)
        grads = own_grads(gated.parameters())
        with torch.set_grad_enabled(structure.gradients), grads:
            try:
                attribute_sizes(structure, structure.with_placeholders(gated.gates.is_open()))
                want, known = run_recording(gated, inputs, lambda *x: run_once(reference, x, gated))
                self.ran = True
                small = cut_closed_units(gated, constant_outputs=known, share_storage=True)
                gap = gap_between(want, run_once(self._protected(gated, small), inputs, gated))
                return None if gap.relative <= SINGLE_TOLERANCE and not gap.hides else ""
            except CompactionError as error:
                if isinstance(error, TwoSizesError):
                    self.broken = error.module
                return str(error)
            except Exception as error:
                if small is None:
                    return self._not_run(gated, inputs, explain, error)
                self.broken = _broken_in(small.model, error)
                return does_not_run(gated, small, inputs, error, SINGLE_TOLERANCE) if explain else repr(error)

    def _not_run(self, gated: GatedModel, inputs: tuple[Any, ...], explain: bool, error: Exception) -> str | None:
        """The gated model does not run, or cannot be cut: perhaps for what was changed in the example."""
        if self.inputs is self.given or gated.training:
            return "" if explain else repr(error)
        self._use(self.given)
        return self._compared(gated, explain, full=False)

    def _protected(self, gated: GatedModel, run: Callable[..., Any]) -> Callable[..., Any]:
        """Run with what the model writes into its own tensors taken back: both models begin alike."""
        if not gated.structure.written and not gated.training:
            return run

        def protected(*inputs: Any) -> Any:
            known = named_tensors(run) if isinstance(run, nn.Module) else named_tensors(gated.model)
            protection = TensorProtection(known.values())
            try:
                with protection:
                    return run(*inputs)
            finally:
                protection.restore()

        return protected

    def suspects(self, structure: Structure, names: list[str]) -> list[str]:
        """Return the groups whose sizes are written in the module that the compact model broke off in, and in all of
        its class: what one cannot do, they cannot do either."""
        if self.broken is None:
            return []
        modules = dict(named_modules(self.model))
        paths = {path for path, m in modules.items() if type(m) is type(modules[self.broken])}
        written = [s.units for s in structure.sizes if s.module in paths]
        return [n for n in names if any(structure.touches(units, structure.group(n)) for units in written)]

    def kinds(self, structure: Structure, names: list[str]) -> dict[str, tuple[Any, ...]]:
        """Return what groups have in common that stand at one place in modules of one class: the classes of these, and
        which calls and attributes have sizes of theirs."""
        modules = dict(named_modules(self.model))
        groups = {name: structure.group(name) for name in names}
        return {
            name: tuple(
                (type(modules[size.module]), size.attributes, size.place, size.literal)
                for size in structure.sizes
                if structure.touches(size.units, group)
            )
            for name, group in groups.items()
        }


def _verified(gated: GatedModel, inputs: tuple[Any, ...], explain: bool) -> str | None:
    """None where gated and compact agree in float64, else how they differ."""
    try:
        equivalence(gated, inputs, explain=explain)
    except CompactionError as error:
        return str(error)
    return None


def _broken_in(model: nn.Module, error: Exception) -> str | None:
    """Path of the innermost module with code of the user's own that was running when an error came.

    A module whose other methods are called is not running: what they write is taken for the caller's, as in the trace.
    """
    paths = {id(m): path for path, m in named_modules(model)}
    found, step = None, error.__traceback__
    while step is not None:
        frame = step.tb_frame
        module = frame.f_locals.get("self") if frame.f_code.co_name == "forward" else None
        if isinstance(module, nn.Module) and not type(module).__module__.startswith("torch.nn."):
            found = paths.get(id(module), found)
        step = step.tb_next
    return found


def _one_sample(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """One image or volume instead of several: what samples share needs no second one. Other inputs stay as they are."""
    found = input_tensors(inputs).values()
    if not all(x.is_floating_point() and x.ndim > 3 for x in found) or len({len(x) for x in found}) != 1:
        return inputs
    return map_inputs(inputs, lambda _path, x: x[:1])


def with_distinct_features(inputs: tuple[Any, ...], structure: Structure) -> tuple[Any, ...]:
    """Change an example that cannot show which feature is which: one is zero everywhere, or two are equal.

    Returns:
        The inputs, with noise on those; the very inputs where none is.
    """
    found = input_tensors(inputs)
    new: dict[Any, Tensor] = {}
    for selection in structure.inputs:
        x = found[selection.path]
        if x.is_floating_point() and x.numel() and not _distinct(x.detach().movedim(selection.dim, 0)):
            scale = float(x.detach().abs().amax())
            new[selection.path] = x.detach() + (0.1 * scale or 1.0) * torch.randn(x.shape, dtype=x.dtype).to(x.device)
    return replace_inputs(inputs, new)


def _distinct(columns: Tensor) -> bool:
    columns = columns.reshape(len(columns), -1)
    few = columns[:, :: max(1, columns.shape[1] // 1024)]
    return bool((few != 0).any(1).all()) and len(torch.unique(few, dim=0)) == len(few)


def with_telling_weights(model: nn.Module, structure: Structure, inputs: tuple[Any, ...]) -> nn.Module:
    """Copy a model, with new values where a layer starts at zero or one, and larger ones where its weights are so small
    that hardly anything comes of them: either would hide a difference, which a training then brings to light.

    Weights stay as small as they are where the model makes numbers of larger ones that are not finite.

    Args:
        model: The model; tensors of it are shared, but for those that its own code writes into.
        structure: What the trace of the model found.
        inputs: Positional inputs.
    """
    copied = structural_copy(model, structure.written)
    with torch.no_grad():
        constant = {n: p + 0.1 * torch.randn_like(p) for n, p in model.named_parameters() if _is_constant(p)}
        replace_tensors(copied, constant)
        gains = {n: _gain(p) for n, p in model.named_parameters() if n not in constant}
        larger = {n: p / gains[n] for n, p in model.named_parameters() if 0 < gains.get(n, 1.0) < LEAST_GAIN}
        if not larger:
            return copied
        telling = structural_copy(copied, structure.written)
        replace_tensors(telling, larger)
    return telling if _stays_finite(structural_copy(telling, structure.written), structure, inputs) else copied


LEAST_GAIN = 0.5
"""Below it, a weight makes of values of size one values that count for little; torch's own layers start at .58."""


def _gain(p: Tensor) -> float:
    """How large a weight makes what it reads of values of size one, by its mean square."""
    if p.ndim < 2 or not p.numel() or not p.is_floating_point():
        return 1.0
    return float(p.square().mean().sqrt()) * (p.numel() / len(p)) ** 0.5


def _stays_finite(model: nn.Module, structure: Structure, inputs: tuple[Any, ...]) -> bool:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    copied = map_inputs(inputs, lambda _path, x: x.to(device, copy=True))
    with torch.set_grad_enabled(structure.gradients), own_grads(model.parameters()):
        try:
            outputs = tensors_in(model.eval()(*copied))
        except Exception:  # a model that looks at its own values refuses these
            return False
    return all(bool(t.isfinite().all()) for t in outputs if t.is_floating_point())


def _is_constant(p: Tensor) -> bool:
    if not p.numel() or bool(p[(0,) * p.ndim] != p[(-1,) * p.ndim]):
        return False
    return bool((p == p[(0,) * p.ndim]).all())
