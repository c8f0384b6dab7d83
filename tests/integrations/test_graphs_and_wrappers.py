"""The pruner in loops of PyTorch Geometric, accelerate and skorch."""

import pytest
import torch
from torch import nn

import lumos

pytestmark = pytest.mark.filterwarnings("ignore")
torch.manual_seed(0)
X = torch.rand(128, 6)
Y = X[:, :1] - 2 * X[:, 3:4]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1))


def share(small, dense):
    return sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in dense.parameters())


def same(found, expected):
    found, expected = found.state_dict(), expected.state_dict()
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def graphs():
    """Forty graphs whose value is a mean over one feature of their nodes, in a loader, and a network for them."""
    pytest.importorskip("torch_geometric")
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader
    from torch_geometric.nn import GCNConv, global_mean_pool

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = GCNConv(5, 16), GCNConv(16, 16), nn.Linear(16, 1)

        def forward(self, x, edge_index, batch):
            h = torch.relu(self.first(x, edge_index))
            return self.last(global_mean_pool(torch.relu(self.second(h, edge_index)), batch))

    samples = []
    for _ in range(40):
        x, edges = torch.rand(6, 5), torch.randint(6, (2, 14))
        samples.append(Data(x=x, edge_index=edges, y=x[:, 1].mean()[None]))
    return DataLoader(samples, batch_size=10), Net


class OnGraphs:
    """A training of forty steps."""

    def __init__(self, graphs):
        torch.manual_seed(0)
        self.loader, network = graphs
        self.one, self.dense = next(iter(self.loader)), network()
        self.gated = lumos.gate(self.dense, (self.one.x, self.one.edge_index, self.one.batch))
        self.optimizer = torch.optim.Adam(self.gated.parameters(), lr=3e-3)
        self.pruner = lumos.Pruner(self.gated, self.optimizer, 40, lumos.Target(params=0.5))
        self.parts = (self.pruner, self.gated, self.optimizer)

    def epochs(self, count):
        for _ in range(count):
            for data in self.loader:
                loss = (self.gated(data.x, data.edge_index, data.batch)[:, 0] - data.y).square().mean()
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()


def test_graphs_from_a_geometric_loader(graphs):
    training = OnGraphs(graphs)
    training.epochs(10)
    small, one = training.pruner.finish(), training.one
    assert share(small, training.dense) <= 0.5
    torch.testing.assert_close(
        small(one.x, one.edge_index, one.batch), training.gated(one.x, one.edge_index, one.batch)
    )


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 7], ids=["before the cut", "after it"])
def test_a_training_on_graphs_goes_on_to_the_same_model(graphs, tmp_path, stop):
    whole, resumed = OnGraphs(graphs), OnGraphs(graphs)
    whole.epochs(stop)
    torch.save([part.state_dict() for part in whole.parts], tmp_path / "x.pt")
    whole.epochs(10 - stop)
    for part, state in zip(resumed.parts, torch.load(tmp_path / "x.pt", weights_only=True), strict=True):
        part.load_state_dict(state)
    resumed.epochs(10 - stop)
    assert same(resumed.pruner.finish(), whole.pruner.finish())


@pytest.mark.parametrize("stop", [10, 30], ids=["before the cut", "after it"])
def test_accelerate_with_accumulation_and_a_saved_state(tmp_path, stop):
    accelerate = pytest.importorskip("accelerate")

    def begun():
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        gated = lumos.gate(network(), X[:8])
        called, optimizer = accelerator.prepare(gated, torch.optim.AdamW(gated.parameters(), lr=3e-3))
        pruner = lumos.Pruner(gated, optimizer, 40, lumos.Target(params=0.3))
        return accelerator, gated, called, optimizer, pruner

    def steps(parts, count):
        accelerator, _, called, optimizer, _ = parts
        for number in range(2 * count):
            with accelerator.accumulate(called):
                part = slice(64 * (number % 2), 64 * (number % 2) + 64)
                accelerator.backward((called(X[part]) - Y[part]).square().mean())
                optimizer.step()
                optimizer.zero_grad()

    parts = begun()
    steps(parts, stop)
    torch.save(parts[4].state_dict(), tmp_path / "pruner.pt")
    parts[0].save_state(str(tmp_path / "state"))
    steps(parts, 40 - stop)
    expected = parts[4].finish()
    accelerate.state.AcceleratorState._reset_state(True)
    parts = begun()
    parts[4].load_state_dict(torch.load(tmp_path / "pruner.pt", weights_only=True))
    parts[0].load_state(str(tmp_path / "state"))
    assert parts[4].step == stop
    steps(parts, 40 - stop)
    found = parts[4].finish()
    accelerate.state.AcceleratorState._reset_state(True)
    assert same(found, expected)


def test_skorch_in_a_pipeline():
    skorch = pytest.importorskip("skorch")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from skorch.callbacks import Callback

    class Prune(Callback):
        """Six lines: skorch has no door of its own."""

        def on_train_begin(self, net, X=None, y=None, **kwargs):
            self.pruner_ = lumos.Pruner(net.module_, net.optimizer_, 40, lumos.Target(params=0.3))

        def on_train_end(self, net, X=None, y=None, **kwargs):
            self.small_ = self.pruner_.finish()

    prune = Prune()
    net = skorch.NeuralNetRegressor(
        lumos.gate(network(), X[:8]), optimizer=torch.optim.AdamW, lr=3e-3, max_epochs=10, batch_size=32,
        train_split=None, verbose=0, callbacks=[("prune", prune)],
    )  # fmt: skip
    pipeline = make_pipeline(StandardScaler(), net).fit(X.numpy(), Y.numpy())
    small = dict(net.callbacks_)["prune"].small_
    assert share(small, network()) <= 0.3
    assert pipeline.predict(X.numpy()).shape == (128, 1)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 7], ids=["before the cut", "after it"])
def test_a_skorch_net_goes_on_to_the_same_model(tmp_path, stop):
    skorch = pytest.importorskip("skorch")

    def begun():
        net = skorch.NeuralNetRegressor(
            lumos.gate(network(), X[:8]), optimizer=torch.optim.AdamW, lr=3e-3, batch_size=32, train_split=None,
            verbose=0,
        ).initialize()  # fmt: skip
        return net, lumos.Pruner(net.module_, net.optimizer_, 40, lumos.Target(params=0.3))

    net, whole = begun()
    net.partial_fit(X.numpy(), Y.numpy(), epochs=stop)
    net.save_params(f_params=tmp_path / "net.pt", f_optimizer=tmp_path / "optimizer.pt")
    torch.save(whole.state_dict(), tmp_path / "pruner.pt")
    net.partial_fit(X.numpy(), Y.numpy(), epochs=10 - stop)
    net, resumed = begun()
    resumed.load_state_dict(torch.load(tmp_path / "pruner.pt", weights_only=True))
    net.load_params(f_params=tmp_path / "net.pt", f_optimizer=tmp_path / "optimizer.pt")
    net.partial_fit(X.numpy(), Y.numpy(), epochs=10 - stop)
    assert same(resumed.finish(), whole.finish())
