"""From a model and an example to its structure: the entry of this package."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lumos.errors import StructureError
from lumos.tracing.build_structure import build_structure
from lumos.tracing.constraints import Constraints
from lumos.tracing.containers import tensors_in
from lumos.tracing.feature_names import FeatureNames, name_features
from lumos.tracing.inputs import InputPath, input_tensors, map_inputs
from lumos.tracing.modules import named_modules, reads_training
from lumos.tracing.options import StructureOptions
from lumos.tracing.rules import RULES
from lumos.tracing.structure import Structure
from lumos.tracing.tracer import Tracer

_MOST_COLUMNS = 4096
"""Wider inputs of whole numbers are lists of indices (the edges of a graph), not columns of a table."""


def trace_structure(
    model: nn.Module,
    inputs: tuple[Any, ...],
    features: FeatureNames | None = None,
    options: StructureOptions | None = None,
    examples: Sequence[tuple[Any, ...]] = (),
    constraints: Constraints | None = None,
) -> Structure:
    """Trace a model on example inputs and return its structure. The model and the inputs stay as they are.

    Inputs of floats with two or more dimensions get one unit per feature: along dimension 1 (columns, channels), or
    along the last one (of five, also dimension 2) where the model reads that as its features. So do the columns of
    whole numbers that index embedding tables.

    Args:
        model: The model.
        inputs: Positional inputs with two or more samples.
        features: The names of the input features, as :func:`lumos.gate` takes them; x0, x1… by default.
        options: What more of the model is made removable.
        examples: Further positional inputs, which reach what the first ones do not.
        constraints: What is asked of the units.

    Raises:
        StructureError: The model cannot be copied or does not run on the example, the names are too many or too few, or
            the constraints name what the model does not have.

    Example:
        >>> model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
        >>> trace_structure(model, (torch.randn(4, 5),)).maps["2.weight", 1]  # 0 is no unit, 1 to 5 are the features
        tensor([ 6,  7,  8,  9, 10, 11, 12])
    """
    leaves, options = input_tensors(inputs), options or StructureOptions()
    asked = (options, examples, constraints or Constraints(), features)
    likely, possible = _feature_dims(leaves)
    (best, read), dims = _trace_and_build(model, inputs, likely, *asked), likely
    for path, dim in possible:
        if leaves[path].ndim > 3 and path in read:
            continue  # an image or a volume with its channels first
        tried = {p: dim if p == path else dims[p] for p in leaves if p == path or p in dims}
        other, _ = _trace_and_build(model, inputs, tried, *asked)
        if _gates(other, "feature") > _gates(best, "feature") and _gates(other, "hidden") >= _gates(best, "hidden"):
            best, dims = other, tried
    names = name_features(features, {s.path: len(s.units) for s in best.inputs}, model)
    if constraints:
        constraints.check(names, (path for path, _ in named_modules(model)))
    return replace(best, feature_names=names)


def run_tracer(
    model: nn.Module,
    example: tuple[Any, ...],
    dims: dict[InputPath, int],
    options: StructureOptions,
    skip_compute: bool = True,
    examples: Sequence[tuple[Any, ...]] = (),
    gradients: bool = False,
) -> tuple[Tracer, dict[InputPath, Tensor]]:
    """Run the model once with units on its inputs.

    Args:
        model: The model.
        example: Positional inputs.
        dims: The dimension of each input that holds its features.
        options: What more of the model is made removable.
        skip_compute: Do not compute costly products, as long as no value is asked for.
        examples: Further positional inputs.
        gradients: Whether the model runs with gradients; if its own code asks for some, it does.

    Returns:
        The tracer after its run, and the units of each input's features.
    """
    tracer = Tracer(model, RULES, options, skip_compute, gradients)
    trace = tracer.trace
    inputs = map_inputs(example, lambda _path, x: x.clone())  # the model may write into them
    leaves = input_tensors(inputs)
    features: dict[InputPath, Tensor] = {}
    for path, dim in dims.items():
        shape = [1] * leaves[path].ndim
        shape[dim] = leaves[path].shape[dim]
        name = "input" + ".".join(map(str, path)) if len(dims) > 1 else "input"
        features[path] = trace.new_block(name, "feature", shape[dim])
        trace.set_unit_ids(leaves[path], features[path].view(shape))
    for leaf in leaves.values():
        trace.recorder.add_input(leaf)
    out, failed = None, False
    try:
        out = tracer.run(inputs)
    except Exception as error:
        if tracer.gradients_asked:
            return run_tracer(model, example, dims, options, False, examples, True)
        failed = True
        if not tracer.skipped:
            text = f"the model does not run on the example: {type(error).__name__}: {error}"
            raise StructureError(text) from error
    if failed or tracer.values_read:
        return run_tracer(model, example, dims, options, False, examples)
    outputs = tensors_in(out)
    if not any(t.numel() for t in outputs):
        what = "tensors without any value" if outputs else f"no tensor ({type(out).__name__})"
        raise StructureError(
            f"the model returns {what} for the example, so that nothing can be compared; give an example for which it "
            "returns values"
        )
    _run_further(tracer, [_with_units(tracer, x, features, dims) for x in (example, *examples)])
    trace.finish(outputs)
    # What the model never reads (a label in the batch) has no features.
    unread = [path for path in features if id(leaves[path]) not in tracer.used]
    for path in unread:
        first = int(features.pop(path)[0])
        trace.blocks = [block for block in trace.blocks if block.first != first]
    return tracer, features


def _with_units(
    tracer: Tracer, example: tuple[Any, ...], features: dict[InputPath, Tensor], dims: dict[InputPath, int]
) -> tuple[Any, ...]:
    """A copy of positional inputs whose features have the units that they have in the first run."""
    inputs = map_inputs(example, lambda _path, x: x.clone())
    leaves = input_tensors(inputs)
    for path, units in features.items():
        if path in leaves:
            shape = [1] * leaves[path].ndim
            shape[dims[path]] = len(units)
            try:
                tracer.trace.set_unit_ids(leaves[path], units.view(shape))
            except (IndexError, RuntimeError) as error:
                raise StructureError(
                    f"the examples have other features: expected {len(units)} along dimension {dims[path]} of input "
                    f"{'.'.join(map(str, path))} of each, and {tuple(leaves[path].shape)} is one's shape"
                ) from error
    return inputs


def _run_further(tracer: Tracer, examples: list[tuple[Any, ...]]) -> None:
    """Run the model on further examples, and in train mode where it makes other calls there; hold what modules may read
    that never ran.

    Args:
        tracer: The tracer after its first run.
        examples: Positional inputs with units: those of the first run, and the further ones.
    """
    trace, followed = tracer.trace, list(tracer.calls)
    for number, inputs in enumerate(examples[1:], start=1):
        try:
            out = tracer.run_more(inputs)
        except Exception as error:
            raise StructureError(
                f"the model does not run on further example {number}: {type(error).__name__}: {error}"
            ) from error
        trace.fix_outputs(tensors_in(out))
    asking = reads_training(tracer.model)
    for inputs in examples if asking else ():
        with suppress(Exception):  # not every model runs on the example in train mode
            if not tracer.trains_otherwise:
                other = tracer.calls_in_train_mode(inputs)
                tracer.trains_otherwise = len(examples) > 1 or _told_apart(followed) != _told_apart(other)
            if tracer.trains_otherwise:
                trace.fix_outputs(tensors_in(tracer.run_more(inputs, training=True)))
    trace.end_further_runs()
    unreached = _unreached(tracer)
    tracer.unreached = tuple(unreached)
    trace.hold_scopes(unreached)
    if unreached or tracer.trains_otherwise or len(examples) > 1:
        trace.recorder.keep_modules()


def _told_apart(names: list[str]) -> list[str]:
    """The calls by which runs in train mode and in eval mode are told apart."""
    return [name for name in names if "dropout" not in name and not name.startswith("get_") and name not in _ASKED]


_ASKED = {"add", "is_floating_point", "size", "dim", "div", "bernoulli", "new_empty", "mul", "bool"}
"""Calls that drop paths and count batches, in train mode alone: they change no size."""


def _unreached(tracer: Tracer) -> dict[str, set[int]]:
    """The outermost modules with weights of which no run read any, and the widths that their weights have."""
    found: dict[str, set[int]] = {}
    for path, module in named_modules(tracer.model):
        weights = [tracer.trace.name_of(p) for p in module.parameters()] if path else []
        if weights and tracer.trace.read.isdisjoint(weights) and not any(path.startswith(f"{p}.") for p in found):
            found[path] = {n for p in module.parameters() for n in p.shape[:2]}
    return found


def _trace_and_build(
    model: nn.Module,
    inputs: tuple[Any, ...],
    dims: dict[InputPath, int],
    options: StructureOptions,
    examples: Sequence[tuple[Any, ...]],
    constraints: Constraints,
    features: FeatureNames | None,
) -> tuple[Structure, set[InputPath]]:
    """Trace a model with units along some dimensions of its inputs.

    Returns:
        The structure, and the inputs whose units some product reads one by one.
    """
    tracer, found = run_tracer(model, inputs, dims, options, examples=examples)
    # Names that are too many or too few are an error, once the features' dimensions are known.
    names = name_features(features, {path: len(units) for path, units in found.items()}, model, strict=False)
    structure = build_structure(tracer.trace, found, input_tensors(inputs), dims, tracer.attention, constraints, names)
    axes = [tracer.trace.maps[axis] for axis in tracer.trace.consumers]
    read = {path for path, units in found.items() if any(torch.equal(axis, units) for axis in axes)}
    structure = replace(
        structure,
        example=inputs,
        written=tracer.written,
        gradients=tracer.gradients,
        noisy=tracer.noisy or tracer.trains_otherwise,
        unreached=tracer.unreached,
        trains_otherwise=tracer.trains_otherwise,
    )
    return structure, read


def _feature_dims(leaves: dict[InputPath, Tensor]) -> tuple[dict[InputPath, int], list[tuple[InputPath, int]]]:
    """Return the dimension that most likely holds each float input's features, and what else may be tried: the last
    dimension, the third one of five, and the columns of whole numbers."""
    floats = {
        path: x for path, x in leaves.items() if x.is_floating_point() and x.ndim >= 2 and x.layout == torch.strided
    }
    integers = [p for p, x in leaves.items() if x.dtype in (torch.int32, torch.int64) and x.ndim == 2]
    last = [(path, x.ndim - 1) for path, x in floats.items() if x.ndim > 2]
    third = [(path, 2) for path, x in floats.items() if x.ndim == 5]  # the channels of images over time
    return dict.fromkeys(floats, 1), [*third, *last, *((p, 1) for p in integers if leaves[p].shape[1] <= _MOST_COLUMNS)]


def _gates(structure: Structure, kind: str) -> int:
    """The gates of a kind; not those that layers have of their own on an input which others keep: it may be that of
    the features."""
    own = {f"{path}.input" for path, what in structure.layers.items() if what == "selected"}
    return sum(g.size for g in structure.groups if g.kind == kind and g.name not in own)
