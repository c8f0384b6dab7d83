"""The averaged copy of the weights: by hand, and through the cut."""

import pytest
import torch
from torch import nn

import lumos
from lumos.compaction.compact import compact
from lumos.compaction.plan import Plan
from lumos.compaction.verify import difference
from lumos.pruning.averaging import Average, decay_at
from lumos.pruning.controllers import ToleranceController
from lumos.pruning.settings import Schedule, Tolerance


class Branched(nn.Module):
    """Convolution, norm, residual and a head: cuts along three kinds of axis, and batch statistics."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

    def forward(self, x):
        h = torch.relu(self.norm(self.first(x)))
        return self.head((h + torch.relu(self.inner(h))).mean((2, 3)))


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 2)), (6,)),
    "images": (Branched, (3, 6, 6)),
}


def shaken(gated):
    """Other weights, as after a step."""
    with torch.no_grad():
        for p in gated.model.parameters():
            p.add_(0.3 * torch.randn_like(p))


def half_closed(kind):
    torch.manual_seed(0)
    make, shape = MODELS[kind]
    x = torch.randn(5, *shape)
    gated = lumos.gate(make(), x)
    with torch.no_grad():
        gated.gates.log_alpha[::2] = -8.0
        gated.gates.log_alpha[1::2] = 0.3  # open, and not altogether
        gated.project()
    return gated.double(), x.double()


def test_an_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, 0.5)
    means = []
    for value in (1.0, 3.0, 5.0, 7.0):
        model.weight.data.fill_(value)
        average.update(model)
        means.append(average.model(torch.ones(1)).item())
    # The first weights are taken as they are; then the decay after 1, 2 and 3 updates is 2/11, 3/12 and 4/13.
    second = 1 + (3 - 1) * 9 / 11
    third = second + (5 - second) * 9 / 12
    assert means == pytest.approx([1.0, second, third, third + (7 - third) * 9 / 13])
    assert [decay_at(0.5, n) for n in (8, 10_000)] == [0.5, 0.5]
    assert decay_at(0.999, 8980) == pytest.approx(8981 / 8990)
    assert decay_at(0.999, 9000) == 0.999


@pytest.mark.parametrize("kind", MODELS)
def test_the_cut_of_the_average_is_the_average_of_the_cuts(kind):
    gated, x = half_closed(kind)
    average = Average(gated, 0.9)
    cuts = Average(compact(gated), 0.9)
    for _ in range(4):
        shaken(gated)
        average.update(gated)
        cuts.update(compact(gated))
    with torch.no_grad():
        want = average.model.eval()(x)
    average.cut()
    small = average.model.eval()
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in gated.model.parameters())
    with torch.no_grad():
        assert difference(want, small(x))[1] < 1e-12
    expected = dict(cuts.model.named_parameters())
    for name, p in small.named_parameters():
        assert torch.allclose(p, expected[name], rtol=1e-10, atol=1e-14), name
    # and it goes on as one that was cut from the start
    weights = compact(gated)
    for one in (average, cuts):
        one.update(weights)
    for name, p in average.model.named_parameters():
        assert torch.allclose(p, dict(cuts.model.named_parameters())[name], rtol=1e-10, atol=1e-14), name


def test_what_is_cut_out_of_the_average_is_what_is_cut_out_of_the_weights():
    gated, _ = half_closed("mlp")
    average = Average(gated, 0.9)
    shaken(gated)
    average.update(gated)
    shaken(gated)
    average.update(gated)
    plan = Plan.of(gated.structure, gated.structure.with_placeholders(gated.gates.is_open()))
    means = {n: p.detach().clone() for n, p in average.model.model.named_parameters()}
    m = gated.multipliers()
    average.cut()
    for name, p in average.model.model.named_parameters():
        assert torch.equal(p, plan.cut(name, means[name] * m.get(name, torch.ones(())))), name


def test_a_tolerance_scores_the_average():
    torch.manual_seed(0)
    gated = lumos.gate(MODELS["mlp"][0](), torch.randn(4, 6))
    average = Average(gated, 0.9)
    scored = []
    goal = Tolerance(0.1, score=lambda model: scored.append(model) or 0.85, baseline=0.9)
    controller = ToleranceController(goal, Schedule(100, 80), gated, average)
    for step in (2, 4):
        controller.after_step(gated, step)
    assert scored == [average.model] * 2
