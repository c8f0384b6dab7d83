"""Rules for recurrent layers: LSTM, GRU and plain ones, whole sequences or single steps, packed or not.

A hidden unit is a row in each block of a layer's weights (one block for each gate of the cell), a column of the weight
that reads the last step, and a column of whatever reads the output. All layers and directions of one module have the
same hidden size, so that they lose the same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lumos.shapes import Int
from lumos.tracing.calls import Call
from lumos.tracing.costs import Contraction
from lumos.tracing.trace import Trace
from lumos.tracing.unit_ids import ANY_UNIT, varies_along

_BLOCKS = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True)
class _Cell:
    """The weights of one layer in one direction.

    Args:
        of_input: (blocks x hidden, inputs).
        of_hidden: (blocks x hidden, hidden).
        biases: Vectors (blocks x hidden,), two or none.
    """

    of_input: Tensor
    of_hidden: Tensor
    biases: Sequence[Tensor]


def layers(trace: Trace, call: Call) -> None:
    """``nn.LSTM``, ``nn.GRU`` and ``nn.RNN``: several layers over a sequence, in one or two directions."""
    packed = isinstance(call.args[1], Tensor) and not isinstance(call.args[2], list)
    x = call.args[0]
    start, weights, has_biases, count = call.args[2:6] if packed else call.args[1:5]
    directions = 2 if call.args[8 if packed else 7] else 1
    each = 4 if has_biases else 2
    if len(weights) != each * count * directions:
        trace.freeze(call, "projections of hidden units are not followed:")
        return
    cells = [_Cell(w[0], w[1], w[2:]) for w in (weights[i : i + each] for i in range(0, len(weights), each))]
    if packed:
        trace.hold_values([call.args[1]], call)
    read = trace.units_along(trace.unit_ids(x), -1, call.name)
    steps = x.numel() // x.shape[-1]
    made: list[Tensor] = []
    for layer in range(count):
        here = [_cell(trace, call, cell, read, steps) for cell in cells[layer * directions : (layer + 1) * directions]]
        if any(units is None for units in here):
            return
        made += [units for units in here if units is not None]
        read = torch.cat(made[-directions:])
    for units in made[1:]:
        trace.merge(units, made[0], trace.where(call.name))
    _begin(trace, call, start, made[0])
    out, *states = call.outputs
    trace.set_unit_ids(out, torch.cat([made[0]] * directions))
    for state in states:
        trace.set_unit_ids(state, made[0])


def cell(trace: Trace, call: Call) -> None:
    """``nn.LSTMCell``, ``nn.GRUCell`` and ``nn.RNNCell``: one step of one layer."""
    x, start, of_input, of_hidden, *biases = call.args
    here = _Cell(of_input, of_hidden, [b for b in biases if b is not None])
    read = trace.units_along(trace.unit_ids(x), -1, call.name)
    units = _cell(trace, call, here, read, x.numel() // x.shape[-1])
    if units is not None:
        _begin(trace, call, start, units)
        for state in call.outputs:
            trace.set_unit_ids(state, units)


def _cell(
    trace: Trace, call: Call, cell: _Cell, read: Int[Tensor, " inputs"], steps: int
) -> Int[Tensor, " hidden"] | None:
    """Say which units index the weights of one layer in one direction.

    Args:
        trace: The trace.
        call: The call.
        cell: The weights.
        read: The units of what the layer reads.
        steps: How many input vectors there are, over all samples and times.

    Returns:
        The hidden units; None where a weight is no parameter, and the call is frozen.
    """
    names = [trace.name_of(t) for t in (cell.of_input, cell.of_hidden, *cell.biases)]
    of_input, of_hidden = names[:2]
    if of_input is None or of_hidden is None or None in names:
        trace.freeze(call)
        return None
    path, reason = trace.module[0], trace.where(call.name)
    rows = trace.produce(of_input, 0, len(cell.of_input), path or of_input)
    blocks = rows.view(_BLOCKS[call.name.removesuffix("_cell")], -1)
    trace.merge(blocks, blocks[:1].expand(blocks.shape), reason)
    units = blocks[0]
    trace.assign(of_input, 1, read)
    trace.assign(of_hidden, 0, rows)
    trace.assign(of_hidden, 1, units)
    for bias in cell.biases:
        trace.assign_vector(bias, rows)
    for name in (of_input, of_hidden):
        trace.consumers[name, 1] = None
        trace.contractions.append(Contraction(name, 1, 0, steps, steps, path, False))
    call.axis = call.axis or (of_input, 1)
    return units


def _begin(trace: Trace, call: Call, start: object, units: Int[Tensor, " hidden"]) -> None:
    """Tie the hidden units to those of the state that a sequence starts with.

    The module that made the state of zeros keeps the hidden size as a number of its own.
    """
    states = start if isinstance(start, tuple | list) else (start,)
    for state in states:
        if not isinstance(state, Tensor):
            continue
        ids = trace.unit_ids(state)
        trace.merge(ids, units.expand(ids.shape), trace.where(call.name))
        if bool((ids.reshape(-1)[:1] == ANY_UNIT).all()):
            trace.record_made_sizes(state, units.expand(ids.shape))
        elif varies_along(ids, ids.ndim - 1):
            call.axis = None  # the state depends on the input too


def pack(trace: Trace, call: Call) -> None:
    """Sequences one after the other, as a packed one: rows move, and a row keeps its units."""
    x, lengths = call.args[:2]
    trace.hold_values([lengths], call)
    data, sizes = call.outputs
    trace.set_unit_ids(data, trace.units_along(trace.unit_ids(x), -1, call.name))
    trace.set_unit_ids(sizes, trace.unit_ids(lengths).reshape(-1)[:1])


def unpack(trace: Trace, call: Call) -> None:
    """A packed sequence as a padded one."""
    x, sizes = call.args[:2]
    trace.hold_values([sizes], call)
    trace.set_unit_ids(call.outputs[0], trace.units_along(trace.unit_ids(x), -1, call.name))
