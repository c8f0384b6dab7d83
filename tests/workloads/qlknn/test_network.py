"""The network that is given: read from a file of the published form, and refused where the file is another."""

import random

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from lumos.errors import DataError
from lumos.workloads.qlknn import network as given
from lumos.workloads.qlknn.network import INPUTS, OUTPUTS, drawn_network, installed_file, read_network
from tests.harness.faults import damaged
from tests.workloads.qlknn.files import graph_of, write

X = torch.rand(50, len(INPUTS), generator=torch.Generator().manual_seed(3)) * 8


@pytest.fixture
def graph():
    return graph_of(drawn_network((6, 5)))


def by_onnxruntime(file, x):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert tuple(output.name for output in session.get_outputs()) == OUTPUTS
    return torch.from_numpy(np.concatenate(session.run(None, {"input": x.numpy()}), axis=1))


def test_what_is_read_is_what_onnxruntime_runs(graph, tmp_path):
    file = write(graph, tmp_path / "q.onnx")
    network = read_network(file)
    assert [tuple(p.shape) for p in network.parameters()] == [(6, 10), (6,), (5, 6), (5,), (8, 5), (8,)]
    for name, tensor in drawn_network((6, 5)).state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    out = network.eval()(X).detach()
    assert torch.allclose(out, by_onnxruntime(file, X), atol=1e-5)
    assert (out == 0).any()
    assert (out[:, 1] >= 0).all()


def test_in_training_a_mode_that_is_stable_everywhere_still_learns():
    network = drawn_network((6, 5))
    with torch.no_grad():
        network.layers[-1].bias.fill_(-9.0)
    for training in (False, True):
        network.train(training).zero_grad()
        out = network(X)
        out.square().sum().backward()
        assert bool((out == 0).all()) != training
        assert bool(network.layers[-1].weight.grad.any()) == training


def node(graph, kind, which=0):
    return [n for n in graph.node if n.op_type == kind][which]


def constant(graph, name):
    """The tensor of a constant, which a change can be made to."""
    return next(n for n in graph.node if n.output[0] == name).attribute[0].t


def another_activation(graph):
    node(graph, "Tanh").op_type = "Relu"


def a_layer_turned_round(graph):
    next(a for a in node(graph, "Gemm").attribute if a.name == "transB").i = 0


def a_scaled_layer(graph):
    next(a for a in node(graph, "Gemm").attribute if a.name == "alpha").f = 0.5


def no_activation(graph):
    node(graph, "Gemm", 1).input[0] = node(graph, "Gemm").output[0]


def a_clip_from_above(graph):
    node(graph, "Clip").input[2] = node(graph, "Clip").input[1]


def a_clip_at_one(graph):
    constant(graph, node(graph, "Clip").input[1]).CopyFrom(numpy_helper.from_array(np.float32(1)))


def a_column_that_is_not_there(graph):
    constant(graph, node(graph, "Gather").input[1]).CopyFrom(numpy_helper.from_array(np.array(40)))


def several_columns(graph):
    constant(graph, node(graph, "Gather").input[1]).CopyFrom(numpy_helper.from_array(np.array([1, 2])))


def no_deviation(graph):
    constant(graph, node(graph, "Div").input[1]).CopyFrom(numpy_helper.from_array(np.zeros(10, np.float32)))


def a_weight_that_is_no_number(graph):
    graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((6, 10), np.nan, np.float32), "0.weight"))


def another_precision(graph):
    graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((6, 10)), "0.weight"))


def a_narrower_layer(graph):
    graph.initializer[2].CopyFrom(numpy_helper.from_array(np.ones((5, 4), np.float32), "2.weight"))


def more_nodes(graph):
    graph.node.append(helper.make_node("Tanh", ["input"], ["nowhere"]))


def other_outputs(graph):
    graph.output[0].name = "pfeITG_2"


def a_weight_that_is_computed(graph):
    node(graph, "Gemm").input[1] = node(graph, "Sub").output[0]


@pytest.mark.parametrize(("change", "line"), [
    (another_activation, "it has the operators Relu, expected none but Add, Clip, Constant"),
    (a_layer_turned_round, "it has a Gemm that is no linear layer"),
    (a_scaled_layer, "it has a Gemm that is no linear layer"),
    (no_activation, "it has Gemm where Tanh or Div is expected"),
    (a_clip_from_above, "it has a Clip that is not at 0 from below alone"),
    (a_clip_at_one, "it has a Clip that is not at 0 from below alone"),
    (a_column_that_is_not_there, "that do not fit them"),
    (several_columns, "it has a Gather that takes no single column"),
    (no_deviation, "or 0 as a deviation"),
    (a_weight_that_is_no_number, "holds numbers in layers.0.weight that are no finite float32"),
    (another_precision, "holds numbers in layers.0.weight that are no finite float32"),
    (a_narrower_layer, "it has layers 10-6-5-8 and scales or outputs that do not fit them"),
    (more_nodes, "it has 1 nodes that are not QLKNN's: Tanh"),
    (other_outputs, "it has the outputs"),
    (a_weight_that_is_computed, "which is expected to be a constant"),
])  # fmt: skip
def test_a_graph_of_another_kind_is_refused(graph, tmp_path, change, line):
    change(graph)
    file = write(graph, tmp_path / "q.onnx")
    with pytest.raises(DataError) as stop:
        read_network(file)
    assert str(stop.value).startswith(f"{file}: not a network of QLKNN's kind: it ")
    assert line in str(stop.value)


def test_a_damaged_file_is_one_line_or_the_same_kind_of_network(graph, tmp_path):
    file = write(graph, tmp_path / "q.onnx")
    whole, draws, lines = file.read_bytes(), random.Random(0), []
    for _ in range(60):
        file.write_bytes(damaged(whole, draws))
        try:
            network = read_network(file)
        except DataError as error:
            lines.append(str(error))
        else:
            assert network(X).shape == (len(X), len(OUTPUTS))
    assert len(lines) > 20
    assert all(line.startswith(str(file)) and "\n" not in line for line in lines)
    with pytest.raises(DataError, match=r"nowhere\.onnx: cannot be read as an ONNX file"):
        read_network(tmp_path / "nowhere.onnx")


def test_weights_beside_the_file_are_not_read(graph, tmp_path):
    tensor = graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "../secret", "length": "240"}.items():
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "secret").write_bytes(b"\0" * 240)
    (tmp_path / "inner").mkdir()
    with pytest.raises(DataError, match="cannot be read as an ONNX file"):
        read_network(write(graph, tmp_path / "inner" / "q.onnx"))


def test_a_package_that_is_not_there_is_a_line(monkeypatch):
    monkeypatch.setattr(given, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"^QLKNN_7_11 is not here: .*pip install --no-deps fusion-surrogates, or set"):
        installed_file()


def test_the_published_network_gives_the_published_numbers():
    try:
        file = installed_file()
    except DataError:
        pytest.skip("the package fusion-surrogates is not installed")
    network = read_network(file)
    assert sum(p.numel() for p in network.parameters()) == 73_823
    with np.load(file.parent / "qlknn_7_11_test_data.npz", allow_pickle=False) as known:
        x, y = torch.from_numpy(known["inputs"]).float(), torch.from_numpy(known["outputs"]).float()
    assert torch.allclose(network.targets(x), y, rtol=1e-5, atol=1e-5)
    assert torch.allclose(network.eval()(x), by_onnxruntime(file, x), rtol=1e-5, atol=1e-5)
