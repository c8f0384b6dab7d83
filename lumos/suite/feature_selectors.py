"""Other ways to rank the input features of a table, beside the gates."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from lumos.scaling import standardised

ROWS = 5000
"""Training rows that a method sees."""

Strength = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]
"""From inputs (rows, features), outputs (rows, outputs), the number to keep and a seed: each feature's strength."""


def pearson(x: np.ndarray, y: np.ndarray, count: int, seed: int) -> np.ndarray:
    """By the largest |correlation| with an output."""
    return np.abs(x.T @ y).max(1) / len(x)


def mutual_information(x: np.ndarray, y: np.ndarray, count: int, seed: int) -> np.ndarray:
    """By the largest mutual information with an output, of nearest neighbours."""
    from sklearn.feature_selection import mutual_info_regression

    return np.max([mutual_info_regression(x[:2000], column[:2000], random_state=seed) for column in y.T], 0)


def lasso(x: np.ndarray, y: np.ndarray, count: int, seed: int) -> np.ndarray:
    """By the largest penalty at which a feature still enters the linear model of an output."""
    from sklearn.linear_model import lasso_path

    enters = np.zeros(x.shape[1])
    for column in y.T:
        alphas, weights, _ = lasso_path(x, column, alphas=100)  # pyright: ignore[reportArgumentType]
        enters = np.maximum(enters, ((weights != 0) * alphas).max(1))
    return enters


def forward(x: np.ndarray, y: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Greedily, by the cross-validated score of a linear model."""
    from sklearn.feature_selection import SequentialFeatureSelector
    from sklearn.linear_model import LinearRegression

    if count >= x.shape[1]:
        return np.ones(x.shape[1])
    choice: Any = SequentialFeatureSelector
    chosen = choice(LinearRegression(), n_features_to_select=count, cv=3).fit(x, y).get_support()
    return chosen.astype(float)


def stg(x: np.ndarray, y: np.ndarray, count: int, seed: int, steps: int = 1500, price: float = 0.1) -> np.ndarray:
    """Stochastic gates (Yamada et al., ICML 2020): Gaussian gates on the inputs of a small network, by their means."""
    torch.manual_seed(seed)
    inputs, outputs = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    net = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, y.shape[1]))
    mean = nn.Parameter(0.5 * torch.ones(x.shape[1]))
    optimizer = torch.optim.Adam([{"params": net.parameters(), "lr": 1e-3}, {"params": [mean], "lr": 1e-2}])
    for _ in range(steps):
        rows = torch.randint(len(inputs), (256,))
        gates = (mean + 0.5 * torch.randn_like(mean)).clamp(0, 1)
        open_share = torch.special.ndtr(mean / 0.5).mean()
        loss = (net(inputs[rows] * gates) - outputs[rows]).square().mean() + price * open_share
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return mean.detach().numpy()


def lassonet(x: np.ndarray, y: np.ndarray, count: int, seed: int) -> np.ndarray:
    """LassoNet (Lemhadri et al., JMLR 2021): by the penalty at which a feature leaves the network."""
    from lassonet import LassoNetRegressor

    # With fewer steps at each penalty, or larger steps between penalties, most features leave at one and the same.
    model = LassoNetRegressor(hidden_dims=(64,), n_iters=(200, 20), path_multiplier=1.1, batch_size=256, verbose=0,
                              torch_seed=seed, random_state=seed)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.path(x[:1000].astype(np.float32), y[:1000].astype(np.float32))
    return np.asarray(model.feature_importances_)


SELECTORS: dict[str, Strength] = {
    "pearson": pearson,
    "mutual_information": mutual_information,
    "lasso": lasso,
    "forward": forward,
    "stg": stg,
    "lassonet": lassonet,
}


def training_table(workload: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (rows, features) and outputs (rows, outputs), standardised: at most ROWS training rows, by the seed."""
    x, y = workload.table()
    rows = np.random.default_rng(seed).permutation(len(x))[:ROWS]
    x, y = (np.asarray(t[rows], dtype=np.float64) for t in (x, y.reshape(len(y), -1)))
    return standardised(x), standardised(y)
