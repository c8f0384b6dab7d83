"""Ways to rank the features of a classification, ours among them: the larger the score, the sooner it is chosen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import mutual_info_classif
from torch.nn import functional

from lumos.api import gate
from lumos.pruning.pruner import Pruner
from lumos.pruning.settings import Lambda
from lumos.scaling import standardised
from lumos.suite.feature_selectors import lasso as lasso_path
from lumos.suite.feature_selectors import pearson as correlation
from lumos.tabular.network import TableNetwork
from lumos.tabular.screening import screen

LEAST, WIDTHS, BINS, LAMBDA, STEPS, BATCH = 8, (64, 64), 4, 2e-2, 400, 128
"""Of our method: columns that the screening leaves at least, and the training of the gates on these."""
CERTAIN = 4.0
"""Decades of the expected number of noise columns at which a column's evidence counts as full."""

Ranking = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""From inputs (rows, features), classes 0 and 1 and a seed: each feature's score."""


def pearson(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """By the correlation with the class."""
    return correlation(standardised(x), standardised(y[:, None]), 0, seed)


def mutual_information(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """By the mutual information with the class, of nearest neighbours."""
    return mutual_info_classif(x, y, random_state=seed)


def lasso(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """By the largest penalty at which a feature still enters a linear model."""
    return lasso_path(standardised(x), standardised(y[:, None]), 0, seed)


def random_forest(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """By the decrease of impurity in 500 trees."""
    return RandomForestClassifier(500, random_state=seed).fit(x, y).feature_importances_


def screening(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """By the tests of columns and pairs alone, without a network."""
    return -np.log(screen(x, y[:, None].astype(np.float64)).expected)


def gates(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """By the gates alone: what the penalty counted of each, on average over the training."""
    data, classes = torch.from_numpy(x).float(), torch.from_numpy(y)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = TableNetwork(x.shape[1], [], 2, WIDTHS, bins=BINS).scaled_by(data)
        gated = gate(network, data[:16])
        optimizer = torch.optim.AdamW(gated.parameters(), lr=3e-3, weight_decay=0.0)
        pruner = Pruner(gated, optimizer, STEPS + 1, Lambda(LAMBDA), rate=0.05, warmup=0.3, cut="end",
                        cut_at=STEPS / (STEPS + 1), seed=seed)  # fmt: skip
        shares = torch.bincount(classes, minlength=2).double() / len(classes)
        entropy = float(-(shares * shares.clamp(min=1e-300).log()).sum())
        for _ in range(STEPS):
            rows = torch.randperm(len(data))[:BATCH]
            loss = functional.cross_entropy(gated(data[rows]), classes[rows]) / entropy
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    counted = np.array(pruner.history.expected)
    return counted.mean(0) if counted.size else np.ones(x.shape[1])


def lumos(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """By both: the screening leaves the columns that chance hardly explains; gates are trained on these.

    The score is the sum of how sure the screening is, and what the penalty counted of a column's gate.
    """
    found = screen(x, y[:, None].astype(np.float64))
    evidence = np.clip(-np.log10(found.expected) / CERTAIN, -1.0, 1.0)
    chosen = found.chosen(LEAST)
    score = evidence - 2.0 + 1e-6 * -np.log(found.expected)
    score[chosen] = evidence[chosen] + gates(x[:, chosen], y, seed)
    return score


RANKINGS: dict[str, Ranking] = {
    "pearson": pearson,
    "mutual_information": mutual_information,
    "lasso": lasso,
    "random_forest": random_forest,
    "screening": screening,
    "gates": gates,
    "lumos": lumos,
}
