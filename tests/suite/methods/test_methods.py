"""The other methods: the same steps for all, the target met, and what cannot be done recorded with its reason."""

import json
import warnings
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from lumos.compaction import compact_file
from lumos.errors import ConfigError, UnsupportedError
from lumos.measure import parameters
from lumos.suite import record, runner
from lumos.suite.config import read
from lumos.suite.methods import METHODS, scratch
from lumos.suite.methods.base import Task
from lumos.suite.methods.depgraph import _places
from lumos.suite.methods.loxia import LayerGates
from lumos.suite.methods.oto import library as once
from lumos.suite.methods.slimming import Slimming
from lumos.suite.paths import PROJECT
from lumos.suite.settings import MethodConfig
from lumos.suite.training.state import TrainState
from lumos.workloads.dms import DMS
from lumos.workloads.synthetic import Synthetic
from tests.configurations import composed

CPU = torch.device("cpu")


def configured(results, *overrides):
    return read(composed(["workload=synthetic", "scale=tiny", f"paths.results={results}",
                                   "trainer.threads=1", "trainer.device=cpu", *overrides]))  # fmt: skip


def ran(results, workload, method, target):
    config = configured(results, f"method={method}", *([] if target is None else [f"method.target={target}"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own
        return runner.run(config, workload)


@pytest.fixture(scope="module")
def synthetic():
    return replace(Synthetic(relevant_features=4).tiny(), epochs=3)


@pytest.fixture(scope="module")
def images():
    return DMS().tiny()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def needs(method):
    if method in ("l1", "slimming", "depgraph"):
        pytest.importorskip("torch_pruning", reason="pip install 'lumos-sciml[peers]'")
    if method == "oto" and find_spec("only_train_once") is None:  # it does not import before we have set it right
        pytest.skip("pip install 'lumos-sciml[peers]'")


@pytest.mark.parametrize(
    "method",
    ["lumos", "l1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("scratch", "depgraph", "oto", "loxia"))],
)
@pytest.mark.parametrize("kind", ["synthetic", pytest.param("images", marks=pytest.mark.slow)])
def test_each_method_takes_the_same_steps_to_the_target(method, kind, request, results):
    needs(method)
    workload, target = request.getfixturevalue(kind), 0.5
    entry = ran(results, workload, method, target)
    assert (entry["status"], entry["method"]) == ("finished", method), entry["error"]
    share = entry["compact"]["params"] / entry["dense"]["params"]
    # A unit of these few is worth some percent.
    assert 0.93 * target <= share <= target
    assert share == pytest.approx(entry["steering"]["reached"], abs=1e-9)
    steps = workload.recipe.epochs * len(workload.loaders().train)
    assert sum(entry["compact"]["phases"].values()) == entry["compact"]["steps"] == entry["dense"]["steps"] == steps
    assert entry["compact"]["score"] is not None
    if method == "scratch":
        assert entry["steering"]["steps_for_the_shape"] == steps


@pytest.mark.slow
def test_a_target_is_met_within_two_percent_where_units_are_small(synthetic, results):
    needs("l1")
    wide = replace(synthetic, widths=(200, 100), epochs=1)
    for method in ("l1", "depgraph", "loxia"):
        entry = ran(results / "wide", wide, method, 0.29)
        assert 0.98 * 0.29 <= entry["compact"]["params"] / entry["dense"]["params"] <= 0.29, method


@pytest.mark.slow
def test_slimming_prunes_channels_by_their_norms(images, results):
    needs("slimming")
    entry = ran(results, images, "slimming", 0.6)
    assert entry["status"] == "finished", entry["error"]
    assert entry["compact"]["params"] <= 0.6 * entry["dense"]["params"]
    assert entry["compact"]["phases"] == {"sparse": 3, "fine-tuning": 3}


def test_the_regulariser_pulls_the_scales_to_zero():
    phase = Slimming.__new__(Slimming)
    phase.model, phase.settings = nn.BatchNorm1d(3), MethodConfig(name="slimming", target=0.5, regularization=0.1)
    with torch.no_grad():
        phase.model.weight.copy_(torch.tensor([2.0, -1.0, 0.0]))
    phase.model.weight.grad = torch.zeros(3)
    phase.adjust_gradients()
    assert phase.model.weight.grad.tolist() == pytest.approx([0.1, -0.1, 0.0])


@pytest.mark.slow
def test_dense_is_the_baseline_alone(synthetic, results):
    entry = ran(results, synthetic, "dense", None)
    assert entry["compact"]["score"] == entry["dense"]["score"]
    assert entry["compact"]["params"] == entry["dense"]["params"]


def test_what_a_method_cannot_treat_is_recorded_and_not_tried_again(synthetic, results, capsys):
    needs("slimming")
    config = configured(results, "method=slimming", "method.target=0.5")
    entry = runner.run(config, synthetic)
    assert entry["status"] == "unsupported"
    assert "batch norms" in entry["error"]["line"]
    assert str(PROJECT) not in entry["error"]["traceback"]  # a record names no folder
    assert "unsupported: network slimming" in " ".join(capsys.readouterr().out.split())
    path = config.folder(synthetic.name) / record.FILE
    before = path.stat().st_mtime_ns
    assert runner.run(config, synthetic)["status"] == "unsupported"
    assert path.stat().st_mtime_ns == before
    assert "compact" not in json.loads(path.read_text())


def test_a_target_out_of_reach_is_unsupported(images):
    needs("slimming")
    state = TrainState(images, configured("unused"), CPU, gated=False)
    with pytest.raises(UnsupportedError, match=r"no further, 0\.1% are asked for"):
        METHODS["slimming"](state, Task(MethodConfig(name="slimming", target=0.001), 10, 54))


def test_scratch_has_the_shape_and_none_of_the_weights(synthetic, results):
    ours = ran(results, synthetic, "lumos", 0.5)
    reference_run = results / "runs" / synthetic.name / ours["run_id"]
    state = TrainState(synthetic, configured("unused", "seed=5"), CPU, gated=False)
    scratch.setup(state, Task(MethodConfig(name="scratch", target=0.5), 10, 100, reference_run))
    assert parameters(state.model) == ours["compact"]["params"]
    kept = compact_file.read(reference_run / "compact.pt").state
    for name, value in state.model.model.state_dict().items():
        if value.numel() > 1 and value.is_floating_point() and name.endswith(("weight", "bias")):
            assert not torch.equal(value, kept[name]), name
    first = next(m for m in state.model.modules() if isinstance(m, nn.Linear))
    # torch's own rule for the new width: uniform within 1 / sqrt(inputs)
    assert float(first.weight.detach().abs().max()) <= first.in_features**-0.5


def test_a_layers_gates_by_hand():
    layer = nn.Linear(3, 2)
    weight = layer.weight.detach().clone()
    gates = LayerGates(layer, ("weight", 1), 0.5)
    assert gates.weights == 2
    with torch.no_grad():
        gates.log_alpha.copy_(torch.tensor([-9.0, 0.0, 9.0]))
    assert gates.at_test().tolist() == pytest.approx([0.0, 0.5, 1.0])  # sigmoid(0) * 1.2 - 0.1
    x = torch.tensor([[1.0, 2.0, 3.0]])
    want = layer.eval()(x)
    gates.fold(layer)
    assert torch.allclose(layer.weight, weight * torch.tensor([0.0, 0.5, 1.0]))
    assert torch.allclose(layer(x), want)


def test_depgraph_regularises_transposed_convolutions():
    tp = pytest.importorskip("torch_pruning", reason="pip install 'lumos-sciml[peers]'")

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 5, 3))
    graph = tp.DependencyGraph().build_dependency(model, torch.randn(1, 3, 8, 8))
    group = graph.get_pruning_group(model[0], tp.prune_conv_out_channels, list(range(8)))
    found = {(tuple(weight.shape), dim) for weight, dim, _, _ in _places(group)}
    assert found == {((8, 3, 3, 3), 0), ((8, 5, 3, 3), 0)}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=l1", "method.target=1.5"], "method.target=1.5: expected the share"),
        (["method=l1", "method.prune_at=0"], "method.prune_at=0: expected a number between"),
        (["method=lumos", "lumos.lambda=1"], "method=lumos sets lumos.target.params"),
    ],
)
def test_wrong_settings_are_said_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message):
        configured("unused", *overrides)


def test_no_method_is_no_part_of_an_id_and_ours_is_one_run():
    by_method = configured("unused", "method=lumos", "method.target=0.3")
    assert by_method.run_id == configured("unused", "lumos.target.params=0.3").run_id
    without = read(composed(["workload=cfd", "lumos.lambda=1e-3"]))
    assert "method" not in without.resolved
    assert read(composed(["workload=cfd", "method=l1"])).baseline_id == without.baseline_id
    table = [
        read(composed(["+experiment=table3", f"workload={w}", "method=l1"])).method
        for w in ("puremd", "cfd", "em_denoise", "dms", "braintumor")
    ]
    assert [m.target for m in table if m] == [0.24, 0.01, 0.61, 0.09, 0.4]


def test_several_processes_are_refused(synthetic, results):
    config = configured(results, "method=l1", "trainer.devices=2")
    with pytest.raises(ConfigError, match="trains in one process"):
        runner.run(config, synthetic)


def test_only_train_once_leaves_torch_as_it_was():
    needs("oto")
    before = torch.Tensor.cuda
    once()
    assert torch.Tensor.cuda is before
