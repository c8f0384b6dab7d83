"""Gates that never moved are said halfway to the cut."""

import logging

import pytest
import torch
from torch import nn

import lumos


def trained(caplog: pytest.LogCaptureFixture, *, steps: int, learns: bool) -> str:
    """What is said of a training whose gates learn, or get no gradient and no price."""
    torch.manual_seed(0)
    gated = lumos.gate(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)), (torch.randn(8, 4),))
    optimizer = torch.optim.SGD(gated.model.parameters(), lr=1e-3)
    pruner = lumos.Pruner(gated, optimizer, steps, lumos.Lambda(1e-2), rate=0.1 if learns else 1e-9)
    with caplog.at_level(logging.WARNING, logger="lumos"):
        for _ in range(steps // 2 - 2):
            optimizer.zero_grad()
            gated(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    pruner.detach()
    return caplog.text


def test_gates_that_never_moved_are_said_before_the_cut(caplog: pytest.LogCaptureFixture) -> None:
    assert "no gate has moved so far, so that nothing would be removed" in trained(caplog, steps=40, learns=False)


def test_gates_that_move_are_not(caplog: pytest.LogCaptureFixture) -> None:
    assert "no gate has moved" not in trained(caplog, steps=40, learns=True)
