"""One run: train dense, train gated, cut, verify, measure, record. It knows no workload by name."""

from __future__ import annotations

import sysconfig
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lumos.compaction.model import CompactModel
from lumos.errors import ConfigError, StructureError, UnsupportedError, one_line
from lumos.measure import parameters
from lumos.suite import data_files, data_size, record, report
from lumos.suite.baseline import GIVEN, dense_baseline, publish
from lumos.suite.config import RunConfig
from lumos.suite.console import log, logging_to, silence
from lumos.suite.identity import WITH_GATES
from lumos.suite.measurements import feature_rows, measure_both, trivial_scores
from lumos.suite.methods import train_with
from lumos.suite.paths import PROJECT
from lumos.suite.step_cost import fresh_pair
from lumos.suite.training import distributed
from lumos.suite.training.checkpoint import Store
from lumos.suite.training.loading import readable_worker_errors
from lumos.suite.training.loop import train
from lumos.suite.training.precision import set_arithmetic
from lumos.suite.training.signals import StoppedError
from lumos.suite.training.trackers import numbers, tracking
from lumos.suite.training.trained import Trained
from lumos.suite.workload import DataSource, Loaders, Workload, outline

DENSE_ANEW = "dense"
"""Where, in a run's folder, the dense network is trained anew until the run is finished."""


@dataclass(frozen=True)
class Measuring:
    """How a run comes to its measurements.

    Attributes:
        wait: Called between the trainings and the measurements: it returns when this process may measure. The end of
            the training is kept meanwhile, so that a run that is killed here goes on to its measurements.
        cpu_too: Whether what is measured on a GPU is measured on the CPU as well.
    """

    wait: Callable[[], None] | None = None
    cpu_too: bool = True


def run(config: RunConfig, workload: Workload, measuring: Measuring | None = None) -> dict[str, Any]:
    """Do the run that the configuration describes, and print its table.

    A failed run leaves a record that says so, and its error is raised. Where several processes train, the first one
    writes and prints.

    Args:
        config: The run's settings.
        workload: The workload that it is a run of.
        measuring: Where the measurements have to wait for their turn, say; they follow at once by default.

    Returns:
        The run's record; an empty one in all but the first of several processes.

    Raises:
        ConfigError: The device is not there.
        RecordError: Another process is at this run, or its folder cannot be written.
        LumosError: What the data, the training or the compaction raise.
        StoppedError: The run was asked to stop; the same call goes on from there.
    """
    _ = workload.recipe, workload.metric  # a bad setting is said before anything is written
    folder = config.folder(workload.name)
    device, measuring = prepare(config), measuring or Measuring()
    if not distributed.world().main:
        silence()
        with readable_worker_errors(), distributed.readable_process_errors():
            _train_both(config, workload, folder, device, measuring)
        distributed.leave()
        return {}
    with record.locked(folder, wait=record.in_batch_system()):
        done = record.replace(folder) or _finished(config, workload, folder)
        if done is None and record.finished(folder):
            with logging_to(folder / record.ANEW / "train.log"):
                _run_and_record(config, workload, folder / record.ANEW, device, measuring)
            done = record.replace(folder)
        elif done is None:
            with logging_to(folder / "train.log"):
                done = _run_and_record(config, workload, folder, device, measuring)
        else:
            record.remove_checkpoints(folder)
    assert done is not None
    report.print_run(done, folder)
    return done


def _finished(config: RunConfig, workload: Workload, folder: Path) -> dict[str, Any] | None:
    """The record of this very run, where it is finished, on these samples, and not wanted anew."""
    done = None if config.force else record.finished(folder)
    return done if done and data_files.unchanged(done, workload) else None


def _run_and_record(
    config: RunConfig, workload: Workload, folder: Path, device: torch.device, measuring: Measuring
) -> dict[str, Any]:
    """Do the run and write its record, whatever becomes of it."""
    started = time.perf_counter()
    entry = _new_record(config, workload, device)
    store: Store | None = None
    try:
        with readable_worker_errors(), distributed.readable_process_errors():
            loaders, baselines, dense, other = _train_both(config, workload, folder, device, measuring)
            distributed.leave()  # the measurements are made by one process
            _write_files(folder, workload, dense, other)
            pair = None
            if measuring.wait:
                pair = fresh_pair(workload, config.lumos)
                measuring.wait()
            log.info("measuring both")
            both = (config, workload, loaders, dense, other, device, baselines)
            entry.update(measure_both(*both, cpu_too=measuring.cpu_too, pair=pair))
            publish(folder / DENSE_ANEW, config, workload, loaders)
        with tracking(config, workload.name, "results") as tracker:
            tracker.log(numbers({key: entry[key] for key in ("dense", "compact")}), 0)
        entry["status"] = "finished"
        store = _gated_store(config, folder, loaders)
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


def _write_files(folder: Path, workload: Workload, dense: Trained, other: Trained) -> None:
    """Write the curves, what became of each feature, and the compact model."""
    record.write_curve(folder, [*dense.curve, *(other.curve if other is not dense else [])])
    if other.features:
        record.write_curve(folder, feature_rows(workload, other.features), "features.csv")
    if isinstance(other.model, CompactModel):
        with record.writing(folder):
            other.model.save(folder / "compact.pt")
            write_predictor = getattr(workload, "write_predictor", None)
            if write_predictor is not None:
                write_predictor(folder, (other.gates or {}).get("features_kept", other.model.features))


def _traceback() -> str:
    """The exception being handled, as text that names no folder of this machine."""
    text = traceback.format_exc()
    for folder in (str(PROJECT), sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")):
        text = text.replace(f"{folder}/", "")
    return text


def _train_both(
    config: RunConfig, workload: Workload, folder: Path, device: torch.device, measuring: Measuring
) -> tuple[Loaders, dict[str, float], Trained, Trained]:
    """The data, what trivial predictors score, the dense network and the one of the method, ours by default."""
    if not config.method or config.method.name in WITH_GATES:
        _check_names(config, workload)
    size = data_size.describe(workload)
    log.info(f"{workload.name}: reading or generating the data{': ' * bool(size)}{size}")
    loaders = distributed.one_after_another(workload.loaders)
    log.info(
        f"{workload.name}: {loaders.n_train} training, {loaders.n_valid} validation, {loaders.n_test} test samples"
    )
    baselines = distributed.from_main(lambda: trivial_scores(workload, loaders))
    anew = folder / DENSE_ANEW if config.force else None
    if config.method and config.method.name not in ("dense", "scratch"):
        # First, since it may turn out that the method cannot treat the model.
        peer = train_with(config, workload, loaders, device)
        return loaders, baselines, dense_baseline(config, workload, loaders, device, anew), peer
    dense = dense_baseline(config, workload, loaders, device, anew)
    if config.method:
        scratch = config.method.name == "scratch"
        return loaders, baselines, dense, _from_scratch(config, workload, loaders, device, dense) if scratch else dense
    store = _gated_store(config, folder, loaders)
    keep_end = measuring.wait is not None
    gated = train(workload, loaders, config, device, gated=True, dense=dense, store=store, keep_end=keep_end)
    return loaders, baselines, dense, gated


def _check_names(config: RunConfig, workload: Workload) -> None:
    """Say before any training which name of what is to stay, or to go together, is none of this workload's."""
    asked = config.lumos.constraints
    if asked:
        with torch.random.fork_rng(devices=()):
            modules = [path for path, _ in outline(workload)[0].named_modules()]
        try:
            asked.check(workload.features(), modules)
        except StructureError as error:
            raise ConfigError(f"lumos.{error}") from None


def _from_scratch(
    config: RunConfig, workload: Workload, loaders: Loaders, device: torch.device, dense: Trained
) -> Trained:
    """A fresh network of the shape that ours leaves, trained as the dense one is; our own run comes first."""
    assert config.method is not None
    ours = config.at_target(config.method.target or 1.0)
    reference_run = ours.folder(workload.name)
    entry = record.finished(reference_run)
    if entry is None or not (reference_run / "compact.pt").exists():
        entry = run(replace(ours, force=entry is not None), workload)
    log.info(f"scratch: the shape of run {ours.run_id}")
    schedule = "decay" if dense.schedule in (None, GIVEN) else dense.schedule
    trained = train_with(config, workload, loaders, device, reference_run, schedule=schedule)
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
        "config": _recorded(config, workload),
        "provenance": record.provenance(_device_name(device)),
        "metric": asdict(workload.metric),
        "features": list(workload.features()),
        "true_features": list(getattr(workload, "true_features", list)()) or None,
    }


def _recorded(config: RunConfig, workload: Workload) -> dict[str, Any]:
    """The configuration as a record keeps it, with where the samples come from by its right name."""
    recorded, data = config.recorded, getattr(workload, "data", None)
    if isinstance(data, DataSource) and isinstance(recorded.get("data"), dict):
        recorded["data"] = {**recorded["data"], "source": data.source}
    return recorded


def prepare(config: RunConfig) -> torch.device:
    """Set torch's threads and determinism, and choose the device. Raises ConfigError where the device is not there."""
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    wanted = config.trainer.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ConfigError(f"trainer.device={wanted}: torch sees no GPU here; use cpu or auto")
        set_arithmetic(config.trainer.precision, deterministic=config.trainer.deterministic)
        if distributed.world().size > 1:
            wanted = f"cuda:{torch.cuda.current_device()}"
    return torch.device(wanted)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
