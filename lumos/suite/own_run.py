"""The record of a training in a loop of one's own, as a run of the suite has it: for ``lumos list``, ``compare`` …"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lumos import measure
from lumos.errors import ConfigError
from lumos.pruning.pruner import Pruner
from lumos.suite import paths, record
from lumos.suite.identity import digest
from lumos.suite.record_fields import NAME

SCALE = "own"
"""The scale of such a run."""


def write_record(
    pruner: Pruner,
    dense: nn.Module,
    inputs: Any,
    score: Callable[[nn.Module], float],
    *,
    name: str,
    metric: str = "score",
    unit: str = "",
    higher_is_better: bool = True,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    curve: Iterable[dict[str, Any]] = (),
    results: Path | str | None = None,
) -> Path:
    """Write the record of a pruned training, with its measurements, where the commands look for runs.

    Beside the record: ``curve.csv``, ``features.csv`` and the compact model, ``compact.pt``.

    Args:
        pruner: The pruner, after :meth:`lumos.Pruner.finish`.
        dense: The dense model that the compact one is compared with, trained as well as that one.
        inputs: An example, a tensor or a tuple of positional inputs.
        score: Scores a model in eval mode on test data.
        name: What was trained; runs of one name are compared with one another.
        metric: The name of the score.
        unit: Its unit.
        higher_is_better: Whether a higher score is better.
        seed: The training's seed; runs that differ by nothing else are seeds of one configuration.
        settings: What else names this run: learning rate, data, anything that JSON can hold.
        curve: A row for each point of the training's curve: :meth:`lumos.Pruner.metrics`, with a loss, say.
        results: The results folder; ``LUMOS_RESULTS`` or ``results`` by default.

    Returns:
        The run's folder.

    Raises:
        ConfigError: The pruner has not finished, or the name is none for a folder.
        RecordError: The folder cannot be written.

    Example:
        ``lumos.write_record(pruner, model, x, r2, name="turbulence", metric="R2")``, then ``lumos list``.
    """
    if pruner.small is None:
        raise ConfigError("pruner: it has cut nothing yet; expected one after pruner.finish()")
    if not NAME.fullmatch(name):
        raise ConfigError(f"name={name}: expected letters, digits, dots, _ and -, and no dot or dash first")
    config = {"workload": {"name": name, **(settings or {})}, "lumos": pruner.settings, "seed": seed}
    run_id = digest(config)
    folder = Path(results or paths.RESULTS[0]).expanduser() / "runs" / name / run_id
    small, report = pruner.small, pruner.report()
    device = next((p.device for p in small.parameters()), torch.device("cpu"))
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    figures = measure.inference_cost({"dense": dense, "compact": small}, args, device)
    with torch.set_grad_enabled(pruner.gated.structure.gradients):
        scores = {key: float(score(model.eval())) for key, model in (("dense", dense), ("compact", small))}
    trained = {"valid_score": None, "train_seconds": None, "steps": pruner.step}
    entry = {
        "schema": record.SCHEMA, "run_id": run_id, "status": "finished", "error": None, "workload": name,
        "method": "lumos", "scale": SCALE, "seed": seed, "note": None, "config": config,
        "provenance": record.provenance(str(device)) | {"seconds": round(pruner.seconds, 2)},
        "metric": {"name": metric, "unit": unit, "higher_is_better": higher_is_better, "target": None},
        "features": list(pruner.gated.structure.feature_names), "true_features": None,
        "data": {"source": "own", "n_train": None, "n_valid": None, "n_test": None, "sha256": None},
        "baselines": {},
        "dense": {"score": scores["dense"], **figures["dense"], **trained, "phases": {"dense": pruner.step}},
        "compact": {"score": scores["compact"], **figures["compact"], **trained, "phases": report["phases"]},
        "gates": report["gates"], "steering": report["steering"], "training": None,
        "equivalence": report["equivalence"],
    }  # fmt: skip
    with record.locked(folder, wait=True):
        if rows := [_with_phase(row) for row in curve]:
            record.write_curve(folder, rows)
        if rows := pruner.feature_rows():
            record.write_curve(folder, rows, "features.csv")
        with record.writing(folder):
            small.save(folder / "compact.pt")
        record.write(folder, entry)
    return folder


def _with_phase(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a curve as a gated training of the suite has it: open gates stand in it while there are gates."""
    kept = {key: value for key, value in row.items() if key != "open_gates" or not row.get("cut")}
    return {"phase": "gated", **kept}
