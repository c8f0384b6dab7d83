"""Pruning by torch-pruning to a share of the parameters: which layers it can prune, and how far to go."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from lumos.errors import UnsupportedError
from lumos.measure.sizes import parameters
from lumos.suite.methods.base import Task, TwoPhaseMethod, example, shapes
from lumos.suite.training.state import TrainState
from lumos.suite.workload import Workload

COARSE, FINE = 100, 10
"""Steps of the pruning ratio from 0 to 1, and of the last of them, which crosses the target."""
SLACK = 0.02
"""How far below its target a network may end, as a share of the target."""
HIGHER = (0.9, 0.95, 0.98, 0.99, 1.0)
"""Largest shares of a layer's units that may go, tried in turn."""

Importance = Callable[[], Any]
"""Makes a fresh importance of torch-pruning's."""


def library() -> Any:
    """The module torch_pruning. Raises UnsupportedError where it is not installed."""
    try:
        import torch_pruning
    except ImportError:
        raise UnsupportedError("torch-pruning is not installed; pip install 'lumos-sciml[peers]'") from None
    return torch_pruning


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's warnings, of parameters outside of modules and the like."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _forward(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    return model(*inputs)


def make(model: nn.Module, inputs: tuple[Any, ...], importance: Any, excluded: list[str], most: float) -> Any:
    """A pruner of a model, over all layers together; the model's mode stays."""
    tp, mode = library(), model.training
    with quiet():
        pruner = tp.pruner.BasePruner(
            model, example_inputs=inputs, forward_fn=_forward, importance=importance, global_pruning=True,
            pruning_ratio=1.0, max_pruning_ratio=most, ignored_layers=[model.get_submodule(n) for n in excluded],
            # Not its defaults: those are shared between all pruners of a process.
            in_channel_groups={}, out_channel_groups={}, num_heads={}, channel_groups={},
        )  # fmt: skip
    model.train(mode)
    return pruner


def excluded_layers(model: nn.Module, inputs: tuple[Any, ...]) -> list[str]:
    """The layers whose outputs cannot be pruned one by one: those of the network, and those at which it breaks.

    Raises UnsupportedError where none is left.
    """
    tp, want = library(), shapes(model, inputs)
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Linear | _ConvNd)]
    out: list[str] = []
    for name in layers:
        trial = copy.deepcopy(model).eval()
        layer = trial.get_submodule(name)
        try:
            with quiet():
                graph = tp.DependencyGraph().build_dependency(trial, inputs, forward_fn=_forward)
                handler = graph.get_pruner_of_module(layer)
                if handler.get_out_channels(layer) < 2:
                    raise UnsupportedError("one unit")
                graph.get_pruning_group(layer, handler.prune_out_channels, [0]).prune()
            fits = shapes(trial, inputs) == want and parameters(trial) < parameters(model)
        except Exception:  # whatever it raises, this layer cannot be pruned
            fits = False
        if not fits:
            out.append(name)
    if len(out) == len(layers):
        raise UnsupportedError(f"torch-pruning finds no layer in {type(model).__name__} that it can prune")
    return out


def shrunk(
    model: nn.Module, inputs: tuple[Any, ...], importance: Importance, excluded: list[str], limit: int, most: float
) -> tuple[nn.Module, float]:
    """A pruned copy with at most ``limit`` parameters, and the largest share of a layer's units that it took.

    Raises UnsupportedError where the library cannot go so far.
    """
    least = parameters(model)
    for share in sorted({most, *(h for h in HIGHER if h > most)}):
        coarse = [(i + 1) / COARSE for i in range(COARSE)]
        small, reached = _pruned(model, inputs, importance(), excluded, limit, share, coarse)
        least = min(least, parameters(small))
        if parameters(small) > limit:
            continue
        if parameters(small) < (1 - SLACK) * limit:
            fine = [(reached + (j + 1) / FINE) / COARSE for j in range(FINE)]
            small, _ = _pruned(model, inputs, importance(), excluded, limit, share, coarse[:reached] + fine)
        return small, share
    dense = parameters(model)
    raise UnsupportedError(
        f"torch-pruning prunes {type(model).__name__} to {least / dense:.1%} of its parameters and no further, "
        f"{limit / dense:.1%} are asked for"
    )


def _pruned(
    model: nn.Module,
    inputs: tuple[Any, ...],
    importance: Any,
    excluded: list[str],
    limit: int,
    most: float,
    ratios: list[float],
) -> tuple[nn.Module, int]:
    """Prune a copy along the ratios until it has no more than ``limit`` parameters; also the number of the last one."""
    trial = copy.deepcopy(model)
    trial.zero_grad(set_to_none=True)
    pruner = make(trial, inputs, importance, excluded, most)
    pruner.per_step_pruning_ratio = [0.0, *ratios]
    pruner.iterative_steps = len(ratios)
    for number in range(len(ratios)):
        with quiet():
            pruner.step()
        if parameters(trial) <= limit:
            return trial, number
    return trial, len(ratios)


class Pruning(TwoPhaseMethod):
    """A pruning phase whose network is pruned by torch-pruning, by an importance of its."""

    def __init__(self, state: TrainState, task: Task, importance: Importance) -> None:
        super().__init__(state, task)
        self.importance = importance
        self.inputs = example(state.workload, state.device)
        self.excluded = excluded_layers(state.model, self.inputs)
        assert task.settings.target is not None
        self.limit = int(task.settings.target * self.dense)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            trial = copy.deepcopy(self.model)
            for p in trial.parameters():  # fresh scales of norms are all alike
                p.data.mul_(1 + 0.1 * torch.rand_like(p))
            self._shrunk(trial)  # before it trains, whether the target can be met at all

    def _shrunk(self, model: nn.Module) -> tuple[nn.Module, float]:
        most = self.settings.max_pruning_ratio
        return shrunk(model, self.inputs, self.importance, self.excluded, self.limit, most)

    def shrink(self, workload: Workload) -> nn.Module:
        """The network pruned to its target."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            small, most = self._shrunk(self.model)
        self.report.more = {"max_pruning_ratio": most, "layers_left_out": self.excluded}
        return small
