"""Gates in a Lightning training: one callback, nothing in the module.

The module's network is replaced by its gated one before Lightning makes the optimizers. When the fit starts, a
:class:`lumos.Pruner` goes on their steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from lumos.api import gate
from lumos.compaction.model import CompactModel
from lumos.errors import ConfigError
from lumos.gating.gated_model import GatedModel
from lumos.pruning.pruner import Pruner
from lumos.pruning.restoring import cut_when_loaded
from lumos.pruning.settings import Goal
from lumos.tracing.feature_names import FeatureNames


class LumosCallback(pl.Callback):
    """Prune the network of a LightningModule while a Trainer fits it.

    After the fit ``small`` is the compact model; in the module the gated one goes on, which is the same function then.
    Checkpoints from before and after the cut load again, ``trainer.fit(…, ckpt_path=…)``. The pruner's numbers are
    logged under ``lumos/`` at the end of each epoch.

    Args:
        target: What is asked for: :class:`lumos.Lambda`, :class:`lumos.Target` or :class:`lumos.Tolerance`.
        example_inputs: A tensor or a tuple of positional inputs of the network.
        network: The module's attribute that holds the network.
        features: The names of the input features, as :func:`lumos.gate` takes them.
        keep, exclude, groups, prices: What stays, what goes together and what it costs, as :func:`lumos.gate` has it.
        **options: Further ones of :class:`lumos.Pruner`.

    Raises:
        ConfigError: The module has no such network.

    Example:
        ``trainer = Trainer(max_epochs=10, callbacks=[LumosCallback(lumos.Target(params=0.1), x[:8])])``
    """

    def __init__(
        self,
        target: Goal | None,
        example_inputs: Any,
        *,
        network: str = "model",
        features: FeatureNames | None = None,
        keep: Sequence[str] = (),
        exclude: Sequence[str] = (),
        groups: Mapping[str, Sequence[str]] | None = None,
        prices: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        self.target, self.example, self.network = target, example_inputs, network
        self.gating: dict[str, Any] = {
            "features": features, "keep": keep, "exclude": exclude, "groups": groups, "prices": prices
        }  # fmt: skip
        self.options = options
        self.pruner: Pruner | None = None
        self.small: CompactModel | None = None
        self._saved: dict[str, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Put gates on the network, before its optimizers are made and a checkpoint is read."""
        found = getattr(pl_module, self.network, None)
        if not isinstance(found, nn.Module):
            raise ConfigError(f"network={self.network}: {type(pl_module).__name__} has no such module")
        if not isinstance(found, GatedModel):
            gated = gate(found, self.example, **self.gating)
            cut_when_loaded(gated)
            setattr(pl_module, self.network, gated)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the pruner on the optimizers; of a checkpoint it takes its state."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        options: dict[str, Any] = {"scaler": getattr(trainer.precision_plugin, "scaler", None), **self.options}
        self.pruner = Pruner(
            getattr(pl_module, self.network), list(trainer.optimizers), int(trainer.estimated_stepping_batches),
            self.target, schedulers=[s for s in schedulers if hasattr(s, "base_lrs")], **options,
        )  # fmt: skip
        if self._saved:
            self.pruner.load_state_dict(self._saved)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell the pruner the loss."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if self.pruner and isinstance(loss, Tensor):
            self.pruner.observe(loss * trainer.accumulate_grad_batches)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the pruner's numbers."""
        if self.pruner:
            pl_module.log_dict({f"lumos/{key}": value for key, value in self.pruner.metrics().items()})

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cut what is still to be cut; a fit that was interrupted is left as it is."""
        if self.pruner and not trainer.interrupted:
            self.small = self.pruner.finish()

    def state_dict(self) -> dict[str, Any]:
        """Return the pruner's state, for a checkpoint."""
        return self.pruner.state_dict() if self.pruner else self._saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state until the fit starts."""
        self._saved = state_dict
