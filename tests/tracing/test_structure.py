"""What the trace finds: groups, ties, fixed units with their reasons, and costs."""

import pytest
import torch
from torch import nn

import lumos
from lumos.errors import StructureError
from lumos.tracing.trace_structure import trace_structure


class Model(nn.Module):
    """Layers by name and a forward written in the test."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, *args):
        return self._forward(self, *args)


def groups(model, *inputs) -> dict[str, int]:
    return {g.name: g.size for g in trace_structure(model, inputs).groups}


def reasons(model, *inputs) -> str:
    return " | ".join(f"{f.name}: {f.reason}" for f in trace_structure(model, inputs).fixed)


def test_residual_ties_both_sides():
    model = Model(
        lambda m, x: m.c(m.a(x) + torch.relu(m.b(torch.relu(m.a(x))))),
        a=nn.Linear(3, 8),
        b=nn.Linear(8, 8),
        c=nn.Linear(8, 1),
    )
    assert groups(model, torch.randn(4, 3)) == {"input": 3, "a": 8}


def test_concatenation_keeps_the_parts_apart():
    model = Model(
        lambda m, x: m.c(torch.cat([m.a(x), x, m.b(x)], -1)), a=nn.Linear(3, 4), b=nn.Linear(3, 5), c=nn.Linear(12, 1)
    )
    structure = trace_structure(model, (torch.randn(4, 3),))
    assert {g.name: g.size for g in structure.groups} == {"input": 3, "a": 4, "b": 5}
    a, x, b = (structure.group(n) for n in ("a", "input", "b"))
    expected = [*range(a.start, a.stop), *range(x.start, x.stop), *range(b.start, b.stop)]
    assert (structure.maps["c.weight", 1] - 1).tolist() == expected


def test_batch_norm_and_scales_follow():
    model = Model(
        lambda m, x: m.c(m.bn(m.a(x)) * m.scale + m.shift),
        a=nn.Linear(3, 8),
        bn=nn.BatchNorm1d(8),
        c=nn.Linear(8, 2),
        scale=nn.Parameter(torch.randn(1, 8)),
        shift=nn.Parameter(torch.randn(8)),
    )
    maps = trace_structure(model, (torch.randn(4, 3),)).maps
    expected = maps["a.weight", 0].tolist()
    followers = [("bn.running_mean", 0), ("bn.running_var", 0), ("bn.weight", 0), ("scale", 1), ("shift", 0)]
    assert all(maps[axis].tolist() == expected for axis in followers)


def test_flatten_and_reshape_are_followed():
    model = Model(
        lambda m, x: m.c(m.a(x).view(-1, 4, 2).transpose(1, 2).flatten(1)), a=nn.Linear(3, 8), c=nn.Linear(8, 2)
    )
    structure = trace_structure(model, (torch.randn(4, 3),))
    start = structure.group("a").start
    # What stays of a view is a rectangle: the two units of a row go together, wherever they are put.
    assert (structure.maps["a.weight", 0] - 1 - start).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert (structure.maps["c.weight", 1] - 1 - start).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    gated = lumos.gate(model, torch.randn(4, 3)).eval()
    gated.gates.log_alpha.data[gated.structure.group("a").start] = -8.0
    assert lumos.compact(gated).model.a.weight.shape == (6, 3)
    lumos.verify(gated, torch.randn(4, 3))


def test_halves_that_are_multiplied_are_tied():
    def glu(m, x):
        left, right = m.a(x).chunk(2, dim=-1)
        return m.c(left * torch.sigmoid(right))

    model = Model(glu, a=nn.Linear(3, 8), c=nn.Linear(4, 1))
    assert groups(model, torch.randn(4, 3)) == {"input": 3, "a": 4}
    gated = lumos.gate(model, torch.randn(4, 3))
    gated.gates.log_alpha.data[gated.structure.group("a").start] = -8.0
    assert lumos.compact(gated).model.a.weight.shape == (6, 3)


def test_plain_products_with_parameters():
    model = Model(
        lambda m, x: torch.relu(x @ m.w + m.b) @ m.v,
        w=nn.Parameter(torch.randn(3, 6)),
        b=nn.Parameter(torch.randn(6)),
        v=nn.Parameter(torch.randn(6, 2)),
    )
    assert groups(model, torch.randn(4, 3)) == {"input": 3, "w": 6}
    lumos.gate(model, torch.randn(4, 3))


def test_outputs_are_fixed():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert "2: it is an output of the model" in reasons(model, torch.randn(4, 3))


def test_mixing_fixes_with_call_module_and_line():
    model = Model(lambda m, x: m.c(torch.softmax(m.a(x), -1)), a=nn.Linear(3, 4), c=nn.Linear(4, 1))
    text = reasons(model, torch.randn(4, 3))
    assert "a: mixed by softmax in the model (Model, test_structure.py:" in text
    norm = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    assert "0: mixed by layer_norm in 1 (LayerNorm" in reasons(norm, torch.randn(4, 3))


def test_unknown_calls_fix_what_they_touch_and_say_so():
    def forward(m, x):
        return m.c(torch.linalg.norm(m.a(x)[:, :, None] * torch.ones(4), dim=1))

    model = Model(forward, a=nn.Linear(3, 6), c=nn.Linear(4, 1))
    assert "a: there is no rule for linalg_norm in the model" in reasons(model, torch.randn(4, 3))


def test_values_of_fixed_size_fix_what_meets_them():
    """A raw input of full width is added to hidden units: they keep its size; with a column of it, they are free."""
    integers = torch.arange(16).view(4, 4)
    full = Model(lambda m, x, k: m.c(m.a(x) + k), a=nn.Linear(3, 4), c=nn.Linear(4, 1))
    assert "a: meets a value of fixed size: add in the model" in reasons(full, torch.randn(4, 3), integers)
    column = Model(lambda m, x, k: m.c(m.a(x) + k[:, :1]), a=nn.Linear(3, 4), c=nn.Linear(4, 1))
    assert groups(column, torch.randn(4, 3), integers) == {"input": 3, "a": 4}


def test_a_value_spread_over_units_does_not_tie_them():
    model = Model(lambda m, x: m.c(m.a(x) * x[:, :1]), a=nn.Linear(3, 4), c=nn.Linear(4, 1))
    assert groups(model, torch.randn(4, 3)) == {"input": 2, "a": 4}
    assert "input: spread over other units by mul" in reasons(model, torch.randn(4, 3))


def test_the_probe_fixes_sizes_written_as_constants():
    def forward(m, x):
        h = m.a(x)
        return m.c(h.narrow(1, 0, 3)) + m.d(h.narrow(1, 3, 5))

    model = Model(forward, a=nn.Linear(3, 8), c=nn.Linear(3, 2), d=nn.Linear(5, 2))
    structure = lumos.gate(model, torch.randn(4, 3)).structure
    assert [g.name for g in structure.groups] == ["input"]
    assert any(f.name == "a" and "the probe could not cut it" in f.reason for f in structure.fixed)


@pytest.mark.parametrize("call", ["view", "reshape", "unflatten", "Unflatten"])
def test_literals_in_calls_that_give_a_shape_become_others(call, tmp_path):
    """Four blocks of two channels: blocks go, though the code says that there are four."""

    def forward(m, x):
        h = m.a(x)
        h = {"view": lambda: h.view(-1, 4, 2), "reshape": lambda: torch.reshape(h, (-1, 4, 2)),
             "unflatten": lambda: h.unflatten(1, (4, 2)), "Unflatten": lambda: m.u(h)}[call]()  # fmt: skip
        return m.c(torch.relu(m.b(h)).mean(2))

    def build():
        layers = {"a": nn.Linear(3, 8), "u": nn.Unflatten(1, (4, 2)), "b": nn.Conv1d(4, 5, 1), "c": nn.Linear(5, 2)}
        return Model(forward, **layers)

    x = torch.randn(4, 3)
    gated = lumos.gate(build(), x).eval()
    assert {g.name: g.size for g in gated.structure.groups} == {"input": 3, "a": 4, "b": 5}
    with torch.no_grad():
        gated.gates.log_alpha.fill_(2.0)
        gated.gates.log_alpha[gated.structure.group("a").start] = -8.0
    lumos.verify(gated, (x,))
    small = lumos.compact(gated)
    assert small.model.a.weight.shape == (6, 3)
    small.save(tmp_path / "compact.pt")
    assert torch.equal(lumos.load(tmp_path / "compact.pt", build())(x), small(x))


def test_costs_are_exact_when_all_gates_are_open():
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    structure = trace_structure(model, (torch.randn(4, 5),))
    assert structure.dense_sizes == (5 * 7 + 7 + 7 * 3 + 3, 4 * (5 * 7 + 7 * 3))


def test_expected_sizes_by_hand():
    """2-2-1 with open probabilities: W1 counts (p0+p1)(q0+q1), b1 counts q0+q1, W2 counts q0+q1, b2 one."""
    structure = trace_structure(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), (torch.randn(3, 2),))
    p = torch.tensor([0.5, 0.25, 1.0, 0.5], dtype=torch.float64)
    parameters, macs = structure.expected_sizes(p)
    assert float(parameters) == pytest.approx(0.75 * 1.5 + 1.5 + 1.5 + 1)
    assert float(macs) == pytest.approx(3 * (0.75 * 1.5 + 1.5))


def test_expected_sizes_match_the_compact_model():
    gated = lumos.gate(nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 2)), torch.randn(4, 6))
    gated.gates.log_alpha.data[[0, 3, 7, 8, 12]] = -8.0
    expected = gated.structure.expected_sizes(gated.gates.is_open().double())[0]
    assert int(expected) == sum(p.numel() for p in lumos.compact(gated).parameters())


def test_several_inputs_and_names():
    model = Model(lambda m, x, y: m.c(torch.cat([x, y], 1)), c=nn.Linear(5, 1))
    gated = lumos.gate(model, (torch.randn(4, 2), torch.randn(4, 3)), features=["a", "b", "c", "d", "e"])
    gated.gates.log_alpha.data[[1, 2]] = -8.0
    small = lumos.compact(gated)
    assert small.features == ["a", "d", "e"]
    x, y = torch.randn(4, 2), torch.randn(4, 3)
    torch.testing.assert_close(small(x, y), gated.eval()(x, y))


def test_features_along_the_last_dimension():
    """A linear layer on (samples, places, features): the features are the last dimension, and are found there."""
    structure = trace_structure(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), (torch.randn(2, 7, 3),))
    assert structure.group("input").size == 3
    assert structure.inputs[0].dim == 2


def test_clear_errors():
    with pytest.raises(StructureError, match="2 feature names for inputs with 3 features"):
        lumos.gate(nn.Linear(3, 1), torch.randn(2, 3), features=["a", "b"])
    with pytest.raises(StructureError, match="the model does not run on the example: RuntimeError"):
        lumos.gate(nn.Linear(3, 1), torch.randn(2, 4))
    with pytest.raises(StructureError, match="nothing in Softmax can be removed"):
        lumos.gate(nn.Softmax(dim=1), torch.randn(2, 4))


def test_tracing_leaves_the_model_and_the_generator_alone():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1)).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    torch.manual_seed(5)
    lumos.gate(model, torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert all(m.training for m in model.modules())
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_explain_says_what_goes_and_what_stays():
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    text = lumos.explain(model, torch.randn(4, 5))
    assert "12 gates in 2 groups; 66 parameters, 56 MACs a sample" in text
    # an input costs the seven weights that read it; a hidden unit five weights, its bias and three readers
    assert [line.split()[:5] for line in text.splitlines()[3:5]] == [
        ["input", "feature", "5", "7", "7"],
        ["0", "hidden", "7", "9", "8"],
    ]
    assert "2 (3 units): it is an output of the model" in text
