"""One run: train dense, train gated, cut, verify, measure, record. It knows no workload by name."""

from __future__ import annotations

import json
import os
import time
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lumos import measure, record, report
from lumos.compaction import CompactModel
from lumos.config import RunConfig, one_line
from lumos.console import log, logging_to
from lumos.errors import ConfigError, DataError
from lumos.features import relevance
from lumos.files import atomic
from lumos.training import Trained, evaluate, train
from lumos.workload import Loaders, Workload


def run(config: RunConfig, workload: Workload) -> dict[str, Any]:
    """Do the run that the configuration describes, print its table and return its record.

    A failed run leaves a record that says so, and its error is raised.
    """
    _ = workload.recipe, workload.metric  # a bad setting is said before anything is written
    folder = config.folder(workload.name)
    device = prepare(config)
    with record.only_one(folder), logging_to(folder / "train.log"):
        started = time.perf_counter()
        entry = _opened(config, workload, device)
        try:
            entry.update(_measured(config, workload, folder, device))
            entry["status"] = "finished"
        except BaseException as error:
            entry["status"] = "failed"
            entry["error"] = {"line": one_line(error) or type(error).__name__, "traceback": traceback.format_exc()}
            log.info(f"failed: {entry['error']['line']}")
            raise
        finally:
            entry["provenance"]["seconds"] = round(time.perf_counter() - started, 2)
            record.write(folder, entry)
    report.print_run(entry, folder)
    return entry


def _measured(config: RunConfig, workload: Workload, folder: Path, device: torch.device) -> dict[str, Any]:
    log.info(f"{workload.name}: reading or generating the data")
    loaders = workload.loaders()
    log.info(
        f"{workload.name}: {loaders.n_train} training, {loaders.n_valid} validation, {loaders.n_test} test samples"
    )
    dense = _baseline(config, workload, loaders, device)
    gated = train(workload, loaders, config, device, gated=True, dense=dense)
    assert isinstance(gated.model, CompactModel)
    assert gated.equivalence is not None
    record.write_curve(folder, [*dense.curve, *gated.curve])
    if gated.features:
        record.write_curve(folder, _feature_report(workload, gated.features), "features.csv")
    gated.model.save(folder / "compact.pt")
    log.info("measuring both")
    figures = measure.compare({"dense": dense.model, "compact": gated.model}, workload.example(), device)
    scores = {name: evaluate(workload, t.model, loaders.test, device) for name, t in
              (("dense", dense), ("compact", gated))}  # fmt: skip
    baselines = getattr(workload, "baselines", dict)()
    return {
        "data": {"source": loaders.source, "n_train": loaders.n_train, "n_valid": loaders.n_valid,
                 "n_test": loaders.n_test, "sha256": loaders.sha256},
        "baselines": dict(baselines),
        "dense": {"score": scores["dense"], **figures["dense"], **_training(dense)},
        "compact": {"score": scores["compact"], **figures["compact"], **_training(gated)},
        "gates": gated.gates,
        "steering": gated.steering,
        "equivalence": asdict(gated.equivalence),
    }  # fmt: skip


def _training(trained: Trained) -> dict[str, Any]:
    return {"valid_score": trained.valid_score, "train_seconds": round(trained.seconds, 3), "steps": trained.steps}


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


def _opened(config: RunConfig, workload: Workload, device: torch.device) -> dict[str, Any]:
    """The part of a record that is known before the work starts."""
    return {
        "schema": record.SCHEMA,
        "run_id": config.run_id,
        "status": "running",
        "error": None,
        "workload": workload.name,
        "method": "lumos",
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
    """The dense network: trained once for all runs that differ only in their gates, then read back."""
    folder = config.results / "baselines" / workload.name / f"{config.baseline_id}-{loaders.sha256[:12]}"
    weights, facts = folder / "dense.pt", folder / "dense.json"
    if facts.exists() and weights.exists() and not config.force:
        try:
            known = json.loads(facts.read_text())
            model = workload.model()
            model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
            log.info(f"dense: trained before by an equal run ({known['seconds']:.0f} s then), read from {folder}")
            return Trained(model.to(device).eval(), **known)
        except Exception as error:  # whatever a damaged file raises, the remedy is the same
            log.info(f"dense: {folder} cannot be read ({type(error).__name__}); training it again")
    trained = train(workload, loaders, config, device, gated=False)
    with atomic(weights) as temporary:
        torch.save({n: t.cpu() for n, t in trained.model.state_dict().items()}, temporary)
    known = {
        "valid_score": trained.valid_score,
        "seconds": trained.seconds,
        "steps": trained.steps,
        "curve": trained.curve,
    }
    with atomic(facts) as temporary:
        temporary.write_text(json.dumps(known))
    return trained


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
    return torch.device(wanted)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
