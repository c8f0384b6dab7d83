"""Other ways to select input features, against the known truth and by a network trained on what they select.

    python scripts/feature_peers.py [--only synthetic,cfd] [--seeds 0] [KEY=VALUE ...]

Each method ranks the inputs on the training table (at most ROWS rows, standardised) and keeps as many as truly enter;
ours keeps as many by lumos.target.features. Then the workload's dense network is trained, in the engine's own loop and
for all its steps, with the other inputs set to zero: that is its score. Precision: the share of what is kept that the
outputs depend on, derived inputs included; recall: the share of what enters that is kept or follows from what is kept.
Writes results/reference/feature_peers.csv after each method; what it has is not done again, so that it can go on.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from finished_run import PROJECT
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from lumos.files import atomic
from lumos.suite.cli import build_workload, exit_on_error
from lumos.suite.config import RunConfig, read, register_resolvers
from lumos.suite.paths import CONF
from lumos.suite.runner import prepare
from lumos.suite.training.loop import evaluate, train
from lumos.suite.training.state import TrainState

OUT = PROJECT / "results" / "reference" / "feature_peers.csv"
WORKLOADS = ("synthetic", "cfd", "fluid", "puremd")
OWN = {"synthetic": ["workload.relevant_features=20"]}
ROWS = 5000
COLUMNS: tuple[str, ...] = (
    "workload", "scale", "seed", "method", "kept", "of", "precision", "recall", "metric", "score", "select_seconds",
    "train_seconds", "features", "command",
)  # fmt: skip

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


METHODS: dict[str, Strength] = {
    "pearson": pearson,
    "mutual_information": mutual_information,
    "lasso": lasso,
    "forward": forward,
    "stg": stg,
    "lassonet": lassonet,
}


class Masked(nn.Module):
    """A network that sees only some columns of its first input."""

    def __init__(self, model: nn.Module, kept: Sequence[int], width: int) -> None:
        super().__init__()
        self.model = model
        mask = torch.zeros(width)
        mask[list(kept)] = 1.0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor, *more: Any) -> Any:
        """The network's output with the other columns at zero."""
        return self.model(x * self.get_buffer("mask"), *more)


def truth(workload: Any) -> tuple[list[str], Callable[[list[str]], tuple[float, float]]]:
    """What enters, and a function that returns precision and recall of a selection."""
    if hasattr(workload, "true_dependence"):
        known = workload.true_dependence()
        enters = [name for name in workload.features() if name in known.enters]
        useful, follows = {*known.enters, *known.derived}, known.follows
    else:
        enters = list(workload.true_features())
        useful, follows = set(enters), set

    def judge(kept: list[str]) -> tuple[float, float]:
        there = follows(kept)
        return sum(n in useful for n in kept) / max(1, len(kept)), sum(n in there for n in enters) / len(enters)

    return enters, judge


def selected(name: str, workload: Any, config: RunConfig, count: int) -> tuple[list[int], float]:
    """The features that a method keeps, by number, and its seconds. ``lumos``: one gated training for so many."""
    names, started = list(workload.features()), time.perf_counter()
    if name == "all":
        return list(range(len(names))), 0.0
    if name == "lumos":
        found = train(workload, workload.loaders(), config, prepare(config), gated=True)
        assert found.gates is not None
        return [names.index(n) for n in found.gates["features_kept"]], time.perf_counter() - started
    strength = METHODS[name](*training_table(workload, config.seed), count, config.seed)
    order = np.argsort(-strength, kind="stable")
    return sorted(order[:count].tolist()), time.perf_counter() - started


def training_table(workload: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (rows, features) and outputs (rows, outputs), standardised: at most ROWS training rows, by the seed."""
    x, y = workload.table()
    rows = np.random.default_rng(seed).permutation(len(x))[:ROWS]
    x, y = (np.asarray(t[rows], dtype=np.float64) for t in (x, y.reshape(len(y), -1)))
    x, y = ((t - t.mean(0)) / np.where(t.std(0) > 0, t.std(0), 1) for t in (x, y))
    return x, y


def main(arguments: Sequence[str]) -> None:
    """Do what is not in the table yet."""
    parser = argparse.ArgumentParser(description="Feature selection by others and by gates.")
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--methods", default=",".join(["all", *METHODS, "lumos"]))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_intermixed_args(arguments)
    register_resolvers()
    rows = read_rows(options.out)
    for name in options.only.split(","):
        for seed in options.seeds.split(","):
            given = [f"workload={name}", "scale=bench", f"seed={seed}", *OWN.get(name, []), *options.overrides]
            with initialize_config_dir(str(CONF), version_base="1.3"):
                workload: Any = build_workload(compose("config", given))
                count = len(truth(workload)[0])
                config = read(compose("config", [*given, f"lumos.target.features={count}"]))
            done = {r["method"] for r in rows if (r["workload"], r["scale"], r["seed"]) == (name, config.scale, seed)}
            for method in options.methods.split(","):
                if method not in done:
                    rows.append(measured(method, workload, config, count, " ".join(given)))
                    print({k: rows[-1][k] for k in COLUMNS[:-2]}, flush=True)
                    write(rows, options.out)


def measured(method: str, workload: Any, config: RunConfig, count: int, given: str) -> dict[str, Any]:
    """A row of the table."""
    device, names = prepare(config), list(workload.features())
    kept, seconds = selected(method, workload, config, count)

    def begin(state: TrainState, _total: int) -> None:
        state.model = state.replica = Masked(state.model, kept, len(names))

    loaders = workload.loaders()
    trained = train(workload, loaders, config, device, gated=False, begin=begin, label=method)
    precision, recall = truth(workload)[1]([names[i] for i in kept])
    score = evaluate(workload, trained.model, loaders.test, device)
    values = (workload.name, config.scale, str(config.seed), method, len(kept), len(names), round(precision, 4),
              round(recall, 4), workload.metric.name, round(score, 6), round(seconds, 2), round(trained.seconds, 2),
              " ".join(names[i] for i in kept), f"scripts/feature_peers.py {given}")  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What the table has already."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [dict(row) for row in csv.DictReader(file)]


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the table, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
