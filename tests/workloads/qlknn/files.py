"""A file as QLKNN_7_11 is published, of any network of its layout."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lumos.workloads.qlknn.network import HEADS, OUTPUTS, FluxNetwork


def graph_of(network: FluxNetwork) -> onnx.GraphProto:
    """The graph that the published file has, node by node."""
    nodes, weights, count = [], [], iter(range(1000))

    def constant(array: np.ndarray) -> str:
        name = f"constant_{next(count)}"
        nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
        return name

    def call(kind: str, *inputs: str, name: str = "", **attributes: float) -> str:
        name = name or f"{kind}_{next(count)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    value = call("Sub", "input", constant(network.input_mean.numpy()))
    value = call("Div", value, constant(network.input_std.numpy()))
    for place, layer in enumerate(network.layers):
        if place % 2:
            value = call("Tanh", value)
            continue
        names = [f"{place}.weight", f"{place}.bias"]
        parts = (layer.weight, layer.bias)
        weights += [
            numpy_helper.from_array(part.detach().numpy(), name) for part, name in zip(parts, names, strict=True)
        ]
        value = call("Gemm", value, *names, alpha=1.0, beta=1.0, transB=1)
    value = call("Mul", value, constant(network.target_std.numpy()))
    value = call("Add", value, constant(network.target_mean.numpy()))
    clipped: dict[int, str] = {}
    for output, (own, leading) in zip(OUTPUTS, HEADS, strict=True):
        lead = own if leading is None else leading
        if lead not in clipped:
            column = call("Gather", value, constant(np.array(lead)), axis=1)
            clipped[lead] = call("Clip", column, constant(np.float32(0)), "")
        flux = clipped[lead]
        if leading is not None:
            flux = call("Mul", call("Gather", value, constant(np.array(own)), axis=1), flux)
        call("Unsqueeze", flux, constant(np.array([-1])), name=output)

    def table(name: str, columns: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch_size", columns])

    inputs, outputs = [table("input", len(network.input_mean))], [table(name, 1) for name in OUTPUTS]
    return helper.make_graph(nodes, "main", inputs, outputs, initializer=weights)


def write(graph: onnx.GraphProto, file: Path) -> Path:
    """Write a graph as a file."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    file.write_bytes(model.SerializeToString())
    return file
