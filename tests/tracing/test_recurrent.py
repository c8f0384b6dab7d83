"""Recurrent layers: torch's own, their cells, packed sequences and those written by hand lose hidden units."""

import copy
import pickle
import random

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lumos
from tests.networks import random_gates


class Sequence(nn.Module):
    def __init__(self, kind, **more):
        super().__init__()
        self.embed = nn.Linear(6, 10)
        self.rnn = getattr(nn, kind)(10, 12, batch_first=True, **more)
        self.head = nn.Linear(24 if more.get("bidirectional") else 12, 2)

    def forward(self, x):
        return self.head(self.rnn(torch.relu(self.embed(x)))[0])


class Initial(nn.Module):
    """Starts from a state that its own code makes, and reads the last one."""

    def __init__(self, learned=False):
        super().__init__()
        self.hidden, self.layers = 12, 2
        self.rnn, self.head = nn.LSTM(6, 12, 2), nn.Linear(24, 2)
        self.start = nn.Parameter(torch.randn(2, 1, 12)) if learned else None

    def forward(self, x):
        zeros = torch.zeros(self.layers, len(x), self.hidden, dtype=x.dtype)
        start = zeros if self.start is None else self.start.expand_as(zeros).contiguous()
        _, (h, c) = self.rnn(x.transpose(0, 1), (start, zeros))
        return self.head(torch.cat([h[-1], c[-1]], 1))


class Cells(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.hidden, self.is_lstm = 12, kind == "LSTMCell"
        self.cell, self.head = getattr(nn, kind)(6, 12), nn.Linear(12, 2)

    def forward(self, x):
        h = torch.zeros(len(x), self.hidden, dtype=x.dtype)
        state = (h, torch.zeros_like(h)) if self.is_lstm else h
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.head(state[0] if self.is_lstm else state)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 12, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 2)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


class EncoderDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = (nn.LSTM(6, 12, batch_first=True) for _ in range(2))
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        return self.head(self.decoder(x, self.encoder(x)[1])[0])


def step(gates, c):
    i, f, g, o = gates.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


class ByHand(nn.Module):
    def __init__(self, together):
        super().__init__()
        self.hidden, self.together = 12, together
        self.of_x = nn.Linear(6 + 12 * together, 48)
        self.of_h = None if together else nn.Linear(12, 48, bias=False)
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        h = c = torch.zeros(len(x), self.hidden, dtype=x.dtype)
        for t in range(x.shape[1]):
            if self.together:
                h, c = step(self.of_x(torch.cat([x[:, t], h], 1)), c)
            else:
                h, c = step(self.of_x(x[:, t]) + self.of_h(h), c)
        return self.head(h)


class ConvLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = 12
        self.conv, self.head = nn.Conv2d(6 + 12, 48, 3, padding=1), nn.Conv2d(12, 2, 1)

    def forward(self, x):
        h = x.new_zeros(len(x), self.hidden, *x.shape[3:])
        c = x.new_zeros(len(x), self.hidden, *x.shape[3:])
        for t in range(x.shape[1]):
            h, c = step(self.conv(torch.cat([x[:, t], h], 1)), c)
        return self.head(h)


MODELS = {
    "lstm": (lambda: Sequence("LSTM"), "rnn"),
    "gru": (lambda: Sequence("GRU", bias=False), "rnn"),
    "rnn, relu": (lambda: Sequence("RNN", nonlinearity="relu"), "rnn"),
    "two layers, two directions": (lambda: Sequence("LSTM", num_layers=2, bidirectional=True), "rnn"),
    "a state of one's own": (Initial, "rnn"),
    "a state that is learned": (lambda: Initial(learned=True), "rnn"),
    "lstm cell": (lambda: Cells("LSTMCell"), "cell"),
    "gru cell": (lambda: Cells("GRUCell"), "cell"),
    "rnn cell": (lambda: Cells("RNNCell"), "cell"),
    "packed": (Packed, "rnn"),
    "encoder and decoder": (EncoderDecoder, "encoder"),
    "by hand": (lambda: ByHand(False), "of_x"),
    "by hand, x and h together": (lambda: ByHand(True), "of_x"),
    "convolutions": (ConvLSTM, "conv"),
}


def made(name):
    torch.manual_seed(0)
    model = MODELS[name][0]().double()
    x = torch.randn(4, 3, 6, 5, 5) if name == "convolutions" else torch.randn(5, 7, 6)
    return model, (x.double(), torch.tensor([7, 3, 5, 7, 2])) if name == "packed" else (x.double(),)


@pytest.mark.parametrize("name", MODELS)
def test_hidden_units_go_and_the_function_stays(name):
    model, inputs = made(name)
    gated = lumos.gate(model, inputs)
    groups = {g.name: g.size for g in gated.structure.groups}
    assert (groups["input"], groups[MODELS[name][1]]) == (6, 12)
    assert sum(p.numel() for p in model.parameters()) == gated.structure.dense_sizes[0]
    for seed in (1, 7, 3):
        random_gates(gated, random.Random(seed))
        gated.eval()
        small, whole = lumos.compact(gated), gated(*inputs)
        assert whole.std(0).min() > 1e-4  # it says something of the input
        torch.testing.assert_close(small(*inputs), whole, rtol=0, atol=1e-12)
        twice = pickle.loads(pickle.dumps(copy.deepcopy(small)))
        torch.testing.assert_close(twice(*inputs), whole, rtol=0, atol=1e-12)
    if hasattr(small.model, "rnn"):
        rnn = small.model.rnn
        assert (rnn.hidden_size, rnn.input_size) == (rnn.weight_hh_l0.shape[1], rnn.weight_ih_l0.shape[1])
        assert rnn.hidden_size < 12  # the last of these closings is of a quarter of the units


@pytest.mark.parametrize("name", ["two layers, two directions", "gru cell", "by hand"])
def test_gradients_are_those_of_gated_weights(name):
    """As if each weight were multiplied with its gates before the model runs."""
    model, inputs = made(name)
    gated = lumos.gate(model, inputs)
    random_gates(gated, random.Random(3))
    gated.eval()
    with torch.no_grad():
        gated.gates.log_alpha.clamp_(-0.5, 0.5)  # inside, where a gate has a gradient
    gated(*inputs).square().sum().backward()
    found = {name: p.grad.clone() for name, p in gated.model.named_parameters()}
    weights = {name: p.detach().clone() for name, p in gated.model.named_parameters()}
    gates = {name: m.to(torch.float64) for name, m in gated.multipliers().items()}
    leaves = {name: (w * gates.get(name, 1.0)).requires_grad_() for name, w in weights.items()}
    torch.func.functional_call(model, leaves, inputs).square().sum().backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(found[name], leaf.grad * gates.get(name, 1.0), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_a_training_cuts_an_lstm_in_its_middle():
    torch.manual_seed(0)
    x = torch.randn(64, 6, 5)
    y = x[:, :, 2].cumsum(1).tanh().unsqueeze(-1)

    class Filter(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(5, 16, batch_first=True), nn.Linear(16, 1)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    gated = lumos.gate(Filter(), x[:4])
    optimizer = torch.optim.Adam(gated.parameters(), lr=2e-2)
    pruner = lumos.Pruner(gated, optimizer, steps=120, target=lumos.Target(params=0.3))
    for _ in range(120):
        optimizer.zero_grad()
        loss = (gated(x) - y).square().mean()
        loss.backward()
        optimizer.step()
    small = pruner.finish()
    assert "x2" in small.features
    assert small.model.rnn.hidden_size < 12
    assert loss.item() < 0.5 * y.var().item()


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_projections_are_held_with_the_reason():
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU())
    rnn = nn.LSTM(10, 12, proj_size=4, batch_first=True)

    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.rnn, self.head = model, rnn, nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.rnn(self.embed(x))[0])

    structure = lumos.gate(Projected(), torch.randn(3, 4, 6)).structure
    assert [(g.name, g.size) for g in structure.groups] == [("input", 6)]
    assert any("projections of hidden units are not followed: lstm in rnn" in f.reason for f in structure.fixed)
