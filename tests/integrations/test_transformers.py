"""A training by Hugging Face's Trainer with the callback: it prunes, logs, stops and goes on."""

import pytest
import torch
from torch import nn

import lumos
from lumos.errors import ConfigError

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from lumos.transformers import LumosCallback, gate  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
torch.manual_seed(0)
X = torch.rand(128, 6)
Y = X[:, :1] - 2 * X[:, 3:4]
DATA = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]


class Model(nn.Module):
    """As a user writes it for the Trainer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, x, labels=None):
        out = self.net(x)
        return {"logits": out} if labels is None else {"loss": nn.functional.mse_loss(out, labels), "logits": out}


def train(folder, stop=None, resume=None):
    gated = gate(Model(), X[:8])
    callback = LumosCallback(lumos.Target(params=0.3))

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = control.should_save = state.global_step == stop

    args = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=40, per_device_train_batch_size=32, learning_rate=3e-3, logging_steps=5,
        report_to=[], use_cpu=True, remove_unused_columns=False, save_strategy="no", disable_tqdm=True, seed=0,
    )  # fmt: skip
    trainer = transformers.Trainer(gated, args, train_dataset=DATA, callbacks=[callback, Stop()])
    trainer.train(resume_from_checkpoint=resume)
    return gated, callback, trainer


@pytest.mark.slow
def test_a_training_ends_in_a_compact_model(tmp_path):
    gated, callback, trainer = train(tmp_path)
    dense = sum(p.numel() for p in Model().parameters())
    assert sum(p.numel() for p in callback.small.parameters()) <= 0.3 * dense
    torch.testing.assert_close(gated(X)["logits"], callback.small(X)["logits"])
    assert any("lumos/cut" in row for row in trainer.state.log_history)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [12, 28], ids=["before the cut", "after it"])
def test_a_checkpoint_goes_on_to_the_same_model(tmp_path, stop):
    _, whole, _ = train(tmp_path / "whole")
    _, part, _ = train(tmp_path / "part", stop=stop)
    assert part.small is None
    assert part.pruner.is_cut == (stop == 28)
    _, resumed, _ = train(tmp_path / "part", resume=str(tmp_path / "part" / f"checkpoint-{stop}"))
    found, expected = resumed.small.state_dict(), whole.small.state_dict()
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_a_model_without_gates_says_so(tmp_path):
    args = transformers.TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    with pytest.raises(ConfigError, match=r"model=Model: expected what lumos\.transformers\.gate returned"):
        transformers.Trainer(Model(), args, train_dataset=DATA, callbacks=[LumosCallback()])
