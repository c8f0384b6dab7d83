"""Trivial classifiers, to be compared with: the commonest class, the nearest class mean, logistic regression."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

Inputs = Float[Tensor, "rows columns"]


def majority_accuracy(labels: Int[Tensor, " train"], test_labels: Int[Tensor, " test"]) -> float:
    """Share of the test rows that have the commonest label of the training rows."""
    return (test_labels == labels.bincount().argmax()).float().mean().item()


def centroid_accuracy(
    x: Float[Tensor, "train columns"],
    labels: Int[Tensor, " train"],
    test_x: Float[Tensor, "test columns"],
    test_labels: Int[Tensor, " test"],
) -> float:
    """Accuracy of the class whose mean of the training rows is nearest, in standardised columns."""
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
    """Accuracy of a multinomial logistic regression on standardised columns.

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
    mean, std = x.mean(0), x.std(0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    return (x - mean) / std, (test_x - mean) / std
