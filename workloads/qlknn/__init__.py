"""QLKNN: the pretrained transport surrogate of a tokamak, made as small as its own input ranges allow (10 -> 8)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumos.suite.workload import Metric, Schedule
from lumos.workloads.common.arrays import cached
from lumos.workloads.common.base import at_least
from lumos.workloads.common.table_workload import Batch, TableWorkload
from lumos.workloads.common.tables import Splits, r2_each
from lumos.workloads.qlknn.network import INPUTS, OUTPUTS, FluxNetwork, drawn_network, installed_file, read_network
from lumos.workloads.qlknn.ranges import Box, box_of, draw_inputs

VERSION = 1
"""Of the drawing of samples; a new one makes them anew."""
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


@dataclass(frozen=True)
class QLKNN(TableWorkload):
    """Specialise a network that comes trained; ``README.md`` has its source, its ranges and numbers.

    The dense network is the given one, as it is (``schedule="given"``), and the outputs that are learnt are its own.
    ``data.source=public`` takes QLKNN_7_11 from the package fusion-surrogates, or from the ONNX file at ``data.root``;
    ``generated`` a network of the same layout with drawn weights, for where the package is not. Raises DataError for
    settings or files that cannot be used.
    """

    region: str = "core"
    ranges: Mapping[str, Sequence[float]] | None = None
    rows: int = 125_000
    widths: Sequence[int] = (133, 133, 133, 133, 133)
    batch_size: int = 1000
    epochs: int = 30
    learning_rate: float = 2e-3
    schedule: Schedule = "given"

    name = "qlknn"
    core_seconds_per_gb = 60
    metric = Metric("R2", target=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, rows=10)
        _ = self.box

    @property
    def box(self) -> Box:
        """Least and largest value of each input."""
        return box_of(self.region, self.ranges)

    @property
    def note(self) -> str:
        """What the samples are, in one line."""
        own = " with own ranges" if self.ranges else ""
        which = "a network of drawn weights, which stands for QLKNN" if self.generated else "QLKNN_7_11"
        return f"the outputs of {which}, inputs uniform over the region {self.region}{own}; dense is that very network"

    @cached_property
    def given(self) -> FluxNetwork:
        """The network that is to be specialised, read or drawn at the first call."""
        return drawn_network(self.widths) if self.generated else read_network(self.files()[0])

    def files(self) -> list[Path]:
        """Return the network's file; none where its weights are drawn."""
        if self.generated:
            return []
        return [self.source.public_root() if self.source.root else installed_file()]

    def model(self) -> nn.Module:
        """Return the given network, trained as it is."""
        return copy.deepcopy(self.given)

    def outline(self) -> tuple[nn.Module, tuple[Tensor]]:
        """Return the given network and four rows of inputs."""
        return self.model(), (torch.from_numpy(draw_inputs(self.box, 4, np.random.default_rng(0))),)

    def make_splits(self) -> Splits:
        """The samples, computed at the first call or read from the cache."""
        weights = hashlib.sha256()
        for name, tensor in self.given.state_dict().items():
            weights.update(name.encode() + tensor.numpy().tobytes())
        key = {
            "version": VERSION,
            "seed": self.seed,
            "box": self.box,
            "rows": self.rows,
            "weights": weights.hexdigest(),
        }
        return Splits.from_arrays(cached(self.cache, key, self._compute))

    @torch.no_grad()
    def _compute(self) -> dict[str, np.ndarray]:
        """Inputs from the box, and the outputs of the given network in double precision, rounded once at the end."""
        exact, arrays = self.model().double().eval(), {}
        for number, (split, rows) in enumerate(self.split_rows().items()):
            x = draw_inputs(self.box, rows, np.random.default_rng([self.seed, number]))
            parts = [exact(part.double()).float() for part in torch.from_numpy(x).split(10_000)]
            arrays |= {f"{split}_inputs": x, f"{split}_outputs": torch.cat(parts).numpy()}
        return arrays

    def split_rows(self) -> dict[str, int]:
        """Count the rows of each split."""
        return {split: round(share * self.rows) for split, share in SHARES.items()}

    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute R2, and R2 of each output; one that is constant over the split has none."""
        each: Float[Tensor, " outputs"] = r2_each(model, batches)
        varies = ~each.isnan()
        named = {name: float(r2) for name, r2, known in zip(OUTPUTS, each, varies, strict=True) if known}
        return {"R2": each[varies].mean().item(), **named}

    def features(self) -> Sequence[str]:
        """Name the ten inputs."""
        return INPUTS

    def outputs(self) -> Sequence[str]:
        """Name the eight outputs."""
        return OUTPUTS

    def tiny(self) -> QLKNN:
        """Shrink it to 1,250 rows, and a network of drawn weights to two narrow layers."""
        return replace(self, rows=1250, widths=(32, 32), batch_size=100, epochs=2, learning_rate=3e-3)


__all__ = ["INPUTS", "OUTPUTS", "QLKNN"]
