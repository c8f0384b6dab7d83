"""The paper's own recipe, after what its public code does, written anew: L0 gates by kind of layer, then fine-tuning.

Gates stand on the inputs of linear layers and on the outputs of convolutions, each layer with its own; the price of an
open gate is ``lambda / N`` for each weight that it gates (N training samples); at test time a gate is
``sigmoid(log_alpha)``, stretched and clipped, without the temperature. What differs: the network is pruned to a target,
by the rank of the gates, along the groups that our trace finds (theirs are written by hand for each model), and the
gates' values are folded into the weights and not lost.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lumos.compaction.compact import compact
from lumos.compaction.probe import trace_and_probe
from lumos.errors import StructureError, UnsupportedError
from lumos.gating.gated_model import GatedModel
from lumos.gating.hard_concrete import LOG_ALPHA_BOUND, expected_open, sample
from lumos.gating.settings import GateSettings
from lumos.pruning.budget import SLACK, Budget
from lumos.pruning.report import gate_report
from lumos.pruning.settings import Target
from lumos.suite.methods.base import Task, TwoPhaseMethod
from lumos.suite.training.state import TrainState
from lumos.suite.training.trained import Trained
from lumos.suite.workload import Workload
from lumos.tracing.structure import Axis, Structure

SETTINGS = GateSettings(tau=0.67)


class LayerGates(nn.Module):
    """The gates of one layer, along one axis of its weight; ``weights`` is how many weights each of them gates."""

    def __init__(self, layer: nn.Module, axis: Axis, drop_rate: float) -> None:
        super().__init__()
        weight: Any = layer.weight
        self.axis, self.on_input = axis, isinstance(layer, nn.Linear)
        size = weight.shape[axis[1]]
        start = math.log((1 - drop_rate) / drop_rate)
        self.log_alpha = nn.Parameter(start + 0.01 * torch.randn(size, device=weight.device))
        self.along = [-1, *[1] * (weight.ndim - 2)]
        self.weights = weight.numel() // size
        self.handle = (
            layer.register_forward_pre_hook(lambda m, x: (x[0] * self(m.training), *x[1:]))
            if self.on_input
            else layer.register_forward_hook(lambda m, _x, y: y * self(m.training).view(self.along))
        )

    def forward(self, sampled: bool) -> Tensor:
        """Values of the gates, sampled or those of test time: (size,)."""
        if not sampled:
            return self.at_test()
        return sample(self.log_alpha, torch.rand_like(self.log_alpha).clamp(1e-6, 1 - 1e-6), SETTINGS)

    def at_test(self) -> Tensor:
        """``sigmoid(log_alpha)``, stretched and clipped: (size,)."""
        span = SETTINGS.zeta - SETTINGS.gamma
        return (torch.sigmoid(self.log_alpha) * span + SETTINGS.gamma).clamp(0, 1)

    @torch.no_grad()
    def fold(self, layer: nn.Module) -> None:
        """Multiply the weights with the test-time gates, and take the gates away."""
        weight: Any = layer.weight
        bias: Any = layer.bias
        values, dim = self.at_test(), self.axis[1]
        weight.mul_(values.view([-1 if d == dim else 1 for d in range(weight.ndim)]))
        if not self.on_input and bias is not None:
            bias.mul_(values)
        self.handle.remove()


class Loxia(TwoPhaseMethod):
    """Gates and weights together, pruning, fine-tuning."""

    phase_names = ("gated", "fine-tuning")

    def __init__(self, state: TrainState, task: Task, structure: Structure) -> None:
        super().__init__(state, task)
        assert task.settings.target is not None
        self.structure, self.budget = structure, Budget(Target(params=task.settings.target))
        self.price = task.settings.lambda_ / task.samples
        self.layers = _gated_layers(state.model, structure, task)
        if not self.layers:
            raise UnsupportedError(f"{type(state.model).__name__} has no linear layer or convolution to put gates on")
        self._keep()  # before it trains, whether the target can be met at all
        group = {"name": "gates", "params": [g.log_alpha for g in self.layers.values()],
                 "initial_lr": state.workload.recipe.learning_rate, "weight_decay": 0.0}  # fmt: skip
        state.optimizer.add_param_group(group | {"lr": group["initial_lr"]})

    def adjust_gradients(self) -> None:
        """Add the gradient of the expected number of gated weights, times lambda over the number of samples."""
        counts = [g.weights * expected_open(g.log_alpha, SETTINGS).sum() for g in self.layers.values()]
        (self.price * torch.stack(counts).sum()).backward()

    def rank(self) -> Tensor:
        """Each unit's rank: the least of what gates its output and the most of what gates its readers' inputs."""
        units = self.structure.units
        low = torch.full((units + 1,), math.inf)
        read = torch.full((units + 1,), -math.inf)
        for gates in self.layers.values():
            at, values = self.structure.maps[gates.axis], gates.log_alpha.detach().cpu()
            if gates.on_input:
                read.scatter_reduce_(0, at, values, "amax")
            else:
                low.scatter_reduce_(0, at, values, "amin")
        read[read == -math.inf] = math.inf
        return torch.minimum(low, read)[1:]

    def _keep(self) -> Tensor:
        rank = self.rank()
        gated = torch.isfinite(rank)
        keep = self.budget.fit(self.structure, rank.clamp(max=1e6), torch.ones_like(gated))
        size = float(self.budget.size(self.structure, (keep | ~gated).double()))
        if size > self.budget.limit * (1 + SLACK):
            raise UnsupportedError(f"with all its gates closed {size:.1%} of the parameters are left, "
                                   f"{self.budget.limit:.1%} are asked for")  # fmt: skip
        return keep | ~gated

    def shrink(self, workload: Workload) -> nn.Module:
        """The gates folded into the weights, and the units of the lowest rank cut out."""
        keep = self._keep()
        own = torch.cat([g.at_test().detach().cpu() for g in self.layers.values()])
        for path, gates in self.layers.items():
            gates.fold(self.model.get_submodule(path))
        gated = GatedModel(self.model, self.structure, GateSettings())
        with torch.no_grad():
            # At the bound a gate is exactly 1, or exactly 0.
            gated.gates.log_alpha.copy_(torch.where(keep, LOG_ALPHA_BOUND, -LOG_ALPHA_BOUND))
        self.gates = gate_report(gated)
        self.report.more = {"closed_by_their_own": int((own == 0).sum()), "gates": len(own)}
        return compact(gated.train())

    def finalize(self, trained: Trained) -> None:
        """Add what was reached and what is left of each group."""
        super().finalize(trained)
        trained.gates = self.gates


def _gated_layers(model: nn.Module, structure: Structure, task: Task) -> dict[str, LayerGates]:
    """The gates of each layer that has units to remove, by its path; the first layer drops less at the start."""
    found: dict[str, LayerGates] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            dim = 1
        elif isinstance(layer, _ConvNd):
            dim = 1 if layer.transposed else 0
        else:
            continue
        axis = (f"{path}.weight", dim)
        # A depthwise transposed convolution has other outputs than its weight says.
        if axis in structure.maps and not (isinstance(layer, _ConvNd) and layer.transposed and layer.groups > 1):
            rate = task.settings.drop_rest if found else task.settings.drop_first
            found[path] = LayerGates(layer, axis, rate)
    return found


def setup(state: TrainState, task: Task) -> Loxia:
    """Train with gates, prune, fine-tune. Raises UnsupportedError."""
    try:
        structure = trace_and_probe(state.model, state.workload.example(), features=state.workload.features())
    except StructureError as error:
        raise UnsupportedError(str(error)) from error
    return Loxia(state, task, structure)
