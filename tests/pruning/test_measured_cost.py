"""Latency and memory as targets: calibration, prediction, the promise at the cut. The clock of these tests counts."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lumos
from lumos.errors import ConfigError
from lumos.pruning import calibration as calibrating
from lumos.pruning.bench import BLOCK, Bench, CallMeter
from lumos.pruning.calibration import Calibration, scattered_networks
from lumos.pruning.fitted_cost import FittedCost, fit_coefficients, rounded_up
from lumos.pruning.pruner import Pruner
from lumos.pruning.settings import Call
from lumos.pruning.settling import BELOW, settle
from tests.pruning.networks import mlp
from tests.pruning.test_pruner import STEPS, problem, steps


def counted(models, inputs, seconds):
    """A clock: a call takes as long as it has multiply-accumulates, and a little more."""
    return {name: [1e-6 + 1e-8 * macs(model)] * 3 for name, model in models.items()}


def macs(model):
    return sum(m.in_features * m.out_features for m in model.modules() if isinstance(m, nn.Linear))


def in_blocks(models, inputs, seconds):
    """A clock of hardware with blocks of eight: a layer of another width takes the slow way."""

    def took(model):
        widths = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)][:-1]
        return 1e-6 + 1e-8 * macs(model) * 2.0 ** sum(width % 8 > 0 for width in widths)

    return {name: [took(model)] for name, model in models.items()}


@pytest.fixture(autouse=True)
def few_networks(monkeypatch):
    monkeypatch.setattr(calibrating, "NETWORKS", 8)
    monkeypatch.setattr(calibrating, "FEWEST_NETWORKS", 8)


def trained(target, clock=counted, calibration=None, count=STEPS, **options):
    model, x, y = problem()
    gated = lumos.gate(model, x[:8])
    optimizer = torch.optim.Adam(gated.parameters(), lr=3e-3)
    pruner = Pruner(gated, optimizer, STEPS, target, clock=clock, calibration=calibration, **options)
    steps(gated, optimizer, x, y, count)
    return model, x, pruner


# ---- the promise ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [pytest.param(0.6, marks=pytest.mark.slow), 0.3])
def test_a_latency_is_met_from_below_by_the_clock(asked):
    model, x, pruner = trained(lumos.Target(latency=asked))
    small = pruner.finish()
    took = counted({"dense": model, "small": small}, (x[:8],), 0)
    share = took["small"][0] / took["dense"][0]
    assert (1 - BELOW) * asked <= share <= asked
    found = pruner.report()["steering"]
    assert (found["key"], found["asked"]) == ("lumos.target.latency", asked)
    assert found["reached"] == found["measured"] == pytest.approx(share)
    assert found["predicted"] == pytest.approx(share, rel=0.15)
    assert found["calibration_error"]["median"] < 0.05
    assert found["call"] == {"device": "cpu", "batch": 8, "threads": torch.get_num_threads(), "precision": "float32"}
    assert pruner.equivalence.max_rel_diff < 1e-10


def test_a_memory_is_met_from_below():
    model, x, pruner = trained(lumos.Target(memory=0.6), clock=None)
    small = pruner.finish()
    meter = CallMeter("memory", Call(), (x[:8],), torch.device("cpu"))
    (share,) = meter.shares(model.eval(), [small], 0)
    assert 0.5 <= share <= 0.6
    assert pruner.report()["steering"]["measured"] == pytest.approx(share, rel=0.02)


def test_what_no_cut_can_meet_is_refused_before_the_training():
    with pytest.raises(
        ConfigError, match=r"lumos.target.latency=0.01: this model can only have 0\.\d+ to 1, as measured"
    ):
        trained(lumos.Target(latency=0.01))


@pytest.mark.slow
def test_widths_are_rounded_up_where_that_is_faster_and_only_there():
    _, _, pruner = trained(lumos.Target(latency=0.5), in_blocks)
    small = pruner.finish()
    widths = [m.out_features for m in small.modules() if isinstance(m, nn.Linear)][:-1]
    assert all(width % BLOCK == 0 for width in widths)
    assert 0.2 < pruner.report()["steering"]["measured"] <= 0.5
    gated = mlp()
    keep = scattered_networks(gated.structure, 4)[0]
    ((_, same),) = Bench(gated, "latency", Call(), counted).cheapest([keep], torch.zeros(len(keep)), 0)
    assert torch.equal(same, keep)


@pytest.mark.slow
@pytest.mark.parametrize("goal", [lumos.Lambda(1e-2, penalty="latency"), "tolerance"], ids=["lambda", "tolerance"])
def test_latency_is_what_lambda_and_tolerance_minimise(goal):
    if goal == "tolerance":
        goal = lumos.Tolerance(0.5, score=lambda model: 1.0, baseline=1.0, penalty="latency")
    _, _, pruner = trained(goal, count=1)
    gated, controller = pruner.gated, pruner.controller
    with torch.no_grad():
        gated.gates.log_alpha.fill_(40.0)
    term, *_features = controller.penalty_terms(gated)
    assert float(term.detach()) == pytest.approx(gated.structure.units, rel=0.02)  # as the number of gates
    term.backward()
    _, _, pruner = trained(goal)
    small, found = pruner.finish(), pruner.report()["steering"]
    assert found["measured"] <= 1.0
    assert sum(p.numel() for p in small.parameters()) > 0


# ---- going on after a stop ------------------------------------------------------------------------------------------


def test_a_resumed_run_goes_on_with_what_was_measured():
    """On a machine that is twice as slow at small networks by then, and without measuring again."""

    def never(models, inputs, seconds):
        raise AssertionError("measured again")

    _, _, before = trained(lumos.Target(latency=0.4), count=4)
    state = copy.deepcopy(before.state_dict())
    known = Calibration.in_state(before.gated.structure, state)
    _, _, after = trained(lumos.Target(latency=0.4), never, known, count=0)
    after.load_state_dict(state)
    torch.testing.assert_close(
        after.calibration.cost.coefficients, before.calibration.cost.coefficients, rtol=0, atol=0
    )
    assert after.controller.report().keys() == before.controller.report().keys()


def test_a_calibration_of_other_calls_is_refused():
    _, _, before = trained(lumos.Target(latency=0.4), count=0)
    goal = lumos.Target(latency=0.4, call=lumos.Call(batch=64))
    with pytest.raises(ConfigError, match="calibration: it is of calls with batch 8, here 64"):
        trained(goal, calibration=before.calibration, count=0)


@pytest.mark.slow
def test_killed_in_fit_and_gone_on_with_the_same_digits(tmp_path):
    model, x, y = problem()
    data = {"train": (x[:200], y[:200]), "valid": (x[200:], y[200:])}
    more = {"loss": nn.functional.mse_loss, "target": lumos.Target(latency=0.4), "epochs": 8, "clock": counted}

    def stop(row):
        if row["epoch"] == 5:
            raise KeyboardInterrupt

    whole = lumos.fit(model, **data, **more)
    with pytest.raises(KeyboardInterrupt):
        lumos.fit(model, **data, **more, folder=tmp_path, progress=stop)
    again = lumos.fit(model, **data, **more, folder=tmp_path)
    assert [row["valid"] for row in again.curve] == [row["valid"] for row in whole.curve]
    assert again.params == whole.params


# ---- the fit --------------------------------------------------------------------------------------------------------


def test_the_choice_of_networks_is_a_function_of_the_structure():
    structure = mlp().structure
    first, again = (scattered_networks(structure, 20) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    widths = torch.tensor([[int(keep[g.gates].sum()) for g in structure.groups] for keep in first])
    assert widths.amin(0).tolist() == [1, 1, 1] or int(widths.amin()) >= 1
    assert bool((widths.amax(0) >= 40).all())


def test_a_known_cost_is_found_again():
    """Coefficients that are not negative, and relative errors: the small networks count as much as the large ones."""
    torch.manual_seed(0)
    terms = torch.rand(40, 6).double().numpy()
    truth = torch.tensor([0.1, 0.0, 0.3, 0.0, 0.5, 0.1]).double().numpy()
    assert fit_coefficients(terms, terms @ truth) == pytest.approx(truth, abs=1e-8)


@given(st.lists(st.floats(0, 1), min_size=160, max_size=160), st.integers(0, 159))
@settings(max_examples=30, deadline=None)
def test_the_fitted_cost_never_falls_when_a_gate_opens(values, number):
    cost = _fitted()
    gates = torch.tensor(values, dtype=torch.float64)
    more = gates.clone()
    more[number] = 1.0
    assert float(cost.share(more)) >= float(cost.share(gates)) - 1e-12
    gates.requires_grad_(True)
    cost.share(gates).backward()
    assert bool((gates.grad >= 0).all())


def _fitted(known=[]):  # noqa: B006
    if not known:
        structure = mlp().structure
        terms = FittedCost(structure, torch.zeros(1)).terms(torch.ones(structure.units))
        known.append(FittedCost(structure, torch.rand(len(terms), generator=torch.Generator().manual_seed(0))))
    return known[0]


@given(st.floats(0, 100), st.floats(0, 10))
def test_rounding_up_is_exact_at_whole_numbers_and_grows(width, more):
    one, other = (float(rounded_up(torch.tensor(w, dtype=torch.float64), 8)) for w in (width, width + more))
    assert one <= other + 1e-9
    assert float(rounded_up(torch.tensor(float(round(width))), 8)) == 8 * math.ceil(round(width) / 8)


# ---- settling -------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0.001, 1.0), min_size=4, max_size=200),
    st.floats(0.05, 0.95),
    st.floats(0.2, 5.0),
    st.floats(0.5, 2.0),
)
def test_a_promise_is_kept_from_below_whatever_the_prediction_is_worth(prices, share, wrong, bend):
    """Units with prices of which the prediction knows only a multiple, and a cost that is not even proportional."""
    total = sum(prices)

    def cost(keep):
        return float((torch.tensor(prices) * keep).sum() / total) ** bend

    def candidate(budget):
        return torch.tensor(prices).cumsum(0) / total * wrong <= budget

    asked = share
    found = settle(candidate, cost, asked)
    assert found.measured == cost(found.keep)
    steps = sorted(cost(torch.arange(len(prices)) < k) for k in range(len(prices) + 1))
    within = [c for c in steps if c <= asked + 1e-12]
    assert found.measured <= asked
    largest = max(p / total for p in prices)
    if bend <= 1.0 or largest < 0.02:  # as near as units allow
        assert found.measured >= (1 - BELOW) * asked or found.measured >= max(within) - 0.15 - largest
    assert found.tries <= 12


def test_where_nothing_is_cheap_enough_the_cheapest_is_left():
    found = settle(lambda budget: torch.tensor([True, budget > 0.5]), lambda keep: 0.5 + 0.1 * float(keep.sum()), 0.3)
    assert found.keep.tolist() == [True, False]
    assert found.measured == pytest.approx(0.6)


# ---- the bench ------------------------------------------------------------------------------------------------------


def test_measuring_leaves_model_mode_randomness_and_threads_as_they_are():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 1))
    gated = lumos.gate(model, torch.rand(8, 6)).train()
    before = copy.deepcopy(gated.state_dict())
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    bench = Bench(gated, "latency", Call(batch=3, threads=2))
    keeps = scattered_networks(gated.structure, 2)
    shares = bench.shares(keeps, 0.0)
    assert len(shares) == 2
    assert min(shares) > 0
    assert gated.training
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads
    after = gated.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert bench.meter.facts["batch"] == 3


def test_what_is_measured_is_what_the_cut_leaves():
    gated = mlp().eval()
    keep = scattered_networks(gated.structure, 3)[1]
    bench = Bench(gated, "latency", Call(), counted)
    small = bench.cut(keep)
    gated.gates.log_alpha.data = torch.where(keep, 8.0, -8.0)
    x = torch.randn(4, 40)
    torch.testing.assert_close(small(x), lumos.compact(gated)(x))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: lumos.Call(batch=0), "lumos.call.batch=0: expected a whole number >= 1"),
        (lambda: lumos.Call(precision="int8"), "lumos.call.precision=int8: expected float32, bfloat16 or float16"),
        (
            lambda: Bench(mlp(), "latency", Call(device="cuda:77")),
            "lumos.call.device=cuda:77: torch cannot use it here",
        ),
        (lambda: lumos.Call(threads=0), "lumos.call.threads=0: expected a whole number >= 1"),
        (lambda: lumos.Target(latency=1.5), "lumos.target.latency=1.5: expected a share between 0 and 1"),
    ],
)
def test_what_cannot_be_asked_for(make, line):
    with pytest.raises(ConfigError, match=line):
        make()


def test_samples_that_cannot_be_repeated():
    words = nn.Sequential(nn.Embedding(20, 12), nn.Flatten(), nn.Linear(60, 24), nn.ReLU(), nn.Linear(24, 1))
    gated = lumos.gate(words, torch.randint(0, 20, (8, 5)))
    with pytest.raises(ConfigError, match="the samples of this example cannot be repeated row by row"):
        Bench(gated, "latency", Call(batch=64))


def test_low_precision_is_what_is_called():
    seen = []

    class Looks(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    meter = CallMeter("latency", Call(precision="bfloat16"), (torch.rand(2, 6),), torch.device("cpu"))
    meter.shares(Looks(6, 2), [Looks(6, 2)], 0.0)
    assert set(seen) == {torch.bfloat16}


def test_a_lucky_measurement_is_not_taken_for_the_cost():
    """Short looks read ten percent too little; the promise holds by the long one."""

    def lucky(models, inputs, seconds):
        luck = 1.0 if seconds > 1.0 else 0.9
        return {name: [t * (1.0 if name == "dense" else luck) for t in ts]
                for name, ts in counted(models, inputs, seconds).items()}  # fmt: skip

    model, x, pruner = trained(lumos.Target(latency=0.5), lucky)
    small = pruner.finish()
    took = counted({"dense": model, "small": small}, (x[:8],), 0)
    share = took["small"][0] / took["dense"][0]
    assert 0.4 < share <= 0.5
    assert pruner.report()["steering"]["measured"] == pytest.approx(share)
