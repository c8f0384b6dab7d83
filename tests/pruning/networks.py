"""A gated network for the tests of pruning."""

import torch
from torch import nn

import lumos


def mlp(features=40, width=60):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    return lumos.gate(net, torch.randn(4, features))
