"""A workload of one's own, outside the project: heat in a rod, from the amplitudes of its first modes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import torch
from torch import Tensor, nn

from lumos.suite.workload import Loaders, Metric, Recipe, tensor_loader


@dataclass(frozen=True)
class Heat:
    """u(x, t) = sum_k a_k exp(-k^2 pi^2 t) sin(k pi x) at t = 0.05 and x = 1/4, 1/2, 3/4; the high modes have died."""

    seed: int = 0
    rows: int = 8000
    modes: int = 12
    width: int = 64
    epochs: int = 20
    learning_rate: float = 3e-3

    name = "heat"
    metric = Metric("R2")

    @property
    def recipe(self) -> Recipe:
        return Recipe(epochs=self.epochs, learning_rate=self.learning_rate)

    @cached_property
    def samples(self) -> tuple[Tensor, Tensor]:
        amplitudes = torch.randn(self.rows, self.modes, generator=torch.Generator().manual_seed(self.seed))
        k = torch.arange(1, self.modes + 1)[:, None]
        x = torch.tensor([0.25, 0.5, 0.75])
        return amplitudes, amplitudes @ (torch.exp(-(k**2) * torch.pi**2 * 0.05) * torch.sin(k * torch.pi * x))

    @cached_property
    def _loaders(self) -> Loaders:
        inputs, outputs = self.samples
        a, b = int(0.8 * self.rows), int(0.9 * self.rows)
        return Loaders(
            train=tensor_loader(inputs[:a], outputs[:a], batch_size=100, seed=self.seed),
            valid=tensor_loader(inputs[a:b], outputs[a:b], batch_size=1000),
            test=tensor_loader(inputs[b:], outputs[b:], batch_size=1000),
            n_train=a, n_valid=b - a, n_test=self.rows - b, source="generated",
            sha256=sha256(inputs.numpy().tobytes() + outputs.numpy().tobytes()).hexdigest(),
        )  # fmt: skip

    def loaders(self) -> Loaders:
        return self._loaders

    def model(self) -> nn.Module:
        sizes = (self.modes, self.width, self.width, 3)
        return nn.Sequential(nn.Linear(*sizes[:2]), nn.GELU(), nn.Linear(*sizes[1:3]), nn.GELU(), nn.Linear(*sizes[2:]))

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, outputs = batch
        return ((model(inputs) - outputs) / self.samples[1].std(0).to(inputs.device)).square().mean()

    def score(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
        got, want = zip(*((model(x), y) for x, y in batches), strict=True)
        y = torch.cat(want)
        return float((1 - (torch.cat(got) - y).var(0) / y.var(0)).mean())

    def example(self) -> tuple[Tensor]:
        return (self.samples[0][:4],)

    def features(self) -> list[str]:
        return [f"a{k}" for k in range(1, self.modes + 1)]

    def tiny(self) -> "Heat":
        return replace(self, rows=600, width=16, epochs=2)
