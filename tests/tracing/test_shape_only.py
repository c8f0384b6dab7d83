"""A trace that skips costly products finds what one that computes them finds, and leaves nothing on the model."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lumos.tracing.inputs import input_tensors
from lumos.tracing.options import StructureOptions
from lumos.tracing.shape_only import ValuesRead
from lumos.tracing.trace_structure import run_tracer, trace_structure
from tests.families import Net

WIDE = 1200
"""Wide enough for products to be skipped."""


def run(model, *inputs, skip_compute=True):
    dims = {path: 1 for path, x in input_tensors(inputs).items() if x.is_floating_point()}
    return run_tracer(model, inputs, dims, StructureOptions(), skip_compute)[0]


def same(a, b):
    assert (a.groups, a.fixed, a.shapes, a.contractions) == (b.groups, b.fixed, b.shapes, b.contractions)
    assert (a.dataflow, a.layers) == (b.dataflow, b.layers)
    for mine, other in ((a.maps, b.maps), (a.sites, b.sites)):
        assert mine.keys() == other.keys()
        assert all(torch.equal(units, other[axis]) for axis, units in mine.items())


def big():
    convs = [nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 48, 3, padding=1), nn.ReLU()]
    up = [nn.ConvTranspose2d(48, 32, 2, 2), nn.GroupNorm(4, 32), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*convs, *up, nn.Linear(128, WIDE), nn.ReLU(), nn.Linear(WIDE, 3)), torch.randn(2, 3, 48, 48)


def test_structure_is_the_same_skipped_and_computed(monkeypatch):
    model, x = big()
    assert run(model, x).skipped
    skipped = trace_structure(model, (x,))
    monkeypatch.setattr("lumos.tracing.shape_only._COSTLY", float("inf"))
    assert not run(model, x).skipped
    computed = trace_structure(model, (x,))
    same(skipped, computed)
    assert {g.size for g in skipped.groups} >= {32, 48, WIDE}


def branching(read):
    """Which layer comes second depends on values: ``read`` says yes to a product of ones and no to zeros."""

    def forward(m, x):
        h = m.a(x)
        return m.b(h) if read(h) else m.c(h[:, :10])

    model = Net(forward, a=nn.Linear(WIDE, WIDE), b=nn.Linear(WIDE, 2), c=nn.Linear(10, 2))
    nn.init.ones_(model.a.weight)
    return model, torch.ones(2, WIDE)


READS = {
    "bool": lambda h: h.sum() > 0,
    "float": lambda h: float(h.mean()) > 0,
    "item": lambda h: h[0, 0].item() > 0,
    "tolist": lambda h: h[0].tolist()[0] > 0,
    "numpy": lambda h: h.numpy()[0, 0] > 0,
    "contains": lambda h: 0.0 not in h,
    "equal": lambda h: not torch.equal(h, torch.zeros_like(h)),
    "nonzero": lambda h: len(h.nonzero()) > 0,
    "where": lambda h: len(torch.where(h > 0)[0]) > 0,
    "mask": lambda h: len(h[h > 0]) > 0,
    "masked_select": lambda h: len(h.masked_select(h > 0)) > 0,
    "unique": lambda h: 0 not in torch.unique(h),
    "repeat": lambda h: len(torch.arange(WIDE).repeat_interleave((h[0] > 0).long())) > 0,
}


@pytest.mark.parametrize("name", READS)
def test_code_that_branches_on_values_gets_them(name):
    model, x = branching(READS[name])
    assert run(model, x).values_read is False  # the trace that counts is the one with values
    assert [c.weight for c in trace_structure(model, (x,)).contractions] == ["a.weight", "b.weight"]


def test_code_that_reads_no_values_needs_no_products():
    def forward(m, x):
        h = m.a(x)
        assert h.shape[-1] == len(h[0]) == h.size(-1)
        assert h.is_floating_point()
        return m.b(F.relu(h).float() / (1 + h.norm(dim=0, keepdim=True)))

    tracer = run(Net(forward, a=nn.Linear(WIDE, WIDE), b=nn.Linear(WIDE, 2)), torch.randn(2, WIDE))
    assert tracer.skipped
    assert not tracer.values_read


def test_a_model_that_catches_errors_of_its_own_is_traced_with_values():
    def forward(m, x):
        h = m.a(x)
        try:
            return m.b(h) if h.sum() > 0 else m.c(h[:, :10])
        except ValuesRead:
            return m.c(h[:, :10])

    model, x = branching(None)
    model._forward = forward
    assert [c.weight for c in trace_structure(model, (x,)).contractions] == ["a.weight", "b.weight"]


def test_what_fails_for_want_of_values_runs_with_them():
    def forward(m, x):
        h = m.a(x)
        return m.b(h[:, : torch.zeros(WIDE)[: h.new_tensor([3]).long()].numel()])

    structure = trace_structure(Net(forward, a=nn.Linear(WIDE, WIDE), b=nn.Linear(3, 2)), (torch.randn(2, WIDE),))
    assert structure.shapes["b.weight"] == (2, 3)
