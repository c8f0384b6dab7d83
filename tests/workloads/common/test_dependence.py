"""What the equations say of inputs: against the kernels themselves, and what follows from what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumos.workloads.cfd.data import INPUTS as CFD_INPUTS
from lumos.workloads.cfd.dependence import DEPENDENCE as CFD
from lumos.workloads.common.dependence import Derived, TrueDependence
from lumos.workloads.fluid.data import INPUTS as FLUID_INPUTS
from lumos.workloads.fluid.dependence import DEPENDENCE as FLUID
from lumos.workloads.puremd.data import INPUTS as PUREMD_INPUTS
from lumos.workloads.puremd.data import OUTPUTS as PUREMD_OUTPUTS
from lumos.workloads.puremd.dependence import DEPENDENCE as PUREMD

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
