"""The dense network of a run: trained once for all runs that differ only in their gates."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumos.errors import RecordError
from lumos.files import atomic
from lumos.pruning.settings import Tolerance
from lumos.suite import record
from lumos.suite.config import RunConfig
from lumos.suite.console import log
from lumos.suite.training import distributed
from lumos.suite.training.checkpoint import Store, save_tensors
from lumos.suite.training.evaluation import evaluate
from lumos.suite.training.loop import train
from lumos.suite.training.state import fresh_model
from lumos.suite.training.trained import Trained
from lumos.suite.workload import GIVEN, Loaders, Workload

FILES = ("dense.pt", "dense.json")
"""The weights, and the facts of their training."""


SCHEDULES = ("decay", "hold")
"""What ``workload.schedule=better`` tries; of equal validation scores the first one's network is taken."""


def shared_folder(config: RunConfig, workload: Workload, loaders: Loaders, schedule: str) -> Path:
    """Return where all runs find the dense network that they have in common."""
    name = f"{config.baseline_of(schedule)}-{loaders.sha256[:12]}"
    return config.results / "baselines" / workload.name / name


def dense_baseline(
    config: RunConfig, workload: Workload, loaders: Loaders, device: torch.device, folder: Path | None = None
) -> Trained:
    """Train the dense network, or read it where an equal run trained it before.

    Runs that need the same one at the same time wait for the first of them. Where the recipe's schedule is ``better``,
    one is trained by each of :data:`SCHEDULES`, and the better one by its validation score is taken; where it is
    ``given``, the network is taken as the workload or ``init_from`` gives it, and is not trained.

    Args:
        config: The run's settings; what concerns the gates plays no part.
        workload: Its model, loss, score and recipe.
        loaders: Its splits.
        device: Where the network goes.
        folder: Where the network is kept, in a folder by its schedule; by default where equal runs share it.
    """
    wanted = workload.recipe.schedule
    found = {
        schedule: _trained_by(schedule, config, workload, loaders, device, folder and folder / schedule)
        for schedule in (SCHEDULES if wanted == "better" else (wanted,))
    }
    sign = 1 if workload.metric.higher_is_better else -1
    best = max(found, key=lambda schedule: sign * found[schedule].valid_score)  # the first one of equals
    scores = {schedule: trained.valid_score for schedule, trained in found.items()}
    if len(found) > 1:
        said = ", ".join(f"{schedule} {score:.4f}" for schedule, score in scores.items())
        log.info(f"dense: validation {workload.metric.name} by schedule: {said}; {best} is the baseline")
    return replace(found[best], schedule=best, schedules=scores)


def _trained_by(
    schedule: str, config: RunConfig, workload: Workload, loaders: Loaders, device: torch.device, folder: Path | None
) -> Trained:
    """The dense network by one schedule, trained or read."""
    folder = folder or shared_folder(config, workload, loaders, schedule)
    identity = {"baseline": config.baseline_of(schedule), "data": loaders.sha256, "phase": "dense"}
    store = Store(folder, "dense", identity, config.trainer.checkpoint_seconds, config.trainer.checkpoint_steps)
    main = distributed.world().main
    averaged = isinstance(config.lumos.goal, Tolerance) and config.trainer.ema is None
    with record.locked(folder, wait=True) if main else nullcontext():
        known = distributed.from_main(lambda: _read(folder, workload, averaged=averaged))
        if main and known:
            store.clear()  # left by a process that was killed right after its training
        if known is not None:
            facts, weights = known
            model = workload.model()
            model.load_state_dict(weights)
            before = f"trained before by an equal run ({facts['seconds']:.0f} s then)"
            log.info(f"dense: {'as given, not trained' if schedule == GIVEN else before}, read from {folder}")
            return Trained(model.to(device).eval(), **facts)
        if schedule == GIVEN:
            trained = _given(config, workload, loaders, device)
        else:
            trained = train(workload, loaders, config, device, gated=False, store=store, schedule=schedule)
        if main:
            _write(folder, trained)
            store.clear()
    return trained


def _given(config: RunConfig, workload: Workload, loaders: Loaders, device: torch.device) -> Trained:
    """The dense network that comes trained, and its validation score."""
    model = fresh_model(workload, config, device).eval()
    score = evaluate(workload, model, loaders.valid, device)
    log.info(f"dense: as given, not trained: validation {workload.metric.name} {score:.4f}")
    return Trained(model, score, seconds=0.0, steps=0, curve=[])


def publish(folder: Path, config: RunConfig, workload: Workload, loaders: Loaders) -> None:
    """Put dense networks that were trained anew where all runs find them. Raises RecordError."""
    if not folder.is_dir():
        return
    for schedule in (*SCHEDULES, GIVEN):
        if (folder / schedule).is_dir():
            shared = shared_folder(config, workload, loaders, schedule)
            with record.locked(shared, wait=True), record.writing(shared):
                for name in FILES:
                    (folder / schedule / name).replace(shared / name)
    shutil.rmtree(folder)


def _write(folder: Path, trained: Trained) -> None:
    facts = {name: getattr(trained, name) for name in ("valid_score", "seconds", "steps", "curve")}
    with record.writing(folder):
        save_tensors(folder / FILES[0], trained.model.state_dict())
        facts["sha256"] = hashlib.sha256((folder / FILES[0]).read_bytes()).hexdigest()
        with atomic(folder / FILES[1]) as temporary:
            temporary.write_text(json.dumps(facts))


def _read(
    folder: Path, workload: Workload, *, averaged: bool = False
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Facts and weights of a dense network that was trained before, if they are there and fit."""
    path, facts = (folder / name for name in FILES)
    if not (facts.exists() and path.exists()):
        return None
    try:
        known, content = json.loads(facts.read_text()), path.read_bytes()
        if known.pop("sha256", None) not in (None, hashlib.sha256(content).hexdigest()):  # none in older ones
            raise RecordError("its checksum does not match")
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        model = workload.model()
        model.load_state_dict(weights)
        Trained(model, **known)
        if averaged and known["curve"] and not any("averaged" in row for row in known["curve"]):
            raise RecordError("it has no course of averaged weights, as older ones do not")
    except Exception as error:  # whatever a damaged file raises, the remedy is the same
        log.info(f"dense: {folder} cannot be read ({_reason(error)}); training it again")
        return None
    return known, weights


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, RecordError) else type(error).__name__
