"""What a record says of the two networks of a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from lumos import measure
from lumos.errors import DataError
from lumos.pruning.bench import CallMeter
from lumos.suite.config import RunConfig
from lumos.suite.data_files import files_of, fingerprint
from lumos.suite.dependence import judged
from lumos.suite.feature_statistics import relevance
from lumos.suite.standard_error import errors_of_both, score_terms
from lumos.suite.step_cost import Pair, step_cost
from lumos.suite.training.evaluation import evaluate, on_device
from lumos.suite.training.loading import set_epoch
from lumos.suite.training.trained import Trained
from lumos.suite.workload import Loaders, Workload

CONFIRM_SECONDS = 1.0
"""How long each network is called where a promise is measured once more."""


def measure_both(
    config: RunConfig, workload: Workload, loaders: Loaders, dense: Trained, other: Trained, device: torch.device,
    baselines: Mapping[str, float], *, cpu_too: bool = True,
    pair: Pair | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure sizes, speed and test scores of the dense network and the other one.

    With ``cpu_too`` what is measured on a GPU is measured on the CPU as well; ``pair`` as for :func:`step_cost`.

    Returns:
        The fields of a record from ``data`` to ``equivalence``.
    """
    models = {"dense": dense.model, "compact": other.model}
    figures = measure.inference_cost(models, workload.example(), device, cpu_too=cpu_too)
    # The order of the first epoch, however many were trained here: predictors see the same rows after a resume.
    set_epoch(loaders.train, 0)
    training = None
    if other.equivalence is not None:
        batch = next(iter(loaders.train))
        compiled = bool(config.trainer.compile)
        training = step_cost(workload, other.model, batch, config.lumos, device, compiled=compiled, pair=pair)
    files = fingerprint(files_of(workload))
    sides = {"dense": dense} if other is dense else {"dense": dense, "compact": other}
    scores = {name: scored(workload, trained, loaders, device) for name, trained in sides.items()}
    terms = {
        name: score_terms(workload, trained.model, loaders.test, device, scores[name]["score"])
        for name, trained in sides.items()
    }
    scores, terms = {"compact": scores["dense"], **scores}, {"compact": terms["dense"], **terms}
    error = errors_of_both(workload, terms["dense"], terms["compact"])
    for name in scores:
        scores[name] = {**scores[name], "standard_error": error.get(name)}
    return {
        "data": {"source": loaders.source, "n_train": loaders.n_train, "n_valid": loaders.n_valid,
                 "n_test": loaders.n_test, "sha256": loaders.sha256,
                 **({"files": files} if files else {})},
        "baselines": dict(baselines),
        "dense": {**scores["dense"], **figures["dense"], **_training(dense)},
        "compact": {**scores["compact"], **figures["compact"], **_training(other)},
        "difference": {"score": scores["compact"]["score"] - scores["dense"]["score"],
                       "standard_error": error.get("difference")},
        "gates": other.gates,
        "choice": judged(workload, other.gates),
        "steering": _confirmed(config, workload, dense, other, device),
        "training": training,
        "equivalence": asdict(other.equivalence) if other.equivalence else None,
    }  # fmt: skip


def trivial_scores(workload: Workload, loaders: Loaders) -> dict[str, float]:
    """Compute the test scores of a workload's trivial predictors; before the training, which they could end in vain.

    Raises:
        DataError: They are not defined on these samples: a split has one class, say.
    """
    # The order of the first epoch, however many were trained here: predictors see the same rows after a resume.
    set_epoch(loaders.train, 0)
    try:
        return dict(getattr(workload, "baselines", dict)())
    except ValueError as error:  # what scikit-learn raises for samples that it cannot fit
        raise DataError(f"{workload.name}: the trivial predictors have no score on these samples: {error}") from error


def _confirmed(
    config: RunConfig, workload: Workload, dense: Trained, other: Trained, device: torch.device
) -> dict[str, Any] | None:
    """What became of what was asked for; a measured promise is measured once more, of the finished networks."""
    goal, steering = config.lumos.goal, other.steering
    if goal.measured is None or steering is None or "measured" not in steering:
        return steering
    meter = CallMeter(goal.measured, goal.call, workload.example(), device)
    models = [copy.deepcopy(trained.model).to(meter.device).eval() for trained in (dense, other)]
    return {**steering, "finished": meter.shares(models[0], models[1:], CONFIRM_SECONDS)[0]}


def scored(workload: Workload, trained: Trained, loaders: Loaders, device: torch.device) -> dict[str, Any]:
    """Compute the test score, and the workload's further scores by name where it has some."""
    further = getattr(workload, "scores", None)
    if further is None:
        return {"score": evaluate(workload, trained.model, loaders.test, device)}
    with torch.no_grad():
        named = further(trained.model.eval(), on_device(loaders.test, device))
    scores = {name: float(score) for name, score in named.items()}
    known = scores.get(workload.metric.name)  # the same number: a large split is gone through once less
    return {"score": evaluate(workload, trained.model, loaders.test, device) if known is None else known,
            "scores": scores}  # fmt: skip


def _training(trained: Trained) -> dict[str, Any]:
    return {"valid_score": trained.valid_score, "train_seconds": round(trained.seconds, 3), "steps": trained.steps,
            "phases": trained.phases or {"dense": trained.steps},
            **({"schedule": trained.schedule, "schedules": trained.schedules} if trained.schedule else {})}  # fmt: skip


def feature_rows(workload: Workload, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to the rows what simple statistics of the training table say of each feature, where the workload has one."""
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
