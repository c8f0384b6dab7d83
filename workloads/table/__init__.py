"""Table: any table in a file; which of its columns does a network need for those that are to be predicted?"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from lumos.errors import DataError
from lumos.scaling import varies
from lumos.suite.workload import DataSource, Loaders, Metric, Recipe, tensor_loader
from lumos.tabular.categories import codes, find_categories
from lumos.tabular.files import Columns, read_columns
from lumos.tabular.network import TableNetwork
from lumos.tabular.predictor import Schema, plain, write_schema
from lumos.workloads.common.arrays import digest
from lumos.workloads.common.base import BaseWorkload, as_source, as_tuples, at_least, positive_sizes
from lumos.workloads.common.score_terms import auc_terms, balanced_accuracy_terms, r2_terms
from lumos.workloads.common.tables import Table, r2_score, standardised_mse, table_baselines
from lumos.workloads.table.generated import generate
from lumos.workloads.table.split import Split, by_group, by_row, by_time

log = logging.getLogger("lumos")

STEPS = 4000
"""Steps of a training, where ``epochs`` does not say how many passes it has; fewer where it reads ROWS in them."""
ROWS = 560_000
"""Rows, repeated ones counted, after which a training learns little more; a tolerance needs some 2,000 steps."""
FEW = 2000
"""Rows of a tiny version."""
SPLITS = ("train", "valid", "test")
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TableFile(BaseWorkload):
    """Regression or classification on the columns of a file; ``README.md`` says what is done with them.

    The table is at ``data.root``; without it, one is generated whose right columns are known. Batches are ``(columns
    (rows, columns), targets)``: raw numbers with NaN for missing ones, then the codes of categories; targets are (rows,
    targets) or class numbers (rows,). Raises DataError for settings or files that cannot be used.
    """

    targets: Sequence[str] | None = None
    task: str = "auto"
    inputs: Sequence[str] | None = None
    drop: Sequence[str] = ()
    categories: Sequence[str] = ()
    group: str | None = None
    split_by: str | None = None
    split_time: str | None = None
    valid_share: float = 0.15
    test_share: float = 0.15
    max_categories: int = 64
    widths: Sequence[int] = (256, 256)
    encoding: str | None = None
    bins: int = 8
    activation: str = "relu"
    dropout: float = 0.0
    rows: int = 50_000
    columns: int = 40
    batch_size: int | None = None  # type: ignore[assignment]
    epochs: int | None = None  # type: ignore[assignment]
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    most_rows: int | None = field(default=None, repr=False)
    """Rows of the file that are used, drawn by the seed; of a tiny version."""

    name = "table"

    def __post_init__(self) -> None:
        source = as_source(self.data)
        if source.root is not None:  # a file is never called generated
            source = replace(source, source="file")
        object.__setattr__(self, "data", source)
        at_least(self, seed=0)
        as_tuples(self, int, "widths")
        as_tuples(self, str, "drop", "categories", *(k for k in ("targets", "inputs") if getattr(self, k) is not None))
        positive_sizes(self, "widths")
        if self.task not in ("auto", "regression", "classification"):
            raise DataError(f"workload.task={self.task}: expected auto, regression or classification")
        if self.batch_size is not None and self.batch_size < 1:
            raise DataError(f"workload.batch_size={self.batch_size}: expected at least 1, or null")
        if self.split_by and self.split_time:
            raise DataError("workload.split_by and workload.split_time are set: expected one of them")
        if min(self.valid_share, self.test_share) <= 0 or self.valid_share + self.test_share >= 0.9:
            raise DataError(f"workload.valid_share={self.valid_share} and workload.test_share={self.test_share}: "
                            "expected shares above 0, together below 0.9")  # fmt: skip
        if not self.generated and not self.targets:
            raise DataError("workload.targets says nothing: expected the columns to predict, workload.targets=[NAME]")
        if self.generated and (self.columns < 16 or self.rows < 100):
            raise DataError(
                f"workload.rows={self.rows} and workload.columns={self.columns}: expected 100 and 16 at least"
            )

    # ---- the file ---------------------------------------------------------------------------------------------------

    @cached_property
    def _table(self) -> tuple[Columns, list[str]]:
        """The columns, and the names of those that matter where that is known."""
        if self.generated:
            return generate(self.rows, self.columns, self.seed)
        return read_columns(self.source.public_root(), self.group or ""), []

    @cached_property
    def _names(self) -> tuple[list[str], list[str]]:
        """The columns to predict, and those to learn from. Raises DataError where one is not there."""
        columns = self._table[0].values
        targets = list(self.targets or ("y",))
        beside = [name for name in (self.split_by, self.split_time) if name]
        asked = [*targets, *(self.inputs or ()), *self.drop, *self.categories, *beside]
        lacking = [name for name in dict.fromkeys(asked) if name not in columns]
        if lacking:
            raise DataError(f"there is no column {', '.join(lacking)} in {self._where}; it has {', '.join(columns)}")
        left_out = {*targets, *self.drop, *beside}
        return targets, [name for name in (self.inputs or columns) if name not in left_out]

    def split_bytes(self) -> dict[str, int]:
        """Count the bytes of each split of a generated table: rows of float64."""
        row = 8 * (self.columns + 1)
        test, valid = (int(self.rows * share) for share in (self.test_share, self.valid_share))
        return {"train": (self.rows - test - valid) * row, "valid": valid * row, "test": test * row}

    @property
    def _where(self) -> str:
        return "the generated table" if self.generated else self.source.public_root().name

    @cached_property
    def _rows(self) -> np.ndarray:
        """The rows that have all targets, ascending."""
        columns, targets = self._table[0].values, self._names[0]
        whole = np.ones(len(self._table[0]), bool)
        for name in targets:
            column = columns[name]
            whole &= np.array([v is not None for v in column]) if column.dtype == object else np.isfinite(column)
        if not whole.all():
            log.warning(f"{self._where}: {int((~whole).sum())} rows without {' or '.join(targets)} are left out")
        rows = np.flatnonzero(whole)
        if self.most_rows is not None and len(rows) > self.most_rows:
            rows = np.sort(np.random.default_rng([self.seed, 2]).choice(rows, self.most_rows, replace=False))
        return rows

    @cached_property
    def _split(self) -> Split:
        """The row numbers of the table in each split."""
        rows, columns = self._rows, self._table[0].values
        if self.split_by:
            found = by_group(columns[self.split_by][rows], self.valid_share, self.test_share, self.seed)
        elif self.split_time:
            found = by_time(columns[self.split_time][rows], self.valid_share, self.test_share)
        else:
            found = by_row(len(rows), self.valid_share, self.test_share, self.seed)
        return {name: rows[part] for name, part in found.items()}

    @cached_property
    def schema(self) -> Schema:
        """The columns as the network has them: what is a category, and which ones there are in the training rows."""
        table, (targets, inputs) = self._table[0], self._names
        train = self._split["train"]
        chosen = {n for n in inputs if table.values[n].dtype == object or n in self.categories}
        numbers = [name for name in inputs if name not in chosen]
        categories = {
            n: find_categories(plain(table.values[n][train]), self.max_categories) for n in inputs if n in chosen
        }
        if not inputs:
            raise DataError(f"{self._where} has no column to learn from beside {', '.join(targets)}")
        units = {n: u for n, u in table.units.items() if n in (*inputs, *targets)}
        return Schema(numbers, categories, targets, self._classes, units)

    @cached_property
    def _classes(self) -> list[Any] | None:
        columns, targets = self._table[0].values, self._names[0]
        text = [name for name in targets if columns[name].dtype == object]
        if self.task == "regression" or (self.task == "auto" and not text):
            if text:
                raise DataError(
                    f"workload.targets: {text[0]} is text; expected numbers, or workload.task=classification"
                )
            return None
        if len(targets) > 1:
            raise DataError(f"workload.targets={targets}: expected one column of classes")
        classes = find_categories(plain(columns[targets[0]][self._split["train"]]), 1000)
        if len(classes) < 2:
            raise DataError(f"{targets[0]} has one class only in the training rows; expected two or more")
        return classes

    @cached_property
    def _tensors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For each split, what goes in and what is to come out."""
        columns, schema = self._table[0].values, self.schema
        found = {}
        for split in SPLITS:
            rows = self._split[split]
            x = schema.rows({name: columns[name][rows] for name in schema.names}).float()
            if torch.isinf(x).any():
                row, column = torch.isinf(x).nonzero()[0].tolist()
                name = schema.names[column]
                raise DataError(
                    f"{self._where}: {name} is infinite in row {int(rows[row]) + 1} of the data; mend it, or leave the "
                    f"column out with workload.drop=[{name}]"
                )
            found[split] = x, self._wanted(rows)
        self._note_constant(found["train"][0])
        return found

    def _wanted(self, rows: np.ndarray) -> Tensor:
        columns, targets = self._table[0].values, self._names[0]
        if self._classes is None:
            return torch.from_numpy(np.stack([columns[n][rows] for n in targets], 1)).float()
        named = codes(plain(columns[targets[0]][rows]), self._classes)
        if (named < 0).any():
            raise DataError(f"{targets[0]}: a class of the held out rows is in no training row; ask for another split")
        return torch.from_numpy(named).long()

    def _note_constant(self, x: Tensor) -> None:
        same = []
        for k, name in enumerate(self.schema.numbers):
            values = x[:, k][~x[:, k].isnan()]
            if not len(values) or not bool(varies(values[:, None])):
                same.append(name)
        if same:
            log.warning(
                f"{self._where}: {', '.join(same)} do not vary beyond rounding in single precision, and say nothing"
            )

    # ---- the contract -----------------------------------------------------------------------------------------------

    @property
    def metric(self) -> Metric:
        """R2; of two classes the area under the ROC curve, of more the balanced accuracy."""
        if self._classes is None:
            return Metric("R2")
        return Metric("ROC-AUC" if len(self._classes) == 2 else "balanced accuracy")

    @property
    def recipe(self) -> Recipe:
        """How the network is trained, dense and gated."""
        rows = len(self._split["train"])
        steps = max(1, rows // self._batch)
        usual = max(10, math.ceil(min(STEPS / steps, ROWS / rows)))
        epochs = self.epochs if self.epochs is not None else usual
        return Recipe(epochs, self.learning_rate, self.weight_decay, self.schedule)

    @property
    def _batch(self) -> int:
        if self.batch_size is not None:
            return self.batch_size
        return int(min(256, max(16, 2 ** round(math.log2(max(1, len(self._split["train"]) / 20))))))

    @property
    def note(self) -> str:
        """What the rows are, in one line."""
        how = (
            f"by {self.split_by}" if self.split_by else f"last in {self.split_time}" if self.split_time else "by chance"
        )
        if self.generated:
            return f"nine of {self.columns} generated columns matter; rows held out {how}"
        return f"{', '.join(self._names[0])} of {self._where}; rows held out {how}"

    def files(self) -> list[Path]:
        """Return the file of the table; none where it is generated."""
        return [] if self.generated else [self.source.public_root()]

    def make_loaders(self) -> Loaders:
        """Put the rows into batches; the training rows come in an order that follows seed and epoch."""
        t, size = self._tensors, self._batch
        return Loaders(
            train=tensor_loader(*t["train"], batch_size=size, seed=self.seed),
            valid=tensor_loader(*t["valid"], batch_size=4096),
            test=tensor_loader(*t["test"], batch_size=4096),
            n_train=len(t["train"][0]), n_valid=len(t["valid"][0]), n_test=len(t["test"][0]),
            source=self.source.source, sha256=digest(*(part.numpy() for split in SPLITS for part in t[split])),
        )  # fmt: skip

    @cached_property
    def _network(self) -> dict[str, Any]:
        """The arguments of the network."""
        x, y = self._tensors["train"]
        numbers = len(self.schema.numbers)
        return {
            "numbers": numbers,
            "categories": [len(found) for found in self.schema.categories.values()],
            "outputs": y.shape[1] if self._classes is None else len(self._classes),
            "widths": list(self.widths),
            "bins": self.bins,
            **({} if self.encoding is None else {"encoding": self.encoding}),
            "missing": bool(x[:, :numbers].isnan().any()),
            "activation": self.activation,
            "dropout": self.dropout,
        }

    @cached_property
    def _scaling(self) -> dict[str, Tensor]:
        """The buffers of a network that is scaled by the training rows."""
        x, y = self._tensors["train"]
        with torch.random.fork_rng(devices=()):
            scaled = TableNetwork(**self._network).scaled_by(x, y if self._classes is None else None)
        return {name: value.clone() for name, value in scaled.named_buffers()}

    def model(self) -> nn.Module:
        """Build a fresh network, from raw columns to targets in their units, or to logits."""
        network = TableNetwork(**self._network)
        for name, value in network.named_buffers():
            value.copy_(self._scaling[name])
        return network

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """Compute the squared error in units of each target's deviation, or the cross entropy over the classes'."""
        if self._classes is None:
            return standardised_mse(model, batch, self._output_std)
        return functional.cross_entropy(model(batch[0]), batch[1]) / self._entropy

    @cached_property
    def _output_std(self) -> Tensor:
        return self._scaling["output_scale"]

    @cached_property
    def _entropy(self) -> float:
        shares = torch.bincount(self._tensors["train"][1]).double() / len(self._tensors["train"][1])
        return float(-(shares * shares.clamp(min=1e-300).log()).sum())

    def score(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Compute the metric over all rows of a split. Raises DataError where it is not defined there."""
        if self._classes is None:
            return r2_score(model, batches)
        return self._class_scores(model, batches)[self.metric.name]

    @torch.no_grad()
    def scores(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute R2 of each target; of classes the balanced accuracy, the accuracy and the cross entropy in nats."""
        if self._classes is not None:
            return self._class_scores(model, batches)
        pairs = [(model(x), y) for x, y in batches]
        guess, truth = (torch.cat(part) for part in zip(*pairs, strict=True))
        return {
            f"R2 {name}": r2_score(lambda x: x, [(guess[:, k : k + 1], truth[:, k : k + 1])])
            for k, name in enumerate(self.schema.targets)
        }

    @torch.no_grad()
    def _class_scores(self, model: Callable[[Tensor], Tensor], batches: Iterable[Batch]) -> dict[str, float]:
        pairs = [(model(x).cpu().double().softmax(1), y.cpu()) for x, y in batches]
        guess, truth = (torch.cat(part).numpy() for part in zip(*pairs, strict=True))
        classes = np.arange(guess.shape[1])
        found = {
            "balanced accuracy": float(balanced_accuracy_score(truth, guess.argmax(1))),
            "accuracy": float((guess.argmax(1) == truth).mean()),
            "cross entropy": float(log_loss(truth, guess, labels=classes)),
        }
        if len(classes) == 2:
            if truth.min() == truth.max():
                raise DataError("all rows of a split have one class, so that ROC-AUC is undefined; use more rows")
            found = {"ROC-AUC": float(roc_auc_score(truth, guess[:, 1])), **found}
        return found

    @torch.no_grad()
    def score_terms(self, model: nn.Module, batches: Iterable[Batch]) -> np.ndarray:
        """Compute what each row adds to the metric."""
        if self._classes is None:
            return r2_terms(model, batches)
        pairs = [(model(x).cpu().double().softmax(1), y.cpu()) for x, y in batches]
        guess, truth = (torch.cat(part).numpy() for part in zip(*pairs, strict=True))
        return auc_terms(truth, guess[:, 1]) if guess.shape[1] == 2 else balanced_accuracy_terms(truth, guess.argmax(1))

    def baselines(self) -> dict[str, float]:
        """Compute the test scores of a constant, and of a linear or logistic regression on all columns."""
        with torch.random.fork_rng(devices=()), torch.no_grad():
            encoder = TableNetwork(**{**self._network, "bins": 0}).scaled_by(self._tensors["train"][0])
            (x, y), (held, truth) = ((encoder.encode(a), b) for a, b in (self._tensors["train"], self._tensors["test"]))
        if self._classes is None:
            return table_baselines(Table(x, y), Table(held, truth))
        logistic = LogisticRegression(max_iter=1000).fit(x.numpy(), y.numpy())
        logits = torch.from_numpy(logistic.predict_log_proba(held.numpy()))
        scores = self._class_scores(lambda _: logits, [(held, truth)])
        return {"constant": 1 / len(self._classes), "logistic": scores[self.metric.name]}

    def example(self) -> tuple[Tensor]:
        """Return four training rows."""
        return (self._tensors["train"][0][:4].clone(),)

    def outline(self) -> tuple[nn.Module, tuple[Any, ...]]:
        """Return the network and an example; its inputs and categories are those of the table, which is read."""
        return self.model(), self.example()

    def features(self) -> Sequence[str]:
        """Name the columns, numbers first."""
        return self.schema.names

    def true_features(self) -> Sequence[str]:
        """Name the columns that matter, where the table is generated."""
        known = self._table[1]
        return [name for name in self.schema.names if name in known]

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the training rows as numbers: gaps are the column's mean, categories their codes."""
        x, y = (part.double().numpy() for part in self._tensors["train"])
        mean = np.nan_to_num(np.nanmean(np.where(np.isnan(x).all(0), 0.0, x), 0))
        return np.where(np.isnan(x), mean, x), y.reshape(len(y), -1)

    def write_predictor(self, folder: Path, features: Sequence[str]) -> None:
        """Write what the compact network in a folder needs beside its weights to take other files."""
        write_schema(folder, self.schema, self._network, features)

    def tiny(self) -> TableFile:
        """Shrink it to 2,000 rows and a narrow network."""
        few: Mapping[str, Any] = {"rows": 2000, "columns": 16} if self.generated else {"most_rows": FEW}
        return replace(self, widths=(32,), bins=4, epochs=2, batch_size=None, **few)


__all__ = ["DataSource", "TableFile"]
