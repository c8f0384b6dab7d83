"""Estimators of scikit-learn: a network that finds the columns it needs and the size that it can do with.

``pip install 'lumos-sciml[sklearn]'``. They are regressors and classifiers, and selectors of columns besides.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
import torch
from scipy.stats import false_discovery_control
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.feature_selection import SelectorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn
from torch.nn import functional

from lumos.compaction.input_relations import Folded, fold_inputs, without_inputs
from lumos.compaction.model import CompactModel
from lumos.errors import ConfigError, TrainingError
from lumos.exporting import Exported, export
from lumos.pruning.elimination import Eliminated, eliminate
from lumos.pruning.fit import FitResult, fit, polish
from lumos.pruning.settings import Call, Goal, Lambda, Target, Tolerance
from lumos.scaling import spread
from lumos.tabular.categories import codes, find_categories
from lumos.tabular.false_discoveries import copies_needed, p_values, shuffled
from lumos.tabular.network import TableNetwork

__all__ = ["LumosClassifier", "LumosRegressor"]

STEPS = 4000
"""Steps of a training, where ``max_iter`` does not say how many passes it has."""
POLISH_STEPS = 300
"""Steps for which a network is trained on that lost a column."""
LINEAR_ROWS = 4096
"""Rows that say what of a column that goes the others can say."""
PREDICTED_AT_ONCE = 65_536
"""Rows of one call of the network."""
TEXT = ("category", "object", "str", "string")
"""Types of a data frame's columns that hold categories."""


class _LumosEstimator(SelectorMixin, BaseEstimator):
    """What regressor and classifier share."""

    @no_type_check  # scikit-learn wants a constructor that takes anything; what is wrong is said by fit
    def __init__(
        self,
        hidden: Sequence[int] = (256, 256),
        *,
        tolerance: float | None = None,
        params: float | None = None,
        features: int | None = None,
        strength: float | None = None,
        encoding: str = "quantiles",
        bins: int = 8,
        activation: str = "relu",
        dropout: float = 0.0,
        max_iter: int | None = None,
        batch_size: int | str = "auto",
        learning_rate: float = 3e-3,
        weight_decay: float = 0.0,
        early_stopping: bool = False,
        n_iter_no_change: int = 20,
        validation_fraction: float = 0.15,
        categorical_features: Any = "from_dtype",
        max_categories: int = 64,
        fold_inputs: bool = True,
        device: str = "cpu",
        random_state: Any = None,
        verbose: int = 0,
        latency: float | None = None,
        latency_batch: int = 1024,
        keep: Sequence[str] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        prices: Mapping[str, float] | None = None,
        eliminate: float | None = None,
        false_discovery_rate: float | None = None,
    ) -> None:
        self.hidden = hidden
        self.tolerance = tolerance
        self.params = params
        self.features = features
        self.strength = strength
        self.encoding = encoding
        self.bins = bins
        self.activation = activation
        self.dropout = dropout
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.validation_fraction = validation_fraction
        self.categorical_features = categorical_features
        self.max_categories = max_categories
        self.fold_inputs = fold_inputs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.latency = latency
        self.latency_batch = latency_batch
        self.keep = keep
        self.groups = groups
        self.prices = prices
        self.eliminate = eliminate
        self.false_discovery_rate = false_discovery_rate

    # ---- what differs between the two -------------------------------------------------------------------------------

    def _check_targets(self, y: Any) -> Tensor:
        """Return y as the loss takes it, and note what is needed to undo that."""
        raise NotImplementedError

    def _encode_targets(self, y: Any) -> Tensor:
        """Return other rows' y as the loss takes it."""
        raise NotImplementedError

    def _scale_loss(self, y: Tensor, weight: Tensor) -> None:
        """Note what the best constant prediction of the training rows loses."""
        raise NotImplementedError

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        """The loss of each row, 1 on average for the best constant prediction."""
        raise NotImplementedError

    def _outputs(self, y: Tensor) -> int:
        raise NotImplementedError

    # ---- training ---------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None) -> Any:
        """Train the network with gates, and cut out what it does not need.

        Args:
            X: Rows of columns: an array or a data frame; NaN stands for a missing value.
            y: What is predicted, a row each.
            sample_weight: The weight of each row in loss and validation.
            X_val: Rows to validate on, of other shots, samples or times; by default a random share of X.
            y_val: What belongs to them.

        Returns:
            The estimator.

        Raises:
            ValueError: The data or a setting cannot be used.
            TrainingError: The network collapsed.
        """
        goal = self._goal()
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        x, y = self._read(X, y)
        targets = self._check_targets(y)
        weight = torch.tensor(_check_sample_weight(sample_weight, x, ensure_non_negative=True, dtype=np.float64))
        rows = np.flatnonzero(weight.numpy() > 0)  # a row without weight is none
        if len(rows) < 2:
            raise ValueError(f"{len(rows)} rows have a weight: expected at least 2")
        x, targets, weight = x[rows], targets[torch.from_numpy(rows)], weight[torch.from_numpy(rows)]
        weight = (weight / weight.mean()).float()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        split = self._split(targets, seed) if X_val is None else (np.arange(len(x)), np.arange(0))
        table = torch.from_numpy(np.ascontiguousarray(x[:, self._order])).float()
        train, valid = ([t[torch.from_numpy(part)] for t in (table, targets, weight)] for part in split)
        if X_val is not None:
            held = torch.from_numpy(self._read(X_val)[:, self._order]).float()
            valid = [held, self._encode_targets(y_val), torch.ones(len(held))]
        self._scale_loss(train[1], train[2])
        counts = [len(self.categories_[k]) for k in self._categorical]
        found = self._trained(train, valid, goal, counts, self._names(self._order), seed)
        if self.false_discovery_rate is not None:
            found = self._without_chance(found, train, valid, goal, counts, seed)
        self._keep(found, table, train, valid, seed)
        return self

    def _trained(
        self, train: list[Tensor], valid: list[Tensor], goal: Goal, counts: list[int], names: list[str], seed: int
    ) -> FitResult:
        """Train a network of these columns, numbers first, then categories with as many values as the counts say."""
        batch = self._batch_size(len(train[0]))
        epochs = self.max_iter or max(10, -(-STEPS // max(1, len(train[0]) // batch)))
        return fit(
            self._network(train, counts, seed), tuple(train), tuple(valid), self._weighted_loss, goal,
            score=self._score, higher_is_better=True, epochs=epochs,
            patience=self.n_iter_no_change if self.early_stopping else None, batch_size=batch,
            learning_rate=self.learning_rate, weight_decay=self.weight_decay, clip_norm=1.0, device=self.device,
            seed=seed, features=names, keep=self.keep or (), groups=self.groups, prices=self.prices,
            progress=bool(self.verbose),
        )  # fmt: skip

    def _without_chance(
        self, found: FitResult, train: list[Tensor], valid: list[Tensor], goal: Goal, counts: list[int], seed: int
    ) -> FitResult:
        """The network without the kept columns that another training cannot tell from shuffled ones."""
        rate, width = self.false_discovery_rate or 0, train[0].shape[1]
        if not 0 < rate < 1:
            raise ConfigError(f"false_discovery_rate={rate}: expected a share between 0 and 1")
        numbers, copies = width - len(counts), copies_needed(width, rate)

        def beside(x: Tensor, k: int) -> Tensor:
            parts = [(part, shuffled(part, copies, seed + k)) for part in (x[:, :numbers], x[:, numbers:])]
            return torch.cat([t for pair in parts for t in pair], 1)

        wide, wide_valid = ([beside(part[0], k), *part[1:]] for k, part in enumerate((train, valid)))
        own = np.zeros(width * (copies + 1), bool)
        own[:numbers] = own[numbers * (copies + 1) :][: len(counts)] = True
        names = self._names(self._order)
        of_own = iter(names)
        labels = [next(of_own) if mine else f"shuffled column {k}" for k, mine in enumerate(own)]
        other = self._trained(wide, wide_valid, goal, counts * (copies + 1), labels, seed)
        gains = self._gains(other.model.cpu(), wide_valid, seed)
        self.p_values_ = np.empty(width)
        self.p_values_[self._order] = p_values(gains[own], gains[~own])
        true = false_discovery_control(self.p_values_) <= rate
        stay = {name for name, column in zip(names, self._order, strict=True) if true[column]} | self._asked
        gone = [name for name in found.model.features if name not in stay]
        if len(gone) == len(found.model.features):
            raise TrainingError(
                f"no column can be told from shuffled ones at false_discovery_rate={rate} (the smallest p-value is "
                f"{self.p_values_.min():.2g}): give more rows, or a larger rate"
            )
        if not gone:
            return found
        rows = train[0][:: max(1, len(train[0]) // LINEAR_ROWS)].to(self.device)
        small: Any = without_inputs(found.model, rows, gone)
        small, score = polish(small, tuple(train), tuple(valid), self._weighted_loss, **self._short(train, seed))
        return replace(found, model=small, score=score)

    def _short(self, train: list[Tensor], seed: int) -> dict[str, Any]:
        """How a network is trained on for a little while."""
        batch = self._batch_size(len(train[0]))
        epochs = max(1, -(-POLISH_STEPS // max(1, len(train[0]) // batch)))
        return {"score": self._score, "higher_is_better": True, "epochs": epochs, "batch_size": batch,
                "learning_rate": 0.3 * self.learning_rate, "clip_norm": 1.0, "seed": seed}  # fmt: skip

    @property
    def _asked(self) -> set[str]:
        """Names of columns of which the user says that they stay, or with which others they stay."""
        return {*(self.keep or ()), *(name for members in (self.groups or {}).values() for name in members)}

    def _goal(self) -> Goal:
        asked = {
            "tolerance": self.tolerance,
            "params": self.params,
            "latency": self.latency,
            "features": self.features,
            "strength": self.strength,
        }
        given = [name for name, value in asked.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} are given: expected one of {', '.join(asked)}, or none")
        if self.strength is not None:
            return Lambda(self.strength)
        if self.latency is not None:
            return Target(latency=self.latency, call=Call(batch=self.latency_batch, device=self.device))
        if self.params is not None or self.features is not None:
            return Target(params=self.params, features=self.features)
        return Tolerance(0.01 if self.tolerance is None else self.tolerance)

    def _split(self, y: Tensor, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows to train on and to validate on; where they are too few, all are both."""
        rows = np.arange(len(y))
        if len(rows) < 10:
            return rows, rows
        groups = y.numpy() if not y.is_floating_point() else None
        count = round(self.validation_fraction * len(rows))
        if groups is not None and (np.bincount(groups).min() < 2 or count < len(np.unique(groups))):
            groups = None
        train, valid = train_test_split(rows, test_size=max(2, count), random_state=seed % 2**32, stratify=groups)
        return np.sort(train), np.sort(valid)

    def _batch_size(self, rows: int) -> int:
        if self.batch_size == "auto":
            return int(min(256, max(16, 2 ** round(np.log2(max(1, rows) / 20)))))
        return min(int(self.batch_size), rows)

    def _network(self, train: list[Tensor], counts: list[int], seed: int) -> TableNetwork:
        x, y, _ = train
        numbers = x.shape[1] - len(counts)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            network = TableNetwork(
                numbers, counts, self._outputs(y), tuple(self.hidden), bins=self.bins, dropout=self.dropout,
                missing=bool(x[:, :numbers].isnan().any()), activation=self.activation, encoding=self.encoding,
            )  # fmt: skip
        return network.scaled_by(x, y if y.is_floating_point() else None)

    def _weighted_loss(self, output: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return (weight * self._loss(output, y)).mean()

    def _score(self, model: nn.Module, batches: Any) -> float:
        """How much of the loss of a constant prediction is explained: R2, or McFadden's for classes."""
        total = weights = 0.0
        for x, y, weight in batches:
            total += float((weight * self._loss(model(x), y)).sum())
            weights += float(weight.sum())
        return 1.0 - total / weights

    def _keep(self, found: FitResult, table: Tensor, train: list[Tensor], valid: list[Tensor], seed: int) -> None:
        """Note what the training found, in the order of the columns of X."""
        compact = found.model.cpu()
        folded = fold_inputs(compact, table, keep=self._asked) if self.fold_inputs else Folded(compact, ())
        self.model_: CompactModel = folded.model
        if self.eliminate is not None:
            asked = self._asked & set(self.model_.features)
            self.eliminated_: Eliminated = eliminate(
                self.model_, tuple(train), tuple(valid), self._weighted_loss, tolerance=self.eliminate, keep=asked,
                **self._short(train, seed),
            )  # fmt: skip
            self.model_ = self.eliminated_.model
        self.relations_ = list(folded.relations)
        self.history_ = found.curve
        self.n_iter_ = max(row["epoch"] for row in found.curve)
        self.validation_score_ = found.score if self.eliminate is None else self.eliminated_.score
        self.dense_score_ = found.dense_score
        self.n_parameters_ = (found.params[0], sum(p.numel() for p in self.model_.parameters()))
        width = len(self._order)
        self.support_ = np.zeros(width, bool)
        self.ranking_ = np.ones(width, int)
        places = [row["order"] for row in found.features if row["order"] != ""]
        for column, row in zip(self._order, found.features, strict=True):
            self.support_[column] = bool(row["kept"])
            if not row["kept"]:
                self.ranking_[column] = 2 + len({p for p in places if p > row["order"]})
        if not found.features:  # a single column has no gate
            self.support_[:] = True
        if found.features:
            for column, name in enumerate(self._names(range(width))):
                if self.support_[column] and name not in self.model_.features:  # others stand for it, or chance
                    self.support_[column], self.ranking_[column] = False, 2
        gains = self._gains(self.model_, valid, seed)
        self.feature_importances_ = np.zeros(width)
        self.feature_importances_[self._order] = gains / gains.sum() if gains.sum() > 0 else gains

    @torch.no_grad()
    def _gains(self, model: CompactModel, valid: list[Tensor], seed: int) -> np.ndarray:
        """By how much the validation loss rises when a column's values change places."""
        x, y, weight = (t.cpu() for t in valid)
        generator = torch.Generator().manual_seed(seed)
        before, gains = self._score(model, [(x, y, weight)]), np.zeros(x.shape[1])
        read = model.get_buffer("kept_0").tolist() if model._inputs else range(x.shape[1])
        for k in read:
            mixed = x.clone()
            mixed[:, k] = x[torch.randperm(len(x), generator=generator), k]
            gains[k] = max(0.0, before - self._score(model, [(mixed, y, weight)]))
        return gains

    # ---- columns ----------------------------------------------------------------------------------------------------

    def _read(self, X: Any, y: Any = None) -> Any:
        """Return the rows as numbers, categories as codes; with y, learn the columns, and return y too."""
        X = X.to_pandas() if hasattr(X, "to_pandas") else X
        if y is not None:
            self._categorical = self._find_categorical(X)
            self.categories_ = {k: find_categories(_column(X, k), self.max_categories) for k in self._categorical}
        coded = self._coded(X)
        rules: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
        if y is None:
            return validate_data(self, coded, reset=False, **rules)
        found: Any = validate_data(self, coded, y, ensure_min_samples=2, multi_output=True, **rules)
        x, y = found
        self._order = [k for k in range(x.shape[1]) if k not in self._categorical] + self._categorical
        return x, y

    def _find_categorical(self, X: Any) -> list[int]:
        chosen, frame = self.categorical_features, hasattr(X, "iloc")
        if isinstance(chosen, str) and chosen == "from_dtype":
            return [k for k in range(len(X.columns)) if _is_text(X.iloc[:, k])] if frame else []
        if chosen is None:
            return []
        chosen = np.asarray(chosen)
        if chosen.dtype == bool:
            return np.flatnonzero(chosen).tolist()
        names = list(X.columns) if frame else []
        try:
            return sorted(names.index(c) if isinstance(c, str) else int(c) for c in chosen.tolist())
        except ValueError as error:
            raise ValueError(f"categorical_features={chosen.tolist()}: {error}; expected columns of X") from None

    def _coded(self, X: Any) -> Any:
        width = X.shape[1] if getattr(X, "ndim", 0) == 2 else 0
        if not self._categorical or width <= self._categorical[-1]:
            return X  # what is wrong with its width is said by validate_data
        if not hasattr(X, "iloc"):
            X = np.array(X, dtype=object)
            for k in self._categorical:
                X[:, k] = codes(X[:, k], self.categories_[k])
            return X
        X = X.copy()
        for k in self._categorical:
            X.isetitem(k, codes(_column(X, k), self.categories_[k]))
        return X

    def _names(self, columns: Sequence[int]) -> list[str]:
        names = getattr(self, "feature_names_in_", [f"x{k}" for k in range(len(self._order))])
        return [str(names[k]) for k in columns]

    def _get_support_mask(self) -> Any:
        check_is_fitted(self)
        return self.support_

    # ---- prediction -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _predict(self, X: Any) -> np.ndarray:
        """Run the network in double precision: a row's prediction does not depend on the rows beside it."""
        check_is_fitted(self)
        x = torch.from_numpy(self._read(X)[:, self._order])
        model = copy.deepcopy(self.model_).double()
        return torch.cat([model(part) for part in x.split(PREDICTED_AT_ONCE)]).numpy()

    def export(self, path: str | Path, *, reduced: bool = False) -> Exported:
        """Write the network as a file for other programs: raw columns in, physical units or probabilities out.

        Args:
            path: The file; it ends in ``.onnx`` or ``.pt2``.
            reduced: The file takes the kept columns only, in the order of X; else all columns of X.

        Returns:
            What was written, and how far it is from the model. A category goes in as its place in ``categories_``, -1
            for one that is not there.

        Raises:
            ExportError: The file cannot be written, or does not compute the same.
        """
        check_is_fitted(self)
        columns = np.flatnonzero(self.support_).tolist() if reduced else list(range(len(self._order)))
        model = _Columns(self.model_, columns, self._order, softmax=hasattr(self, "classes_"))
        example = torch.zeros(4, len(columns)) + torch.arange(4.0)[:, None]
        return export(model.eval(), (example,), path, features=self._names(columns))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class LumosRegressor(RegressorMixin, _LumosEstimator):
    """Predict numbers by a small network that reads the columns it needs.

    A network with a gate on every column and every hidden unit is trained; what the gates close is cut out, and what is
    left trains on. Exactly one of ``tolerance``, ``params``, ``latency``, ``features`` and ``strength`` says how far it
    goes; with none of them, ``tolerance=0.01``.

    Args:
        hidden: Units of the hidden layers, before the cut.
        tolerance: How much worse the validation score may be than that of a dense network, as a share: 0.01 for 1%.
        params: Share of the dense network's parameters.
        latency: Share of the time of a dense call, as measured on this machine.
        latency_batch: Rows of such a call.
        keep: Names of columns that stay; of an array's, x0, x1…
        groups: Columns that stay or go together, by a name for each group: ``{"position": ["x", "y", "z"]}``.
        prices: What a column, or a group of them, costs where the others cost 1: ``{"sensor7": 10}``.
        features: Number of columns.
        strength: The coefficient of the penalty, in units of the loss for each gate.
        encoding: How a number is taken: ``quantiles`` (its standardised value and its place in quantile bins, piecewise
            linear), ``plain`` (the standardised value alone) or ``periodic`` (sines and cosines besides).
        bins: Bins, or frequencies, of each number; 0 for the standardised value alone.
        activation: ``relu``, ``silu`` or ``tanh``.
        dropout: Share of the hidden units that training leaves out.
        max_iter: Passes over the training rows; None for as many as make some 4,000 steps.
        batch_size: Rows of a batch, or ``auto``.
        learning_rate: The peak rate of AdamW; it falls to zero along a cosine.
        weight_decay: Of AdamW.
        early_stopping: Whether the training ends when the validation score no longer gets better.
        n_iter_no_change: Passes without a better one, after which it does.
        validation_fraction: Share of the rows that are held out for validation.
        categorical_features: Columns that are categories: their places, names or a mask; ``from_dtype`` for those of a
            data frame that hold text or have the type ``category``; None for none.
        max_categories: The largest number of categories of a column; the rarer ones count as unknown.
        fold_inputs: Whether columns go that are constant, copies or linear functions of other kept ones on all rows of
            the training; see :func:`lumos.fold_inputs`.
        eliminate: Whether each column that is kept is left out for a trial, and stays out where the validation score,
            after a short training, is worse by no more than this share: see :func:`lumos.eliminate`.
        false_discovery_rate: The share of kept columns that may be there by chance. A second network sees shuffled
            columns besides; a column has to do better than these (empirical p-values, Benjamini and Hochberg, 1995).
            What goes with true columns does better than shuffled ones, whether it matters or not.
        device: Where to train.
        random_state: Of the split, the weights, the order of the rows and the gates.
        verbose: 1 writes a line for each pass to the log ``lumos``.

    Attributes:
        model_: The compact network.
        support_: Which columns it reads; ``ranking_`` is 1 for these, and higher the earlier a column went.
        relations_: What the columns are that went because others stand for them.
        eliminated_: What the trials of ``eliminate`` found.
        p_values_: Of each column, where ``false_discovery_rate`` is given.
        feature_importances_: By how much the validation loss rises when a column is shuffled, as shares of the whole.
        validation_score_: R2 on the validation rows; ``dense_score_`` that of the dense network.
        n_parameters_: Parameters of the dense and of the compact network.
        history_: A row for each pass.

    Example:
        >>> import numpy as np
        >>> from lumos.sklearn import LumosRegressor
        >>> x = np.random.default_rng(0).random((400, 6))
        >>> y = x[:, 1] - 2 * x[:, 4]
        >>> model = LumosRegressor(hidden=(16,), features=2, max_iter=25, random_state=0).fit(x, y)
        >>> model.get_support(indices=True).tolist(), model.transform(x).shape
        ([1, 4], (400, 2))
    """

    def _check_targets(self, y: Any) -> Tensor:
        y = np.asarray(y)
        self._flat = y.ndim == 1
        return self._encode_targets(y)

    def _encode_targets(self, y: Any) -> Tensor:
        return torch.tensor(np.asarray(y, np.float64).reshape(len(y), -1)).float()

    def _outputs(self, y: Tensor) -> int:
        return y.shape[1]

    def _scale_loss(self, y: Tensor, weight: Tensor) -> None:
        self._spread = spread(y)

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        return ((output - y) / self._spread.to(y.device)).square().mean(1)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the outputs of rows, in their units.

        Args:
            X: Rows of the columns that the estimator was fitted to.

        Returns:
            An array (rows,), or (rows, outputs) where it was fitted to one.
        """
        found = self._predict(X)
        return found[:, 0] if self._flat else found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class LumosClassifier(ClassifierMixin, _LumosEstimator):
    """Predict classes by a small network that reads the columns it needs.

    Its settings and attributes are those of :class:`LumosRegressor`, and ``classes_``. The validation score, to which a
    tolerance refers, is McFadden's R2: one minus the cross entropy over that of the classes' shares. Accuracy would be
    that of a constant prediction where one class is common.

    Example:
        >>> import numpy as np
        >>> from lumos.sklearn import LumosClassifier
        >>> x = np.random.default_rng(0).random((400, 6))
        >>> y = np.where(x[:, 1] > x[:, 4], "above", "below")
        >>> model = LumosClassifier(hidden=(16,), features=2, max_iter=25, random_state=0).fit(x, y)
        >>> model.get_support(indices=True).tolist(), bool(model.score(x, y) > 0.9)
        ([1, 4], True)
    """

    def _check_targets(self, y: Any) -> Tensor:
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        self.classes_ = np.unique(y)
        return self._encode_targets(y)

    def _encode_targets(self, y: Any) -> Tensor:
        y = column_or_1d(y)
        unknown = set(np.unique(y)) - set(self.classes_)
        if unknown:
            raise ValueError(f"y_val has a class that y lacks: {sorted(map(str, unknown))[0]}")
        return torch.from_numpy(np.searchsorted(self.classes_, y))

    def _outputs(self, y: Tensor) -> int:
        return len(self.classes_)

    def _scale_loss(self, y: Tensor, weight: Tensor) -> None:
        shares = torch.bincount(y, weights=weight.double(), minlength=len(self.classes_)) / weight.double().sum()
        self._entropy = float(-(shares * shares.clamp(min=1e-300).log()).sum())
        if not self._entropy > 0:
            raise ValueError("y has one class only: expected rows of two classes or more")

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(output, y, reduction="none") / self._entropy

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict the probability of each class.

        Args:
            X: Rows of the columns that the estimator was fitted to.

        Returns:
            An array (rows, classes), in the order of ``classes_``.
        """
        return torch.from_numpy(self._predict(X)).softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class of each row.

        Args:
            X: Rows of the columns that the estimator was fitted to.

        Returns:
            An array (rows,) of some of ``classes_``.
        """
        logits = self._predict(X)
        return self.classes_[logits.argmax(1)]


class _Columns(nn.Module):
    """A compact network that takes some columns, in the order of the data: the others do not matter."""

    order: Tensor

    def __init__(self, model: CompactModel, columns: list[int], order: list[int], softmax: bool) -> None:
        super().__init__()
        self.model, self.softmax = copy.deepcopy(model), softmax
        place = {column: k for k, column in enumerate(columns)}
        # What is not there is read from a column of zeros behind the others.
        self.register_buffer("order", torch.tensor([place.get(column, len(columns)) for column in order]))
        self.whole = len(place) == len(order)

    def forward(self, x: Tensor) -> Tensor:
        if not self.whole:
            x = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
        found = self.model(x.index_select(1, self.order))
        return found.softmax(1) if self.softmax else found


def _column(X: Any, k: int) -> Any:
    return X.iloc[:, k].tolist() if hasattr(X, "iloc") else np.asarray(X, dtype=object)[:, k].tolist()


def _is_text(column: Any) -> bool:
    """Whether a column of a data frame holds categories; objects that are all numbers are numbers."""
    if not str(column.dtype).startswith(TEXT):
        return False
    if str(column.dtype) != "object":
        return True
    try:
        np.asarray([v for v in column if v is not None], np.float64)
    except (TypeError, ValueError):
        return True
    return False
