"""A dense network of the widths and features that LUMOS left, with fresh weights: what is the shape alone worth?"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lumos.compaction.model import CompactModel, load
from lumos.errors import RecordError
from lumos.suite.methods.base import Task
from lumos.suite.training.optimizer import make_optimizer
from lumos.suite.training.state import TrainState
from lumos.suite.workload import GIVEN

ALIKE = 0.1
"""How far apart, relatively, two standard deviations may be for one way of drawing weights."""


def setup(state: TrainState, task: Task) -> None:
    """Put the compact shape, freshly initialised, in place of the dense network; it trains for all steps."""
    if task.reference_run is None or not (task.reference_run / "compact.pt").exists():
        raise RecordError(
            f"{task.reference_run}: there is no compact.pt, whose shape is to be trained from scratch; delete the "
            "folder's record and run again"
        )
    small = load(task.reference_run / "compact.pt", copy.deepcopy(state.model).cpu()).to(state.device)
    pretrained = state.workload.recipe.schedule == GIVEN or state.config.init_from is not None
    fresh_weights(small, state.model, pretrained=pretrained)
    state.model = small.train()
    state.replica = state.model
    state.optimizer = make_optimizer(state.model, state.workload)


@torch.no_grad()
def fresh_weights(small: CompactModel, dense: nn.Module, *, pretrained: bool = False) -> None:
    """Draw the weights of a compact network as those of the fresh dense one were drawn.

    A layer that torch's own rule initialised is initialised by it, for its new width; every other parameter takes
    values of the dense one, drawn at random. What the cut folded into buffers goes. How the weights of a ``pretrained``
    dense network were drawn is not known: then torch's rule is taken for every layer that has one.
    """
    whole = dict(dense.named_modules())
    done: set[int] = set()
    for name, module in small.model.named_modules():
        reset = getattr(module, "reset_parameters", None)
        twin = whole.get(name)
        if reset is None or twin is None or not (pretrained or _by_default(twin)):
            continue
        reset()
        done |= {id(p) for p in module.parameters(recurse=False)}
    before = dict(dense.named_parameters())
    for name, p in small.model.named_parameters():
        if id(p) not in done:
            values = before[name].detach().flatten()
            p.copy_(values[torch.randint(len(values), p.shape, device=values.device)])
    for name, module in small.model.named_modules():
        for key, buffer in module.named_buffers(recurse=False):
            if name in small.layers and key in ("value", "scale"):
                buffer.fill_(0.0 if key == "value" else 1.0)


def _by_default(layer: nn.Module) -> bool:
    """Whether a fresh layer's weights look as its own ``reset_parameters`` draws them."""
    own = list(layer.parameters(recurse=False))
    if not own:
        return False
    again = copy.deepcopy(layer)
    again.reset_parameters()  # type: ignore[operator]
    return all(_alike(a, b) for a, b in zip(own, again.parameters(recurse=False), strict=True))


def _alike(a: Tensor, b: Tensor) -> bool:
    if a.numel() < 2:
        return True
    one, other = float(a.std()), float(b.std())
    # Few values scatter: their deviation is known to 1 / sqrt(2 n).
    return abs(one - other) <= (ALIKE + 3 / (2 * a.numel()) ** 0.5) * max(one, other)
