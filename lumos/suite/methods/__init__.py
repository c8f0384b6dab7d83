"""The methods that ours is compared with, each one training of the same data, seed, loop and number of steps.

Read ``base`` first: a training in two phases, and what a method says of itself. ``pruner`` prunes with torch-pruning;
``l1``, ``slimming`` and ``depgraph`` are three ways to use it. ``oto`` is only-train-once, ``loxia`` the paper's own
recipe after its public code, ``scratch`` a fresh network of the shape that ours left.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from lumos.errors import ConfigError
from lumos.suite.config import RunConfig
from lumos.suite.methods import depgraph, l1, loxia, oto, scratch, slimming
from lumos.suite.methods.base import Task
from lumos.suite.training.loop import train
from lumos.suite.training.method import PruningMethod
from lumos.suite.training.state import TrainState
from lumos.suite.training.trained import Trained
from lumos.suite.workload import Loaders, Workload

METHODS: dict[str, Callable[[TrainState, Task], PruningMethod | None]] = {
    "scratch": scratch.setup,
    "l1": l1.setup,
    "slimming": slimming.setup,
    "depgraph": depgraph.setup,
    "oto": oto.setup,
    "loxia": loxia.setup,
}
"""What sets up each method's training, by name; ``dense`` and ``lumos`` are the loop's own."""


def train_with(
    config: RunConfig, workload: Workload, loaders: Loaders, device: torch.device, reference_run: Path | None = None,
    *, schedule: str = "decay",
) -> Trained:  # fmt: skip
    """Train by the configured method. One that is killed starts anew: other methods keep no checkpoints.

    Args:
        config: The run's settings; ``config.method`` is the method.
        workload: Its model, loss, score and recipe.
        loaders: Its splits.
        device: Where to train.
        reference_run: The folder of the run whose shape a training from scratch takes.
        schedule: How the learning rate of a training from scratch goes: ``decay`` or ``hold``.

    Raises:
        UnsupportedError: The method cannot treat the model.
        ConfigError: Several processes are asked for.
    """
    method = config.method
    assert method is not None
    if config.trainer.processes > 1:
        raise ConfigError(f"method={method.name} trains in one process; set trainer.devices=1 and trainer.nodes=1")

    def setup(state: TrainState, total: int) -> PruningMethod | None:
        return METHODS[method.name](state, Task(method, total, loaders.n_train, reference_run))

    return train(workload, loaders, config, device, gated=False, setup=setup, label=method.name, schedule=schedule)
