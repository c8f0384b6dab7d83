"""Rules for products of two tensors, as matrices or with letters: with a weight on one side, or of two activations."""

from __future__ import annotations

import math
import string
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lumos.tracing.calls import Call
from lumos.tracing.costs import Product
from lumos.tracing.rules.attention import product
from lumos.tracing.rules.contraction import contract
from lumos.tracing.rules.mixing import mixed
from lumos.tracing.rules.movement import aligned, meet
from lumos.tracing.trace import Trace
from lumos.tracing.unit_ids import varies_along


@dataclass(frozen=True)
class Letters:
    """What an equation says: one letter for each dimension.

    Args:
        operands: The letters of each operand.
        out: Those of the result.
    """

    operands: tuple[str, ...]
    out: str

    @classmethod
    def of(cls, equation: str, operands: list[Tensor]) -> Letters | None:
        """Read an equation; dots get letters of their own, and a result that is not written out is made of the letters
        that occur once. None where a letter stands twice in one operand: that is a diagonal."""
        left, arrow, to = equation.replace(" ", "").partition("->")
        parts = left.split(",")
        spare = [c for c in string.ascii_letters if c not in equation]
        most = max((t.ndim - len(p.replace("...", "")) for p, t in zip(parts, operands, strict=True) if "..." in p),
                   default=0)  # fmt: skip
        dots = "".join(spare[:most])
        if not arrow:
            once = sorted(c for c in set(left) - {",", "."} if left.count(c) == 1)
            to = ("..." if "..." in left else "") + "".join(once)
        sizes = [t.ndim - len(p.replace("...", "")) for p, t in zip(parts, operands, strict=True)]
        # Operands with fewer dimensions under the dots have the last ones.
        parts = [
            p.replace("...", dots[most - n :]) if n else p.replace("...", "") for p, n in zip(parts, sizes, strict=True)
        ]
        letters = cls(tuple(parts), to.replace("...", dots))
        return letters if all(len(set(p)) == len(p) for p in (*letters.operands, letters.out)) else None


def einsum(trace: Trace, call: Call) -> None:
    """A product of two operands: a weight consumes and makes units, two activations share the letters of both."""
    equation, operands = call.args[0], call.args[1:]
    operands = list(operands[0] if len(operands) == 1 and isinstance(operands[0], tuple | list) else operands)
    letters = Letters.of(equation, operands) if isinstance(equation, str) and len(operands) == 2 else None
    if letters is None:
        trace.freeze(call)
    else:
        follow(trace, call, letters, operands)


def matmul(trace: Trace, call: Call) -> None:
    """A product of matrices: with a weight or a stack of them, with a matrix that mixes places, or of two activations
    (an attention written out), to which something may be added."""
    bias, added = None, call.name in ("addmm", "baddbmm")
    if added:
        bias, a, b = call.args[:3]
    else:
        a, b = call.args[0], call.arg(1, "other", call.kwargs.get("mat2"))
    of_a, of_b, out = trace.source_parameter(a), trace.source_parameter(b), call.outputs[0]
    if a.ndim < 2 or b.ndim < 2:
        trace.freeze(call)
    elif of_b and b.ndim == 2:
        contract(trace, call, a, b, bias, x_dim=-1, in_dim=0, out_dim=1)
    elif bias is not None and (of_a or of_b):
        trace.freeze(call)
    elif of_b and not of_a:
        follow(trace, call, _letters_of_matrices(a, b, out), [a, b])
    elif of_a and a.ndim == 2 and _mixes_rows(trace.unit_ids(b)):
        ids = trace.unit_ids(b)
        trace.products.append(Product((trace.units_along(ids, -1, call.name),), out.numel() * a.shape[1] / b.shape[-1]))
        trace.set_unit_ids(out, ids.narrow(-2, 0, 1))
    elif of_a and a.ndim == 2:
        contract(trace, call, b, a, None, x_dim=-2, in_dim=1, out_dim=0)
    else:
        ids = product(trace, trace.unit_ids(a), trace.unit_ids(b), trace.where(call.name), call=None if added else call)
        if bias is not None:
            ids = meet(trace, [(out, ids), (bias, aligned(trace.unit_ids(bias), out.ndim))], call.name)
        trace.set_unit_ids(out, ids)


def _mixes_rows(ids: Tensor) -> bool:
    """Return whether a matrix from the left mixes places and no units: those are the columns (a graph's features)."""
    return varies_along(ids, ids.ndim - 1) and not varies_along(ids, ids.ndim - 2)


def _letters_of_matrices(a: Tensor, b: Tensor, out: Tensor) -> Letters:
    """Letters for a product of stacks of matrices; where one matrix serves all of a stack, it has a letter of its own
    there, of size one."""
    stack, spare = string.ascii_letters[: out.ndim - 2], iter(string.ascii_letters[out.ndim :])
    row, inner, column = (next(spare) for _ in range(3))

    def of(t: Tensor) -> str:
        mine = zip(stack[len(stack) - (t.ndim - 2) :], t.shape, out.shape[out.ndim - t.ndim :], strict=False)
        return "".join(letter if size == whole else next(spare) for letter, size, whole in mine)

    return Letters((of(a) + row + inner, of(b) + inner + column), stack + row + column)


def tensordot(trace: Trace, call: Call) -> None:
    """The last dimensions of one tensor with the first ones of another, or those that are named."""
    a, b = operands = [call.arg(0, "a"), call.arg(1, "b")]
    dims: Any = call.arg(2, "dims", 2)
    if isinstance(dims, int):
        dims = (range(a.ndim - dims, a.ndim), range(dims))
    of_a, of_b = list(string.ascii_letters[: a.ndim]), list(string.ascii_letters[a.ndim : a.ndim + b.ndim])
    for i, j in zip(*dims, strict=True):
        of_b[j % b.ndim] = of_a[i % a.ndim]
    out = [c for c in of_a if c not in of_b] + [c for c in of_b if c not in of_a]
    follow(trace, call, Letters(("".join(of_a), "".join(of_b)), "".join(out)), operands)


def _placed(ids: Tensor, have: str, to: str) -> Tensor:
    """Unit ids with their dimensions in another order; those that they have not get the size one."""
    ids = ids.permute([have.index(c) for c in to if c in have])
    for dim, letter in enumerate(to):
        ids = ids if letter in have else ids.unsqueeze(dim)
    return ids


def outer(trace: Trace, call: Call) -> None:
    """Every element of one vector with every one of another."""
    follow(trace, call, Letters(("a", "b"), "ab"), call.tensors[:2])


def bilinear(trace: Trace, call: Call) -> None:
    """``x W y``: a weight with an axis for each of two activations, and one that makes units."""
    x, y, weight = call.arg(0, "input1"), call.arg(1, "input2"), call.arg(2, "weight")
    bias = call.arg(3, "bias")
    rows = call.outputs[0].numel() // len(weight)
    # Counted as two products, each with half of the multiply-accumulates: a cost has two axes.
    contract(trace, call, x, weight, bias, x_dim=-1, in_dim=1, out_dim=0, macs=rows * weight.shape[2] / 2)
    contract(trace, call, y, weight, bias, x_dim=-1, in_dim=2, out_dim=0, macs=rows * weight.shape[1] / 2)


def follow(trace: Trace, call: Call, letters: Letters, operands: list[Tensor]) -> None:
    """Follow a product of two operands.

    Args:
        trace: The trace.
        call: The call.
        letters: What is multiplied and summed.
        operands: The two tensors.
    """
    named = [trace.source_parameter(t) is not None for t in operands]
    if sum(named) == 1:
        w = named.index(True)
        if _with_weight(trace, call, letters, operands, w):
            return
    if all(named):
        trace.freeze(call)
        return
    _of_activations(trace, call, letters, operands)


def _with_weight(trace: Trace, call: Call, letters: Letters, operands: list[Tensor], w: int) -> bool:
    """Follow a product with a weight; False where the weight makes no units (it meets them one by one).

    Among the letters that weight and activation share and sum over, the one along which the activation has units is
    consumed. Among those that the weight alone brings to the result, the longest makes units; the others are places:
    the experts of a mixture, the basis functions of a spline.
    """
    x, weight, of_x, of_w = operands[1 - w], operands[w], letters.operands[1 - w], letters.operands[w]
    ids = trace.unit_ids(x)
    sizes = dict(zip(of_x + of_w, [*x.shape, *weight.shape], strict=True))
    varying = [letter for i, letter in enumerate(of_x) if varies_along(ids, i)]
    if varying and set(varying).isdisjoint(of_w) and set(varying) <= set(letters.out):
        _mix_places(trace, call, ids, of_x, letters.out, math.prod(sizes.values()))
        return True
    ins = [letter for letter in of_w if letter in of_x and letter not in letters.out]
    outs = [letter for letter in of_w if letter in letters.out and letter not in of_x]
    if not ins or not outs:
        return False
    read = [letter for letter in ins if letter in varying] or [max(ins, key=sizes.__getitem__)]
    # Of a stack of weights, each reads units of its own: those at one place go together.
    stacked = set(of_w).intersection(of_x, letters.out) if read[0] in varying else set()
    if len(read) > 1 or set(varying) - stacked.union(read):
        trace.freeze(call)
        return True
    made = max(outs, key=sizes.__getitem__)
    dims = {"x_dim": of_x.index(read[0]), "in_dim": of_w.index(read[0]), "out_dim": of_w.index(made)}
    macs = math.prod(sizes.values()) // (sizes[read[0]] * sizes[made])
    contract(trace, call, x, weight, None, **dims, made_dim=letters.out.index(made), macs=macs)
    return True


def _mix_places(trace: Trace, call: Call, ids: Tensor, of_x: str, to: str, macs: int) -> None:
    """A product that mixes places and no units: these pass through it."""
    out = call.outputs[0]
    for dim, letter in reversed(list(enumerate(of_x))):
        ids = ids if letter in to else ids.select(dim, 0)
    ids = _placed(ids, "".join(letter for letter in of_x if letter in to), to).expand(out.shape)
    dim = next(d for d in range(out.ndim) if varies_along(ids, d))
    trace.products.append(Product((trace.units_along(ids, dim, call.name),), macs / out.shape[dim]))
    trace.set_unit_ids(out, ids)


def _of_activations(trace: Trace, call: Call, letters: Letters, operands: list[Tensor]) -> None:
    """Follow a product of two activations: units are merged along the letters that both have.

    It is made a product of matrices: letters that both have and the result too come first, then those of one operand,
    then those that are summed.
    """
    where, to = trace.where(call.name), letters.out
    ids = [trace.unit_ids(t) for t in operands]
    kept: list[str] = []
    for n, of in enumerate(letters.operands):
        alone = [d for d, c in enumerate(of) if c not in to and c not in letters.operands[1 - n]]
        ids[n] = mixed(trace, ids[n], alone, where)
        for d in reversed(alone):
            ids[n] = ids[n].select(d, 0)
        kept.append("".join(c for d, c in enumerate(of) if d not in alone))
    a, b = kept
    sizes = dict(zip(letters.operands[0] + letters.operands[1], [*operands[0].shape, *operands[1].shape], strict=True))
    both = [c for c in a if c in b and c in to]
    summed = [c for c in a if c in b and c not in to]
    rows, columns = [c for c in a if c not in b], [c for c in b if c not in a]
    if not summed:  # element by element
        pairs = [(t, _placed(x, have, to)) for t, x, have in zip(operands, ids, kept, strict=True)]
        trace.set_unit_ids(call.outputs[0], meet(trace, pairs, call.name))
        return

    def flat(of: Tensor, have: str, first: list[str], second: list[str]) -> Tensor:
        of = of.permute([have.index(c) for c in (*both, *first, *second)])
        shape = [math.prod(sizes[c] for c in some) for some in (first, second)]
        return of.reshape([*(sizes[c] for c in both), *shape])

    one, other = flat(ids[0], a, rows, summed), flat(ids[1], b, summed, columns)
    found = product(trace, one, other, where, call=call)
    order = [*both, *rows, *columns]
    found = found.reshape([sizes[c] for c in order])
    trace.set_unit_ids(call.outputs[0], found.permute([order.index(c) for c in to]))
