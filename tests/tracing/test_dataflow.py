"""What follows from what when axes close: residual branches, chains, and modules whose place a constant can take."""

import torch
from torch import nn

from lumos.tracing.dataflow import Dataflow, Edge, ModuleCall
from lumos.tracing.trace_structure import trace_structure
from tests.families import Net

A, B = ("a", 1), ("b", 1)


def test_a_residual_branch_may_close_and_a_chain_may_not():
    """0 -> 1 through a, 1 -> 2 through b, 0 + 2 -> 3."""
    edges = (Edge((0,), 1, A), Edge((1,), 2, B), Edge((0, 2), 3, None))
    branch = Dataflow(edges, frozenset({0}), frozenset({3}))
    assert branch.outputs_depend_on_inputs({A, B})
    assert branch.dependent_values({A}) == {0, 3}
    chain = Dataflow(edges[:2], frozenset({0}), frozenset({2}))
    assert not chain.outputs_depend_on_inputs({A})
    assert chain.outputs_depend_on_inputs(())


def test_outputs_that_never_depended_on_the_inputs_do_not_count():
    flow = Dataflow((Edge((0,), 1, A),), frozenset({0}), frozenset({1, 7}))
    assert flow.outputs_depend_on_inputs(())
    assert not flow.outputs_depend_on_inputs({A})


def test_the_outermost_modules_are_replaced_and_those_that_nobody_reads():
    shape = torch.Size([2])
    calls = (ModuleCall("m", 0, 2, shape, shape), ModuleCall("m.in", 0, 1, shape, shape))
    edges = (Edge((0,), 1, None), Edge((1,), 2, A), Edge((0, 2), 3, None))
    constant, unread = Dataflow(edges, frozenset({0}), frozenset({3}), calls).replaceable_modules({A})
    assert [c.path for c in constant] == ["m"]
    assert not unread


def test_a_trace_records_calls_in_place_and_modules():
    def forward(m, x):
        h = m.a(x)
        h.relu_()
        return h + m.c(m.b(h))

    model = Net(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 5), c=nn.Linear(5, 4))
    flow = trace_structure(model, (torch.randn(2, 3),)).dataflow
    assert [edge.axis for edge in flow.edges] == [("a.weight", 1), None, ("b.weight", 1), ("c.weight", 1), None]
    assert {c.path for c in flow.calls} == {"a", "b", "c"}
    # relu_ made another value of the same tensor, and that is what b reads
    assert flow.edges[2].sources == (flow.edges[1].target,) != (flow.edges[0].target,)
    assert flow.outputs_depend_on_inputs({("b.weight", 1)})
    assert not flow.outputs_depend_on_inputs({("a.weight", 1)})
