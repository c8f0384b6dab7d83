"""Predictors that look at one pixel at a time: what a network that sees the neighbours has to beat."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

Fitted = tuple[Float32[np.ndarray, "fitted 9"], Bool[np.ndarray, " fitted"]]
Pixels = tuple[Float32[np.ndarray, "pixels 9"], Bool[np.ndarray, " pixels"]]


def pixel_baselines(train: Fitted, test: Pixels) -> dict[str, dict[str, float]]:
    """Score on ``test`` the share of clouds (``majority``), ``logistic`` regression, and ``boosted_trees``."""
    x, cloud = train
    test_x, truth = test
    scale = StandardScaler().fit(x)
    fitted = {
        "logistic": LogisticRegression(max_iter=500).fit(scale.transform(x), cloud),
        "boosted_trees": HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(scale.transform(x), cloud),
    }
    chances = {"majority": np.full(len(truth), cloud.mean())}
    chances |= {name: model.predict_proba(scale.transform(test_x))[:, 1] for name, model in fitted.items()}
    return {name: mask_scores(chance, truth) for name, chance in chances.items()}


def mask_scores(chance: Float[np.ndarray, " pixels"], truth: Bool[np.ndarray, " pixels"]) -> dict[str, float]:
    """Compute ``BCE`` in nats, ``accuracy``, ``IoU`` of the clouds and ``MSE``, of each pixel's chance of cloud."""
    clipped = np.clip(chance, 1e-6, 1 - 1e-6)
    guess = chance > 0.5
    return {
        "BCE": float(-np.where(truth, np.log(clipped), np.log1p(-clipped)).mean()),
        "accuracy": float((guess == truth).mean()),
        "IoU": float((guess & truth).sum() / max(1, (guess | truth).sum())),
        "MSE": float(((chance - truth) ** 2).mean()),
    }
