"""A table as a workload of one's own: what `lumos fit` spares, kept to compare it with (benchmarks/table.py)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lumos.suite.workload import Loaders, Metric, Recipe, tensor_loader


@dataclass(frozen=True)
class ByHand:
    """Predict one column of a Parquet file from the others: numbers standardised, categories one-hot, gaps flagged."""

    file: str = ""
    target: str = "y"
    seed: int = 0
    width: int = 256
    epochs: int = 30
    batch_size: int = 256
    learning_rate: float = 3e-3

    name = "by_hand"
    metric = Metric("R2")

    @property
    def recipe(self) -> Recipe:
        return Recipe(epochs=self.epochs, learning_rate=self.learning_rate)

    @cached_property
    def frame(self) -> pd.DataFrame:
        return pd.read_parquet(self.file).dropna(subset=[self.target])

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        order = np.random.default_rng(self.seed).permutation(len(self.frame))
        a, b = int(0.7 * len(order)), int(0.85 * len(order))
        return {"train": order[:a], "valid": order[a:b], "test": order[b:]}

    @cached_property
    def encoded(self) -> pd.DataFrame:
        train, found = self.frame.iloc[self.rows["train"]], {}
        for name in self.frame.columns.drop(self.target):
            values, known = self.frame[name], train[name].dropna()
            if values.dtype == object or str(values.dtype) in ("str", "string", "category"):
                for category in sorted(known.unique()):
                    found[f"{name}={category}"] = (values == category).astype("float32")
            else:
                spread = float(known.std())
                if spread > 1e-6 * float(known.abs().max()):
                    found[name] = ((values - known.mean()) / spread).fillna(0.0).astype("float32")
            gaps = values.isna().to_numpy()
            if gaps.any():
                found[f"{name} is missing"] = gaps.astype("float32")
        return pd.DataFrame(found)

    @cached_property
    def spread(self) -> float:
        return float(self.frame[self.target].iloc[self.rows["train"]].std())

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        rows = self.rows[name]
        x = self.encoded.to_numpy(np.float32)[rows]
        y = self.frame[[self.target]].to_numpy(np.float32)[rows]
        return torch.from_numpy(x), torch.from_numpy(y)

    @cached_property
    def _loaders(self) -> Loaders:
        train, valid, test = (self.split(name) for name in ("train", "valid", "test"))
        return Loaders(
            train=tensor_loader(*train, batch_size=self.batch_size, seed=self.seed),
            valid=tensor_loader(*valid, batch_size=4096),
            test=tensor_loader(*test, batch_size=4096),
            n_train=len(train[0]), n_valid=len(valid[0]), n_test=len(test[0]), source="file",
            sha256=sha256(train[0].numpy().tobytes() + train[1].numpy().tobytes()).hexdigest(),
        )  # fmt: skip

    def loaders(self) -> Loaders:
        return self._loaders

    def model(self) -> nn.Module:
        width = self.width
        return nn.Sequential(
            nn.Linear(self.encoded.shape[1], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, outputs = batch
        return ((model(inputs) - outputs) / self.spread).square().mean()

    def score(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
        got, want = zip(*((model(x), y) for x, y in batches), strict=True)
        y = torch.cat(want)
        return float(1 - (torch.cat(got) - y).square().sum() / (y - y.mean()).square().sum())

    def example(self) -> tuple[Tensor]:
        return (self.split("train")[0][:4],)

    def features(self) -> list[str]:
        return list(self.encoded.columns)

    def tiny(self) -> "ByHand":
        return replace(self, width=32, epochs=2)
