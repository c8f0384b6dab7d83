"""What the equations say of inputs: against the kernels themselves, and what follows from what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumos.suite.dependence import Derived, TrueDependence, judged, truth_of
from lumos.suite.workload import DataSource
from lumos.workloads.cfd.data import INPUTS as CFD_INPUTS
from lumos.workloads.cfd.dependence import DEPENDENCE as CFD
from lumos.workloads.dms import DMS
from lumos.workloads.em_denoise import EMDenoise
from lumos.workloads.fluid.data import INPUTS as FLUID_INPUTS
from lumos.workloads.fluid.dependence import DEPENDENCE as FLUID
from lumos.workloads.molhiv import Molhiv
from lumos.workloads.ppa import PPA
from lumos.workloads.puremd import PureMD
from lumos.workloads.puremd.data import INPUTS as PUREMD_INPUTS
from lumos.workloads.puremd.data import OUTPUTS as PUREMD_OUTPUTS
from lumos.workloads.puremd.dependence import DEPENDENCE as PUREMD
from lumos.workloads.slstr import SLSTR
from lumos.workloads.synthetic import Synthetic

ALL = {"cfd": (CFD, CFD_INPUTS), "fluid": (FLUID, FLUID_INPUTS), "inner": (PUREMD["inner"], PUREMD_INPUTS["inner"]),
       "bond": (PUREMD["bond"], PUREMD_INPUTS["bond"])}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_every_name_is_an_input(name):
    truth, inputs = ALL[name]
    named = {*truth.enters, *truth.derived, *(p for d in truth.derived.values() for p in (*d.parents, *d.recovers))}
    assert named <= set(inputs)
    assert not set(truth.enters) & set(truth.derived)
    for derived in truth.derived.values():
        assert set(derived.recovers) <= set(derived.parents)


def test_inner_loop_by_differentiating_its_formula():
    """Move each input: the components of -(sum of the coefficients) d that change are those that it enters."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=10)

    def new(x):
        return -x[:4].sum() * x[4:7]

    for k, name in enumerate(PUREMD_INPUTS["inner"]):
        moved = x.copy()
        moved[k] += 0.1
        changed = [o for o, d in zip(PUREMD_OUTPUTS["inner"], new(moved) - new(x), strict=True) if d]
        assert changed == [o for o in PUREMD_OUTPUTS["inner"] if PUREMD["inner"].role(name, o) == "enters"]


def test_fluid_by_moving_particles():
    """Move each independent input of a pair in the solver itself."""
    from lumos.workloads.fluid.solver import Kernel, pair_terms

    kernel, pairs = Kernel.at(140.0), np.array([[0, 1]], np.int32)
    start = {
        "x": np.array([[0.0, 0, 0], [0.003, 0.002, -0.004]]),
        "v": np.array([[0.1, 0.2, 0.3], [-0.1, 0.4, 0.0]]),
        "rho": np.array([1010.0, 990.0]),
    }

    def terms(x, v, rho):
        return pair_terms(x, v, rho, pairs, kernel)[0]

    places = {"dx": ("x", (0, 0)), "dy": ("x", (0, 1)), "dz": ("x", (0, 2)), "rho_i": ("rho", 0), "rho_j": ("rho", 1)}
    places |= {f"v{a}_{s}": ("v", (row, k)) for row, s in enumerate("ij") for k, a in enumerate("xyz")}
    for name, (array, place) in places.items():
        moved = {key: value.copy() for key, value in start.items()}
        moved[array][place] *= 1.01
        moved[array][place] += 1e-5
        changed = terms(**moved) != terms(**start)
        expected = [FLUID.role(name, f"a{axis}") == "enters" for axis in "xyz"]
        assert changed.tolist() == expected, name


def test_verdicts_on_what_the_reference_run_of_fluid_kept():
    kept = ["dx", "dy", "dz", "r_squared", "r", "h_minus_r", "rho_i", "rho_sum"]
    assert FLUID.verdict("rho_j", kept) == "follows"  # rho_sum - rho_i
    assert FLUID.verdict("vx_i", kept) == "lost"
    assert FLUID.verdict("r", ["dx", "dy", "dz"]) == "follows"
    assert FLUID.verdict("dx", ["dy", "dz", "r"]) == "lost"  # its sign does not follow
    assert PUREMD["inner"].verdict("temp_x", []) == "unused"
    assert PUREMD["bond"].verdict("C1dbopi", ["C1dbopi2"]) == "follows"
    assert CFD.verdict("rho_i", ["p_i", "c_i"]) == "follows"  # c^2 = 1.4 p / rho


@given(st.data())
def test_what_is_kept_twice_can_go_and_nothing_more_is_lost(data):
    truth, inputs = ALL[data.draw(st.sampled_from(sorted(ALL)))]
    kept = data.draw(st.lists(st.sampled_from(inputs), unique=True))
    found = truth.judge(inputs, kept)
    assert set(found.needed) | set(found.repeats) | set(found.idle) == set(inputs)
    assert set(found.lost) == {name for name in truth.enters if truth.verdict(name, kept) == "lost"}
    least = [name for name in kept if name not in found.repeated and name not in found.idle_kept]
    again = truth.judge(inputs, least)
    assert again.lost == found.lost
    assert again.repeated == again.idle_kept == []


def test_one_of_equal_features_is_enough():
    truth, names = workload_truth(DMS()), ["red", "green", "blue"]
    for name in names:
        assert truth.judge(names, [name]).lost == []
        assert truth.judge(names, [name]).repeated == []
    assert len(truth.judge(names, names).repeated) == 2
    assert truth.judge(names, []).lost == ["red"]


def workload_truth(workload):
    truth = truth_of(workload)
    assert truth is not None
    named = {*truth.enters, *truth.derived, *(p for d in truth.derived.values() for p in (*d.parents, *d.recovers))}
    assert named <= set(workload.features())
    return truth


@pytest.mark.parametrize(
    ("workload", "idle"),
    [
        (PPA(), ["fusion", "experimental", "database"]),
        (Molhiv(), ["chirality", "num_radical_electrons", "bond_stereo"]),
        (PureMD(), ["temp_x", "temp_y", "temp_z"]),
        (SLSTR(), []),
        (Synthetic(n_features=3, relevant_features=3), []),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_idle_features_of_each_workload(workload, idle):
    names = list(workload.features())
    found = workload_truth(workload).judge(names, names)
    assert found.idle == found.idle_kept == idle
    assert found.lost == []


def test_of_files_of_others_nothing_is_known(tmp_path):
    public = DataSource(source="public", root=tmp_path)
    for workload in (PPA(data=public), Molhiv(data=public), DMS(data=public), SLSTR(data=public), EMDenoise()):
        assert truth_of(workload) is None


def test_what_a_record_says_of_a_choice():
    gates = {"features_kept": ["green", "blue"], "features_total": 3}
    assert judged(DMS(), gates) == {
        "needed": ["red"], "lost": [], "repeats": ["green", "blue"], "repeated": ["green"], "idle": [], "idle_kept": [],
    }  # fmt: skip
    assert judged(DMS(), None) is None
    assert judged(EMDenoise(), gates) is None


@given(st.data())
def test_more_kept_never_loses_more(data):
    truth, inputs = ALL[data.draw(st.sampled_from(sorted(ALL)))]
    few = data.draw(st.sets(st.sampled_from(inputs)))
    more = few | data.draw(st.sets(st.sampled_from(inputs)))
    assert few <= truth.follows(few) <= truth.follows(more)
    assert truth.follows(truth.follows(few)) == truth.follows(few)


def test_a_chain_is_followed_both_ways():
    truth = TrueDependence({"a": ("y",), "b": ("y",)}, {"c": Derived(("a", "b"), ("a",)), "d": Derived(("c",), ("c",))})
    assert truth.follows({"d", "b"}) == {"a", "b", "c", "d"}
    assert truth.follows({"d", "a"}) == {"a", "c", "d"}
    assert truth.role("d", "y") == "derived"
    assert truth.role("d", "z") == "unused"
