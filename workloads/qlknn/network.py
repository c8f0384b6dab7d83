"""The network that is given: read from QLKNN's ONNX file as a plain module, or drawn with the same layout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lumos.errors import DataError, one_line
from lumos.workloads.common.mlp import dense_layers

INPUTS = ("Ati", "Ate", "Ane", "Ani", "q", "smag", "x", "Ti_Te", "LogNuStar", "normni")
"""The inputs in the file's order: R/L_Ti, R/L_Te, R/L_ne, R/L_ni, safety factor, magnetic shear, r/a, T_i/T_e,
log10 of the normalised collisionality, n_i/n_e; all without a unit."""
OUTPUTS = ("efeITG", "efiITG", "pfeITG", "efeTEM", "efiTEM", "pfeTEM", "efeETG", "gamma_max")
"""Heat fluxes of electrons and ions and the particle flux of electrons by mode, in gyro-Bohm units, and the largest
growth rate."""
TARGETS = 8
"""Numbers that the last layer gives: three leading fluxes, four ratios to them, and the growth rate."""
HEADS = ((1, 0), (0, None), (6, 0), (2, None), (3, 2), (4, 2), (5, None), (7, None))
"""Of each output the column of its own number and that of its leading flux, None where it leads itself."""

PACKAGE, FILE = "fusion_surrogates", Path("qlknn", "models", "qlknn_7_11.onnx")
"""Where the network is in the installed package."""
KNOWN = {"Constant", "Sub", "Div", "Gemm", "Tanh", "Mul", "Add", "Gather", "Clip", "Unsqueeze"}
"""Operators of the graph."""

LEAK = 1e-3
"""Slope, in training, of a leading flux below 0: without one, a mode that came to be below 0 everywhere would stay."""

Heads = Sequence[tuple[int, int | None]]


class FluxNetwork(nn.Module):
    """Plasma parameters in, fluxes out: standardise, linear layers with tanh between them, scale back, multiply.

    The last layer gives leading fluxes and ratios. A leading flux below 0 counts as 0 (the mode is stable), and the
    other fluxes of a mode are its ratios times the leading one. In training it counts as :data:`LEAK` times itself.

    Args:
        sizes: Inputs, hidden units of each layer, and numbers of the last one.
        heads: Of each output the column of its own number and that of its leading flux, or None; see :data:`HEADS`.
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    own: Tensor
    leading: Tensor
    is_ratio: Tensor

    def __init__(self, sizes: Sequence[int], heads: Heads = HEADS) -> None:
        super().__init__()
        for name, count in (("input", sizes[0]), ("target", sizes[-1])):
            self.register_buffer(f"{name}_mean", torch.zeros(count))
            self.register_buffer(f"{name}_std", torch.ones(count))
        self.register_buffer("own", torch.tensor([own for own, _ in heads]))
        self.register_buffer("leading", torch.tensor([own if lead is None else lead for own, lead in heads]))
        self.register_buffer("is_ratio", torch.tensor([lead is not None for _, lead in heads]))
        self.layers = nn.Sequential(*dense_layers(sizes, lambda: [nn.Tanh()]))

    def targets(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows targets"]:
        """Compute leading fluxes and ratios, in their own units."""
        return self.layers((x - self.input_mean) / self.input_std) * self.target_std + self.target_mean

    def forward(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """Compute the fluxes, in gyro-Bohm units."""
        y = self.targets(x)
        leading = y.index_select(1, self.leading)
        leading = functional.leaky_relu(leading, LEAK) if self.training else leading.clamp(min=0.0)
        return torch.where(self.is_ratio, y.index_select(1, self.own), 1.0) * leading


def drawn_network(widths: Sequence[int]) -> FluxNetwork:
    """Draw a network of QLKNN's layout, the same at every call; it stands for QLKNN where that is not there.

    Args:
        widths: Units of its hidden layers.

    Returns:
        The network. Inputs are taken to have the means and deviations of the project's own choice, outputs to be of the
        order of 1.
    """
    network = FluxNetwork([len(INPUTS), *widths, TARGETS])
    draws = torch.Generator().manual_seed(711)
    with torch.no_grad():
        for layer in network.layers:
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(0.0, 1.2 / math.sqrt(layer.in_features), generator=draws)
                layer.bias.normal_(0.0, 0.2, generator=draws)
        network.input_mean.copy_(torch.tensor([5.0, 5.0, 0.0, 0.0, 3.0, 1.5, 0.5, 1.2, -2.0, 0.85]))
        network.input_std.copy_(torch.tensor([5.0, 5.0, 3.0, 6.0, 3.0, 2.0, 0.3, 0.7, 1.5, 0.1]))
    return network


# ---- the file -------------------------------------------------------------------------------------------------------


def installed_file() -> Path:
    """Find the network's file in the installed package, which is not imported: it would need JAX.

    Raises:
        DataError: The package is not installed, or lacks the file.
    """
    spec = find_spec(PACKAGE)
    places = [Path(place) / FILE for place in (spec.submodule_search_locations or ())] if spec else []
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(
            f"QLKNN_7_11 is not here: expected the package {PACKAGE} with {FILE.as_posix()}; pip install --no-deps "
            "fusion-surrogates, or set data.root to the file"
        )
    return found


def read_network(file: Path) -> FluxNetwork:
    """Read QLKNN's ONNX file as a plain module. Every node is checked; a graph of another kind is refused.

    Raises:
        DataError: The file cannot be read, or is not such a network, or onnx is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise DataError(f"{file}: reading it needs onnx; pip install 'lumos-sciml[export]'") from None
    try:
        graph = onnx.load(str(file), load_external_data=False).graph
        arrays = {tensor.name: _array(tensor) for tensor in graph.initializer}
        arrays |= {node.output[0]: _array(node.attribute[0].t) for node in graph.node if node.op_type == "Constant"}
    except Exception as error:  # protobuf and onnx have many for a file that is none of theirs
        raise DataError(f"{file}: cannot be read as an ONNX file ({one_line(error)})") from None
    return _Reader(file, graph, arrays).network()


def _array(tensor: Any) -> np.ndarray:
    """A tensor of the file as an array of its own."""
    import onnx.numpy_helper

    return np.array(onnx.numpy_helper.to_array(tensor))


@dataclass
class _Layer:
    weight: np.ndarray
    bias: np.ndarray


class _Reader:
    """Follows a graph from its outputs back to its input, one known node after the other."""

    def __init__(self, file: Path, graph: Any, arrays: Mapping[str, np.ndarray]) -> None:
        self.file, self.arrays = file, arrays
        self.nodes = {name: node for node in graph.node for name in node.output}
        self.inputs = [value.name for value in graph.input if value.name not in arrays]
        self.outputs = [value.name for value in graph.output]
        self.todo = {id(node): node for node in graph.node if node.op_type != "Constant"}

    def network(self) -> FluxNetwork:
        """The module with the file's numbers."""
        unknown = sorted({node.op_type for node in self.todo.values()} - KNOWN)
        self.expect(
            not unknown, f"has the operators {', '.join(unknown)}, expected none but {', '.join(sorted(KNOWN))}"
        )
        self.expect(
            len(self.inputs) == 1, f"has {len(self.inputs)} inputs, expected one table of {len(INPUTS)} columns"
        )
        self.expect(tuple(self.outputs) == OUTPUTS, f"has the outputs {self.outputs}, expected {list(OUTPUTS)}")
        parts = [self.head(name) for name in self.outputs]
        ends = {end for _, _, end in parts}
        self.expect(len(ends) == 1, "takes its outputs from several layers, expected one")
        layers, scales = self.body(ends.pop())
        self.expect(not self.todo, f"has {len(self.todo)} nodes that are not QLKNN's: "
                                   f"{', '.join(sorted(node.op_type for node in self.todo.values()))}")  # fmt: skip
        return self.filled(layers, scales, [(own, lead) for own, lead, _ in parts])

    def filled(self, layers: list[_Layer], scales: dict[str, np.ndarray], heads: Heads) -> FluxNetwork:
        """The module, once all shapes are known to fit."""
        sizes = [layers[0].weight.shape[1], *(len(layer.weight) for layer in layers)]
        fits = [sizes[0] == len(INPUTS), len(heads) <= sizes[-1]]
        fits += [layer.weight.shape == (out, of) and layer.bias.shape == (out,)
                 for layer, of, out in zip(layers, sizes[:-1], sizes[1:], strict=True)]  # fmt: skip
        fits += [scales[name].shape == (sizes[0 if name.startswith("input") else -1],) for name in scales]
        columns = [column for head in heads for column in head if column is not None]
        fits += [0 <= column < sizes[-1] for column in columns]
        self.expect(all(fits), f"has layers {'-'.join(map(str, sizes))} and scales or outputs that do not fit them; "
                               f"expected {len(INPUTS)} inputs")  # fmt: skip
        network = FluxNetwork(sizes, heads)
        numbers = {**{f"layers.{2 * k}.{part}": getattr(layer, part) for k, layer in enumerate(layers)
                      for part in ("weight", "bias")}, **scales}  # fmt: skip
        wrong = [name for name, array in numbers.items() if array.dtype != np.float32 or not np.isfinite(array).all()]
        wrong += ["input_std"] if not scales["input_std"].all() else []
        self.expect(not wrong, f"holds numbers in {', '.join(wrong)} that are no finite float32, or 0 as a deviation")
        network.load_state_dict({name: torch.from_numpy(array) for name, array in numbers.items()}, strict=False)
        return network

    # ---- single nodes ----

    def take(self, name: str, *kinds: str) -> Any:
        """The node that makes a value, which has to be of one of these kinds."""
        node = self.nodes.get(name)
        kind = node.op_type if node is not None else "an input"
        self.expect(kind in kinds, f"has {kind} where {' or '.join(kinds)} is expected (value {name!r})")
        assert node is not None
        self.todo.pop(id(node), None)
        return node

    def number(self, name: str) -> np.ndarray:
        """A constant of the file."""
        self.expect(name in self.arrays, f"computes {name!r}, which is expected to be a constant")
        return self.arrays[name]

    def column(self, name: str) -> tuple[int, str]:
        """Which column of which value a Gather takes."""
        node = self.take(name, "Gather")
        index = self.number(node.input[1])
        good = _attributes(node) == {"axis": 1} and index.shape == () and index.dtype == np.int64
        self.expect(good, f"has a Gather that takes no single column (value {name!r})")
        return int(index), node.input[0]

    def clipped(self, name: str) -> tuple[int, str]:
        """Which column of which value is taken, at least 0."""
        node = self.take(name, "Clip")
        bounds = [part for part in node.input[1:] if part]
        good = len(node.input) >= 2 and node.input[1] and len(bounds) == 1 and self.number(bounds[0]) == 0
        self.expect(bool(good), f"has a Clip that is not at 0 from below alone (value {name!r})")
        return self.column(node.input[0])

    def head(self, name: str) -> tuple[int, int | None, str]:
        """The column of an output's own number, that of its leading flux, and the value that they are taken of."""
        node = self.take(name, "Unsqueeze")
        axes = self.number(node.input[1]).tolist() if len(node.input) == 2 else None
        self.expect(axes in ([-1], [1]), f"has an output {name!r} that is not a column")
        inner = self.take(node.input[0], "Clip", "Mul")
        if inner.op_type == "Clip":
            own, end = self.clipped(node.input[0])
            return own, None, end
        (own, one), (lead, other) = self.column(inner.input[0]), self.clipped(inner.input[1])
        self.expect(one == other, f"has an output {name!r} of two layers")
        return own, lead, one

    def body(self, end: str) -> tuple[list[_Layer], dict[str, np.ndarray]]:
        """The linear layers, first one first, and the means and deviations around them."""
        add = self.take(end, "Add")
        mul = self.take(add.input[0], "Mul")
        scales = {"target_mean": self.number(add.input[1]), "target_std": self.number(mul.input[1])}
        name, layers = mul.input[0], []
        while True:
            layers.append(self.linear(name))
            name = self.nodes[name].input[0]
            if self.take(name, "Tanh", "Div").op_type == "Div":
                break
            name = self.nodes[name].input[0]
        divide = self.nodes[name]
        subtract = self.take(divide.input[0], "Sub")
        self.expect(subtract.input[0] == self.inputs[0], "does not standardise its input first")
        scales |= {"input_std": self.number(divide.input[1]), "input_mean": self.number(subtract.input[1])}
        return layers[::-1], scales

    def linear(self, name: str) -> _Layer:
        """The weights of a Gemm that is a linear layer."""
        node = self.take(name, "Gemm")
        given = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **_attributes(node)}
        good = given == {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1} and len(node.input) == 3
        self.expect(good, f"has a Gemm that is no linear layer (value {name!r})")
        layer = _Layer(self.number(node.input[1]), self.number(node.input[2]))
        self.expect(layer.weight.ndim == 2, f"has a Gemm whose weight is no matrix (value {name!r})")
        return layer

    def expect(self, true: bool, otherwise: str) -> None:
        """Raise a DataError that says what the graph is or has, unless it is as expected."""
        if not true:
            raise DataError(f"{self.file}: not a network of QLKNN's kind: it {otherwise}")


def _attributes(node: Any) -> dict[str, Any]:
    """The attributes of a node that are numbers; others are named by their kind."""
    return {a.name: {1: a.f, 2: a.i}.get(a.type, f"type {a.type}") for a in node.attribute}
