"""One run: train dense, train gated, cut, verify, measure, record. It knows no workload by name."""

from __future__ import annotations

import json
import os
import sysconfig
import time
import traceback
import warnings
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from lumos import measure
from lumos.compaction.model import CompactModel
from lumos.errors import ConfigError, DataError, UnsupportedError, one_line
from lumos.files import atomic
from lumos.measure import parameters
from lumos.suite import record, report
from lumos.suite.config import RunConfig
from lumos.suite.console import log, logging_to, silence
from lumos.suite.feature_statistics import relevance
from lumos.suite.paths import PROJECT
from lumos.suite.step_cost import step_cost
from lumos.suite.training import distributed
from lumos.suite.training.checkpoint import Store, save_tensors
from lumos.suite.training.evaluation import evaluate, on_device
from lumos.suite.training.loading import readable_worker_errors, set_epoch
from lumos.suite.training.loop import train
from lumos.suite.training.signals import StoppedError
from lumos.suite.training.trained import Trained
from lumos.suite.workload import Loaders, Workload


def run(config: RunConfig, workload: Workload) -> dict[str, Any]:
    """Do the run that the configuration describes, print its table and return its record.

    A failed run leaves a record that says so, and its error is raised. Where several processes train, the first one
    writes and prints; the others return an empty record.
    """
    _ = workload.recipe, workload.metric  # a bad setting is said before anything is written
    folder = config.folder(workload.name)
    device = prepare(config)
    if not distributed.world().main:
        silence()
        with readable_worker_errors():
            _train_both(config, workload, folder, device)
        distributed.leave()
        return {}
    with record.locked(folder, wait=record.in_batch_system()), logging_to(folder / "train.log"):
        done = None if config.force else record.finished(folder)
        if done is None:
            done = _run_and_record(config, workload, folder, device)
        else:
            record.remove_checkpoints(folder)
    report.print_run(done, folder)
    return done


def _run_and_record(config: RunConfig, workload: Workload, folder: Path, device: torch.device) -> dict[str, Any]:
    """Do the run and write its record, whatever becomes of it."""
    started = time.perf_counter()
    entry = _new_record(config, workload, device)
    store: Store | None = None
    try:
        with readable_worker_errors():
            trained = _train_both(config, workload, folder, device)
            distributed.leave()  # the measurements are made by one process
            entry.update(_measure(config, workload, trained, folder, device))
        entry["status"] = "finished"
        store = _gated_store(config, folder, trained[0])
    except UnsupportedError as error:
        # That a method cannot treat a model is a result.
        entry["status"], entry["error"] = "unsupported", {"line": one_line(error), "traceback": _traceback()}
    except BaseException as error:
        entry["status"] = "stopped" if isinstance(error, StoppedError | KeyboardInterrupt) else "failed"
        entry["error"] = {"line": one_line(error) or type(error).__name__, "traceback": _traceback()}
        log.info(f"{entry['status']}: {entry['error']['line']}")
        raise
    finally:
        entry["provenance"]["seconds"] = round(time.perf_counter() - started, 2)
        record.write(folder, entry)
    if store:
        store.clear()
    return entry


def _traceback() -> str:
    """The exception being handled, as text that names no folder of this machine."""
    text = traceback.format_exc()
    for folder in (str(PROJECT), sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")):
        text = text.replace(f"{folder}/", "")
    return text


def _train_both(
    config: RunConfig, workload: Workload, folder: Path, device: torch.device
) -> tuple[Loaders, Trained, Trained]:
    """The data, the dense network and the one of the configured method: by default the gated one, as it is compact."""
    log.info(f"{workload.name}: reading or generating the data")
    loaders = distributed.one_after_another(workload.loaders)
    log.info(
        f"{workload.name}: {loaders.n_train} training, {loaders.n_valid} validation, {loaders.n_test} test samples"
    )
    if config.method and config.method.name != "dense":
        peer = _peer(config, workload, loaders, device)
        return loaders, _baseline(config, workload, loaders, device), peer
    dense = _baseline(config, workload, loaders, device)
    if config.method:
        return loaders, dense, dense
    store = _gated_store(config, folder, loaders)
    if config.force and distributed.world().main:
        store.clear()
    return loaders, dense, train(workload, loaders, config, device, gated=True, dense=dense, store=store)


def _peer(config: RunConfig, workload: Workload, loaders: Loaders, device: torch.device) -> Trained:
    """The network of another method; where it takes the shape that ours leaves, our own run comes first."""
    from lumos.suite.methods import train_with

    assert config.method is not None
    if config.method.name != "scratch":
        return train_with(config, workload, loaders, device)
    ours = config.at_target(config.method.target or 1.0)
    reference_run = ours.folder(workload.name)
    entry = record.finished(reference_run)
    if entry is None or not (reference_run / "compact.pt").exists():
        entry = run(replace(ours, force=entry is not None), workload)
    log.info(f"scratch: the shape of run {ours.run_id}")
    trained = train_with(config, workload, loaders, device, reference_run)
    trained.steering = {
        "key": "method.target",
        "asked": config.method.target,
        "reached": parameters(trained.model) / entry["dense"]["params"],
        "shape_of": ours.run_id,
        "steps_for_the_shape": entry["compact"]["steps"],
        "seconds_for_the_shape": entry["compact"]["train_seconds"],
    }
    return trained


def _gated_store(config: RunConfig, folder: Path, loaders: Loaders) -> Store:
    identity = {"run": config.run_id, "data": loaders.sha256, "phase": "gated"}
    return Store(folder, "gated", identity, config.trainer.checkpoint_seconds, config.trainer.checkpoint_steps)


def _measure(
    config: RunConfig,
    workload: Workload,
    trained: tuple[Loaders, Trained, Trained],
    folder: Path,
    device: torch.device,
) -> dict[str, Any]:
    """Sizes, speed and test scores of both networks; the curve, the features and the compact model are written."""
    loaders, dense, other = trained
    record.write_curve(folder, [*dense.curve, *(other.curve if other is not dense else [])])
    if other.features:
        record.write_curve(folder, _feature_report(workload, other.features), "features.csv")
    if isinstance(other.model, CompactModel):
        with record.writing(folder):
            other.model.save(folder / "compact.pt")
    log.info("measuring both")
    figures = measure.compare({"dense": dense.model, "compact": other.model}, workload.example(), device)
    # The order of the first epoch, however many were trained here: predictors see the same rows after a resume.
    set_epoch(loaders.train, 0)
    training = None
    if other.equivalence is not None:
        batch = next(iter(loaders.train))
        training = step_cost(workload, other.model, batch, config.lumos, device, compiled=bool(config.trainer.compile))
    baselines = getattr(workload, "baselines", dict)()
    return {
        "data": {"source": loaders.source, "n_train": loaders.n_train, "n_valid": loaders.n_valid,
                 "n_test": loaders.n_test, "sha256": loaders.sha256},
        "baselines": dict(baselines),
        "dense": {**_scored(workload, dense, loaders, device), **figures["dense"], **_training(dense)},
        "compact": {**_scored(workload, other, loaders, device), **figures["compact"], **_training(other)},
        "gates": other.gates,
        "steering": other.steering,
        "training": training,
        "equivalence": asdict(other.equivalence) if other.equivalence else None,
    }  # fmt: skip


def _scored(workload: Workload, trained: Trained, loaders: Loaders, device: torch.device) -> dict[str, Any]:
    """The test score, and the workload's further scores by name where it has some."""
    found: dict[str, Any] = {"score": evaluate(workload, trained.model, loaders.test, device)}
    further = getattr(workload, "scores", None)
    if further is not None:
        with torch.no_grad():
            named = further(trained.model.eval(), on_device(loaders.test, device))
        found["scores"] = {name: float(score) for name, score in named.items()}
    return found


def _training(trained: Trained) -> dict[str, Any]:
    return {"valid_score": trained.valid_score, "train_seconds": round(trained.seconds, 3), "steps": trained.steps,
            "phases": trained.phases or {"dense": trained.steps}}  # fmt: skip


def _feature_report(workload: Workload, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with what simple statistics of the training table say of each feature, where the workload has one."""
    table = getattr(workload, "table", None)
    if table is None:
        return rows
    inputs, outputs = table()
    if inputs.shape[1] != len(rows):
        raise DataError(f"{workload.name}: table() has {inputs.shape[1]} input columns for {len(rows)} features")
    statistics = relevance(inputs, outputs)
    first = ("feature", "kept", "closed_at", "order")
    return [
        {**{key: row[key] for key in first}, **{name: column[i] for name, column in statistics.items()}, **row}
        for i, row in enumerate(rows)
    ]


def _new_record(config: RunConfig, workload: Workload, device: torch.device) -> dict[str, Any]:
    """The part of a record that is known before the work starts."""
    return {
        "schema": record.SCHEMA,
        "run_id": config.run_id,
        "status": "running",
        "error": None,
        "workload": workload.name,
        "method": config.method.name if config.method else "lumos",
        "scale": config.scale,
        "seed": config.seed,
        "note": getattr(workload, "note", None),
        "config": config.recorded,
        "provenance": record.provenance(_device_name(device)),
        "metric": asdict(workload.metric),
        "features": list(workload.features()),
        "true_features": list(getattr(workload, "true_features", list)()) or None,
    }


def _baseline(config: RunConfig, workload: Workload, loaders: Loaders, device: torch.device) -> Trained:
    """The dense network: trained once for all runs that differ only in their gates, then read back.

    Runs that need the same one at the same time wait for the first of them.
    """
    folder = config.results / "baselines" / workload.name / f"{config.baseline_id}-{loaders.sha256[:12]}"
    identity = {"baseline": config.baseline_id, "data": loaders.sha256, "phase": "dense"}
    store = Store(folder, "dense", identity, config.trainer.checkpoint_seconds, config.trainer.checkpoint_steps)
    main = distributed.world().main
    with record.locked(folder, wait=True) if main else nullcontext():
        known = distributed.from_main(lambda: None if config.force else _read_baseline(folder, workload))
        if known is not None:
            if main:
                store.clear()  # left by a process that was killed right after its training
            facts, weights = known
            model = workload.model()
            model.load_state_dict(weights)
            log.info(f"dense: trained before by an equal run ({facts['seconds']:.0f} s then), read from {folder}")
            return Trained(model.to(device).eval(), **facts)
        if config.force and main:
            store.clear()
        trained = train(workload, loaders, config, device, gated=False, store=store)
        if main:
            facts = {name: getattr(trained, name) for name in ("valid_score", "seconds", "steps", "curve")}
            with record.writing(folder):
                save_tensors(folder / "dense.pt", trained.model.state_dict())
                with atomic(folder / "dense.json") as temporary:
                    temporary.write_text(json.dumps(facts))
            store.clear()
    return trained


def _read_baseline(folder: Path, workload: Workload) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """Facts and weights of a dense network that was trained before, if they are there and fit."""
    path, facts = folder / "dense.pt", folder / "dense.json"
    if not (facts.exists() and path.exists()):
        return None
    try:
        known, weights = json.loads(facts.read_text()), torch.load(path, map_location="cpu", weights_only=True)
        workload.model().load_state_dict(weights)
    except Exception as error:  # whatever a damaged file raises, the remedy is the same
        log.info(f"dense: {folder} cannot be read ({type(error).__name__}); training it again")
        return None
    return known, weights


def prepare(config: RunConfig) -> torch.device:
    """Threads, determinism and the device. Raises ConfigError where the device is not there."""
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    wanted = config.trainer.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ConfigError(f"trainer.device={wanted}: torch sees no GPU here; use cpu or auto")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
        torch.use_deterministic_algorithms(True, warn_only=True)
        if distributed.world().size > 1:
            wanted = f"cuda:{torch.cuda.current_device()}"
    return torch.device(wanted)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
