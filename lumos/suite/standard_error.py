"""How far a score on a test split is from that on endlessly many samples: its standard error.

A workload says what each sample adds to its score (``score_terms``): numbers whose mean is the score, and whose
deviations from it are the score's influence function. Their standard deviation over the root of their number is the
infinitesimal jackknife's standard error (B. Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", SIAM
1982, chapter 6): of an accuracy it is the binomial one, of an area under a ROC curve DeLong's (Biometrics 44, 837,
1988), of an R2 the delta method's. It says nothing of how a score changes with the seed of a training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from lumos.suite.console import log
from lumos.suite.training.evaluation import on_device
from lumos.suite.workload import Batch, Workload

Terms = Float[np.ndarray, " samples"]


def standard_error(terms: Terms, groups: Int[np.ndarray, " samples"] | None = None) -> float | None:
    """Compute the standard error of the mean of the terms.

    Args:
        terms: What each sample adds.
        groups: A number for each sample; samples of one number are not independent (patches of one scene, say), and
            count as one draw: the cluster-robust variance (K.-Y. Liang and S. Zeger, Biometrika 73, 13, 1986).

    Returns:
        The standard error; None of fewer than two samples or groups.

    Example:
        >>> standard_error(np.array([0.0, 1.0] * 50))
        0.0502...
        >>> standard_error(np.repeat([0.0, 1.0], 50), np.arange(100) // 10)
        0.166...
    """
    away = np.asarray(terms, np.float64) - np.mean(terms)
    sums = away if groups is None else np.bincount(np.unique(groups, return_inverse=True)[1], weights=away)
    draws = len(sums)
    if draws < 2:
        return None
    return math.sqrt(draws / (draws - 1) * float(np.square(sums).sum())) / len(away)


def score_terms(
    workload: Workload, model: nn.Module, batches: Iterable[Batch], device: torch.device, score: float
) -> Terms | None:
    """Return what each test sample adds to a model's score; None where the workload does not say, or not rightly."""
    terms_of = getattr(workload, "score_terms", None)
    if terms_of is None or not math.isfinite(score):
        return None
    with torch.no_grad():
        terms = np.asarray(terms_of(model.eval(), on_device(batches, device)), np.float64)
    if terms.ndim != 1 or not math.isclose(float(terms.mean()), score, rel_tol=1e-4, abs_tol=1e-6):
        log.warning(
            f"{workload.name}: no standard error: score_terms() has shape {terms.shape} and the mean "
            f"{terms.mean():.6g}; expected one number for each sample, whose mean is the score, {score:.6g}"
        )
        return None
    return terms


def errors_of_both(workload: Any, dense: Terms | None, other: Terms | None) -> dict[str, float | None]:
    """Compute the standard errors of two networks' scores, and of their difference on the same test samples.

    Returns:
        ``dense``, ``compact`` and ``difference``; nothing where the terms are not known. That of the difference is
        smaller than the two would make it, since both networks err on the same samples.
    """
    if dense is None or other is None:
        return {}
    groups_of = getattr(workload, "test_groups", None)
    groups = None if groups_of is None else groups_of()
    groups = None if groups is None else np.asarray(groups)
    if groups is not None and len(groups) != len(dense):  # samples were left out: data.on_error=skip
        groups = None
    return {
        "dense": standard_error(dense, groups),
        "compact": standard_error(other, groups),
        "difference": standard_error(other - dense, groups) if len(other) == len(dense) else None,
    }
