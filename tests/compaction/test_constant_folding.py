"""Branches of which nothing is left become constants; what the network cannot do without stays."""

import torch
from torch import nn

import lumos
from lumos.compaction.probe import trace_and_probe
from tests.families import FAMILIES, Net, PlainViT


def closed(gated, *names):
    with torch.no_grad():
        gated.gates.log_alpha.fill_(3.0)
        for name in names:
            gated.gates.log_alpha[gated.structure.group(name).gates] = -8.0
    return gated


def test_a_residual_branch_with_nothing_left_is_a_constant(tmp_path):
    """Convolutions and norms of the branch go; what their biases added stays, to the last bit that float64 shows."""
    model, inputs = FAMILIES["CNN 2D, BN, residual, flatten"]()
    gated = closed(lumos.gate(model, inputs), "4.a")
    assert lumos.verify(gated, inputs).max_rel_diff <= 1e-14
    small = lumos.compact(gated)
    left = {name for name, _ in small.model.named_parameters() if name.startswith("4.")}
    assert left == {"4.a.value", "4.na.value", "4.b.value", "4.nb.value"}
    assert small.model.get_submodule("4.b")(torch.randn(2, 3, 5, 5)).shape == (2, 8, 5, 5)
    small.save(tmp_path / "compact.pt")
    back = lumos.load(tmp_path / "compact.pt", FAMILIES["CNN 2D, BN, residual, flatten"]()[0])
    other = torch.randn(5, 3, *inputs[0].shape[2:])
    assert torch.equal(back.eval()(other), small.eval()(other))


def test_a_block_of_a_transformer_goes_as_a_whole():
    model, inputs = PlainViT(True), (torch.randn(2, 1, 8, 8),)
    gated = closed(lumos.gate(model, inputs), "blocks.0.1.qkv", "blocks.1.3")
    lumos.verify(gated, inputs)
    small = lumos.compact(gated)
    assert {path for path in small.layers if path.count(".") == 2} == {
        "blocks.0.0", "blocks.0.1", "blocks.1.2", "blocks.1.3", "blocks.1.4"
    }  # fmt: skip
    assert [n for n, _ in small.model.get_submodule("blocks.0.1").named_parameters()] == ["value"]


def test_a_branch_whose_parameter_others_read_stays():
    """A constant in its place would not have the parameter."""

    def forward(m, x):
        h = m.first(x)
        return m.last(h + m.b(torch.relu(m.a(h))) * m.b.scale)

    branch = nn.Linear(5, 4)
    branch.register_parameter("scale", nn.Parameter(torch.randn(4)))
    model = Net(forward, first=nn.Linear(3, 4), a=nn.Linear(4, 5), b=branch, last=nn.Linear(4, 2))
    gated = closed(lumos.gate(model, torch.randn(3, 3)), "a")
    lumos.verify(gated, (torch.randn(4, 3),))
    assert type(lumos.compact(gated).model.get_submodule("b")) is nn.Linear


def test_a_convolution_with_nothing_left_in_a_group_that_is_open_holds_a_place():
    """Its channels are of one group with the image's, by the skip after the concatenation."""

    def forward(m, x):
        h = torch.cat([m.a(x), x], 1)
        return m.last(h + m.b(h)).mean((2, 3))

    model = Net(forward, a=nn.Conv2d(3, 2, 3, padding=1), b=nn.Conv2d(5, 5, 3, padding=1), last=nn.Conv2d(5, 4, 1))
    x = torch.randn(2, 3, 6, 6)
    gated = lumos.gate(model, x)
    units = gated.structure.maps["a.weight", 0] - 1
    (group,) = [g for g in gated.structure.groups if g.start <= int(units[0]) < g.stop]
    assert group.size > len(units)
    with torch.no_grad():
        gated.gates.log_alpha[units] = -8.0
    lumos.verify(gated, (x,))
    assert lumos.compact(gated).model.get_submodule("a").weight.shape[0] == 1


def test_what_the_network_cannot_do_without_is_protected():
    """Each of two parallel branches may go, both may not; in a chain nothing may."""
    chain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    assert not any(g.optional for g in trace_and_probe(chain, torch.randn(2, 3)).groups)
    two = Net(
        lambda m, x: m.c(torch.relu(m.a(x))) + m.d(torch.relu(m.b(x))),
        a=nn.Linear(3, 4), b=nn.Linear(3, 4), c=nn.Linear(4, 1), d=nn.Linear(4, 1),
    )  # fmt: skip
    gated = lumos.gate(two, torch.randn(2, 3))
    assert {g.name for g in gated.structure.groups if g.optional} == {"a", "b"}
    closed(gated, "a").project()
    assert not gated.gates.is_open()[gated.structure.group("a").gates].any()
    closed(gated, "a", "b").project()
    assert gated.structure.dataflow.outputs_depend_on_inputs(gated.structure.closed_axes(gated.gates.is_open()))
    lumos.verify(gated, (torch.randn(4, 3),))
