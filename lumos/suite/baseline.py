"""The dense network of a run: trained once for all runs that differ only in their gates."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumos.files import atomic
from lumos.suite import record
from lumos.suite.config import RunConfig
from lumos.suite.console import log
from lumos.suite.training import distributed
from lumos.suite.training.checkpoint import Store, save_tensors
from lumos.suite.training.loop import train
from lumos.suite.training.trained import Trained
from lumos.suite.workload import Loaders, Workload

FILES = ("dense.pt", "dense.json")
"""The weights, and the facts of their training."""


def shared_folder(config: RunConfig, workload: Workload, loaders: Loaders) -> Path:
    """Return where all runs find the dense network that they have in common."""
    return config.results / "baselines" / workload.name / f"{config.baseline_id}-{loaders.sha256[:12]}"


def dense_baseline(
    config: RunConfig, workload: Workload, loaders: Loaders, device: torch.device, folder: Path | None = None
) -> Trained:
    """Train the dense network, or read it where an equal run trained it before.

    Runs that need the same one at the same time wait for the first of them.

    Args:
        config: The run's settings; what concerns the gates plays no part.
        workload: Its model, loss, score and recipe.
        loaders: Its splits.
        device: Where the network goes.
        folder: Where the network is kept; by default the folder that equal runs share.
    """
    folder = folder or shared_folder(config, workload, loaders)
    identity = {"baseline": config.baseline_id, "data": loaders.sha256, "phase": "dense"}
    store = Store(folder, "dense", identity, config.trainer.checkpoint_seconds, config.trainer.checkpoint_steps)
    main = distributed.world().main
    with record.locked(folder, wait=True) if main else nullcontext():
        known = distributed.from_main(lambda: _read(folder, workload))
        if main and known:
            store.clear()  # left by a process that was killed right after its training
        if known is not None:
            facts, weights = known
            model = workload.model()
            model.load_state_dict(weights)
            log.info(f"dense: trained before by an equal run ({facts['seconds']:.0f} s then), read from {folder}")
            return Trained(model.to(device).eval(), **facts)
        trained = train(workload, loaders, config, device, gated=False, store=store)
        if main:
            _write(folder, trained)
            store.clear()
    return trained


def publish(folder: Path, shared: Path) -> None:
    """Put a dense network that was trained anew where all runs find it. Raises RecordError."""
    if not folder.is_dir():
        return
    with record.locked(shared, wait=True), record.writing(shared):
        for name in FILES:
            (folder / name).replace(shared / name)
    shutil.rmtree(folder)


def _write(folder: Path, trained: Trained) -> None:
    facts = {name: getattr(trained, name) for name in ("valid_score", "seconds", "steps", "curve")}
    with record.writing(folder):
        save_tensors(folder / FILES[0], trained.model.state_dict())
        with atomic(folder / FILES[1]) as temporary:
            temporary.write_text(json.dumps(facts))


def _read(folder: Path, workload: Workload) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Facts and weights of a dense network that was trained before, if they are there and fit."""
    path, facts = (folder / name for name in FILES)
    if not (facts.exists() and path.exists()):
        return None
    try:
        known, weights = json.loads(facts.read_text()), torch.load(path, map_location="cpu", weights_only=True)
        model = workload.model()
        model.load_state_dict(weights)
        Trained(model, **known)
    except Exception as error:  # whatever a damaged file raises, the remedy is the same
        log.info(f"dense: {folder} cannot be read ({type(error).__name__}); training it again")
        return None
    return known, weights
