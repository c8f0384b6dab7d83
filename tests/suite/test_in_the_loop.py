"""Simulations with their kernel replaced: a perfect replacement changes nothing, a bad one is reported."""

import csv
import json
import sys

import numpy as np
import pytest
import torch

from lumos.errors import ConfigError, RecordError
from lumos.suite import in_the_loop
from lumos.suite.config import compose
from lumos.suite.finished_run import find_run
from lumos.suite.paths import PROJECT
from lumos.suite.run import run
from lumos.suite.simulation import Surrogate
from lumos.workloads.cfd import CFD
from lumos.workloads.cfd.in_the_loop import Call as FlowCall
from lumos.workloads.cfd.in_the_loop import simulation as cfd
from lumos.workloads.cfd.solver import gas
from lumos.workloads.cfd.solver import run as flow
from lumos.workloads.fluid import Fluid
from lumos.workloads.fluid.in_the_loop import simulation as fluid
from lumos.workloads.puremd import PureMD
from lumos.workloads.puremd.in_the_loop import simulation as puremd

sys.path.insert(0, str(PROJECT / "scripts"))
import feature_study


class Formula(torch.nn.Module):
    """The kernel's formula of the network's inputs, in double precision."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x.double())


def by_formula(function, reads=()):
    return Surrogate(Formula(function), reads)


def perfect_inner_face(x):
    """The flux through an inner face from its 20 inputs."""
    wi, wj, n, area, p, speed, c = x[:, :5], x[:, 5:10], x[:, 10:13], x[:, 13:14], x[:, 14:16], x[:, 16:18], x[:, 18:20]

    def through(w, p):
        volume = (w[:, 1:4] * n).sum(1, keepdim=True) / w[:, :1]
        return torch.cat([w[:, :1] * volume, w[:, 1:4] * volume + p * n, (w[:, 4:] + p) * volume], 1)

    central = (through(wi, p[:, :1]) + through(wj, p[:, 1:])) / 2
    return central - 0.1 * area * (speed.sum(1, keepdim=True) + c.sum(1, keepdim=True)) * (wi - wj)


def test_cfd_with_the_formula_in_the_networks_place():
    sim = cfd(CFD().tiny())
    assert sim.condition.mach == 0.8
    state = sim.start()
    *_, true = flow(sim.mesh, sim.condition.mach, sim.condition.angle, 3)
    for _ in range(3):
        state = sim.step(state, sim.exact)
    np.testing.assert_array_equal(state, true)
    call = FlowCall(gas(state), sim._far)
    found, exact = sim.replaced(call, by_formula(perfect_inner_face)), sim.exact(call)
    inner = sim.mesh.neighbour >= 0
    np.testing.assert_allclose(found[inner], exact[inner], atol=1e-5 * np.abs(exact).max())
    assert sim.conserved(state, sim.exact)["imbalance of inner faces"] < 1e-12
    assert sim.apart(true, true)["density, rms error / rms departure"] == 0
    assert sim.apart(sim.start(), true)["pressure, rms error / rms departure"] == pytest.approx(1)


@pytest.mark.slow
def test_fluid_with_the_formula_in_the_networks_place():
    sim = fluid(Fluid().tiny())
    state = sim.start()
    kernel = sim._first[1]

    def pair(x):
        d, vi, vj, r, h_r, rho = x[:, :3], x[:, 3:6], x[:, 6:9], x[:, 10:11], x[:, 11:12], x[:, 12:14]
        push = kernel.pressure * h_r**2 / r * (rho.sum(1, keepdim=True) - 2000)
        return (d * push + (vj - vi) * kernel.viscosity * h_r) / rho.prod(1, keepdim=True)

    perfect = by_formula(pair)
    exact, other = state, state
    for _ in range(5):
        exact = sim.step(exact, sim.exact)
        other = sim.step(other, lambda call: sim.replaced(call, perfect))
    assert perfect.watch.rows > 0
    assert 0 < sim.apart(other, exact)["position, rms error / h"] < 1e-5
    assert sim.conserved(other, lambda call: sim.replaced(call, perfect))["net pair force"] < 1e-12
    # The state is another block than those of the samples, and steps leave the old state alone.
    np.testing.assert_array_equal(state.x, sim.start().x)


@pytest.mark.parametrize("reads", [(), ("temp_x",)])
def test_puremd_with_the_formula_in_the_networks_place(reads):
    sim = puremd(PureMD().tiny())
    perfect = by_formula(lambda x: -x[:, :4].sum(1, keepdim=True) * x[:, 4:7], reads)
    state = sim.start()
    call = sim._molecules(state.x + 0.02 * torch.randn(state.x.shape, dtype=torch.float64))
    torch.testing.assert_close(sim.replaced(call, perfect), sim.exact(call), atol=2e-4, rtol=1e-5)
    assert perfect.watch.rows == sim.rows(call) * (3 if reads else 1)


def test_puremd_bond_variant_by_its_formula():
    sim = puremd(PureMD(variant="bond").tiny())
    call = sim._molecules(sim.start().x + 0.01)

    def bond(x):
        c1, c2, c3, p1, p2, p3, p4, q1, q2, q3, q4, cb, cp, cq, di, dj = (x[:, k : k + 1] for k in range(16))
        d, pi, pi2, self_i, self_j = (x[:, 16 + 3 * k : 19 + 3 * k] for k in range(5))
        both = cb + di + dj
        along = (c1 * both + p2 * cp + q2 * cq) * d + p1 * cp * pi + q1 * cq * pi2
        return torch.cat(
            [along + (c2 * both + p3 * cp + q3 * cq) * self_i, -along + (c3 * both + p4 * cp + q4 * cq) * self_j], 1
        )

    torch.testing.assert_close(sim.replaced(call, by_formula(bond)), sim.exact(call), atol=2e-4, rtol=1e-5)


def test_puremd_conserves_energy_and_starts_in_balance():
    """Velocity Verlet: the energy's error falls fourfold with half the step; at rest in place nothing moves."""
    import lumos.workloads.puremd.in_the_loop as module

    sim = puremd(PureMD().tiny())
    start = sim.start()
    rest = start._replace(v=torch.zeros_like(start.v))
    torch.testing.assert_close(sim.step(rest, sim.exact).x, rest.x, atol=1e-12, rtol=0)
    drift = []
    for factor in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "TIME_STEP", 0.2 / factor)
            state, energies = sim.start(), []
            for _ in range(15 * factor):
                state = sim.step(state, sim.exact)
                energies.append(sim.conserved(state, sim.exact)["total energy"])
            drift.append(abs(energies[-1] - sim.conserved(sim.start(), sim.exact)["total energy"]))
    assert drift[1] < 0.4 * drift[0]
    assert drift[0] < 0.01 * sim.conserved(start, sim.exact)["kinetic energy"]
    assert sim.conserved(state, sim.exact)["net bond force"] < 1e-12


def test_a_network_that_breaks_the_simulation_is_reported():
    sim = puremd(PureMD().tiny())
    wild = by_formula(lambda x: 1e6 * torch.ones(len(x), 3))
    courses = in_the_loop.compare(sim, {"compact": wild}, 5)
    assert courses["kernel"].ended == ""
    assert len(courses["kernel"].rows) == 6
    assert courses["compact"].ended == "stopped at step 1: an atom is 2 Å from its place"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of CFD at scale=tiny, as run.py makes it: the arguments that find it."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = ["workload=cfd", "scale=tiny", f"paths.results={folder}", f"paths.cache={folder}", "trainer.threads=1"]
    cfg = compose(arguments)
    entry = run(cfg)
    return folder, arguments, entry


@pytest.mark.slow
def test_from_end_to_end(finished, tmp_path, capsys, monkeypatch):
    folder, arguments, entry = finished
    in_the_loop.run_in_the_loop(arguments, steps=2, folder=tmp_path)
    facts = json.loads((tmp_path / f"cfd-{entry['run_id']}.json").read_text())
    assert list(facts["runs"]) == ["kernel", "kernel, start nudged", "dense", "compact"]
    assert facts["runs"]["compact"]["parameters"] == entry["compact"]["params"]
    done = facts["runs"]["compact"]["steps"]
    assert done == 2 or facts["runs"]["compact"]["ended"].startswith(f"stopped at step {done + 1}")
    assert facts["runs"]["kernel"]["speed_against_kernel"] == 1
    with (tmp_path / f"cfd-{entry['run_id']}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["run"] == "kernel"] == ["0", "1", "2"]
    nudged = [float(row["density, rms error / rms departure"]) for row in rows if row["run"].endswith("nudged")]
    assert 0 < nudged[-1] < 1e-6
    assert "rows a second" in capsys.readouterr().out
    # The same run by its folder; without its dense network the table says how to get it.
    place = folder / "runs" / "cfd" / entry["run_id"]
    monkeypatch.setenv("LUMOS_CACHE", str(folder))
    (folder / "baselines").rename(folder / "moved")
    try:
        in_the_loop.run_in_the_loop([str(place)], steps=1, folder=tmp_path)
    finally:
        (folder / "moved").rename(folder / "baselines")
    assert "the dense network of this run is not kept here" in capsys.readouterr().out


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(RecordError, match=r"make it first: lumos run workload=cfd scale=tiny"):
        in_the_loop.run_in_the_loop(["workload=cfd", "scale=tiny", f"paths.results={tmp_path}"])
    with pytest.raises(ConfigError, match="expected the folder of a finished run, or workload=NAME"):
        in_the_loop.run_in_the_loop([])


@pytest.mark.slow
def test_feature_study_of_a_run(finished, tmp_path):
    _, arguments, entry = finished
    found = find_run(arguments)
    rows = list(feature_study.study(found))
    assert len(rows) == 20 * 5
    assert {row["verdict"] for row in rows} <= set(feature_study.VERDICTS)
    kept = {row["input"] for row in rows if row["kept"]}
    assert kept == set(entry["gates"]["features_kept"])
    x, y = found.workload.table()
    cell = next(row for row in rows if row["input"] == "nx" and row["output"] == "flux_mx")
    assert cell["abs_pearson"] == pytest.approx(abs(np.corrcoef(x[:, 10], y[:, 1])[0, 1]), abs=1e-4)
    assert cell["equation"] == "enters"
    feature_study.write(rows, tmp_path / "study.csv")
    with (tmp_path / "study.csv").open() as file:
        feature_study.draw(list(csv.DictReader(file)), tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 5000
