"""A network of a table with all that it takes to use it on another file, in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumos.compaction.model import CompactModel, load
from lumos.errors import DataError, reads
from lumos.files import atomic
from lumos.tabular.categories import codes
from lumos.tabular.network import TableNetwork

FILE, WEIGHTS = "predictor.json", "compact.pt"
ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Schema:
    """The columns of a table, as a network takes and gives them.

    Attributes:
        numbers: The columns that are numbers; they come first.
        categories: The categories of each other column; None among them stands for a missing value.
        targets: What is predicted.
        classes: The classes of the target, where it is one.
        units: The units of columns, where they are known.
    """

    numbers: list[str]
    categories: dict[str, list[Any]]
    targets: list[str]
    classes: list[Any] | None = None
    units: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The input columns in the order of the network."""
        return [*self.numbers, *self.categories]

    def rows(self, columns: Mapping[str, np.ndarray], needed: Sequence[str] | None = None) -> torch.Tensor:
        """Make what the network takes.

        Args:
            columns: The columns by name.
            needed: Those that have to be there, all by default; the others count as missing where they are not.

        Returns:
            A float64 tensor (rows, columns).

        Raises:
            DataError: A column is not there, or holds text where numbers are expected.
        """
        lacking = [name for name in (self.names if needed is None else needed) if name not in columns]
        if lacking:
            raise DataError(f"there is no column {', '.join(lacking)}; expected {', '.join(needed or self.names)}")
        count = len(next(iter(columns.values())))
        out = np.full((count, len(self.names)), np.nan)
        for k, name in enumerate(self.names):
            column = columns.get(name)
            if name in self.categories:
                found = [None] * count if column is None else plain(column)
                out[:, k] = codes(found, self.categories[name])
            elif column is not None:
                try:
                    out[:, k] = column.astype(np.float64)
                except ValueError as error:
                    raise DataError(f"{name} holds text ({error}); the network was trained on numbers") from None
        return torch.from_numpy(out)


def plain(column: np.ndarray) -> list[Any]:
    """Return a column's values as a file of JSON keeps them: text, and whole numbers as such."""
    return [int(v) if isinstance(v, float) and v.is_integer() else v for v in column.tolist()]


@dataclass(frozen=True)
class Predictor:
    """A compact network and the columns that it was trained on.

    Args:
        model: The compact network.
        schema: Its columns.
        features: The columns that its outputs depend on; a file needs no others.
    """

    model: CompactModel
    schema: Schema
    features: list[str]

    @torch.no_grad()
    def predict(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predict for each row.

        Args:
            columns: Columns by name, ``features`` among them, as :func:`lumos.tabular.files.read_columns` gives them.

        Returns:
            The targets by name, in their units; of classes, the most probable one and ``P(...)`` of each.

        Raises:
            DataError: A column is not there, or holds text where numbers are expected.
        """
        x = self.schema.rows(columns, self.features)
        model = self.model.eval().double()
        out = torch.cat([model(part) for part in x.split(ROWS_AT_ONCE)])
        if self.schema.classes is None:
            return dict(zip(self.schema.targets, out.T.numpy(), strict=True))
        classes, probability = np.array(self.schema.classes, dtype=object), out.softmax(1).numpy()
        named = {f"P({c})": probability[:, k] for k, c in enumerate(self.schema.classes)}
        return {self.schema.targets[0]: classes[probability.argmax(1)], **named}


def write_schema(folder: Path, schema: Schema, network: Mapping[str, Any], features: Sequence[str]) -> None:
    """Write what a predictor needs beside the weights of its network.

    Args:
        folder: Where ``compact.pt`` is.
        schema: The columns.
        network: The arguments of the dense :class:`TableNetwork`.
        features: The columns that the outputs depend on.
    """
    content = {"format": "lumos-predictor-1", **asdict(schema), "network": dict(network), "features": list(features)}
    with atomic(folder / FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_predictor(folder: str | Path) -> Predictor:
    """Read a predictor from its folder.

    Raises:
        DataError: There is none.
        CompactionError: Its weights cannot be read.
    """
    return _predictor(Path(folder))


@reads("expected the folder of a run on a table")
def _predictor(folder: Path) -> Predictor:
    if not (folder / FILE).is_file():
        raise DataError(f"{folder}: there is no predictor; expected the folder of a run on a table")
    content = json.loads((folder / FILE).read_text())
    schema = Schema(*(content[key] for key in ("numbers", "categories", "targets", "classes", "units")))
    for names in (schema.numbers, schema.targets, content["features"]):
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError(f"{str(names)[:100]}, expected names of columns")
    for values in schema.categories.values():
        if not isinstance(values, list):
            raise ValueError(f"{str(values)[:100]}, expected a list of categories")
    if not isinstance(schema.classes, list | None) or not isinstance(schema.units, dict):
        raise ValueError("classes or units of another kind")
    if unknown := [name for name in content["features"] if name not in schema.names]:
        raise ValueError(f"{unknown[0]} among the features, which is no column")
    network = TableNetwork(**content["network"])
    predictor = Predictor(load(folder / WEIGHTS, network).eval(), schema, content["features"])
    predictor.predict({name: np.zeros(1) for name in schema.names})  # do its parts go together?
    return predictor
