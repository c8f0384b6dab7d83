"""A start from pretrained weights: what can be read, what does not fit, and what a frozen backbone lets learn."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from lumos.compaction.probe import trace_and_probe
from lumos.errors import ConfigError
from lumos.suite.config import read
from lumos.suite.training import checkpoint
from lumos.suite.training.loop import train
from lumos.suite.training.pretrained import freeze_backbone, initialize, learning, read_weights
from lumos.suite.training.state import TrainState
from lumos.workloads.synthetic import Synthetic
from tests.configurations import composed
from tests.suite.training.test_loop import CPU, run_config


def configured(*changes):
    return read(composed(["workload=synthetic", *changes]))


@pytest.fixture
def model():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def fresh():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def equal(first, second):
    return all(torch.equal(t, second[name]) for name, t in first.items()) and set(first) == set(second)


def prefixed(state, prefix):
    return {prefix + name: t for name, t in state.items()}


@pytest.mark.parametrize("wrap", [
    lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": prefixed(s, "module.")},
    lambda s: {"format": "x", "state": s, "layers": {}},
    lambda s: {**prefixed(s, "model."), "gates.log_alpha": torch.ones(7)},
])  # fmt: skip
def test_state_dicts_in_their_usual_wrappings(model, tmp_path, wrap):
    path = tmp_path / "weights.pt"
    torch.save(wrap(model.state_dict()), path)
    other = fresh()
    initialize(other, path)
    assert equal(model.state_dict(), other.state_dict())


def test_safetensors(model, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    safetensors.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    assert equal(read_weights(tmp_path / "weights.safetensors"), model.state_dict())


def test_a_checkpoint_of_ours(model, tmp_path):
    path = tmp_path / "dense.ckpt"
    checkpoint.write(path, tmp_path / "before", {"identity": {}, "state": {"model": model.state_dict(), "step": 3}})
    assert equal(read_weights(path), model.state_dict())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ConfigError, match=r"dense\.ckpt: damaged checkpoint"):
        read_weights(path)


class Code:
    def __reduce__(self):
        return print, ("run",)


def test_what_is_no_state_dict_is_refused_and_no_code_runs(tmp_path, capsys):
    path = tmp_path / "weights.pt"
    path.write_text("no tensors")
    with pytest.raises(ConfigError, match=r"cannot be read .* expected a state dict that"):
        read_weights(path)
    torch.save({"state_dict": Code()}, path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_weights(path)
    assert capsys.readouterr().out == ""
    torch.save({"epoch": 3}, path)
    with pytest.raises(ConfigError, match="holds no state dict"):
        read_weights(path)


def test_what_does_not_fit_is_counted_and_named(model, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({**model.state_dict(), "2.weight": torch.zeros(9, 3), "3.bias": torch.zeros(1)}, path)
    other = fresh()
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ConfigError) as stop:
        initialize(other, path)
    assert "3 of 4 tensors fit, 1 unknown (3.bias); 1 of another shape (2.weight (9, 3), expected (2, 3))" in str(
        stop.value
    )
    assert str(stop.value).endswith("init_strict=false takes those that fit")
    assert equal(before, other.state_dict())
    initialize(other, path, strict=False)
    assert equal({**model.state_dict(), "2.weight": before["2.weight"]}, other.state_dict())
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match="0 of 4 tensors fit, 4 missing"):
        initialize(other, path, strict=False)


class Tables(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 6)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(8, 1), nn.Linear(8, 2)])

    def forward(self, x):
        h = self.body(self.table(x).mean(1))
        return self.heads[0](h), self.heads[1](h)


def test_embeddings_and_heads_learn_where_the_backbone_is_frozen():
    model = Tables()
    structure = trace_and_probe(model, torch.randint(0, 5, (4, 3)))
    heads = ["heads.0.weight", "heads.0.bias", "heads.1.weight", "heads.1.bias"]
    assert learning(model, structure) == ["table.weight", *heads]
    freeze_backbone(model, structure)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"table.weight", *heads}


def test_dense_and_gated_start_there_and_only_the_head_learns(tmp_path):
    workload = replace(Synthetic(relevant_features=4).tiny(), train_rows=600, valid_rows=200, epochs=3)
    path = tmp_path / "dense.pt"
    torch.manual_seed(77)
    torch.save(workload.model().state_dict(), path)
    given = read_weights(path)
    config = replace(run_config(), init_from=path, freeze_backbone=True)
    loaders = workload.loaders()
    started = TrainState(workload, config, CPU, gated=False).model
    assert equal(given, started.state_dict())
    dense = train(workload, loaders, config, CPU, gated=False)
    head = {"layers.4.weight", "layers.4.bias"}
    for name, tensor in dense.model.state_dict().items():
        assert torch.equal(tensor, given[name]) == (name not in head), name
    gated = train(workload, loaders, config, CPU, gated=True, dense=dense)
    # the compact network's weights were folded with the gates at the cut and have not moved since
    assert {n.removeprefix("model.") for n, p in gated.model.named_parameters() if p.requires_grad} == head
    assert gated.gates is not None
    state = TrainState(workload, config, CPU, gated=True)
    inside = {n: t for n, t in state.model.state_dict().items() if n.startswith("model.")}
    assert equal(prefixed(given, "model."), inside)
    assert {n for n, p in state.model.named_parameters() if p.requires_grad} == {
        "gates.log_alpha", *(f"model.{n}" for n in head)
    }  # fmt: skip


def test_the_id_follows_the_content_and_not_the_place(tmp_path):
    first, second, third = (tmp_path / name for name in ("a.pt", "b.pt", "c.pt"))
    first.write_bytes(b"1")
    second.write_bytes(b"1")
    third.write_bytes(b"2")
    ids = [configured(f"init_from={path}") for path in (first, second, third)]
    assert ids[0].run_id == ids[1].run_id != ids[2].run_id
    assert ids[0].baseline_id != ids[2].baseline_id != configured().baseline_id
    assert str(tmp_path) not in str(ids[0].recorded)
    assert configured("init_strict=true").run_id == configured().run_id
    assert configured(f"init_from={first}", "freeze_backbone=true").run_id != ids[0].run_id


@pytest.mark.parametrize(("changes", "line"), [
    (["freeze_backbone=true"], "freeze_backbone=true: expected init_from=FILE with it"),
    (["init_from=nowhere.pt"], "init_from=nowhere.pt: cannot be read (No such file or directory)"),
    (["init_strict=3"], "init_strict=3: expected true, false or null"),
])  # fmt: skip
def test_clear_errors(changes, line):
    with pytest.raises(ConfigError) as stop:
        configured(*changes)
    assert str(stop.value).startswith(line)
