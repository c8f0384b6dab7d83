"""Confusion matrices, and trivial classifiers to compare with: commonest class, nearest mean, logistic regression."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lumos.errors import DataError
from lumos.scaling import spread

Inputs = Float[Tensor, "rows columns"]


@torch.no_grad()
def confusion_matrix(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], classes: int
) -> Int[Tensor, "classes classes"]:
    """Count samples by label (row) and by the class that the model names (column), on the CPU.

    Args:
        model: Inputs to logits (rows, classes).
        batches: Pairs (inputs, labels (rows,)).
        classes: How many there are.

    Raises:
        DataError: there are no samples.
    """
    counts = torch.zeros(classes**2, dtype=torch.int64)
    for inputs, labels in batches:
        named = model(inputs).argmax(1)
        counts += torch.bincount((labels * classes + named).cpu(), minlength=classes**2)
    if not counts.any():
        raise DataError("a split has no samples to score; ask for more data")
    return counts.view(classes, classes)


def majority_accuracy(labels: Int[Tensor, " train"], test_labels: Int[Tensor, " test"]) -> float:
    """Compute the share of the test rows that have the commonest label of the training rows."""
    return (test_labels == labels.bincount().argmax()).float().mean().item()


def centroid_accuracy(
    x: Float[Tensor, "train columns"],
    labels: Int[Tensor, " train"],
    test_x: Float[Tensor, "test columns"],
    test_labels: Int[Tensor, " test"],
) -> float:
    """Compute the accuracy of the class whose mean of the training rows is nearest, in standardised columns."""
    x, test_x = _standardised(x, test_x)
    classes = labels.unique()
    centres = torch.stack([x[labels == c].mean(0) for c in classes])
    return (classes[torch.cdist(test_x, centres).argmin(1)] == test_labels).float().mean().item()


def logistic_accuracy(
    x: Float[Tensor, "train columns"],
    labels: Int[Tensor, " train"],
    test_x: Float[Tensor, "test columns"],
    test_labels: Int[Tensor, " test"],
    decay: float = 1e-3,
) -> float:
    """Compute the accuracy of a multinomial logistic regression on standardised columns.

    Fitted by L-BFGS to the mean cross entropy plus ``decay`` / 2 times the squared weights (not the intercepts).
    """
    x, test_x = _standardised(x, test_x)
    classes = int(torch.cat([labels, test_labels]).max()) + 1
    with torch.enable_grad():
        weight = torch.zeros(x.shape[1], classes, requires_grad=True)
        bias = torch.zeros(classes, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = functional.cross_entropy(x @ weight + bias, labels) + decay / 2 * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
    with torch.no_grad():
        return ((test_x @ weight + bias).argmax(1) == test_labels).float().mean().item()


def _standardised(x: Inputs, test_x: Tensor) -> tuple[Inputs, Tensor]:
    """Both, with the training rows' means and deviations taken out; constant columns are only centred."""
    mean, std = x.mean(0), spread(x)
    return (x - mean) / std, (test_x - mean) / std
