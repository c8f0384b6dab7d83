"""What became of each feature: probabilities over time, and the order of closing."""

import torch
from torch import nn

import lumos
from lumos.pruning.feature_history import FeatureHistory


def test_order_of_closing_by_hand():
    gated = lumos.gate(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), torch.randn(4, 3))
    history = FeatureHistory(gated, 3)
    history.interval = 1
    # x0 stays; x1 closes, comes back and closes for good at step 3; x2 closes at step 2
    for step, values in enumerate(([3.0, -5.0, 3.0], [3.0, 3.0, -5.0], [3.0, -5.0, -5.0]), start=1):
        with torch.no_grad():
            gated.gates.log_alpha[:3] = torch.tensor(values)
        history.note(gated, step)
    rows = history.rows(["x0"])
    assert [(r["feature"], r["kept"], r["closed_at"], r["order"]) for r in rows] == [
        ("x0", 1, "", ""), ("x1", 0, 3, 2), ("x2", 0, 2, 1),
    ]  # fmt: skip
    assert rows[2]["p@1"] > 0.9
    assert rows[2]["p@3"] < 0.1


def test_a_model_without_feature_gates_has_no_rows():
    gated = lumos.gate(nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 1)), torch.arange(4))
    history = FeatureHistory(gated, 10)
    history.note(gated, 10)
    assert history.rows([]) == []
