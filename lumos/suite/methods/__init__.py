"""The methods that ours is compared with, each one training of the same data, seed, loop and number of steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from lumos.errors import ConfigError
from lumos.suite.config import RunConfig
from lumos.suite.methods import depgraph, l1, loxia, oto, scratch, slimming
from lumos.suite.methods.base import Task
from lumos.suite.training.loop import Trained, train
from lumos.suite.training.phases import Phase
from lumos.suite.training.state import TrainState
from lumos.suite.workload import Loaders, Workload

METHODS: dict[str, Callable[[TrainState, Task], Phase | None]] = {
    "scratch": scratch.begin,
    "l1": l1.begin,
    "slimming": slimming.begin,
    "depgraph": depgraph.begin,
    "oto": oto.begin,
    "loxia": loxia.begin,
}
"""What makes each method's training of a fresh state; ``dense`` and ``lumos`` are the engine's own."""


def train_with(
    config: RunConfig, workload: Workload, loaders: Loaders, device: torch.device, donor: Path | None = None
) -> Trained:
    """Train by the configured method. ``donor`` is the folder of the run whose shape a training from scratch takes.

    A training that is killed starts anew: other methods keep no checkpoints. Raises UnsupportedError where the method
    cannot treat the model, ConfigError with several processes.
    """
    method = config.method
    assert method is not None
    if config.trainer.processes > 1:
        raise ConfigError(f"method={method.name} trains in one process; set trainer.devices=1 and trainer.nodes=1")

    def begin(state: TrainState, total: int) -> Phase | None:
        return METHODS[method.name](state, Task(method, total, loaders.n_train, donor))

    return train(workload, loaders, config, device, gated=False, begin=begin, label=method.name)
