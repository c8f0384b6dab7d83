"""All that changes while a network trains; a checkpoint holds all of it."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from lumos.api import gate
from lumos.compaction.probe import trace_and_probe
from lumos.gating.gated_model import GatedModel
from lumos.pruning.averaging import Average, EpochMean, average_of
from lumos.pruning.batch_statistics import STATISTICS_BATCHES, has_statistics
from lumos.pruning.controllers import check_interval
from lumos.pruning.settings import cut_step
from lumos.suite.config import RunConfig
from lumos.suite.training import distributed
from lumos.suite.training.evaluation import Best
from lumos.suite.training.loading import Reader
from lumos.suite.training.lumos_method import LumosMethod
from lumos.suite.training.method import CutContext, PruningMethod
from lumos.suite.training.objective import Loss, compiled_loss, of_one_shape
from lumos.suite.training.optimizer import make_optimizer
from lumos.suite.training.pretrained import freeze_backbone, initialize
from lumos.suite.training.recent import RecentBatches
from lumos.suite.workload import Batch, Workload, to_device
from lumos.tracing.structure import Structure

PLACE = ("epoch", "batch", "step", "losses_from")
"""Where a training is: the open epoch, its next batch, the steps so far, and the batch of the first of its losses."""


def fresh_model(workload: Workload, config: RunConfig, device: torch.device) -> nn.Module:
    """Make the dense network that a training starts from: by the seed, and with the weights of ``init_from``."""
    torch.manual_seed(config.seed)
    model = workload.model().to(device)
    if config.init_from:
        initialize(model, config.init_from, config.init_strict)
    return model


class TrainState:
    """The state of a training: fresh from the seed, or as a checkpoint left it.

    Attributes:
        model: The network; gated until the cut and compact after it.
        replica: What a step calls: the same module, or its DistributedDataParallel.
        loss: The workload's loss, plain or compiled.
        optimizer: AdamW over the weights.
        schedule: How its rate goes where nothing is cut; see :func:`lumos.suite.training.optimizer.plain_rate`.
        method: What a method of pruning does beside the steps; None for a dense training.
        average: The averaged copy of the weights, where one is asked for.
        mean: Of a dense training, the weights' mean over the last steps of an epoch: a tolerance's line.
        best: The best state by validation score.
        curve: A row for each epoch that is validated.
        epoch, batch, step: The open epoch, the number of its next batch, and how many steps were taken.
        losses: Those of the open epoch, from batch ``losses_from`` on.
        recent: The latest batches, for models with batch statistics.
        noise: Random numbers, of the gates and of the model.
    """

    def __init__(
        self, workload: Workload, config: RunConfig, device: torch.device, *, gated: bool, schedule: str = "decay"
    ) -> None:
        self.workload, self.config, self.device, self.schedule = workload, config, device, schedule
        self.model: nn.Module = fresh_model(workload, config, device)
        if gated:
            self.model = gate(
                self.model,
                workload.example(),
                features=workload.features(),
                settings=config.lumos.gates,
                options=config.lumos.structure,
                **asdict(config.lumos.constraints),
            )
        if config.freeze_backbone:
            inner, structure = self._structure()
            freeze_backbone(inner, structure)
        self.optimizer = make_optimizer(self.model, workload)
        self.method: PruningMethod | None = None
        self.average: Average | None = None
        self.mean: EpochMean | None = None
        self.best = Best(workload.metric.higher_is_better)
        self.curve: list[dict[str, Any]] = []
        self.losses: list[Tensor] = []
        self.epoch = self.batch = self.step = self.losses_from = 0
        self.recent = RecentBatches(STATISTICS_BATCHES if has_statistics(self.model) else 0)
        self.noise = distributed.Noise(config.seed, device)
        self._resumed_noise: list[Tensor] | None = None
        self._earlier, self._started = 0.0, time.perf_counter()
        self.replica = self.model
        self.loss: Loss = workload.loss

    def _structure(self) -> tuple[nn.Module, Structure]:
        """The network without its gates, and what the trace says of it."""
        if isinstance(self.model, GatedModel):
            return self.model.model, self.model.structure
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            return self.model, trace_and_probe(copy.deepcopy(self.model), self.workload.example())

    @property
    def scored(self) -> nn.Module:
        """What is validated and kept: the averaged copy, or the model where there is none."""
        return self.average.model if self.average else self.model

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before a restart included."""
        return self._earlier + time.perf_counter() - self._started

    def prepare(self, reader: Reader) -> None:
        """Set up several processes, and compiled steps, before the first step."""
        self.replica = self.model
        several = distributed.world().size > 1
        if several and isinstance(self.model, GatedModel):
            self.noise.share(self.model.gates)
        if not several and not self.config.trainer.compile:
            return
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            first, *more = islice(reader.open(0), 2)
        if several:
            self._wrap(to_device(first, self.device))
        if self.config.trainer.compile:
            # Once as it stands, so that what a workload computes at its first loss, from its files say, is there.
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.no_grad():
                self.workload.loss(copy.deepcopy(self.model), to_device(first, self.device))
            # What earlier trainings of this process compiled counts against the limit past which torch gives up.
            torch.compiler.reset()
            dynamic = not all(of_one_shape(first, batch) for batch in more)
            self.loss = compiled_loss(self.workload, dynamic=dynamic)

    def prune(self, example: Batch) -> None:
        """Prune the network: a smaller one trains on. ``example`` is a batch that it can be tried on."""
        assert self.method is not None
        before = self.optimizer
        self.model, self.optimizer = self.method.prune(CutContext(before, self.workload, self.average))
        if self.optimizer is not before:
            self._follow()
        self.losses.clear()
        self.losses_from = self.batch
        self._wrap(to_device(example, self.device))

    def _wrap(self, example: Batch) -> None:
        statistics = has_statistics(self.model)
        self.replica = distributed.replicated(
            self.model, lambda copied: self.workload.loss(copied, example), statistics=statistics
        )

    def keep_average(self) -> None:
        """Keep an averaged copy from here on, where one is asked for."""
        self.average = average_of(self.model, self.config.trainer.ema)
        self._follow()

    def _follow(self) -> None:
        if average := self.average:  # a step's average is there when the step is judged
            self.optimizer.register_step_post_hook(lambda *_: average.update(self.model))

    def keep_mean(self, total: int) -> None:
        """Keep the mean of the weights at the ends of epochs, for as many steps as a gated training has gates.

        An averaged copy is a mean already.
        """
        if self.average is None:
            gated_steps = cut_step(self.config.lumos.freeze_at, total)
            self.mean = EpochMean(check_interval(gated_steps), gated_steps)

    def next_epoch(self) -> None:
        """Go on with the next epoch."""
        self.epoch, self.batch, self.losses_from = self.epoch + 1, 0, 0
        self.losses.clear()

    def is_finite(self) -> bool:
        """Tell whether every weight is a number."""
        return all(bool(torch.isfinite(p).all()) for p in self.model.parameters())

    def good_weights(self) -> dict[str, Tensor] | None:
        """Return the model's state if it is finite, or else the best one by validation score, if there is one."""
        return dict(self.model.state_dict()) if self.is_finite() else self.best.state

    # ---- checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """Return the whole training, between two steps."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "mean": self.mean.state_dict() if self.mean else None,
            "phase": self.method.state_dict() if self.method else None,
            "best": self.best.state_dict(),
            "curve": self.curve,
            "losses": self.losses,
            "place": {name: getattr(self, name) for name in PLACE},
            "noise": distributed.noise_state(self.device),
            "seconds": self.seconds,
        }

    def load_state_dict(self, saved: dict[str, Any], reader: Reader) -> None:
        """Take a state that :meth:`state_dict` returned; the latest batches are read again."""
        if self.method:
            self.method.load_state_dict(saved["phase"])
            if isinstance(self.method, LumosMethod) and self.method.pruned:
                self.model = self.replica = self.method.pruner.cut()
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average:
            self.average.load_state_dict(saved["average"])
        if self.mean:
            self.mean.load_state_dict(to_device(saved["mean"], self.device))
        self.best.load_state_dict(saved["best"])
        self.curve, self.losses = saved["curve"], to_device(saved["losses"], self.device)
        for name in PLACE:
            setattr(self, name, saved["place"][name])
        if self.recent.count:
            for batch in reader.latest(self.epoch, self.batch, self.recent.count):
                self.recent.append(batch)
        self._resumed_noise, self._earlier = saved["noise"], saved["seconds"]

    def restore_noise(self) -> None:
        """Set torch's generators, once after a restart, as the checkpoint found them, whatever was drawn since."""
        if self._resumed_noise is not None:
            distributed.set_noise_state(self._resumed_noise, self.device)
            self._resumed_noise = None
