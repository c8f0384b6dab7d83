"""Features that others stand for on all rows: constants, copies and linear relations, folded into the weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lumos.compaction.compact import compact
from lumos.compaction.model import CompactModel, Selection
from lumos.compaction.probe import trace_and_probe
from lumos.errors import CompactionError, StructureError
from lumos.gating.gated_model import GatedModel
from lumos.gating.layers import ungated_copy
from lumos.gating.settings import GateSettings
from lumos.shapes import Float
from lumos.tracing.modules import named_tensors
from lumos.tracing.structure import Structure

TOLERANCE = 1e-5
"""The largest difference between a column and what others make of it that is rounding: a share of its spread."""
SURE = 2
"""A relation of many columns needs so many times as many rows: with fewer there is always one."""
RIDGE = 1e-2
"""Of a feature that is only partly a linear function of the others."""
OPEN, CLOSED = 8.0, -8.0


@dataclass(frozen=True)
class Relation:
    """What a feature is in terms of others, on all rows.

    Attributes:
        feature: The feature that is no longer read.
        terms: What each other feature is multiplied with; None where the relation is one of their encodings.
        constant: What is added.
        others: The features that stand for it.
        rows: On how many rows that was found.
    """

    feature: str
    terms: dict[str, float] | None
    constant: float
    others: tuple[str, ...]
    rows: int

    def __str__(self) -> str:
        where = f"on all {self.rows} rows"
        if self.terms is None:
            return f"{self.feature} follows from {', '.join(self.others)} {where}"
        parts = [f"{'-' if c < 0 else '+'} {'' if abs(c) == 1 else f'{abs(c):g} '}{n}" for n, c in self.terms.items()]
        if self.constant or not parts:
            parts.append(f"{'-' if self.constant < 0 else '+'} {abs(self.constant):g}")
        text = " ".join(parts)
        return f"{self.feature} = {text[2:] if text[0] == '+' else text[0] + text[2:]} {where}"


@dataclass(frozen=True)
class Folded:
    """A compact model without the features that others stand for, and these relations."""

    model: CompactModel
    relations: tuple[Relation, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.relations)) or "no feature is a linear function of the others"


def fold_inputs(
    model: CompactModel,
    x: Float[Tensor, "rows columns"],
    *,
    keep: Collection[str] = (),
    tolerance: float = TOLERANCE,
) -> Folded:
    """Take out features that are constant, a copy, or a linear function of other kept ones on all given rows.

    The layers that read the features have to be linear, after an encoding of each column if there is one. What such a
    layer reads of a feature is then a linear function of what it reads of others, and its weights go into theirs and
    into the bias: the outputs on these rows stay what they are, without training. On other rows the model trusts the
    relation.

    Args:
        model: The compact model of a table.
        x: The rows, with all columns that the model takes.
        keep: Names of features that stay.
        tolerance: How far a column may be from the relation, as a share of its spread.

    Returns:
        The model without them, and the relations; the very model where there are none, or where the layers that read
        the features are not linear.

    Raises:
        CompactionError: The outputs differ by more than rounding.

    Example:
        >>> import torch, lumos
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(100, 4)
        >>> x[:, 2] = 3 * x[:, 1] - 1
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        >>> small = lumos.compact(lumos.gate(model, x[:8]).eval())
        >>> found = lumos.fold_inputs(small, x, keep=["x1"])
        >>> print(found)
        x2 = 3 x1 - 1 on all 100 rows
        >>> found.model.features, torch.allclose(found.model(x), small(x), atol=1e-5)
        (['x0', 'x1', 'x3'], True)
    """
    if len(model.features) < 2 or x.ndim != 2 or len(model._inputs) > 1 or not model.select:
        return Folded(model, ())
    (raw,) = model.selected(x)
    if raw.shape[1] != len(model.features) or len(raw) < 3 or not _may_be_related(raw, tolerance):
        return Folded(model, ())
    plain = ungated_copy(model.model, named_tensors(model.model)).eval()
    structure = trace_and_probe(plain, (raw[:8],), features=model.features)
    readers = _linear_readers(plain, structure)
    if readers is None:
        return Folded(model, ())
    read = _what_they_read(plain, readers, raw)
    places = {path: [_places(structure, path, k) for k in range(raw.shape[1])] for path in readers}
    order = sorted(range(raw.shape[1]), key=lambda k: _weight(plain, read, places, k))
    gone: list[int] = []
    for k in order:
        others = [j for j in range(raw.shape[1]) if j != k and j not in gone]
        if model.features[k] not in keep and _follows(read, places, k, others, tolerance):
            gone.append(k)
    if not gone:
        return Folded(model, ())
    others = [j for j in range(raw.shape[1]) if j not in gone]
    for path in readers:
        _fold(plain.get_submodule(path), read[path], places[path], gone, others)
    small = _without(model, plain, structure, gone)
    _check(model, small, x)
    names = model.features
    return Folded(small, tuple(_relation(raw, names, k, others, tolerance) for k in sorted(gone)))


def without_inputs(model: CompactModel, x: Float[Tensor, "rows columns"], features: Collection[str]) -> CompactModel:
    """Take features out of a compact model, whatever its outputs are then.

    Where linear layers read the features, what the others say of them linearly goes into the weights, so that as little
    as can be is lost; elsewhere they are zero from then on.

    Args:
        model: The compact model of a table.
        x: Rows, with all columns that the model takes.
        features: Names of what goes; some have to stay.

    Raises:
        StructureError: A feature cannot be taken out.
    """
    (raw,) = model.selected(x)
    plain = ungated_copy(model.model, named_tensors(model.model)).eval()
    structure = trace_and_probe(plain, (raw[:8],), features=model.features)
    gone = [model.features.index(name) for name in features]
    units = structure.inputs[0].units if len(structure.inputs) == 1 else torch.zeros(0)
    held = [name for name, k in zip(features, gone, strict=True) if k >= len(units) or units[k] <= 0]
    if held:
        raise StructureError(f"{held[0]}: this model cannot do without it; lumos.explain says why")
    readers = _linear_readers(plain, structure)
    if readers is not None:
        read = _what_they_read(plain, readers, raw)
        others = [j for j in range(raw.shape[1]) if j not in gone]
        for path in readers:
            _fold(plain.get_submodule(path), read[path], [_places(structure, path, k) for k in range(raw.shape[1])],
                  gone, others, RIDGE)  # fmt: skip
    return _without(model, plain, structure, gone)


def _without(model: CompactModel, plain: nn.Module, structure: Structure, gone: Sequence[int]) -> CompactModel:
    """The compact model without these features, from its inner model and the structure of that."""
    gated = GatedModel(plain, structure, GateSettings()).eval()
    gated.gates.log_alpha.data.fill_(OPEN)
    units = structure.inputs[0].units
    gated.gates.log_alpha.data[[int(units[k]) - 1 for k in gone]] = CLOSED
    return _joined(model, compact(gated))


def _may_be_related(raw: Tensor, tolerance: float) -> bool:
    """Whether the columns and a column of ones are linearly dependent."""
    columns = raw.double().cpu()
    columns = torch.where(columns.isnan(), columns.nanmean(0), columns)
    columns = torch.where(columns.isnan(), 0.0, columns)
    columns = columns - columns.mean(0)
    size = columns.square().mean(0).sqrt()
    if bool((size <= tolerance * raw.double().cpu().nan_to_num().abs().amax(0).clamp(min=1e-300)).any()):
        return True
    values = torch.linalg.svdvals(columns / size)
    return len(values) < raw.shape[1] or bool(values[-1] < 10 * tolerance * values[0])


def _linear_readers(model: nn.Module, structure: Structure) -> list[str] | None:
    """The paths of the layers that read the features, where all of them are linear layers that are called once."""
    if len(structure.inputs) != 1 or structure.inputs[0].whole or bool((structure.inputs[0].units <= 0).any()):
        return None
    units = structure.inputs[0].units
    direct = {c.weight: c.module for c in structure.contractions if c.direct}
    calls = [c.weight for c in structure.contractions]
    found = []
    for (name, dim), of_site in structure.sites.items():
        if not bool(torch.isin(of_site, units).any()):
            continue
        path = direct.get(name)
        layer = None if path is None else model.get_submodule(path)
        if dim != 1 or calls.count(name) != 1 or type(layer) is not nn.Linear or layer.bias is None:
            return None
        found.append(path)
    return found


@torch.no_grad()
def _what_they_read(model: nn.Module, readers: Sequence[str], raw: Tensor) -> dict[str, np.ndarray]:
    """The inputs of these layers, for all rows."""
    found: dict[str, np.ndarray] = {}

    def note(path: str) -> Any:
        return lambda _module, args: found.update({path: args[0].reshape(len(raw), -1).double().cpu().numpy()})

    handles = [model.get_submodule(path).register_forward_pre_hook(note(path)) for path in readers]
    try:
        model(raw)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _places(structure: Structure, path: str, k: int) -> np.ndarray:
    """Which inputs of a layer belong to a feature."""
    unit = int(structure.inputs[0].units[k])
    weight = next(c.weight for c in structure.contractions if c.module == path)
    return np.flatnonzero(structure.sites[weight, 1].numpy() == unit)


def _weight(model: nn.Module, read: dict[str, np.ndarray], places: dict[str, list[np.ndarray]], k: int) -> float:
    """How much a feature moves what the layers compute."""
    total = 0.0
    for path, of_features in places.items():
        at = of_features[k]
        layer: Any = model.get_submodule(path)
        weight = layer.weight.detach().double().cpu().numpy()
        total += float(np.square(weight[:, at] * read[path][:, at].std(0)).sum())
    return total


def _follows(
    read: dict[str, np.ndarray], places: dict[str, list[np.ndarray]], k: int, others: list[int], tolerance: float
) -> bool:
    """Whether all that is read of a feature is a linear function of what is read of others."""
    for path, of_features in places.items():
        target = read[path][:, of_features[k]]
        if float((target - target.mean(0)).std(0).max(initial=0.0)) <= tolerance * np.abs(target).max(initial=1e-300):
            continue
        source = read[path][:, np.concatenate([of_features[j] for j in others])] if others else target[:, :0]
        if len(target) < SURE * (source.shape[1] + 1):
            return False
        left = target - _solved(source, target)[1]
        if float(np.abs(left).max()) > tolerance * float(target.std(0).max()):
            return False
    return True


def _solved(source: np.ndarray, target: np.ndarray, ridge: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The least squares solution with a constant (its last row), and what it gives.

    A relation that holds has one solution on all rows. What does not hold needs a ridge, a share of the rows: columns
    that say nearly the same would get large weights against each other, which other rows would not bear.
    """
    with_one = np.concatenate([source, np.ones((len(source), 1))], 1)
    size = np.abs(with_one).max(0)
    size[size == 0] = 1.0
    system, wanted = with_one / size, target
    if ridge:
        held = np.sqrt(ridge * len(source)) * np.eye(system.shape[1])[:-1]
        system, wanted = (
            np.concatenate([system, held]),
            np.concatenate([target, np.zeros((len(held), target.shape[1]))]),
        )
    solution = np.linalg.lstsq(system, wanted, rcond=1e-9)[0] / size[:, None]
    return solution, with_one @ solution


@torch.no_grad()
def _fold(
    layer: Any, read: np.ndarray, places: list[np.ndarray], gone: list[int], others: list[int], ridge: float = 0.0
) -> None:
    """Add the weights of features that go to those that stay, and to the bias."""
    from_ = np.concatenate([places[k] for k in gone])
    to = np.concatenate([places[k] for k in others]) if others else np.zeros(0, np.int64)
    solution, _ = _solved(read[:, to], read[:, from_], ridge)
    weight = layer.weight.double().cpu().numpy()
    added = weight[:, from_] @ solution.T
    weight[:, to] += added[:, :-1]
    layer.bias.add_(torch.from_numpy(added[:, -1]).to(layer.bias))
    layer.weight.copy_(torch.from_numpy(weight))


def _joined(outer: CompactModel, inner: CompactModel) -> CompactModel:
    """The inner model with the full inputs of the outer one."""
    selections = inner._inputs
    if outer._inputs and inner._inputs:
        before, after = outer._inputs[0], inner._inputs[0]
        kept = outer.get_buffer("kept_0").cpu()[after.kept.cpu()]
        selections = [Selection(before.path, before.dim, kept, after.width)]
    elif outer._inputs:
        selections = outer._inputs
    attributes = {path: dict(values) for path, values in outer.attributes.items()}
    for path, values in inner.attributes.items():
        attributes.setdefault(path, {}).update(values)
    made = CompactModel(inner.model, selections, inner.features, True, attributes, {**outer.layers, **inner.layers})
    return made.to(next((p.device for p in outer.parameters()), torch.device("cpu"))).train(outer.training)


@torch.no_grad()
def _check(before: CompactModel, after: CompactModel, x: Tensor) -> None:
    modes = before.training
    one, other = before.eval()(x).double(), after.eval()(x).double()
    before.train(modes)
    after.train(modes)
    gap = float((one - other).abs().max()) / max(float(one.abs().max()), 1e-300)
    if not gap <= 1e-3:
        raise CompactionError(f"folding the features changed the outputs by {gap:.1e}: expected rounding; leave them")


def _relation(raw: Tensor, names: list[str], k: int, others: list[int], tolerance: float) -> Relation:
    columns = raw.double().cpu().numpy()
    known = np.isfinite(columns).all(1)
    columns = columns[known]
    target, used = columns[:, k], list(others)
    if len(columns) and np.ptp(target) <= tolerance * np.abs(target).max(initial=1e-300):
        return Relation(names[k], {}, float(target[0]), (), len(raw))
    solution, guess = _solved(columns[:, used], target[:, None])
    spread = columns[:, used].std(0) * np.abs(solution[:-1, 0])
    terms = {names[j]: _short(c) for j, c, s in zip(used, solution[:-1, 0], spread, strict=True)
             if s > tolerance * target.std()}  # fmt: skip
    exact = bool(np.abs(target - guess[:, 0]).max(initial=0.0) <= tolerance * target.std())
    constant = _short(float(solution[-1, 0]))
    constant = 0.0 if abs(constant) < tolerance * target.std() else constant
    return Relation(names[k], terms if exact else None, constant, tuple(terms) or tuple(names[j] for j in used),
                    len(raw))  # fmt: skip


def _short(value: float) -> float:
    """A coefficient without the digits that are rounding."""
    return float(f"{value:.5g}")
