"""Gates in a training by Hugging Face's ``Trainer``: :func:`gate` on the model, and one callback."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import lumos.api
from lumos.compaction.model import CompactModel
from lumos.errors import ConfigError
from lumos.gating.gated_model import GatedModel
from lumos.pruning.pruner import Pruner
from lumos.pruning.restoring import cut_when_loaded
from lumos.pruning.settings import Goal

FILE = "lumos.pt"
"""The pruner's state in a checkpoint's folder."""


def gate(model: nn.Module, example_inputs: Any, **options: Any) -> GatedModel:
    """Put gates on a model, as :func:`lumos.gate` does, and say what the ``Trainer`` asks of a model.

    Args:
        model: A model whose ``forward`` returns its loss where it is given labels.
        example_inputs: As in :func:`lumos.gate`.
        **options: Of :func:`lumos.gate`.
    """
    gated = lumos.api.gate(model, example_inputs, **options)
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    # Or else it looks at the signature of the gated model's own forward, which passes everything on.
    takes = getattr(model, "accepts_loss_kwargs", inspect.Parameter.VAR_KEYWORD in kinds)
    gated.__dict__["accepts_loss_kwargs"] = bool(takes)
    return gated


class LumosCallback(TrainerCallback):
    """Prune a gated model while a ``Trainer`` trains it.

    The trainer's model is what :func:`gate` returned, and its arguments have ``remove_unused_columns=False``.
    After the training ``small`` is the compact model. Checkpoints from before and after the cut load again,
    ``trainer.train(resume_from_checkpoint=…)``. The pruner's numbers are logged under ``lumos/``.

    Args:
        target: What is asked for: :class:`lumos.Lambda`, :class:`lumos.Target` or :class:`lumos.Tolerance`.
        **options: Further ones of :class:`lumos.Pruner`.

    Raises:
        ConfigError: The trainer's model has no gates.

    Example:
        ``Trainer(gated, args, train_dataset=data, callbacks=[LumosCallback(lumos.Target(params=0.1))]).train()``
    """

    def __init__(self, target: Goal | None = None, **options: Any) -> None:
        self.target, self.options = target, options
        self.pruner: Pruner | None = None
        self.small: CompactModel | None = None

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Prepare the model for checkpoints from after the cut."""
        cut_when_loaded(_gated(kwargs["model"]))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the pruner on the optimizer; where the training goes on from a checkpoint, with its state."""
        scheduler = kwargs.get("lr_scheduler")
        scheduler = getattr(scheduler, "scheduler", scheduler)  # accelerate wraps it
        schedulers = [scheduler] if hasattr(scheduler, "base_lrs") else []
        self.pruner = Pruner(
            _gated(kwargs["model"]), kwargs["optimizer"], state.max_steps, self.target, schedulers=schedulers,
            **self.options,
        )  # fmt: skip
        saved = _folder(args, state) / FILE
        if state.global_step and saved.exists():
            self.pruner.load_state_dict(torch.load(saved, map_location="cpu", weights_only=True))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the pruner's state beside the trainer's."""
        if self.pruner and state.is_world_process_zero:
            torch.save(self.pruner.state_dict(), _folder(args, state) / FILE)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the pruner's numbers to what is logged, and tell it the loss."""
        logs = kwargs.get("logs")
        if self.pruner and logs is not None and "loss" in logs:
            self.pruner.observe(float(logs["loss"]))
            numbers = {f"lumos/{key}": value for key, value in self.pruner.metrics().items()}
            for row in (logs, *state.log_history[-1:]):
                row.update(numbers)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Cut what is still to be cut, where the training came to its end."""
        if self.pruner and state.global_step >= state.max_steps:
            self.small = self.pruner.finish()


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"


def _gated(model: Any) -> GatedModel:
    found = getattr(model, "module", model) if not isinstance(model, GatedModel) else model
    if not isinstance(found, GatedModel):
        raise ConfigError(f"model={type(found).__name__}: expected what lumos.transformers.gate returned")
    return found
