"""Only-Train-Once with HESSO: redundant groups go to zero while it trains, and are cut out (Chen et al., 2023, 2024).

The library asks for a share of groups; how many of the lowest rank it takes for a share of the parameters is tried out
on copies at the step at which it ranks them. All of them go in one period.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from lumos.errors import UnsupportedError
from lumos.measure.sizes import parameters
from lumos.suite.methods.base import Task, TwoPhaseMethod, example
from lumos.suite.training.state import TrainState
from lumos.suite.workload import Workload


def library() -> Any:
    """The module only_train_once. Raises UnsupportedError where it is not installed or does not fit this torch."""
    with contextlib.suppress(ImportError):  # what its version 3.0.1 imports has moved since
        moved = importlib.import_module("torch.onnx._internal.torchscript_exporter")
        sys.modules.setdefault("torch.onnx._globals", importlib.import_module(f"{moved.__name__}._globals"))
        utils = importlib.import_module(f"{moved.__name__}.utils")
        if not hasattr(torch.onnx, "_optimize_graph"):
            torch.onnx._optimize_graph = utils._optimize_graph  # type: ignore[attr-defined]
    try:
        with silent():
            import only_train_once
            from only_train_once.operation import operator
    except Exception as error:  # an import that fails in any way leaves nothing to work with
        raise UnsupportedError(
            f"only-train-once cannot be used ({type(error).__name__}: {error}); pip install 'lumos-sciml[peers]'"
        ) from error
    operator.BASIC_MODULES.setdefault("BatchNorm1d", operator.BASIC_MODULES["BatchNorm2d"])
    return only_train_once


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without what the library prints and warns of, and with its ``.cuda()`` left out where there is no GPU."""
    cuda = torch.Tensor.cuda
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self, *_a, **_k: self  # type: ignore[method-assign]
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.Tensor.cuda = cuda  # type: ignore[method-assign]


def _graph(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """The library's view of a model; the model's mode stays. Raises UnsupportedError."""
    once, mode = library(), model.training
    try:
        with silent():
            return once.OTO(model, inputs[0] if len(inputs) == 1 else inputs)
    except Exception as error:  # whatever it raises, it cannot follow this model
        reason = (str(error).splitlines() or [""])[0]
        raise UnsupportedError(
            f"only-train-once cannot follow {type(model).__name__}: {type(error).__name__}: {reason}"
        ) from error
    finally:
        model.train(mode)


def _cut(once: Any) -> None:
    """Cut the zero groups out of the model, in place. Raises UnsupportedError."""
    try:
        with silent(), tempfile.TemporaryDirectory() as folder:
            once.construct_subnet(out_dir=folder, save_full_group_sparse_model=False)
    except Exception as error:  # whatever it raises, there is no network
        reason = (str(error).splitlines() or [""])[0]
        raise UnsupportedError(f"only-train-once cannot cut: {type(error).__name__}: {reason}") from error


class OnlyTrainOnce(TwoPhaseMethod):
    """HESSO's steps, then the subnet, which trains on."""

    phase_names = ("sparse", "subnet")

    def __init__(self, state: TrainState, task: Task) -> None:
        super().__init__(state, task)
        assert task.settings.target is not None
        self.inputs = example(state.workload, state.device)
        self.limit = int(task.settings.target * self.dense)
        self.once = _graph(self.model, self.inputs)
        start = max(1, self.prune_at // 2)
        recipe = state.workload.recipe
        with silent():
            hesso = self.once.hesso(
                lr=recipe.learning_rate, variant="adamw", weight_decay=recipe.weight_decay,
                target_group_sparsity=0.5, start_pruning_step=start, pruning_periods=1,
                pruning_steps=max(1, self.prune_at - start - 1),
            )  # fmt: skip
        groups = [g["num_groups"] for g in hesso.param_groups if g["is_prunable"] and not g["is_auxiliary"]]
        if not groups:
            raise UnsupportedError(f"only-train-once finds nothing to prune in {type(self.model).__name__}")
        self._left({})  # before it trains, whether it can cut at all
        least = self._size(np.arange(sum(groups)), self._owner(hesso))
        if least > self.limit:
            raise UnsupportedError(
                f"only-train-once can cut {type(self.model).__name__} to {least / self.dense:.1%} of its parameters, "
                f"{task.settings.target:.1%} are asked for"
            )
        self.hesso = hesso
        self._identify, self._step = hesso.identify_redundant_groups, hesso.step
        hesso.identify_redundant_groups, hesso.step = self._chosen, self._silent_step
        for group in hesso.param_groups:
            group["initial_lr"] = recipe.learning_rate
        state.optimizer = hesso

    def _silent_step(self, closure: Any = None) -> Any:
        with silent():
            return self._step(closure)

    def _chosen(self) -> None:
        """Set how many groups go, so that the target is met, and let the library choose them."""
        order = torch.cat(self.hesso.global_scores).argsort().cpu().numpy()
        owner = self._owner(self.hesso)
        low, high = 0, len(order)
        while low < high:  # the fewest that meet the target
            middle = (low + high) // 2
            low, high = (low, middle) if self._size(order[:middle], owner) <= self.limit else (middle + 1, high)
        self.hesso.target_num_redundant_groups = low
        self.hesso.active_num_redundant_groups = [low]
        self._identify()

    @staticmethod
    def _owner(hesso: Any) -> list[tuple[int, int]]:
        """(number of the parameter group, number within it) of each group, in the library's order."""
        prunable = [(i, g) for i, g in enumerate(hesso.param_groups) if g["is_prunable"] and not g["is_auxiliary"]]
        return [(i, j) for i, g in prunable for j in range(g["num_groups"])]

    def _size(self, chosen: np.ndarray, owner: list[tuple[int, int]]) -> int:
        """Parameters that are left without the chosen groups; of each layer one stays, as the library has it."""
        by_group: dict[int, list[int]] = {}
        for number in chosen:
            group, unit = owner[int(number)]
            by_group.setdefault(group, []).append(unit)
        counts: dict[int, int] = {}
        for group, _ in owner:
            counts[group] = counts.get(group, 0) + 1
        return self._left({g: u[: counts[g] - 1] for g, u in by_group.items()})

    def _left(self, zero: dict[int, list[int]]) -> int:
        """Parameters of a copy in which these groups are zero and nothing else is, once it is cut."""
        trial = copy.deepcopy(self.model)
        with torch.no_grad():
            for p in trial.parameters():
                p.fill_(1.0)
        once = _graph(trial, self.inputs)
        with silent(), torch.no_grad():
            groups = list(once._graph.get_param_groups())
        for number, units in zero.items():
            _set_zero(groups[number], units)
        _cut(once)
        return parameters(trial)

    def shrink(self, workload: Workload) -> nn.Module:
        """The network without its zero groups."""
        self.report.more = {"groups": len(self._owner(self.hesso)),
                            "zero_groups": int(self.hesso.curr_num_zero_groups)}  # fmt: skip
        dense = copy.deepcopy(self.model)
        _cut(self.once)
        small, self.model = self.model, dense
        return small


@torch.no_grad()
def _set_zero(group: dict[str, Any], units: list[int]) -> None:
    from only_train_once.transform import TensorTransform

    for p, transform in zip(group["params"], group["p_transform"], strict=True):
        if transform == TensorTransform.TRANSPOSE and p.ndim > 1:
            p.data[:, units] = 0.0
        elif transform in (TensorTransform.MULTIHEAD_NUMHEAD, TensorTransform.MULTIHEAD_HEADDIM):
            raise UnsupportedError("only-train-once: heads of attention have no size that is known beforehand")
        else:
            p.data[units] = 0.0


def setup(state: TrainState, task: Task) -> OnlyTrainOnce:
    """Train with HESSO, cut, train on. Raises UnsupportedError."""
    return OnlyTrainOnce(state, task)
