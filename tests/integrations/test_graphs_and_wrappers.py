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


def test_graphs_from_a_geometric_loader():
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

    graphs = []
    for _ in range(40):
        x, edges = torch.rand(6, 5), torch.randint(6, (2, 14))
        graphs.append(Data(x=x, edge_index=edges, y=x[:, 1].mean()[None]))
    loader = DataLoader(graphs, batch_size=10)
    one = next(iter(loader))
    model = Net()
    gated = lumos.gate(model, (one.x, one.edge_index, one.batch))
    optimizer = torch.optim.Adam(gated.parameters(), lr=3e-3)
    pruner = lumos.Pruner(gated, optimizer, 40, lumos.Target(params=0.5))
    for _ in range(10):
        for data in loader:
            loss = (gated(data.x, data.edge_index, data.batch)[:, 0] - data.y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    small = pruner.finish()
    assert share(small, model) <= 0.5
    torch.testing.assert_close(small(one.x, one.edge_index, one.batch), gated(one.x, one.edge_index, one.batch))


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
    expected = parts[4].finish().state_dict()
    accelerate.state.AcceleratorState._reset_state(True)
    parts = begun()
    parts[4].load_state_dict(torch.load(tmp_path / "pruner.pt", weights_only=True))
    parts[0].load_state(str(tmp_path / "state"))
    assert parts[4].step == stop
    steps(parts, 40 - stop)
    found = parts[4].finish().state_dict()
    accelerate.state.AcceleratorState._reset_state(True)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


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
