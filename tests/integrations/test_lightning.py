"""A Lightning training with the callback: it prunes, logs, stops and goes on."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lumos
from lumos.errors import ConfigError

pl = pytest.importorskip("lightning.pytorch")

from lumos.lightning import LumosCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
torch.manual_seed(0)
X = torch.rand(128, 6)
Y = X[:, :1] - 2 * X[:, 3:4]


class Module(pl.LightningModule):
    """As a user writes it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch, _):
        return nn.functional.mse_loss(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)]


def fit(folder, epochs=10, stop=None, checkpoint=None, **options):
    """Fit for as many epochs as there are; ``stop`` leaves earlier, as a time limit does."""
    callback = LumosCallback(lumos.Target(params=0.3), X[:8])

    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch + 1 == stop

    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=[callback, Stop()], default_root_dir=folder, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    module = Module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, DataLoader(TensorDataset(X, Y), batch_size=32), ckpt_path=checkpoint)
        if stop:
            trainer.save_checkpoint(folder / "x.ckpt")
    return module, callback, trainer


def test_a_fit_ends_in_a_compact_model(tmp_path):
    module, callback, trainer = fit(tmp_path, gradient_clip_val=1.0)
    dense = sum(p.numel() for p in Module().parameters())
    assert sum(p.numel() for p in callback.small.parameters()) <= 0.3 * dense
    torch.testing.assert_close(module.model(X), callback.small(X))
    assert callback.pruner.step == 40
    assert float(trainer.callback_metrics["lumos/cut"]) == 1.0


@pytest.mark.parametrize("stop", [3, 7], ids=["before the cut", "after it"])
def test_a_checkpoint_goes_on_to_the_same_model(tmp_path, stop, monkeypatch):
    _, whole, _ = fit(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(lumos.Pruner, "finish", lambda self: None)  # what is stopped is not finished
        _, part, _ = fit(tmp_path, stop=stop)
    assert part.pruner.is_cut == (stop == 7)
    _, resumed, _ = fit(tmp_path, checkpoint=tmp_path / "x.ckpt")
    found, expected = resumed.small.state_dict(), whole.small.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_module_without_the_network_says_so(tmp_path):
    trainer = pl.Trainer(callbacks=[LumosCallback(None, X[:8], network="net")], default_root_dir=tmp_path, logger=False)
    with pytest.raises(ConfigError, match="network=net: Module has no such module"):
        trainer.fit(Module(), DataLoader(TensorDataset(X, Y), batch_size=32))
